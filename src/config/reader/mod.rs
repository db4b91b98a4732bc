//! Reads YAML text into nodes with positions and decodes them key by key.

pub(super) mod cursor;
mod renamed;
pub(super) mod tree;
