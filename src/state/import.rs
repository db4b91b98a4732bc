//! Files whose sessions a process imports, because it cannot use them as they are.
//!
//! ```text
//!   set_aside   old.header.json written ─ records, index, accounts renamed to old.* ─
//!               header.json removed
//!   (the process makes new files and imports the sessions)
//!   discard     old.header.json removed ─ the other files removed
//! ```
//!
//! While `old.header.json` exists, the sessions are those of the old files, and everything else in
//! the directory is the beginning of an import. So a process that dies during an import loses no
//! session: the next one sets aside what is not yet, and imports again. New files appear only after
//! all old ones have their new names.

use std::fs;
use std::io;
use std::path::Path;

use super::header::{HEADER, StateHeader, Unusable};

/// Returns the header of the files whose import was cut off; None: there are none.
pub(super) fn pending(directory: &Path) -> Result<Option<StateHeader>, Unusable> {
    StateHeader::read(directory, &aside(HEADER))
}

/// Sets the files of a header aside, or completes that.
///
/// # Errors
/// A file cannot be renamed or written. Call this again then.
pub(super) fn set_aside(directory: &Path, header: &StateHeader) -> io::Result<()> {
    header.write(directory, &aside(HEADER))?;
    for name in FILES {
        let target = directory.join(aside(name));
        if !target.exists() {
            fs::rename(directory.join(name), target)?;
        }
    }
    for name in FILES.into_iter().chain([HEADER]) {
        remove(directory, name)?;
    }
    Ok(())
}

/// Removes the files that were set aside, if there are any.
///
/// # Errors
/// A file cannot be removed.
pub(super) fn discard(directory: &Path) -> io::Result<()> {
    for name in [HEADER].into_iter().chain(FILES) {
        remove(directory, &aside(name))?;
    }
    Ok(())
}

/// Names of the files, without the header.
pub(super) const FILES: [&str; 3] = ["records", "index", "accounts"];

/// Name of a file that is set aside.
pub(super) fn aside(name: &str) -> String {
    format!("old.{name}")
}

fn remove(directory: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
