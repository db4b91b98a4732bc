//! A tmpfs with huge pages under the session files.
//!
//! A table of many sessions is read at random. With pages of 4 KiB the processor misses its TLB at
//! nearly every read. The kernel takes huge pages for a tmpfs only if the mount asks for them, or
//! if `/sys/kernel/mm/transparent_hugepage/shmem_enabled` does.
//!
//! The mount option is `huge=within_size`. With `huge=advise` the kernel would allocate small
//! pages, because the space is reserved by `fallocate`, which knows no mapping and so no advice.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Mounts a tmpfs on a new, empty directory.
///
/// # Errors
/// The system's error, `PermissionDenied` without CAP_SYS_ADMIN. `Unsupported` in a mount namespace
/// of the process alone (`ip netns exec`, a sandbox of systemd): the next process would not see the
/// mount. The directory is then as before.
pub(super) fn mount_on(directory: &Path) -> io::Result<()> {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt"));
    if namespace("self")? != namespace("1")? {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let with = |options: &str| {
        let options = CString::new(options)?;
        Ok::<_, io::Error>(mount(NAME, directory, "tmpfs", flags, options.as_c_str()))
    };
    match with("mode=0700,huge=within_size")? {
        // The kernel has no huge pages: nothing is gained.
        Err(Errno::INVAL) => Ok(()),
        result => Ok(result?),
    }
}

/// Unmounts the tmpfs of a directory if it has nothing in it, and removes the directory. Leaves
/// everything else alone.
pub(super) fn unmount_from(directory: &Path) {
    let is_empty = || std::fs::read_dir(directory).is_ok_and(|mut files| files.next().is_none());
    if is_mount_point(directory) && is_empty() {
        // In use by another process: it stays.
        let _ = unmount(directory, UnmountFlags::NOFOLLOW);
    }
    // Not empty: another instance has its sessions there.
    let _ = std::fs::remove_dir(directory);
}

fn is_mount_point(directory: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev());
    match (device(directory), device(&directory.join(".."))) {
        (Ok(own), Ok(parent)) => own != parent,
        _ => false,
    }
}

/// Source of the mount, as `findmnt` shows it.
const NAME: &str = "natbox";
