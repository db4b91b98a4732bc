//! The journal of changes, from which the next start can restore the host after a crash.
//!
//! Each process and TUN has one file, `/run/natbox/host-<netns inode>-<tun>.jsonl`: a
//! [`JournalHeader`] line, then one [`JournalEntry`] line before each change. Nothing is synced to
//! disk, because a power failure removes the changes as well. The header names the process by pid
//! and start time, because the kernel reuses pids.
//!
//! The kernel reuses inodes of network namespaces. A journal belongs to this namespace only if one
//! of its rules or routes with natbox's protocol number exists here. Rules and routes without a
//! device live as long as the namespace, unless another program removes them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::namespace;
use crate::config::Config;
use crate::host::error::HostError;
use crate::host::model::settings::interface_names;
use crate::host::model::step::Step;

/// Directory of the journals outside tests.
pub(crate) const DIRECTORY: &str = "/run/natbox";

/// The first line: the owner of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournalHeader {
    pub(super) pid: u32,
    /// Start time of the process, in clock ticks after boot (`/proc/PID/stat`, field 22).
    pub(super) started: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub(super) boot: String,
    /// Inode of the network namespace.
    pub(super) netns: u64,
    /// Name of the TUN.
    pub(super) tun: String,
    /// Names of the inside and outside interfaces.
    pub(super) interfaces: Vec<String>,
}

/// A change that natbox has made or was about to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JournalEntry {
    pub(crate) step: Step,
    /// Sysctls to restore, in order, with their old values: the changed one, then its side effects.
    pub(crate) restore: Vec<(String, String)>,
}

/// A journal on disk.
#[derive(Clone, Debug)]
pub(crate) struct JournalFile {
    pub(super) path: PathBuf,
    pub(super) header: JournalHeader,
    pub(super) entries: Vec<JournalEntry>,
}

impl JournalFile {
    /// Finds the entry of a step.
    pub(super) fn entry(&self, step: &Step) -> Option<&JournalEntry> {
        self.entries.iter().find(|entry| entry.step == *step)
    }
}

/// The journal of this process.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Replaces the journal by one with these entries, atomically.
    ///
    /// # Errors
    /// When the file cannot be written. The old journal then stays in place.
    pub(super) fn replace(
        directory: &Path,
        header: &JournalHeader,
        entries: &[JournalEntry],
    ) -> Result<Self, HostError> {
        let name = format!("host-{}-{}.jsonl", header.netns, header.tun);
        let (path, new) = (directory.join(&name), directory.join(format!("{name}.new")));
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new);
        let mut journal =
            Self { file: file.map_err(|error| HostError::journal(&new, error))?, path };
        journal.write_line(header)?;
        entries.iter().try_for_each(|entry| journal.append(entry))?;
        fs::rename(&new, &journal.path)
            .map_err(|error| HostError::journal(&journal.path, error))?;
        Ok(journal)
    }

    /// Records a change before it is made.
    ///
    /// # Errors
    /// When the file cannot be written. The caller must not make the change then.
    pub(super) fn append(&mut self, entry: &JournalEntry) -> Result<(), HostError> {
        self.write_line(entry)
    }

    /// Removes the journal after all changes have been removed.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub(super) fn remove(self) -> Result<(), HostError> {
        fs::remove_file(&self.path).map_err(|error| HostError::journal(&self.path, error))
    }

    fn write_line(&mut self, value: &impl Serialize) -> Result<(), HostError> {
        let mut line = serde_json::to_vec(value).expect("plain data without maps serialises");
        line.push(b'\n');
        self.file.write_all(&line).map_err(|error| HostError::journal(&self.path, error))
    }
}

impl JournalHeader {
    /// Makes the header of this process for a configuration.
    ///
    /// # Errors
    /// When `/proc` is not readable.
    pub(super) fn of(config: &Config) -> Result<Self, HostError> {
        let interfaces = interface_names(config).into_iter().map(String::from).collect();
        Self::of_this_process(&config.tun.name, interfaces)
    }

    /// Makes the header of this process.
    ///
    /// # Errors
    /// When `/proc` is not readable.
    pub(super) fn of_this_process(tun: &str, interfaces: Vec<String>) -> Result<Self, HostError> {
        let pid = std::process::id();
        let unreadable = |path: &str| HostError::Journal {
            path: path.into(),
            source: io::Error::new(io::ErrorKind::InvalidData, "/proc does not show this process"),
        };
        let started = namespace::start_time(pid).ok_or_else(|| unreadable("/proc/self/stat"))?;
        let (boot, netns) = (namespace::boot_id(), namespace::inode()?);
        Ok(Self { pid, started, boot, netns, tun: tun.into(), interfaces })
    }

    /// Returns true when the process still runs.
    pub(super) fn is_alive(&self) -> bool {
        self.boot == namespace::boot_id() && namespace::start_time(self.pid) == Some(self.started)
    }
}

/// Makes the directory of the journals.
///
/// # Errors
/// When the directory cannot be made.
pub(super) fn make_directory(directory: &Path) -> Result<(), HostError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o755);
    builder.create(directory).map_err(|error| HostError::journal(directory, error))
}

/// Reads the journals of all namespaces. Skips unreadable ones.
///
/// A killed process may leave an incomplete last line. The change of that line was not made.
pub(super) fn read_all(directory: &Path) -> Vec<JournalFile> {
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

/// Reads the journals of the other natbox processes that run in this namespace.
pub(super) fn of_running_instances(directory: &Path, netns: u64) -> Vec<JournalFile> {
    let mut journals = read_all(directory);
    journals.retain(|found| {
        found.header.netns == netns
            && found.header.is_alive()
            && found.header.pid != std::process::id()
    });
    journals
}

/// Lists the interfaces of the other natbox processes that run in this namespace.
///
/// # Errors
/// When `/proc` is not readable.
pub(crate) fn interfaces_of_others() -> Result<Vec<String>, HostError> {
    let others = of_running_instances(Path::new(DIRECTORY), namespace::inode()?);
    Ok(others.into_iter().flat_map(|other| other.header.interfaces).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> JournalHeader {
        JournalHeader::of_this_process("nb7", vec!["lan0".into(), "wan0".into()]).unwrap()
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
        let mut journal = Journal::replace(directory.path(), &header(), &[]).unwrap();
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
    fn an_incomplete_last_line_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let mut journal = Journal::replace(directory.path(), &header(), &[]).unwrap();
        journal.append(&entry("1")).unwrap();
        journal.append(&entry("2")).unwrap();
        let path = read_all(directory.path())[0].path.clone();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 9]).unwrap();
        assert_eq!(read_all(directory.path())[0].entries, [entry("1")]);
    }

    #[test]
    fn pid_start_time_and_boot_identify_a_process() {
        assert!(header().is_alive());
        assert!(!JournalHeader { started: header().started + 1, ..header() }.is_alive());
        assert!(!JournalHeader { boot: "another".into(), ..header() }.is_alive());
    }
}
