//! A key: the type of its value, and the meaning of its absence.

use crate::config::document::Document;
use crate::config::reader::cursor::{Cursor, Fields, Located};

use super::info::{Absence, KeyInfo, TypeInfo};

/// A type of values: how one is read, printed and described.
pub(in crate::config) trait ValueType {
    /// The value in the program.
    type Value;

    /// Reads the value; None after reporting why it cannot be one.
    fn read(&self, cursor: &Cursor<'_>) -> Option<Self::Value>;

    /// Returns the value as the file writes it.
    fn emit(&self, value: &Self::Value) -> Document;

    /// Returns the value as people write it, which may be shorter.
    fn emit_short(&self, value: &Self::Value) -> Document {
        self.emit(value)
    }

    /// Describes the type.
    fn describe(&self) -> TypeInfo;
}

/// Makes keys of types.
pub(in crate::config) trait ValueTypeExt: ValueType + Sized {
    /// Makes a key with a default.
    fn default(self, value: Self::Value) -> KeySpec<Self, WithDefault<Self::Value>> {
        KeySpec::new(self, WithDefault(value))
    }

    /// Makes a key that must be there. If it is not, the problem shows `wanted` and `advice`.
    fn required(self, wanted: &'static str, advice: &'static str) -> KeySpec<Self, MustStand> {
        KeySpec::new(self, MustStand { wanted, advice })
    }

    /// Makes a key that may be left out. `absent` describes the effect.
    fn optional(self, absent: &'static str) -> KeySpec<Self, MayStand> {
        KeySpec::new(self, MayStand(absent))
    }
}

impl<T: ValueType> ValueTypeExt for T {}

/// A key of a mapping.
pub(in crate::config) struct KeySpec<T, P> {
    value_type: T,
    presence: P,
    reloadable: bool,
    example: Option<&'static str>,
}

/// The field of a key that must be there: None after a problem was reported.
pub(in crate::config) type Required<T> = Option<Located<T>>;

/// The field of a key whose absence has a meaning of its own.
#[derive(Clone, Debug)]
pub(in crate::config) enum Unresolved<T> {
    /// The file leaves the key out.
    Absent,
    /// The key is there, and a problem was reported about its value.
    Unreadable,
    /// The key has this value.
    Given(Located<T>),
}

impl<T> Unresolved<T> {
    /// Returns the value and its location, if it could be read.
    pub(crate) fn given(&self) -> Option<&Located<T>> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Unreadable => None,
        }
    }

    /// Returns the value, or `default` if the file leaves the key out; None if the value could not
    /// be read.
    pub(crate) fn or_default(self, default: T) -> Option<T> {
        match self {
            Self::Absent => Some(default),
            Self::Unreadable => None,
            Self::Given(value) => Some(value.value),
        }
    }

    /// Returns the value, if any. The outer None: the value could not be read.
    pub(crate) fn into_option(self) -> Option<Option<T>> {
        match self {
            Self::Absent => Some(None),
            Self::Unreadable => None,
            Self::Given(value) => Some(Some(value.value)),
        }
    }

    /// Makes the field of a value that was not read from a file.
    pub(crate) fn from_option(value: Option<T>) -> Self {
        value.map_or(Self::Absent, |value| Self::Given(Located::without_location(value)))
    }
}

/// The meaning of a key's absence, which determines the field of the section.
pub(in crate::config) trait Presence<T: ValueType> {
    /// The field of the section.
    type Field;

    /// Reads the field.
    fn read(&self, value_type: &T, fields: &Fields<'_>, name: &str) -> Self::Field;

    /// Returns the value as the file writes it; None to leave the key out.
    fn emit(&self, value_type: &T, field: &Self::Field) -> Option<Document>;

    /// Describes the absence.
    fn describe(&self, value_type: &T) -> Absence;
}

/// A key with a default.
pub(in crate::config) struct WithDefault<V>(V);

/// A key that must be there.
pub(in crate::config) struct MustStand {
    wanted: &'static str,
    advice: &'static str,
}

/// A key that may be left out.
pub(in crate::config) struct MayStand(&'static str);

impl<T: ValueType<Value: Clone>> Presence<T> for WithDefault<T::Value> {
    type Field = T::Value;

    fn read(&self, value_type: &T, fields: &Fields<'_>, name: &str) -> T::Value {
        let value = fields.get(name).and_then(|cursor| value_type.read(&cursor));
        value.unwrap_or_else(|| self.0.clone())
    }

    fn emit(&self, value_type: &T, field: &T::Value) -> Option<Document> {
        Some(value_type.emit(field))
    }

    fn describe(&self, value_type: &T) -> Absence {
        Absence::Default(value_type.emit_short(&self.0))
    }
}

impl<T: ValueType> Presence<T> for MustStand {
    type Field = Required<T::Value>;

    fn read(&self, value_type: &T, fields: &Fields<'_>, name: &str) -> Self::Field {
        let cursor = fields.required(name, self.wanted, self.advice)?;
        value_type.read(&cursor).map(|value| cursor.locate(value))
    }

    fn emit(&self, value_type: &T, field: &Self::Field) -> Option<Document> {
        field.as_ref().map(|value| value_type.emit(&value.value))
    }

    fn describe(&self, _: &T) -> Absence {
        Absence::Refused
    }
}

impl<T: ValueType> Presence<T> for MayStand {
    type Field = Unresolved<T::Value>;

    fn read(&self, value_type: &T, fields: &Fields<'_>, name: &str) -> Self::Field {
        let Some(cursor) = fields.get(name) else { return Unresolved::Absent };
        let value = value_type.read(&cursor).map(|value| cursor.locate(value));
        value.map_or(Unresolved::Unreadable, Unresolved::Given)
    }

    fn emit(&self, value_type: &T, field: &Self::Field) -> Option<Document> {
        field.given().map(|value| value_type.emit(&value.value))
    }

    fn describe(&self, _: &T) -> Absence {
        Absence::Described(self.0)
    }
}

impl<T, P> KeySpec<T, P> {
    fn new(value_type: T, presence: P) -> Self {
        Self { value_type, presence, reloadable: true, example: None }
    }

    /// Declares that only a restart applies a change of the value, or of a key below it.
    pub(crate) fn needs_restart(self) -> Self {
        Self { reloadable: false, ..self }
    }

    /// Sets the value that the reference file shows, in YAML, for a key without a default.
    pub(crate) fn example(self, example: &'static str) -> Self {
        Self { example: Some(example), ..self }
    }
}

impl<T: ValueType, P: Presence<T>> KeySpec<T, P> {
    /// Reads the field of a section.
    pub(crate) fn read(&self, fields: &Fields<'_>, name: &str) -> P::Field {
        self.presence.read(&self.value_type, fields, name)
    }

    /// Returns the value as the file writes it; None to leave the key out.
    pub(crate) fn emit(&self, field: &P::Field) -> Option<Document> {
        self.presence.emit(&self.value_type, field)
    }

    /// Describes the key.
    pub(crate) fn describe(&self, name: &'static str, doc: String) -> KeyInfo {
        KeyInfo {
            name,
            doc,
            value: self.value_type.describe(),
            absence: self.presence.describe(&self.value_type),
            reloadable: self.reloadable,
            example: self.example,
        }
    }
}
