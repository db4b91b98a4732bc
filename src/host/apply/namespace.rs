//! The network namespace of this process, its lock, and the identity of processes.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::host::error::HostError;

/// The network namespace of the calling process.
const NAMESPACE: &str = "/proc/self/ns/net";
/// Longest wait for another natbox that is starting or stopping in this namespace.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// Time between two attempts to take the lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// The lock of a network namespace. A natbox holds the lock while it compares and changes the host.
///
/// The lock is on the namespace itself. It leaves no file behind, and instances of different
/// namespaces do not wait for one another.
#[derive(Debug)]
pub(super) struct NamespaceLock {
    _file: File,
}

impl NamespaceLock {
    /// Waits for the lock.
    ///
    /// # Errors
    /// When another process holds the lock for longer than [`LOCK_TIMEOUT`].
    pub(super) async fn take() -> Result<Self, HostError> {
        let path = Path::new(NAMESPACE);
        let file = File::open(path).map_err(|error| HostError::journal(path, error))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(fs::TryLockError::Error(error)) => return Err(HostError::journal(path, error)),
                Err(fs::TryLockError::WouldBlock) if start.elapsed() > LOCK_TIMEOUT => {
                    return Err(HostError::Locked { seconds: LOCK_TIMEOUT.as_secs() });
                }
                Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCK_INTERVAL).await,
            }
        }
    }
}

/// Returns the inode of this process's network namespace.
///
/// # Errors
/// When `/proc` is not readable.
pub(super) fn inode() -> Result<u64, HostError> {
    let path = Path::new(NAMESPACE);
    fs::metadata(path).map(|data| data.ino()).map_err(|error| HostError::journal(path, error))
}

/// Returns true when a namespace has neither a process nor a name, as far as this process can
/// read.
pub(super) fn is_gone(inode: u64) -> bool {
    let name = format!("net:[{inode}]");
    let named =
        fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounts.contains(&name));
    let uses_it = |entry: &fs::DirEntry| {
        fs::read_link(entry.path().join("ns/net"))
            .is_ok_and(|link| link.as_os_str() == name.as_str())
    };
    !named && !fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| uses_it(&entry))
}

/// Reads the identifier of this boot; empty if it is not readable.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Reads the start time of a process, in clock ticks after boot. None if the process does not exist
/// or is a zombie, which holds no devices.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may contain anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    // The state was field 3; field 22 is 18 further on.
    (state != "Z").then(|| fields.nth(18)?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_of_this_process_is_not_gone() {
        assert!(!is_gone(inode().unwrap()));
        assert!(is_gone(1));
    }
}
