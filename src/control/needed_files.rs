//! The files that an instance needs from its start on. All others are closed to it then.

use std::path::{Path, PathBuf};

use super::dns;
use super::sandbox::{FileAccess, FileRules};
use crate::config::Config;
use crate::host;

/// Returns the files. `path`: the configuration file.
pub(super) fn needed_files(path: &Path, config: &Config) -> FileRules {
    let mut files = FileRules::default();
    files.allow("/dev/net/tun", FileAccess::Device);
    // Interfaces, ports, the owners of journals, threads; the number of processors.
    files.allow("/proc", FileAccess::Read);
    files.allow("/sys", FileAccess::Read);
    // The names of functions in the report of a panic.
    files.allow("/proc/self/exe", FileAccess::Read);
    if config.host.manage {
        files.allow("/proc/sys/net", FileAccess::Write);
        files.allow(host::JOURNALS, FileAccess::Change);
    } else {
        files.allow(host::JOURNALS, FileAccess::Read);
    }
    // The stop removes the socket.
    files.allow(directory(&config.admin.socket), FileAccess::Change);
    for directory in configuration_directories(path) {
        files.allow(directory, FileAccess::Read);
    }
    if config.state.keep {
        files.allow(config.state.directory.join(&config.name), FileAccess::Change);
    }
    files.allow(directory(&dns::announced_path(config)), FileAccess::Change);
    let mut checks = config.uplinks.iter().filter_map(|uplink| uplink.health.as_ref());
    if checks.any(|health| !health.http.is_empty()) {
        for path in resolver() {
            files.allow(path, FileAccess::Read);
        }
    }
    files
}

/// Returns the directory of a configuration file, where a reload reads it again. If the file is a
/// link, there are two.
pub(super) fn configuration_directories(path: &Path) -> Vec<PathBuf> {
    let real = path.canonicalize().ok();
    let mut directories: Vec<_> =
        [Some(path), real.as_deref()].into_iter().flatten().map(directory).collect();
    directories.dedup();
    directories
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        // A plain name.
        None => PathBuf::from("."),
        Some(parent) if parent == Path::new("") => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
    }
}

/// Returns what the C library reads to resolve a name, and TLS to check a certificate: `/etc` as a
/// whole, because programs replace `resolv.conf`.
fn resolver() -> impl Iterator<Item = PathBuf> {
    let linked = Path::new("/etc/resolv.conf").canonicalize();
    let fixed =
        ["/etc", "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share", "/usr/local/share"];
    fixed.into_iter().map(PathBuf::from).chain(linked.ok().as_deref().map(directory))
}
