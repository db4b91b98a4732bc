//! The configuration with which a process starts: that of the file, or the one before a reload that
//! was not confirmed.
//!
//! ```text
//!   no record                        the file
//!   the file has another text now    the file; the record is removed
//!   unconfirmed, time is left        the file; the countdown goes on
//!   unconfirmed, the time has passed the configuration before: natbox has gone back
//!   gone back already                the configuration before
//! ```

use std::path::{Path, PathBuf};

use super::record::{Clocks, ReloadRecord, SUFFIX};
use crate::config::{self, Config, Loaded, Problem, Problems};
use crate::control::state_file::state_file;

/// What a process needs to start.
#[derive(Debug)]
pub(crate) struct StartConfig {
    /// The configuration.
    pub(crate) config: Config,
    /// Warnings of its file.
    pub(crate) warnings: Vec<Problem>,
    /// Further warnings, as sentences.
    pub(crate) notes: Vec<String>,
    /// The reload that the disk remembers.
    pub(in crate::control) remembered: Remembered,
}

/// The reload that the disk remembers at a start.
#[derive(Debug)]
pub(in crate::control) struct Remembered {
    pub(super) path: PathBuf,
    pub(super) record: Option<ReloadRecord>,
    /// True: this start goes back.
    pub(super) goes_back: bool,
}

/// Reads the file, and decides whether natbox starts with it.
///
/// # Errors
/// Every problem of the file.
pub(crate) fn start_config(path: &Path) -> Result<StartConfig, Problems> {
    let (Loaded { config, warnings }, text) = config::load_with_text(path)?;
    let record_path = state_file(&config, SUFFIX);
    let file = StartConfig {
        config,
        warnings,
        notes: Vec::new(),
        remembered: Remembered { path: record_path, record: None, goes_back: false },
    };
    Ok(file.or_before(&path.display().to_string(), &text, &Clocks::now()))
}

impl StartConfig {
    /// Uses the record of an unconfirmed reload, if there is one that concerns the text of the
    /// file.
    fn or_before(mut self, file_name: &str, text: &str, now: &Clocks) -> Self {
        let path = self.remembered.path.clone();
        let record = match ReloadRecord::read(&path) {
            Ok(None) => return self,
            Ok(Some(record)) => record,
            Err(error) => {
                self.note(format!(
                    "{}: not a record of a reload ({error}); natbox uses the file; remove it",
                    path.display()
                ));
                return self;
            }
        };
        if record.file != text {
            self.note(format!(
                "{file_name}: changed since a reload that was not confirmed; natbox uses the file"
            ));
            return self.forget();
        }
        if record.is_unconfirmed() && !record.time_left(now).is_zero() {
            self.remembered.record = Some(record);
            return self;
        }
        match config::parse(file_name, &record.before) {
            Ok(Loaded { config, warnings }) => {
                (self.config, self.warnings) = (config, warnings);
                self.remembered.goes_back = record.is_unconfirmed();
                let record = if record.is_unconfirmed() { record.reverted(now) } else { record };
                if let Err(error) = record.write(&path) {
                    self.note(format!("{}: cannot be written: {error}", path.display()));
                }
                self.remembered.record = Some(record);
                self
            }
            Err(problems) => {
                self.note(format!(
                    "{}: natbox cannot go back from a reload and uses the file: {problems}",
                    path.display()
                ));
                self.forget()
            }
        }
    }

    fn forget(mut self) -> Self {
        if let Err(error) = ReloadRecord::remove(&self.remembered.path) {
            let path = self.remembered.path.display().to_string();
            self.note(format!("{path}: cannot be removed: {error}; remove the file"));
        }
        self
    }

    fn note(&mut self, note: String) {
        self.notes.push(note);
    }
}

#[cfg(test)]
mod tests;
