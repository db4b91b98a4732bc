//! The owner of everything that a lab has made.

use std::fs;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::registry::{self, LabJournal};

/// The owner of the namespaces and of the directory.
///
/// ```text
/// Lab ─┐
/// Namespace ─┼─ Arc ─▶ LabOwner ── namespaces, directory, journal     dropped last: removes them
/// Child ─────┘                                                      (a Child ends its process first)
/// ```
#[derive(Debug)]
pub(super) struct LabOwner {
    /// `PREFIX-PID-N`, the beginning of every name in this lab.
    pub(super) stem: String,
    pub(super) directory: PathBuf,
    pub(super) journal: Mutex<LabJournal>,
    pub(super) namespaces: Mutex<Vec<String>>,
}

impl Drop for LabOwner {
    fn drop(&mut self) {
        for name in self.namespaces.get_mut().drain(..).rev() {
            registry::delete_namespace(&name);
        }
        let _ = fs::remove_dir_all(&self.directory);
        // The journal is removed last: as long as anything else remains, the journal lists it.
        self.journal.get_mut().remove();
    }
}
