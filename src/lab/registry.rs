//! The journal of a lab, and the removal of what a killed lab has left.
//!
//! Every lab keeps one file, `/run/natbox/lab-STEM.json`, with one JSON object per line. The first
//! line is the owner (pid and start time). An entry for each namespace follows *before* the
//! namespace is made, and an entry for each child process once it runs. The owner holds a lock
//! (flock) on the file. The kernel releases the lock when the owner ends, even after `kill -9`. A
//! journal that can be locked therefore has no owner. The sweep ends the listed children, then
//! deletes the namespaces, the directory and the file. Pid and start time of a child must both
//! match, because the kernel may have given the pid to another process.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::error::LabError;
use super::tool::run_tool;

/// Directory in which `ip netns add` shows namespaces.
pub(super) const NETNS_DIRECTORY: &str = "/run/netns";

/// Directory of journals and lab directories. A reboot empties it, and removes the namespaces.
const DIRECTORY: &str = "/run/natbox";

/// Time that a process may take to end after SIGTERM before SIGKILL follows.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// Returns the lab directory that belongs to a journal.
pub(super) fn directory_of(stem: &str) -> PathBuf {
    Path::new(DIRECTORY).join(stem)
}

/// One line of a journal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RegistryEntry {
    Owner(Process),
    Namespace(String),
    Child(Process),
}

/// A process, distinct from a later one with the same pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    pid: u32,
    /// Start time in clock ticks after boot (`/proc/PID/stat`, field 22).
    start: u64,
}

impl Process {
    /// Returns whether a SIGKILL is pending or the process has begun to end. A process that ends
    /// frees its memory first.
    fn is_dying(self) -> bool {
        let Ok(status) = fs::read_to_string(format!("/proc/{}/status", self.pid)) else {
            return true;
        };
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let killed = |set: &str| {
            let signals = field(set).and_then(|signals| u64::from_str_radix(signals, 16).ok());
            signals.is_some_and(|signals| signals >> (Signal::KILL.as_raw() - 1) & 1 == 1)
        };
        killed("SigPnd:") || killed("ShdPnd:") || field("VmRSS:").is_none()
    }

    /// Returns the process with this pid, or `None` if there is none.
    fn of(pid: u32) -> Option<Process> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may itself hold spaces and parentheses. Field 3 follows the last
        // one.
        let fields = stat.rsplit_once(") ")?.1;
        Some(Process { pid, start: fields.split(' ').nth(22 - 3)?.parse().ok()? })
    }

    /// Sends SIGTERM, then after [`GRACE`] SIGKILL, if the process is still the same. Waits for the
    /// end.
    fn end(self) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        // The descriptor comes first and the comparison second: from here on a reused pid cannot go
        // unnoticed.
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if Process::of(self.pid) != Some(self) {
            return;
        }
        for signal in [Signal::TERM, Signal::KILL] {
            if pidfd_send_signal(&handle, signal).is_err() {
                return;
            }
            let grace = Timespec { tv_sec: GRACE.as_secs().cast_signed(), tv_nsec: 0 };
            if poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&grace))
                .is_ok_and(|ended| ended > 0)
            {
                return;
            }
        }
    }
}

/// The locked journal of a running lab.
#[derive(Debug)]
pub(super) struct LabJournal {
    path: PathBuf,
    file: File,
}

impl LabJournal {
    /// Makes, locks and opens the journal of a new lab.
    pub(super) fn create(stem: &str) -> Result<LabJournal, LabError> {
        Self::create_in(Path::new(DIRECTORY), stem)
    }

    fn create_in(directory: &Path, stem: &str) -> Result<LabJournal, LabError> {
        fs::create_dir_all(directory).map_err(LabError::file("make", directory))?;
        let path = directory.join(format!("lab-{stem}.json"));
        // The file is locked under a name that no sweep looks for, and then renamed. The journal is
        // locked from the moment at which a sweep can find it.
        let draft = directory.join(format!(".lab-{stem}.new"));
        let file = File::create(&draft).map_err(LabError::file("make", &draft))?;
        file.try_lock().map_err(|error| LabError::file("lock", &draft)(error.into()))?;
        let mut journal = LabJournal { path, file };
        let pid = std::process::id();
        journal
            .write(&RegistryEntry::Owner(Process::of(pid).unwrap_or(Process { pid, start: 0 })))?;
        fs::rename(&draft, &journal.path).map_err(LabError::file("make", &journal.path))?;
        Ok(journal)
    }

    pub(super) fn namespace(&mut self, name: &str) -> Result<(), LabError> {
        self.write(&RegistryEntry::Namespace(name.to_owned()))
    }

    pub(super) fn child(&mut self, pid: u32) -> Result<(), LabError> {
        // A child that has already ended needs no entry.
        Process::of(pid).map_or(Ok(()), |process| self.write(&RegistryEntry::Child(process)))
    }

    pub(super) fn remove(&mut self) {
        let _ = fs::remove_file(&self.path);
    }

    fn write(&mut self, entry: &RegistryEntry) -> Result<(), LabError> {
        let mut line = serde_json::to_string(entry)
            .map_err(|error| LabError::file("write", &self.path)(std::io::Error::other(error)))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(LabError::file("write", &self.path))
    }
}

/// Removes the remains of labs whose owners have ended.
///
/// # Errors
/// The journals cannot be listed. A single journal that cannot be read or swept remains for the
/// next sweep.
pub(super) fn sweep() -> Result<(), LabError> {
    sweep_in(Path::new(DIRECTORY))
}

fn sweep_in(directory: &Path) -> Result<(), LabError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(LabError::file("read", directory))?,
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(stem) = name.to_str().and_then(stem_of) else { continue };
        sweep_one(&entry.path(), &directory.join(stem), stem);
    }
    Ok(())
}

/// Returns the stem of `lab-STEM.json`.
fn stem_of(file_name: &str) -> Option<&str> {
    let stem = file_name.strip_prefix("lab-")?.strip_suffix(".json")?;
    (!stem.is_empty() && !stem.contains('/')).then_some(stem)
}

fn sweep_one(journal: &Path, directory: &Path, stem: &str) {
    let Ok(mut file) = OpenOptions::new().read(true).write(true).open(journal) else { return };
    let started = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            // The owner was killed a moment ago. The kernel takes time over a large process and
            // releases locks last.
            Err(TryLockError::WouldBlock) if started.elapsed() < GRACE && is_dying(journal) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return,
        }
    }
    let mut text = String::new();
    if file.read_to_string(&mut text).is_err() {
        return;
    }
    // A line torn by the kill describes an object that was not made yet.
    let entries =
        || text.lines().filter_map(|line| serde_json::from_str::<RegistryEntry>(line).ok());
    for entry in entries() {
        if let RegistryEntry::Child(process) = entry {
            process.end();
        }
    }
    for entry in entries() {
        match entry {
            // The name must be one that this lab could have made, so that a damaged journal deletes
            // nothing of others.
            RegistryEntry::Namespace(name)
                if name.strip_prefix(stem).is_some_and(|role| role.starts_with('-')) =>
            {
                // Children that the owner had started but not recorded when it was killed.
                processes_in(&name).into_iter().for_each(Process::end);
                delete_namespace(&name);
            }
            RegistryEntry::Namespace(_) | RegistryEntry::Owner(_) | RegistryEntry::Child(_) => {}
        }
    }
    let _ = fs::remove_dir_all(directory);
    let _ = fs::remove_file(journal);
}

/// Returns whether the owner of a journal has been killed and is still ending.
fn is_dying(journal: &Path) -> bool {
    let text = fs::read_to_string(journal).unwrap_or_default();
    let owner = text.lines().next().and_then(|line| serde_json::from_str(line).ok());
    let Some(RegistryEntry::Owner(owner)) = owner else { return false };
    Process::of(owner.pid) != Some(owner) || owner.is_dying()
}

/// Returns the processes that run in a namespace.
fn processes_in(name: &str) -> Vec<Process> {
    let Ok(output) = run_tool(Command::new("ip").args(["netns", "pids", name])) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter_map(|line| Process::of(line.trim().parse().ok()?)).collect()
}

/// Deletes a namespace if it exists.
pub(super) fn delete_namespace(name: &str) {
    if Path::new(NETNS_DIRECTORY).join(name).exists() {
        // A failure cannot be handled here: the next sweep has no journal from which to retry.
        let _ = run_tool(Command::new("ip").args(["netns", "delete", name]));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_journal_in_use_is_not_swept_and_an_abandoned_one_is() {
        let run = tempfile::tempdir().unwrap();
        let mut journal = LabJournal::create_in(run.path(), "x-1-0").unwrap();
        journal.namespace("x-1-0-never-made").unwrap();
        fs::create_dir(run.path().join("x-1-0")).unwrap();
        fs::write(run.path().join("unrelated.json"), "{}").unwrap();

        sweep_in(run.path()).unwrap();
        assert!(journal.path.exists(), "the lock must protect a live lab");

        drop(journal);
        sweep_in(run.path()).unwrap();
        let left: Vec<_> =
            fs::read_dir(run.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["unrelated.json"]);
    }

    #[test]
    fn sweep_ends_a_recorded_child_but_not_a_later_process_with_its_pid() {
        let run = tempfile::tempdir().unwrap();
        let sleeper = || Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let (mut recorded, mut later) = (sleeper(), sleeper());
        let mut journal = LabJournal::create_in(run.path(), "x-2-0").unwrap();
        journal.child(recorded.id()).unwrap();
        let same_pid = Process { start: 1, ..Process::of(later.id()).unwrap() };
        journal.write(&RegistryEntry::Child(same_pid)).unwrap();
        drop(journal);

        sweep_in(run.path()).unwrap();
        assert!(recorded.try_wait().unwrap().is_some(), "the recorded child must be gone");
        assert!(later.try_wait().unwrap().is_none(), "start times differ: not ours");
        later.kill().unwrap();
        later.wait().unwrap();
    }

    #[test]
    fn a_torn_last_line_is_ignored() {
        let run = tempfile::tempdir().unwrap();
        fs::write(run.path().join("lab-x-3-0.json"), "{\"namespace\":\"x-3-0-a\"}\n{\"namesp")
            .unwrap();
        sweep_in(run.path()).unwrap();
        assert!(!run.path().join("lab-x-3-0.json").exists());
    }
}
