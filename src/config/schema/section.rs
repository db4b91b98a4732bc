//! Declares mappings of the file.

use std::marker::PhantomData;

use crate::config::document::Document;
use crate::config::problem::{Diagnostics, Location};
use crate::config::reader::cursor::{Cursor, Fields};

use super::info::{SectionInfo, TypeInfo, TypeShape};
use super::key::{KeySpec, ValueType, ValueTypeExt, WithDefault};

/// A mapping of the file; implemented by [`section!`].
pub(in crate::config) trait Section: Sized {
    /// Its keys, in the order of the file.
    const KEYS: &'static [&'static str];

    /// Reads the fields. Reports problems, and marks the fields without a value.
    fn read(fields: &Fields<'_>) -> Self;

    /// Returns the mapping as the file writes it.
    fn emit(&self) -> Document;

    /// Describes the mapping.
    fn describe() -> SectionInfo;
}

/// Declares a mapping of the file: a struct whose fields are the keys.
///
/// Each key is one entry, `name: type of the field = key`. The key holds the type of the value with
/// its range, the default, and whether a reload can change the value ([`KeySpec`]). The doc
/// comments are the sentences of the manual.
///
/// ```text
/// section! {
///     /// Behaviour of the translator.
///     pub struct Nat {
///         /// Whether inside hosts reach one another through external addresses.
///         pub hairpin: bool = boolean().default(true),
///     }
/// }
/// ```
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        $(#[derive($($derived:ident),+)])?
        $visibility:vis struct $section:ident {
            $(
                $(#[doc = $doc:literal])+
                $field_visibility:vis $field:ident: $type:ty = $key:expr
            ),+ $(,)?
        }
    ) => {
        $(#[doc = $section_doc])+
        $(#[derive($($derived),+)])?
        $visibility struct $section {
            $(
                $(#[doc = $doc])+
                $field_visibility $field: $type
            ),+
        }

        impl $crate::config::schema::Section for $section {
            const KEYS: &'static [&'static str] =
                &[$($crate::config::schema::key_name(stringify!($field))),+];

            fn read(fields: &$crate::config::reader::cursor::Fields<'_>) -> Self {
                use $crate::config::schema::key_name;
                Self { $($field: $key.read(fields, key_name(stringify!($field)))),+ }
            }

            fn emit(&self) -> $crate::config::document::Document {
                use $crate::config::schema::key_name;
                let entries = [$((key_name(stringify!($field)), $key.emit(&self.$field))),+];
                $crate::config::document::Document::mapping(
                    entries.into_iter().filter_map(|(key, value)| Some((key, value?))),
                )
            }

            fn describe() -> $crate::config::schema::SectionInfo {
                use $crate::config::schema::{doc_text, key_name};
                $crate::config::schema::SectionInfo {
                    doc: doc_text(&[$($section_doc),+]),
                    keys: vec![
                        $($key.describe(key_name(stringify!($field)), doc_text(&[$($doc),+]))),+
                    ],
                }
            }
        }
    };
}

pub(in crate::config) use section;

/// Returns the key of a field. A key that is a word of Rust is a raw identifier in the declaration.
pub(in crate::config) const fn key_name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}

/// Joins the lines of a doc comment.
pub(in crate::config) fn doc_text(lines: &[&str]) -> String {
    lines
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns the value of a section that the file leaves out.
pub(in crate::config) fn absent<S: Section>() -> S {
    S::read(&Fields::absent(Location::file(), &Diagnostics::new("")))
}

/// The type of a mapping.
pub(in crate::config) struct MappingType<S>(PhantomData<S>);

/// Returns the type of a mapping.
pub(in crate::config) fn mapping<S: Section>() -> MappingType<S> {
    MappingType(PhantomData)
}

impl<S: Section> MappingType<S> {
    /// Makes a key whose default holds the default of each key below it.
    pub(crate) fn with_defaults(self) -> KeySpec<Self, WithDefault<S>> {
        self.default(absent())
    }
}

impl<S: Section> ValueType for MappingType<S> {
    type Value = S;

    fn read(&self, cursor: &Cursor<'_>) -> Option<S> {
        cursor.fields(S::KEYS).map(|fields| S::read(&fields))
    }

    fn emit(&self, value: &S) -> Document {
        value.emit()
    }

    fn describe(&self) -> TypeInfo {
        TypeInfo {
            name: "mapping".to_owned(),
            words: Vec::new(),
            shape: TypeShape::Mapping(S::describe()),
        }
    }
}
