//! Programs that configure the network of the host and may remove natbox's settings:
//! systemd-networkd and NetworkManager.
//!
//! A program is in use here if it runs in this network namespace, or if systemd starts it at boot
//! and process 1 is in this namespace.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Network programs of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkPrograms {
    /// Keys by which systemd-networkd removes natbox's settings; None: it is not in use here.
    pub(crate) networkd: Option<Vec<RemovingKey>>,
    /// True: NetworkManager may configure the TUN. None: it is not in use here.
    pub(crate) network_manager: Option<bool>,
}

/// A key of `networkd.conf` that makes systemd-networkd remove settings of other programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemovingKey {
    pub(crate) key: &'static str,
    /// The file that sets the key; None: the default.
    pub(crate) file: Option<PathBuf>,
}

/// The keys of `networkd.conf`, below `[Network]`. Both are on by default.
const REMOVING_KEYS: [&str; 2] = ["ManageForeignRoutingPolicyRules", "ManageForeignRoutes"];
/// Directories of systemd's configuration, the first one counts most (systemd.conf(5)).
const SYSTEMD: [&str; 4] =
    ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd"];
/// Directories of NetworkManager's configuration, the first one counts most
/// (NetworkManager.conf(5)).
const NETWORK_MANAGER: [&str; 3] =
    ["etc/NetworkManager", "run/NetworkManager", "usr/lib/NetworkManager"];
/// Names of the processes, as the kernel cuts them off.
const NETWORKD_PROCESS: &str = "systemd-network";
const NETWORK_MANAGER_PROCESS: &str = "NetworkManager";

impl NetworkPrograms {
    pub(super) fn read(tun: &str) -> Self {
        let is_used = |process: &str, unit: &str| runs_here(process) || starts_here(unit);
        let root = Path::new("/");
        Self {
            networkd: is_used(NETWORKD_PROCESS, "systemd-networkd").then(|| removing_keys(root)),
            network_manager: is_used(NETWORK_MANAGER_PROCESS, "NetworkManager")
                .then(|| may_manage(root, tun)),
        }
    }
}

/// Returns true when a process of this name runs in this network namespace.
fn runs_here(name: &str) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.flatten().any(|process| {
        let path = process.path();
        let comm = std::fs::read_to_string(path.join("comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name) && is_in_this_namespace(&path)
    })
}

/// Returns true when systemd starts a unit at boot, in this network namespace.
fn starts_here(unit: &str) -> bool {
    let link = format!("/etc/systemd/system/multi-user.target.wants/{unit}.service");
    is_in_this_namespace(Path::new("/proc/1")) && Path::new(&link).symlink_metadata().is_ok()
}

fn is_in_this_namespace(process: &Path) -> bool {
    let of = |process: &Path| std::fs::read_link(process.join("ns/net")).ok();
    of(process).is_some_and(|namespace| of(Path::new("/proc/self")) == Some(namespace))
}

/// Lists the keys that are on.
fn removing_keys(root: &Path) -> Vec<RemovingKey> {
    let mut files: Vec<PathBuf> = Vec::new();
    let main = SYSTEMD.map(|directory| root.join(directory).join("networkd.conf"));
    files.extend(main.into_iter().find(|path| path.exists()));
    files.extend(drop_ins(root, &SYSTEMD, "networkd.conf.d"));
    let mut found = REMOVING_KEYS.map(|key| (RemovingKey { key, file: None }, true));
    for path in files {
        for (section, key, value) in entries(&path) {
            for (known, is_on) in &mut found {
                if section == "Network" && key == known.key {
                    *is_on = !is_no(&value);
                    known.file = (!value.is_empty()).then(|| path.clone());
                }
            }
        }
    }
    found.into_iter().filter(|(_, is_on)| *is_on).map(|(key, _)| key).collect()
}

/// Returns true unless NetworkManager's configuration excludes the TUN.
fn may_manage(root: &Path, tun: &str) -> bool {
    let mut files: Vec<PathBuf> = drop_ins(root, &NETWORK_MANAGER[1..], "conf.d");
    files.push(root.join("etc/NetworkManager/NetworkManager.conf"));
    files.extend(drop_ins(root, &NETWORK_MANAGER[..1], "conf.d"));
    let (mut unmanaged, mut devices) = (String::new(), BTreeMap::new());
    for (section, key, value) in files.iter().flat_map(|path| entries(path)) {
        match (section.as_str(), key.as_str()) {
            ("keyfile", "unmanaged-devices") => unmanaged = value,
            ("keyfile", "unmanaged-devices+") => unmanaged = format!("{unmanaged};{value}"),
            (section, key) if section.starts_with("device") => {
                let (devices, managed): &mut (String, String) =
                    devices.entry(section.to_owned()).or_default();
                match key {
                    "match-device" => *devices = value,
                    "managed" => *managed = value,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let excludes = |(devices, managed): &(String, String)| {
        is_no(managed) && (devices.is_empty() || matches_tun(devices, tun))
    };
    !matches_tun(&unmanaged, tun) && !devices.values().any(excludes)
}

/// Returns true when a list of devices has the TUN (NetworkManager.conf(5), "Device List Format").
fn matches_tun(list: &str, tun: &str) -> bool {
    let specs = list.split([',', ';']).map(str::trim).filter(|spec| !spec.is_empty());
    let (mut is_listed, mut has_exceptions, mut has_others) = (false, false, false);
    for spec in specs {
        match spec.strip_prefix("except:") {
            Some(spec) if is_tun(spec, tun) => return false,
            Some(_) => has_exceptions = true,
            None => {
                has_others = true;
                is_listed |= is_tun(spec, tun);
            }
        }
    }
    is_listed || has_exceptions && !has_others
}

fn is_tun(spec: &str, tun: &str) -> bool {
    match spec.split_once(':') {
        Some(("interface-name", pattern)) => match pattern.strip_prefix('=') {
            Some(name) => name == tun,
            None => is_like(tun.as_bytes(), pattern.trim_start_matches('~').as_bytes()),
        },
        Some(("type" | "driver", kind)) => kind == "tun",
        Some(_) => false,
        None => spec == "*",
    }
}

/// Compares a name with a pattern in which `*` stands for any text and `?` for any character.
fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    match (name, pattern) {
        (_, [b'*', rest @ ..]) => (0..=name.len()).any(|start| is_like(&name[start..], rest)),
        ([_, name @ ..], [b'?', pattern @ ..]) => is_like(name, pattern),
        ([one, name @ ..], [other, pattern @ ..]) => one == other && is_like(name, pattern),
        ([], []) => true,
        ([], [_, ..]) | ([_, ..], []) => false,
    }
}

/// Lists the drop-ins by name. A drop-in of an earlier directory replaces others of its name.
fn drop_ins(root: &Path, directories: &[&str], name: &str) -> Vec<PathBuf> {
    let mut by_name = BTreeMap::new();
    for directory in directories {
        let Ok(files) = std::fs::read_dir(root.join(directory).join(name)) else { continue };
        for path in files.flatten().map(|file| file.path()) {
            if path.extension().is_some_and(|extension| extension == "conf") {
                by_name.entry(path.file_name().map(ToOwned::to_owned)).or_insert(path);
            }
        }
    }
    by_name.into_values().collect()
}

/// Returns section, key and value of each line of a file; empty if it cannot be read.
fn entries(path: &Path) -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let (mut section, mut entries) = (String::new(), Vec::new());
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            entries.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    entries
}

fn is_no(value: &str) -> bool {
    ["no", "false", "off", "n", "f", "0"].iter().any(|no| value.eq_ignore_ascii_case(no))
}

#[cfg(test)]
mod tests;
