//! The places that do not follow a rule yet. The lists only shrink: a check fails when an entry is
//! not needed.

use crate::Family;

/// "from > to", or the path of a file that is in no folder of the table yet.
pub(crate) const UPWARD_IMPORTS: &[&str] = &[
    "src/host/error.rs",
    "src/host/facts.rs",
    "src/host/journal.rs",
    "src/host/lifecycle.rs",
    "src/host/listeners.rs",
    "src/host/look.rs",
    "src/host/netlink.rs",
    "src/host/numbers.rs",
    "src/host/plan.rs",
    "src/host/plan_server.rs",
    "src/host/snapshot.rs",
    "src/host/steps.rs",
    "src/host/sysctl.rs",
    "src/host/watch.rs",
    "src/host/ways.rs",
];

/// The files of a circle, sorted.
pub(crate) const CIRCLES: &[&str] = &[
    "src/cli/check.rs \
     src/cli/config.rs \
     src/cli/doctor/mod.rs \
     src/cli/mod.rs \
     src/cli/plan.rs \
     src/cli/run.rs",
    "src/cli/demo/failover.rs \
     src/cli/demo/mod.rs \
     src/cli/demo/report.rs \
     src/cli/demo/scenario.rs",
    "src/cli/exit.rs \
     src/cli/output.rs",
    "src/config/checks.rs \
     src/config/cursor.rs \
     src/config/dns.rs \
     src/config/dns/check.rs \
     src/config/dns/read.rs \
     src/config/forwards.rs \
     src/config/mod.rs \
     src/config/model.rs \
     src/config/network.rs \
     src/config/sections.rs \
     src/config/tree.rs \
     src/config/unimplemented_keys.rs \
     src/config/uplinks.rs \
     src/config/values.rs \
     src/config/words.rs",
    "src/control/admin/client.rs \
     src/control/admin/mod.rs",
    "src/dns/update.rs \
     src/dns/update/exchange.rs",
    "src/engine/mod.rs \
     src/engine/worker.rs",
    "src/host/doctor/box_firewall.rs \
     src/host/doctor/box_judged.rs \
     src/host/doctor/box_seen.rs \
     src/host/doctor/conntrack.rs \
     src/host/doctor/filters.rs \
     src/host/doctor/legs.rs \
     src/host/doctor/mod.rs \
     src/host/doctor/rules.rs \
     src/host/doctor/server_judged.rs \
     src/host/doctor/server_seen.rs",
    "src/host/facts.rs \
     src/host/numbers.rs \
     src/host/snapshot.rs \
     src/host/steps.rs",
    "src/host/look.rs \
     src/host/netlink.rs \
     src/host/plan.rs",
    "src/lab/child.rs \
     src/lab/mod.rs \
     src/lab/registry.rs",
    "src/nat/table/index.rs \
     src/nat/table/region.rs",
    "src/packet/icmp.rs \
     src/packet/parse.rs \
     src/packet/tcp.rs",
];

/// Files with too many lines.
pub(crate) const LONG_FILES: &[&str] = &[
    "src/config/model.rs",
    "src/config/sections.rs",
    "src/control/lifecycle.rs",
    "src/host/doctor/server_judged.rs",
    "src/host/netlink.rs",
    "src/host/steps.rs",
    "src/lab/mod.rs",
    "src/nat/mapping/mappings.rs",
];

/// File and function.
pub(crate) const LONG_FUNCTIONS: &[&str] = &[
    "src/cli/demo/failover.rs play",
    "src/cli/demo/mod.rs perform",
    "src/cli/status.rs text",
    "src/config/dns/check.rs check",
    "src/config/emit.rs from",
    "src/config/forwards.rs published_endpoints",
    "src/control/lifecycle.rs run_box",
    "src/control/settings.rs settings",
    "src/dns/update.rs follow",
    "src/host/doctor/box_firewall.rs own",
    "src/host/doctor/box_judged.rs passages",
    "src/host/doctor/server_judged.rs replies",
    "src/host/doctor/server_judged.rs firewall",
    "src/host/facts.rs look_for_trouble",
    "src/host/numbers.rs free_on",
    "benches/comparison/main.rs main",
    "benches/comparison/report.rs picture",
    "benches/engine.rs engine",
];

/// File and the function around the `select!`.
pub(crate) const WIDE_SELECTS: &[&str] = &["src/control/lifecycle.rs run_box"];

/// Type and the top-level modules that define one of this name.
pub(crate) const SHARED_NAMES: &[&str] = &[
    "Answer dns lab",
    "Entry config host nat",
    "Event control engine",
    "Failover cli control",
    "Fields config packet",
    "Found host host",
    "Frame io lab",
    "Header host packet",
    "Health config control",
    "Journal host lab",
    "Key dns nat",
    "Node config dns",
    "Packet host nat",
    "Prepared dns host",
    "Record dns nat",
    "Request control lab",
    "Response dns lab",
    "Rule host host",
    "Server control lab",
    "Settings dns nat",
    "Span config time",
    "State config host nat",
    "Tun config io",
    "Uplink config lab nat",
    "UplinkStates dns nat",
    "Verdict host nat",
];

pub(crate) const FAMILIES: &[Family] = &[
    Family {
        idea: "a value of the configuration file, and the same value in the translator's terms",
        rooms: &["config", "nat"],
        names: &[
            "EndpointDependence",
            "Forward",
            "ForwardProtocol",
            "HashBy",
            "MssClamp",
            "NoNatRule",
            "OutboundRule",
            "Timeouts",
        ],
    },
    Family { idea: "arguments of a command", rooms: &["cli"], names: &["Arguments"] },
    Family { idea: "counters of a subsystem", rooms: &["dns", "nat"], names: &["Counters"] },
];
