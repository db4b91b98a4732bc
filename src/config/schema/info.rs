//! Descriptions of keys and types, made from their declarations.

use crate::config::document::Document;

/// A mapping of the file.
#[derive(Clone, Debug)]
pub(in crate::config) struct SectionInfo {
    /// The purpose of the mapping.
    pub doc: String,
    /// Its keys, in the order of the file.
    pub keys: Vec<KeyInfo>,
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(in crate::config) struct KeyInfo {
    /// The key.
    pub name: &'static str,
    /// Its meaning, in whole sentences.
    pub doc: String,
    /// The type of its value.
    pub value: TypeInfo,
    /// The effect of leaving the key out.
    pub absence: Absence,
    /// True: `natbox reload` applies a change of the value, except of keys below it that need a
    /// restart.
    pub reloadable: bool,
    /// A value for the reference file, if the default does not serve.
    pub example: Option<&'static str>,
}

/// The effect of leaving a key out.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::config) enum Absence {
    /// The file is refused.
    Refused,
    /// The value is this one.
    Default(Document),
    /// The effect in words. It depends on other keys or on the host.
    Described(&'static str),
}

/// The type of a value.
#[derive(Clone, Debug)]
pub(in crate::config) struct TypeInfo {
    /// The type in words, with its range: `duration from 1s to 24d`.
    pub name: String,
    /// The words of the type, if it is a choice of words.
    pub words: Vec<Word>,
    /// How values are composed.
    pub shape: TypeShape,
}

/// A word of the file and its meaning.
#[derive(Clone, Debug)]
pub(in crate::config) struct Word {
    /// The word.
    pub word: &'static str,
    /// Its meaning.
    pub meaning: &'static str,
}

/// How values of a type are composed.
#[derive(Clone, Debug)]
pub(in crate::config) enum TypeShape {
    /// A single value, bounded by these keywords of JSON Schema.
    Scalar(Document),
    /// A list.
    List {
        /// The type of each item.
        item: Box<TypeInfo>,
        /// Minimum number of items.
        least: usize,
        /// Maximum number of items.
        most: usize,
        /// Words that stand for a whole list.
        instead: &'static [&'static str],
    },
    /// A mapping, or a list of such mappings.
    OneOrMore {
        /// The type of the mapping.
        item: Box<TypeInfo>,
        /// Maximum number of mappings in a list.
        most: usize,
    },
    /// A mapping.
    Mapping(SectionInfo),
}

impl TypeInfo {
    /// Describes a type of single values.
    pub(crate) fn scalar(name: impl Into<String>, constraint: Document) -> Self {
        Self { name: name.into(), words: Vec::new(), shape: TypeShape::Scalar(constraint) }
    }

    /// Returns the keys of the mapping, or of the mappings in the list.
    pub(crate) fn section(&self) -> Option<&SectionInfo> {
        match &self.shape {
            TypeShape::Scalar(_) => None,
            TypeShape::List { item, .. } | TypeShape::OneOrMore { item, .. } => item.section(),
            TypeShape::Mapping(section) => Some(section),
        }
    }

    /// Returns whether the value is always a list.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.shape, TypeShape::List { .. })
    }
}
