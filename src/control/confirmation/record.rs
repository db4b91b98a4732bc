//! A reload that waits for its confirmation, as the disk has it.
//!
//! The record has both configurations: the file has the new text already, and a process that starts
//! after a crash or a reboot has no other copy of the old one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::api::PendingState;
use crate::host;

/// A reload that waits for its confirmation, or from which natbox has gone back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReloadRecord {
    pub(super) state: PendingState,
    /// Configuration before the reload, with every value, as YAML.
    pub(super) before: String,
    /// Text of the file at the reload.
    pub(super) file: String,
    /// Paths of the keys whose values differ.
    pub(super) changed: Vec<String>,
    /// Time for the confirmation, in seconds.
    pub(super) confirm_seconds: u64,
    /// Time of the reload, or of going back.
    pub(super) since: String,
    deadline: Deadline,
}

/// The end of the time for the confirmation, on two clocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Deadline {
    /// Milliseconds since 1970.
    wall: u64,
    /// Milliseconds since the boot, with the time of suspension.
    since_boot: u64,
    /// The boot.
    boot: String,
}

/// The clocks of the host at one moment.
#[derive(Clone, Debug)]
pub(super) struct Clocks {
    wall: SystemTime,
    since_boot: Duration,
    boot: String,
}

impl ReloadRecord {
    /// Makes the record of a reload.
    pub(super) fn new(
        before: String,
        file: String,
        changed: Vec<String>,
        confirm_seconds: u64,
        now: &Clocks,
    ) -> Self {
        let time = Duration::from_secs(confirm_seconds);
        let deadline = Deadline {
            wall: milliseconds(now.since_1970().saturating_add(time)),
            since_boot: milliseconds(now.since_boot.saturating_add(time)),
            boot: now.boot.clone(),
        };
        let (state, since) = (PendingState::Unconfirmed, now.rfc3339());
        Self { state, before, file, changed, confirm_seconds, since, deadline }
    }

    /// Returns whether the reload waits for its confirmation.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.state == PendingState::Unconfirmed
    }

    /// Notes that natbox has gone back.
    pub(super) fn reverted(self, now: &Clocks) -> Self {
        Self { state: PendingState::Reverted, since: now.rfc3339(), ..self }
    }

    /// Returns the time that is left for the confirmation.
    ///
    /// A step of the wall clock does not matter, unless the host has booted since. Then the time
    /// that is left is at most the whole time, however wrong the clock of the boot is.
    pub(super) fn time_left(&self, now: &Clocks) -> Duration {
        let (deadline, present) = match now.boot == self.deadline.boot {
            true => (self.deadline.since_boot, now.since_boot),
            false => (self.deadline.wall, now.since_1970()),
        };
        let left = Duration::from_millis(deadline).saturating_sub(present);
        left.min(Duration::from_secs(self.confirm_seconds))
    }

    /// Reads a record. None: there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is no record.
    pub(super) fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        serde_json::from_slice(&text).map(Some).map_err(io::Error::other)
    }

    /// Writes the record to the disk, in place of the one before. A crash at any moment leaves one
    /// of the two.
    ///
    /// # Errors
    /// The system's error. The record before stays.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let new = path.with_added_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(self).expect("plain data serialises"))?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        sync_directory(path)
    }

    /// Removes a record from the disk, if there is one.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn remove(path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.and_then(|()| sync_directory(path)),
        }
    }
}

impl Clocks {
    /// Reads the clocks.
    pub(super) fn now() -> Self {
        let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self {
            wall: SystemTime::now(),
            since_boot: Duration::try_from(since_boot).unwrap_or_default(),
            boot: host::boot_id(),
        }
    }

    fn since_1970(&self) -> Duration {
        self.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }

    fn rfc3339(&self) -> String {
        humantime::format_rfc3339_seconds(self.wall).to_string()
    }
}

/// Suffix of the record's file.
pub(super) const SUFFIX: &str = "reload";

/// Returns whether a file would not outlive the boot.
pub(super) fn ends_with_the_boot(path: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    let directory = path.parent().map(Path::to_path_buf).unwrap_or_else(|| PathBuf::from("."));
    rustix::fs::statfs(&directory).is_ok_and(|found| found.f_type as u64 == TMPFS)
}

fn sync_directory(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(wall: u64, since_boot: u64, boot: &str) -> Clocks {
        Clocks {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(wall),
            since_boot: Duration::from_secs(since_boot),
            boot: boot.to_owned(),
        }
    }

    fn record() -> ReloadRecord {
        let now = clocks(1_000_000, 500, "first");
        ReloadRecord::new("old".into(), "new".into(), vec!["forwards".into()], 60, &now)
    }

    #[test]
    fn the_time_left_follows_the_boot_clock_and_after_a_boot_the_wall_clock() {
        let left =
            |wall, since_boot, boot| record().time_left(&clocks(wall, since_boot, boot)).as_secs();
        assert_eq!(left(1_000_000, 500, "first"), 60);
        assert_eq!(left(1_000_000, 520, "first"), 40);
        assert_eq!(left(9_000_000, 520, "first"), 40, "the wall clock was set");
        assert_eq!(left(1_000_000, 560, "first"), 0);
        assert_eq!(left(1_000_000, 90_000, "first"), 0);
        assert_eq!(left(1_000_030, 3, "second"), 30);
        assert_eq!(left(1_000_061, 3, "second"), 0);
        assert_eq!(left(0, 3, "second"), 60, "a box without a clock of its own");
    }

    #[test]
    fn a_record_is_replaced_as_a_whole_and_only_root_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.reload");
        assert_eq!(ReloadRecord::read(&path).unwrap(), None);
        ReloadRecord::remove(&path).unwrap();
        record().write(&path).unwrap();
        assert_eq!(ReloadRecord::read(&path).unwrap(), Some(record()));
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        let reverted = record().reverted(&clocks(1_000_060, 560, "first"));
        assert!(!reverted.is_unconfirmed());
        assert_eq!(reverted.since, "1970-01-12T13:47:40Z");
        // A crash while the record was written.
        fs::write(directory.path().join("a.reload.new"), "{\"sta").unwrap();
        assert_eq!(ReloadRecord::read(&path).unwrap(), Some(record()));
        reverted.write(&path).unwrap();
        assert_eq!(ReloadRecord::read(&path).unwrap(), Some(reverted));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        ReloadRecord::remove(&path).unwrap();
        assert_eq!(ReloadRecord::read(&path).unwrap(), None);
        fs::write(&path, "{}").unwrap();
        assert!(ReloadRecord::read(&path).is_err());
    }
}
