//! Standard output and standard error.

use std::io::{self, ErrorKind, Write};

use anyhow::Context;

use super::Failure;

/// Prints a text and a line end to standard output. A reader that has gone away (`| head`) is fine.
///
/// # Errors
/// The environment's, for instance a full disk.
pub fn print(text: &str) -> Result<(), Failure> {
    offer(text).map(|_| ())
}

/// The same; false when the reader has gone away, so that nothing more need be printed.
///
/// # Errors
/// The environment's, for instance a full disk.
pub(super) fn offer(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output").map_err(Failure::Environment)
        }
        outcome => Ok(outcome.is_ok()),
    }
}

/// Prints a text and a line end to standard error; what cannot be printed there is lost.
pub fn warn(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end_matches('\n'));
}
