//! Checks that systemd-networkd and NetworkManager leave natbox's settings alone.

use crate::host::doctor::facts::box_facts::BoxFacts;
use crate::host::doctor::facts::network_programs::RemovingKey;
use crate::host::doctor::finding::Finding;

/// A drop-in that comes after most others by its name.
const NETWORKD_FILE: &str = "/etc/systemd/networkd.conf.d/zz-natbox.conf";
const NETWORK_MANAGER_FILE: &str = "/etc/NetworkManager/conf.d/zz-natbox.conf";

pub(super) fn evaluate(facts: &BoxFacts) -> Vec<Finding> {
    let programs = &facts.network_programs;
    let networkd = programs.networkd.as_deref().map(networkd);
    let tun = &facts.config.tun.name;
    let manager = programs.network_manager.map(|manages| network_manager(manages, tun));
    networkd.into_iter().chain(manager).collect()
}

fn networkd(removing: &[RemovingKey]) -> Finding {
    if removing.is_empty() {
        return Finding::ok("networkd", "systemd-networkd leaves natbox's rules and routes alone");
    }
    let keys = removing.iter().map(|found| match &found.file {
        Some(file) => format!("{} (on in {})", found.key, file.display()),
        None => format!("{} (on by default)", found.key),
    });
    let found = format!(
        "systemd-networkd removes rules and routes of other programs: {}",
        keys.collect::<Vec<_>>().join(", ")
    );
    let why = "when systemd-networkd starts or an interface changes, it removes natbox's settings, \
               and packets are lost until they are set again";
    let lines: Vec<String> = removing.iter().map(|found| format!("{}=no", found.key)).collect();
    let others = removing.iter().filter_map(|found| found.file.as_ref()).next();
    let first = match others {
        Some(_) => "correct the files, or set these lines",
        None => "set these lines",
    };
    Finding::warning("networkd", found, why).advice(format!(
        "{first} below [Network] in {NETWORKD_FILE}: {}; then: systemctl restart systemd-networkd",
        lines.join(", ")
    ))
}

fn network_manager(manages: bool, tun: &str) -> Finding {
    const ID: &str = "network-manager";
    if !manages {
        return Finding::ok(ID, format!("NetworkManager leaves {tun} alone"));
    }
    let found = format!("NetworkManager may configure the TUN device {tun}");
    let why = "it may remove the device's addresses and routes or set it down, and packets are lost \
               until natbox sets them again";
    Finding::warning(ID, found, why).advice(format!(
        "set this line below [keyfile] in {NETWORK_MANAGER_FILE}: \
         unmanaged-devices+=interface-name:{tun}; then: systemctl reload NetworkManager"
    ))
}
