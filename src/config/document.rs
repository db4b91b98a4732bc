//! An ordered tree of values, printed as YAML or JSON.

use std::fmt::Display;

use serde::{Serialize, Serializer};

/// A value on its way out. A mapping keeps the order of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Document {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Number(u64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// Keys with their values.
    Mapping(Vec<(String, Self)>),
}

impl Document {
    /// Makes a text of whatever can be shown.
    pub(super) fn text(value: impl Display) -> Self {
        Self::Text(value.to_string())
    }

    /// Makes a mapping of keys and values.
    pub(super) fn mapping<K: Into<String>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Mapping(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// Makes a list of texts.
    pub(super) fn texts<T: Display>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Self::text).collect())
    }

    /// Prints the tree as JSON on several lines.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("truth values, numbers and texts serialise")
    }

    /// Returns the tree as a JSON value.
    pub(super) fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("truth values, numbers and texts serialise")
    }

    /// Prints the tree as YAML.
    pub(super) fn to_yaml(&self) -> String {
        serde_yaml_ng::to_string(self).expect("truth values, numbers and texts serialise")
    }
}

impl From<bool> for Document {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Document {
    fn from(value: u32) -> Self {
        Self::Number(value.into())
    }
}

impl From<&str> for Document {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => serializer.serialize_u64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => serializer.collect_seq(items),
            Self::Mapping(entries) => {
                serializer.collect_map(entries.iter().map(|(key, value)| (key, value)))
            }
        }
    }
}
