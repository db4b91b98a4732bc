//! Types whose values are single scalars.

use std::fmt::Display;

use crate::config::document::Document;
use crate::config::problem::ValueError;
use crate::config::reader::cursor::{Cursor, truth};
use crate::config::schema::{TypeInfo, ValueType};

/// A type whose values are read from the text of a scalar.
pub(in crate::config) trait Scalar {
    /// The value in the program.
    type Value;

    /// Reads the value.
    fn parse(&self, text: &str) -> Result<Self::Value, ValueError>;

    /// Returns the value as the file writes it.
    fn emit(&self, value: &Self::Value) -> Document;

    /// Returns the value as people write it, which may be shorter.
    fn emit_short(&self, value: &Self::Value) -> Document {
        self.emit(value)
    }

    /// Describes the type.
    fn describe(&self) -> TypeInfo;

    /// Returns whether values are free text. Numbers and truth values of YAML then need quotes.
    fn is_free_text(&self) -> bool {
        false
    }
}

impl<S: Scalar> ValueType for S {
    type Value = S::Value;

    fn read(&self, cursor: &Cursor<'_>) -> Option<S::Value> {
        match self.is_free_text() {
            true => cursor.text(|text| self.parse(text)),
            false => cursor.value(|text| {
                self.parse(text).or_else(|error| match keyword_of(text) {
                    Some(keyword) => self.parse(keyword).map_err(|_| error),
                    None => Err(error),
                })
            }),
        }
    }

    fn emit(&self, value: &S::Value) -> Document {
        Scalar::emit(self, value)
    }

    fn emit_short(&self, value: &S::Value) -> Document {
        Scalar::emit_short(self, value)
    }

    fn describe(&self) -> TypeInfo {
        Scalar::describe(self)
    }
}

/// Returns the keyword that a truth value stands for. YAML 1.1 has only truth values for the words
/// `on` and `off`, so programs that read a file by YAML 1.1 write `true` and `false` instead.
fn keyword_of(text: &str) -> Option<&'static str> {
    truth(text).map(|truth| if truth { "on" } else { "off" })
}

/// A type without parameters.
pub(in crate::config) struct Format<T> {
    /// Reads a value.
    pub parse: fn(&str) -> Result<T, ValueError>,
    /// Returns a value as the file writes it.
    pub emit: fn(&T) -> Document,
    /// The type in words.
    pub name: &'static str,
    /// Keywords of JSON Schema.
    pub constraint: fn() -> Document,
    /// See [`Scalar::is_free_text`].
    pub free_text: bool,
}

impl<T: Display> Format<T> {
    /// Makes the type of values that print as they are shown.
    pub(crate) fn new(
        name: &'static str,
        parse: fn(&str) -> Result<T, ValueError>,
        constraint: fn() -> Document,
    ) -> Self {
        Self { parse, emit: shown, name, constraint, free_text: false }
    }
}

impl<T> Format<T> {
    /// Makes the type of texts.
    pub(crate) fn text(
        name: &'static str,
        parse: fn(&str) -> Result<T, ValueError>,
        emit: fn(&T) -> Document,
    ) -> Self {
        let constraint = || Document::mapping([("type", "string".into()), ("minLength", 1.into())]);
        Self { parse, emit, name, constraint, free_text: true }
    }

    /// Bounds the values by other keywords of JSON Schema.
    pub(crate) fn bounded(self, constraint: fn() -> Document) -> Self {
        Self { constraint, ..self }
    }
}

impl<T> Scalar for Format<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, ValueError> {
        (self.parse)(text)
    }

    fn emit(&self, value: &T) -> Document {
        (self.emit)(value)
    }

    fn describe(&self) -> TypeInfo {
        TypeInfo::scalar(self.name, (self.constraint)())
    }

    fn is_free_text(&self) -> bool {
        self.free_text
    }
}

/// Returns the text of a value.
pub(in crate::config) fn shown<T: Display>(value: &T) -> Document {
    Document::text(value)
}
