//! The status of a running instance, its effective configuration, and the result of a reload.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::config::UplinkNumbers;
use crate::host::RoutingIds;
use crate::host::doctor::Finding;

/// An instance at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the instance.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Process ID.
    pub pid: u32,
    /// State of the instance.
    #[serde(default)]
    pub state: InstanceState,
    /// Missing or down interfaces for which the instance waits, as sentences with their keys: the
    /// reason for [`InstanceState::Waiting`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<String>,
    /// Seconds since the instance was ready, or since it began to wait.
    pub uptime_seconds: u64,
    /// TUN device.
    pub tun: TunStatus,
    /// Inside legs, in the order of the configuration.
    #[serde(default)]
    pub inside: Vec<LegStatus>,
    /// Uplinks, in the order of the configuration.
    pub uplinks: Vec<UplinkStatus>,
    /// Sessions.
    pub sessions: SessionStatus,
    /// Number of dynamic mappings.
    pub mappings: usize,
    /// Sums over the workers, by name of the counter.
    pub totals: BTreeMap<String, u64>,
    /// Packets dropped, by reason; reasons that never occurred are missing.
    pub drops: BTreeMap<String, u64>,
    /// Lines of the log and of the mapping log that were dropped because the reader was slow.
    pub log_lines_dropped: u64,
    /// Conditions of the host that a person should look at, as `natbox doctor` reports them.
    #[serde(default)]
    pub warnings: Vec<Finding>,
    /// Each worker.
    pub workers: Vec<WorkerStatus>,
    /// Settings of the host; None with `host.manage: false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostStatus>,
    /// Privileges of the process; None while the instance waits for its interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxStatus>,
    /// Name server, updates and hook; None without `dns` in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsStatus>,
}

/// State of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// The instance translates packets.
    #[default]
    Running,
    /// The instance waits for interfaces, and has changed nothing on the host.
    Waiting,
}

/// The TUN device of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TunStatus {
    /// Interface name.
    pub name: String,
    /// I/O backend in use: `uring` or `poll`; empty while the instance waits.
    pub io: String,
    /// Offload level in use; empty while the instance waits.
    pub offload: String,
}

/// One inside leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegStatus {
    /// Interface towards the private network.
    pub interface: String,
    /// The box's address on the interface; None: the interface has no address.
    pub address: Option<Ipv4Addr>,
    /// True when the interface is up and has a peer.
    pub up: bool,
}

/// One uplink.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Name of the uplink.
    pub name: String,
    /// Interface of the uplink.
    pub interface: String,
    /// First external address; None: the uplink has no address.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// Tier of the uplink.
    #[serde(default = "first_tier")]
    pub tier: u32,
    /// True: new sessions use the uplink. It is healthy, or a last resort, and no lower tier has
    /// such an uplink.
    #[serde(default)]
    pub in_use: bool,
    /// True: no uplink is healthy, and new sessions use this one because it answers.
    #[serde(default)]
    pub last_resort: bool,
    /// True: new sessions may use the uplink while no lower tier has a healthy uplink, and the host
    /// has all settings.
    pub healthy: bool,
    /// Seconds since the uplink became healthy or failed.
    pub state_seconds: u64,
    /// True when the interface is up, has an address and has a next hop.
    pub link_ready: bool,
    /// True: a setting of the host on which the uplink depends is missing.
    #[serde(default)]
    pub setting_missing: bool,
    /// True: the uplink has a health check.
    pub health_check: bool,
    /// Reason why the uplink has failed; None: it is healthy.
    #[serde(default)]
    pub reason: Option<String>,
    /// Seconds that a failed uplink must still answer before it is healthy again; None: nothing
    /// holds it.
    #[serde(default)]
    pub hold_seconds: Option<u64>,
    /// Median round-trip time of the health check's window, in milliseconds with three decimals;
    /// None: no answer yet.
    pub latency_milliseconds: Option<f64>,
    /// Lost share of the health check's last probes in percent, with one decimal; as many probes of
    /// each target as its window has rounds. None: too few probes have ended.
    pub loss_percent: Option<f64>,
}

/// The tier of an uplink of an instance that knows no tiers.
fn first_tier() -> u32 {
    1
}

/// The sessions of an instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Sessions in the table.
    pub now: u32,
    /// Capacity of the table.
    pub capacity: u32,
    /// Sessions created since the start.
    pub created: u64,
    /// Sessions ended by their timeout.
    pub expired: u64,
    /// Sessions ended early because the table was full.
    pub evicted: u64,
    /// Sessions ended because their uplink failed, or so that they return to a recovered uplink
    /// (`on_failure: reset`, `failback: reset`).
    #[serde(default)]
    pub ended_by_failover: u64,
    /// Sessions ended because an address changed or a reload does not allow them.
    #[serde(default)]
    pub ended_by_changes: u64,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Packets dropped, by reason.
    pub drops: BTreeMap<String, u64>,
}

/// The settings that an instance makes on its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Missing settings, as commands or with the reason, each with what depends on it. An uplink
    /// that depends on one of them is not healthy.
    pub missing: Vec<String>,
    /// Number of settings that another program removed and natbox has made again.
    pub restored: u64,
    /// Settings that another program removes again and again, and the usual cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The privileges that the process has left, as the kernel reports them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// The control thread.
    pub control: ThreadPrivileges,
    /// The workers.
    pub workers: ThreadPrivileges,
    /// All other threads.
    pub other_threads: ThreadPrivileges,
    /// True: no thread can gain privileges by running a program.
    pub no_new_privs: bool,
    /// Version of Landlock (ABI) that limits the files; None: the process can open every file that
    /// its user can.
    pub landlock: Option<u32>,
}

/// The privileges of some threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadPrivileges {
    /// Capabilities that any of the threads has.
    pub capabilities: Vec<String>,
    /// Filter that each of the threads has.
    pub seccomp: SystemCallFilter,
}

/// A filter of system calls, from the weakest to the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SystemCallFilter {
    /// None: every system call is possible.
    #[default]
    None,
    /// All system calls but those of a list.
    DenyList,
    /// The system calls of a list and no others.
    AllowList,
}

/// The name server, the updates and the hook of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Addresses of the name server; empty if the configuration has only updates or a hook.
    pub listening: Vec<SocketAddr>,
    /// Names of the uplinks in use: the healthy ones of the lowest tier that has one, or the last
    /// resorts. The published names have their addresses.
    pub in_use: Vec<String>,
    /// Counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Error of the last update, until an update succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_error: Option<String>,
    /// Reason why natbox cannot run the hook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_error: Option<String>,
}

/// The configuration that an instance uses, and the identifiers of its routing tables and rules.
/// Both together determine the state that the host must have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectiveConfig {
    /// Configuration as YAML, with all defaults.
    pub configuration: String,
    /// Identifiers of the instance's routing tables, rules and probe addresses; None while the
    /// instance waits for its interfaces.
    pub routing_ids: Option<RoutingIds>,
    /// Numbers of the uplinks by their names. Routing tables and probe addresses depend on them.
    #[serde(default)]
    pub uplink_numbers: BTreeMap<String, UplinkNumbers>,
}

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Paths of the keys whose values changed; empty: the configuration is the same.
    pub changed: Vec<String>,
    /// Sessions that ended because the new policy does not allow them.
    pub sessions_ended: usize,
    /// Warnings of the new configuration.
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Programs read these keys.
    #[test]
    fn the_json_of_a_status_has_these_keys() {
        let worker = json!({ "counters": { "packets_in": 9 }, "drops": { "table-full": 1 } });
        let status = json!({
            "name": "natbox1",
            "version": "0.1.0",
            "pid": 7,
            "state": "waiting",
            "waiting_for": ["inside.interface: interface lan0 is down"],
            "uptime_seconds": 60,
            "tun": { "name": "nb0", "io": "uring", "offload": "tso+uso" },
            "inside": [{ "interface": "lan0", "address": "10.0.0.1", "up": true }],
            "uplinks": [{
                "name": "isp1",
                "interface": "wan0",
                "address": "203.0.113.10",
                "tier": 1,
                "in_use": true,
                "last_resort": false,
                "healthy": true,
                "state_seconds": 59,
                "link_ready": true,
                "health_check": true,
                "reason": null,
                "hold_seconds": 7,
                "setting_missing": false,
                "latency_milliseconds": 1.5,
                "loss_percent": null,
            }],
            "sessions": { "now": 1, "capacity": 65536, "created": 9, "expired": 2, "evicted": 0,
                "ended_by_failover": 4, "ended_by_changes": 2 },
            "mappings": 1,
            "totals": { "packets_in": 9 },
            "drops": { "table-full": 1 },
            "log_lines_dropped": 0,
            "warnings": [{
                "id": "firewall",
                "severity": "error",
                "found": "the chain `ip filter FORWARD` drops requests of web from wan0",
                "why": "dropped packets never reach natbox, or never leave the box",
                "advice": "",
                "fix": ["nft 'insert rule ip filter FORWARD iifname \"wan0\" accept'"],
            }],
            "workers": [worker],
            "host": {
                "missing": ["ip rule add priority 1008 from all iif lan0 protocol 110 lookup 7100"],
                "restored": 3,
                "error": "another program removed a rule",
            },
            "sandbox": {
                "control": { "capabilities": ["CAP_NET_ADMIN"], "seccomp": "deny-list" },
                "workers": { "capabilities": [], "seccomp": "allow-list" },
                "other_threads": { "capabilities": [], "seccomp": "none" },
                "no_new_privs": true,
                "landlock": 6,
            },
            "dns": {
                "listening": ["203.0.113.10:53"],
                "in_use": ["isp1"],
                "counters": { "queries": 4 },
                "update_error": "the server does not answer",
                "hook_error": "the hook cannot run",
            },
        });
        let read: Status = serde_json::from_value(status.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), status);
    }

    #[test]
    fn the_errors_of_dns_are_absent_while_there_are_none() {
        let dns = DnsStatus {
            listening: Vec::new(),
            in_use: Vec::new(),
            counters: BTreeMap::new(),
            update_error: None,
            hook_error: None,
        };
        let text = serde_json::to_value(dns).unwrap();
        let keys: Vec<&String> = text.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["counters", "in_use", "listening"]);
        assert_eq!(text["listening"], Value::Array(Vec::new()));
    }
}
