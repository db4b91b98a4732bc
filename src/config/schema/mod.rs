//! The declaration of keys: one entry holds a key's type, range, default, meaning and whether a
//! reload can change it.
//!
//! [`section!`] declares a mapping of the file. From the declaration come the struct, its reader,
//! its printed form and its description ([`SectionInfo`]), of which the reference file, the JSON
//! Schema and the manual are made.

mod info;
mod key;
mod section;

pub(super) use info::{Absence, KeyInfo, SectionInfo, TypeInfo, TypeShape, Word};
pub(super) use key::{Required, Unresolved, ValueType, ValueTypeExt};
pub(super) use section::{Section, absent, doc_text, key_name, mapping, section};
