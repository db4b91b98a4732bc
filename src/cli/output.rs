//! Standard output.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use serde::Serialize;

use super::exit::Failure;

/// Prints a text and a line end to standard output. A closed reader (`| head`) is no error.
///
/// # Errors
/// An environment error, for example a full disk.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    offer(text).map(|_| ())
}

/// Prints as [`print`] does. Returns false when the reader has closed its end, so that the caller
/// can stop.
///
/// # Errors
/// An environment error, for example a full disk.
pub(super) fn offer(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output").map_err(Failure::Environment)
        }
        outcome => {
            PRINTED.store(true, Ordering::Relaxed);
            Ok(outcome.is_ok())
        }
    }
}

/// Returns whether this process has printed to standard output.
pub(super) fn has_printed() -> bool {
    PRINTED.load(Ordering::Relaxed)
}

/// True: this process has printed. Relaxed, because the thread that prints also reads it.
static PRINTED: AtomicBool = AtomicBool::new(false);

/// Prints a value to standard output: as indented JSON, or as the text that `text` makes of it.
///
/// # Errors
/// An environment error, for example a full disk.
pub(super) fn show<T: Serialize>(
    json: bool,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    print(&if json { self::json(value)? } else { text(value) })
}

/// Returns a value as indented JSON.
///
/// # Errors
/// A bug: the types that natbox prints always serialise.
pub(super) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).context(PRINTING).map_err(Failure::bug)
}

/// Returns a value as JSON on one line.
///
/// # Errors
/// A bug: the types that natbox prints always serialise.
pub(super) fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).context(PRINTING).map_err(Failure::bug)
}

const PRINTING: &str = "printing JSON";
