//! Standard error.

use std::io::{self, Write};

/// Prints a text and a line end to standard error. If that fails, the text is lost.
pub(super) fn warn(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end_matches('\n'));
}
