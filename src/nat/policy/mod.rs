//! The rules of an instance as values: who is published, who may go out, what is not translated.

pub(crate) mod forwards;
pub(crate) mod settings;
