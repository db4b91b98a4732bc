//! What was changed, on disk, so that it can be taken back by whoever comes next.
//!
//! One file per process and TUN, `/run/natbox/host-<netns inode>-<tun>.jsonl`: a [`Header`] line, then one
//! [`JournalEntry`] line before each change. Nothing is synced to disk: a machine that loses power loses the changes, too.
//! The process is named by pid and start time, since pids come round again.
//!
//! Namespace inodes come round again as well. A journal counts as one of this namespace only if its first change, a
//! rule with our protocol number, is there; such rules live exactly as long as the namespace.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::host::error::HostError;
use crate::host::model::steps::Step;

/// Where journals live unless a test says otherwise.
pub(crate) const DIRECTORY: &str = "/run/natbox";
/// The network namespace of the calling process.
const NAMESPACE: &str = "/proc/self/ns/net";
/// How long to wait for another natbox that is starting or stopping in this namespace.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The first line: whose journal it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Process.
    pub(crate) pid: u32,
    /// Its start time, clock ticks after boot (`/proc/PID/stat`, field 22).
    pub(crate) started: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub(crate) boot: String,
    /// Inode of its network namespace.
    pub(crate) netns: u64,
    /// Its TUN.
    pub(crate) tun: String,
    /// Its legs.
    pub(crate) interfaces: Vec<String>,
}

/// A change that was made or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalEntry {
    pub(crate) step: Step,
    /// Sysctls to write back, in order: the one that was set, then what it dragged along.
    pub(crate) restore: Vec<(String, String)>,
}

/// A journal found on disk.
#[derive(Clone, Debug)]
pub(crate) struct JournalFile {
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    pub(crate) entries: Vec<JournalEntry>,
}

/// The journal of this process.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Starts a journal. The caller holds the lock and has dealt with what was there under the name.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn create(directory: &Path, header: &Header) -> Result<Self, HostError> {
        Self::replace(directory, header, &[])
    }

    /// Puts a journal of these entries in the place of the one that is there, in one step.
    ///
    /// # Errors
    /// When the file cannot be written; the old one is in its place then.
    pub(crate) fn replace(
        directory: &Path,
        header: &Header,
        entries: &[JournalEntry],
    ) -> Result<Self, HostError> {
        let name = Self::name(header);
        let (path, new) = (directory.join(&name), directory.join(format!("{name}.new")));
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new);
        let mut journal =
            Self { file: file.map_err(|error| HostError::journal(&new, error))?, path };
        journal.line(header)?;
        entries.iter().try_for_each(|entry| journal.append(entry))?;
        fs::rename(&new, &journal.path)
            .map_err(|error| HostError::journal(&journal.path, error))?;
        Ok(journal)
    }

    fn name(header: &Header) -> String {
        format!("host-{}-{}.jsonl", header.netns, header.tun)
    }

    /// Writes down a change that is about to be made.
    ///
    /// # Errors
    /// When the file cannot be written; the change must not be made then.
    pub(crate) fn append(&mut self, entry: &JournalEntry) -> Result<(), HostError> {
        self.line(entry)
    }

    /// Forgets everything: all has been taken back.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(crate) fn remove(self) -> Result<(), HostError> {
        fs::remove_file(&self.path).map_err(|error| HostError::journal(&self.path, error))
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), HostError> {
        let mut line = serde_json::to_vec(value).expect("plain data without maps serialises");
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| HostError::journal(&self.path, error))
    }
}

impl Header {
    /// The header of this process.
    ///
    /// # Errors
    /// When `/proc` is not readable.
    pub(crate) fn of_this_process(tun: &str, interfaces: Vec<String>) -> Result<Self, HostError> {
        let pid = std::process::id();
        let unreadable = |path: &str| HostError::Journal {
            path: path.into(),
            source: io::Error::new(io::ErrorKind::InvalidData, "/proc does not show this process"),
        };
        let started = started(pid).ok_or_else(|| unreadable("/proc/self/stat"))?;
        Ok(Self { pid, started, boot: boot(), netns: netns()?, tun: tun.into(), interfaces })
    }

    /// Whether the process still runs.
    pub(crate) fn alive(&self) -> bool {
        self.boot == boot() && started(self.pid) == Some(self.started)
    }
}

/// Makes the directory.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make_directory(directory: &Path) -> Result<(), HostError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(directory).map_err(|error| HostError::journal(directory, error))
}

/// Reads all journals, of this namespace or not. Unreadable ones are skipped; a last line that a killed process did
/// not get to finish belongs to a change that was not made.
pub(crate) fn read_all(directory: &Path) -> Vec<JournalFile> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if !(name.starts_with("host-") && name.ends_with(".jsonl")) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let mut lines = text.lines();
        let Some(header) = lines.next().and_then(|line| serde_json::from_str(line).ok()) else {
            continue;
        };
        let entries = lines.map_while(|line| serde_json::from_str(line).ok()).collect();
        found.push(JournalFile { path, header, entries });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The inode of this process's network namespace.
///
/// # Errors
/// When `/proc` is not readable.
pub(crate) fn netns() -> Result<u64, HostError> {
    let path = Path::new(NAMESPACE);
    fs::metadata(path).map(|data| data.ino()).map_err(|error| HostError::journal(path, error))
}

/// Whether a namespace has neither a process nor a name any more, as far as can be seen from here.
pub(crate) fn namespace_is_gone(inode: u64) -> bool {
    let name = format!("net:[{inode}]");
    let named =
        fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounts.contains(&name));
    let lives_in = |entry: &fs::DirEntry| {
        fs::read_link(entry.path().join("ns/net"))
            .is_ok_and(|link| link.as_os_str() == name.as_str())
    };
    !named && !fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| lives_in(&entry))
}

/// Held while a natbox of this namespace reads what is there and changes it. The lock is on the namespace itself, so
/// that it leaves no file behind and boxes of different namespaces do not wait for one another.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// When another process keeps it for too long.
    pub(crate) async fn take() -> Result<Self, HostError> {
        let path = Path::new(NAMESPACE);
        let file = File::open(path).map_err(|error| HostError::journal(path, error))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(fs::TryLockError::Error(error)) => return Err(HostError::journal(path, error)),
                Err(fs::TryLockError::WouldBlock) if start.elapsed() > LOCK_PATIENCE => {
                    return Err(HostError::Locked { seconds: LOCK_PATIENCE.as_secs() });
                }
                Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            }
        }
    }
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Start time of a process; nothing if there is none, or only its remains (a zombie holds no devices).
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    // Field 3 was the state; 22 is 18 further on.
    (state != "Z").then(|| fields.nth(18)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header::of_this_process("nb7", vec!["lan0".into(), "wan0".into()]).unwrap()
    }

    fn entry(value: &str) -> JournalEntry {
        let path = "net/ipv4/ip_forward".to_owned();
        JournalEntry {
            step: Step::Sysctl { path: path.clone(), value: value.into(), optional: false },
            restore: vec![(path, "0".into())],
        }
    }

    #[test]
    fn a_journal_is_read_back_as_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(directory.path(), &header()).unwrap();
        journal.append(&entry("1")).unwrap();
        let found = read_all(directory.path());
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].header, &found[0].entries), (&header(), &vec![entry("1")]));
        let mut journal = Journal::replace(directory.path(), &header(), &[entry("2")]).unwrap();
        journal.append(&entry("3")).unwrap();
        assert_eq!(read_all(directory.path())[0].entries, [entry("2"), entry("3")]);
        journal.remove().unwrap();
        assert!(read_all(directory.path()).is_empty());
    }

    #[test]
    fn a_last_line_that_was_cut_off_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(directory.path(), &header()).unwrap();
        journal.append(&entry("1")).unwrap();
        journal.append(&entry("2")).unwrap();
        let path = read_all(directory.path())[0].path.clone();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 9]).unwrap();
        assert_eq!(read_all(directory.path())[0].entries, [entry("1")]);
    }

    #[test]
    fn a_process_is_known_by_pid_and_start_time() {
        assert!(header().alive());
        assert!(!Header { started: header().started + 1, ..header() }.alive());
        assert!(!Header { boot: "another".into(), ..header() }.alive());
    }

    #[test]
    fn the_namespace_of_this_process_is_not_gone() {
        assert!(!namespace_is_gone(netns().unwrap()));
        assert!(namespace_is_gone(1));
    }
}
