//! A forward together with its place in the file.

use crate::config::reader::cursor::Located;
use crate::config::sections::{FileForward, Forward};

/// A forward of the configuration, and the item of the file that it comes from.
pub(super) struct Published<'d> {
    pub(super) forward: Forward,
    pub(super) item: &'d Located<FileForward>,
}
