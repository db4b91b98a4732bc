//! Connection tracking beside natbox.

use super::filters::{ACCEPT, FORWARD, IIF, STATE, TO, chain, is, outcomes, reply, rule, ruleset};
use super::*;
use crate::host::doctor::checks::conntrack::{of_box, of_server};
use crate::host::doctor::checks::filters::unreadable;
use crate::host::doctor::nft::filters::{ConntrackUsage, FilterOutcome};

/// A chain before connection tracking.
const RAW: &str = r#", "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept""#;
/// An input chain that drops what no rule accepts.
pub(super) const INPUT: &str = r#", "type": "filter", "hook": "input", "policy": "drop""#;

/// The rules of the commands that doctor prints.
pub(super) fn notrack() -> String {
    let elsewhere = is(TO, r#"{ "set": [{ "prefix": { "addr": "10.0.0.0", "len": 24 } }] }"#)
        .replace("==", "!=");
    let rules = [
        is(IIF, r#""nb0""#),
        format!("{}, {elsewhere}", is(IIF, r#""lan0""#)),
        format!("{}, {}", is(IIF, r#""wan0""#), is(TO, r#""203.0.113.1""#)),
    ];
    let rules =
        rules.map(|condition| rule("raw", &format!(r#"{condition}, {{ "notrack": null }}"#)));
    [chain("raw", RAW), rules.join(",")].join(",")
}

/// A table of 1000 connections.
fn usage(count: u64) -> ConntrackUsage {
    ConntrackUsage { count, max: 1000 }
}

#[test]
fn a_rule_that_matches_a_state_never_matches_an_untracked_packet() {
    let stateful = [
        chain("F", FORWARD),
        rule("F", &format!("{}, {ACCEPT}", is(STATE, r#"["established", "new"]"#))),
    ];
    assert_eq!(outcomes(&ruleset(&stateful.join(",")), "forward", &reply()), []);
    let both = ruleset(&[stateful.join(","), notrack()].join(","));
    assert_eq!(outcomes(&both, "forward", &reply()), [FilterOutcome::Dropped]);
    let unknown = rule("raw", r#"{ "xt": { "type": "target", "name": "CT" } }"#);
    let perhaps = ruleset(&[stateful.join(","), chain("raw", RAW), unknown].join(","));
    assert_eq!(outcomes(&perhaps, "forward", &reply()), [FilterOutcome::Uncertain]);
    let late = notrack().replace("-300", "-150");
    assert_eq!(
        outcomes(&ruleset(&[stateful.join(","), late].join(",")), "forward", &reply()),
        [],
        "tracked by then"
    );
}

#[test]
fn the_fix_exempts_natbox_from_tracking_unless_a_rule_matches_a_state() {
    let of = |filters: Filters, conntrack| {
        let mut facts = box_checks::good_box();
        facts.filters = Filters { conntrack: Some(conntrack), ..filters };
        of_box(&facts)
    };
    let nat =
        chain("P", r#", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept""#);
    let stateful =
        [chain("I", INPUT), rule("I", &format!("{}, {ACCEPT}", is(STATE, r#"["established"]"#)))]
            .join(",");
    let old_entries = of(Filters::default(), usage(5));
    assert_eq!(
        old_entries.severity,
        Severity::Ok,
        "no rule makes the kernel track: {old_entries:?}"
    );
    let beside = of(ruleset(&nat), usage(0));
    assert_eq!(beside.severity, Severity::Warning);
    assert_eq!(
        beside.fix[2..],
        [
            r#"nft 'add rule ip natbox untracked iifname "nb0" notrack'"#,
            r#"nft 'add rule ip natbox untracked iifname "lan0" ip daddr != { 10.0.0.0/24 } notrack'"#,
            r#"nft 'add rule ip natbox untracked iifname "wan0" ip daddr { 203.0.113.1 } notrack'"#,
        ]
    );
    let untracked = of(ruleset(&[nat.clone(), notrack()].join(",")), usage(5));
    assert_eq!(untracked.severity, Severity::Ok, "the commands are in place: {untracked:?}");
    let asked = of(ruleset(&stateful), usage(5));
    assert_eq!((asked.severity, asked.fix.len()), (Severity::Warning, 0), "{asked:?}");
    let by_iptables = rule("P", r#"{ "xt": { "type": "match", "name": "conntrack" } }"#);
    assert!(of(ruleset(&[nat.clone(), by_iptables].join(",")), usage(5)).fix.is_empty());
    let full = of(ruleset(&stateful), usage(950));
    assert_eq!(
        (full.severity, full.fix),
        (Severity::Error, vec!["sysctl -w net.netfilter.nf_conntrack_max=4000".to_owned()])
    );
    let mut assigned = box_checks::good_box();
    assigned.host.assigned_to_host[0][0] = true;
    assigned.filters = Filters { conntrack: Some(usage(5)), ..ruleset(&nat) };
    assert!(
        of_box(&assigned).fix.is_empty(),
        "another program may translate the host's connections"
    );

    let server = |conntrack| of_server(&Filters { conntrack, ..Filters::default() }).severity;
    assert_eq!((server(None), server(Some(usage(5)))), (Severity::Ok, Severity::Ok));
    assert_eq!(server(Some(usage(950))), Severity::Error);
    let blind = Filters { unreadable: Some("no nft".into()), legacy: true, ..Filters::default() };
    assert_eq!(unreadable(&blind).len(), 2);
}
