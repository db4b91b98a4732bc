//! Reads and writes `/proc/sys`, which shows the network namespace of the calling process.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::config::PortRange;
use crate::host::error::HostError;
use crate::host::model::settings::KernelSettings;

const ROOT: &str = "/proc/sys";
/// The setting that changes other settings.
const IP_FORWARD: &str = "net/ipv4/ip_forward";
/// Ports of the host's own connections.
const EPHEMERAL_PORTS: &str = "net/ipv4/ip_local_port_range";
const RP_FILTER_ALL: &str = "net/ipv4/conf/all/rp_filter";

/// Reads a value without its line end; None if the kernel has no such setting.
///
/// # Errors
/// When the file exists but cannot be read.
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
/// When the file is missing or not writable, or the kernel rejects the value.
pub(crate) fn write(path: &str, value: &str) -> Result<(), HostError> {
    let file = file(path);
    fs::write(&file, value).map_err(|error| HostError::sysctl(&file, value, error))
}

/// Reads the settings that decide which steps natbox needs.
///
/// # Errors
/// When a file exists but cannot be read.
pub(crate) fn settings() -> Result<KernelSettings, HostError> {
    Ok(KernelSettings {
        ephemeral_ports: ephemeral_ports()?,
        rp_filter_all: read(RP_FILTER_ALL)?.and_then(|value| value.parse().ok()).unwrap_or(0),
    })
}

fn ephemeral_ports() -> Result<PortRange, HostError> {
    let text = read(EPHEMERAL_PORTS)?.unwrap_or_default();
    let mut ports = text.split_whitespace().filter_map(|port| port.parse().ok());
    Ok(match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => PortRange { first, last },
        (_, _) => KernelSettings::DEFAULT_EPHEMERAL_PORTS,
    })
}

/// Lists the settings that change when `path` is written, with their present values, in the order
/// in which to restore them.
///
/// `ip_forward` sets `forwarding` of every interface and inverts `accept_redirects` of `all`
/// (net/ipv4/devinet.c, inet_forward_change), so writing the old value alone does not restore the
/// old state.
///
/// # Errors
/// When a file exists but cannot be read.
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
