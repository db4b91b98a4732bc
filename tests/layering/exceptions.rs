//! The places that do not follow a rule yet. The lists only shrink: a check fails when an entry is
//! not needed.

use crate::Family;

/// "from > to", or the path of a file that is in no folder of the table yet.
pub(crate) const UPWARD_IMPORTS: &[&str] = &[
    "src/host/apply/compare.rs > src/host/render/plan.rs",
    "src/host/error.rs",
    "src/host/kernel/netlink.rs > src/host/render/plan.rs",
    "src/host/model/facts.rs > src/host/kernel/listeners.rs",
    "src/host/model/facts.rs > src/host/kernel/sysctl.rs",
];

/// The files of a circle, sorted.
pub(crate) const CIRCLES: &[&str] = &[
    "src/host/apply/compare.rs \
     src/host/kernel/netlink.rs \
     src/host/render/plan.rs",
    "src/host/doctor/checks/box_checks.rs \
     src/host/doctor/checks/box_firewall.rs \
     src/host/doctor/checks/conntrack.rs \
     src/host/doctor/checks/server_checks.rs \
     src/host/doctor/facts/box_facts.rs \
     src/host/doctor/facts/links.rs \
     src/host/doctor/facts/server_facts.rs \
     src/host/doctor/mod.rs \
     src/host/doctor/nft/filters.rs \
     src/host/doctor/nft/rules.rs",
    "src/host/model/facts.rs \
     src/host/model/routing_ids.rs \
     src/host/model/snapshot.rs \
     src/host/model/steps.rs",
];

/// Files with too many lines.
pub(crate) const LONG_FILES: &[&str] = &[
    "src/host/doctor/checks/server_checks.rs",
    "src/host/kernel/netlink.rs",
    "src/host/model/steps.rs",
];

/// File and function.
pub(crate) const LONG_FUNCTIONS: &[&str] = &[
    "benches/comparison/main.rs main",
    "benches/comparison/report.rs picture",
    "benches/engine.rs engine",
    "src/host/apply/compare.rs compare",
    "src/host/doctor/checks/box_checks.rs passages",
    "src/host/doctor/checks/box_firewall.rs own",
    "src/host/doctor/checks/server_checks.rs firewall",
    "src/host/doctor/checks/server_checks.rs replies",
    "src/host/doctor/facts/box_facts.rs collect",
    "src/host/model/facts.rs look_for_trouble",
    "src/host/model/routing_ids.rs allocate",
    "src/host/render/plan.rs plan_box",
];

/// File and the function around the `select!`.
pub(crate) const WIDE_SELECTS: &[&str] = &[];

/// Type and the top-level modules that define one of this name.
pub(crate) const SHARED_NAMES: &[&str] = &[
    "Entry config nat",
    "Header host packet",
    "Packet host nat",
    "Rule host host",
    "Span config time",
    "State config host nat",
    "Uplink config nat",
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
            "Limits",
            "MssClamp",
            "NoNatRule",
            "OutboundRule",
            "PortRange",
            "Timeouts",
        ],
    },
    Family {
        idea: "the present state of the uplinks: all of it, and what the packet path needs of it",
        rooms: &["nat", "uplinks"],
        names: &["UplinkStates"],
    },
    Family { idea: "counters of a subsystem", rooms: &["dns", "nat"], names: &["Counters"] },
];
