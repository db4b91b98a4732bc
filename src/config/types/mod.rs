//! The types of single values: how each is read from its text and written back.

pub(super) mod network;
pub(super) mod values;
pub(super) mod words;
