//! Reading and writing `/proc/sys`, which shows the network namespace of the calling process.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::host::error::HostError;

/// Where the kernel shows its settings.
const ROOT: &str = "/proc/sys";
/// The setting that drags others along.
const IP_FORWARD: &str = "net/ipv4/ip_forward";

/// The value without the line's end, or nothing if the kernel has no such setting.
///
/// # Errors
/// When the file is there but cannot be read.
pub(crate) fn read(path: &str) -> Result<Option<String>, HostError> {
    let file = file(path);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(HostError::sysctl(&file, "a value", error)),
    }
}

/// Writes a value.
///
/// # Errors
/// When the file is missing, read-only or not ours to write, or the kernel dislikes the value.
pub(crate) fn write(path: &str, value: &str) -> Result<(), HostError> {
    let file = file(path);
    fs::write(&file, value).map_err(|error| HostError::sysctl(&file, value, error))
}

/// What writing `path` changes besides itself, with the values of now, in the order in which to restore them.
///
/// `ip_forward` sets `forwarding` of every interface and turns `accept_redirects` of `all` around
/// (net/ipv4/devinet.c, inet_forward_change), so switching it off again is not enough to get the old state back.
pub(crate) fn side_effects(path: &str) -> Result<Vec<(String, String)>, HostError> {
    let mut found = Vec::new();
    if path != IP_FORWARD {
        return Ok(found);
    }
    let mut paths = vec!["net/ipv4/conf/all/accept_redirects".to_owned()];
    for entry in fs::read_dir(file("net/ipv4/conf")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // `all` is ip_forward itself.
        if name != "all" {
            paths.push(format!("net/ipv4/conf/{name}/forwarding"));
        }
    }
    paths.sort();
    for path in paths {
        if let Some(value) = read(&path)? {
            found.push((path, value));
        }
    }
    Ok(found)
}

fn file(path: &str) -> PathBuf {
    PathBuf::from(ROOT).join(path)
}
