//! Reads YAML text into nodes with positions and decodes them key by key.

pub(super) mod cursor;
pub(super) mod nearest;
mod renamed;
pub(super) mod tree;
