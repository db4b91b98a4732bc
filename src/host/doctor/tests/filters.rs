//! Rules of other programs.

use std::collections::BTreeSet;

use super::conntrack::{INPUT, notrack};
use super::*;
use crate::host::doctor::checks::filters::no_obstacle;
use crate::host::doctor::nft::filters::FilterOutcome;
use crate::host::doctor::nft::packet::FilteredPacket;
use crate::host::doctor::nft::ruleset::parse;
use crate::host::model::facts::HostFacts;

pub(super) fn ruleset(items: &str) -> Filters {
    let text = format!(r#"{{ "nftables": [ {{ "metainfo": {{}} }}, {items} ] }}"#);
    Filters { chains: parse(&text).expect("JSON"), ..Filters::default() }
}

pub(super) fn chain(name: &str, more: &str) -> String {
    format!(r#"{{ "chain": {{ "family": "ip", "table": "t", "name": "{name}" {more} }} }}"#)
}

pub(super) fn rule(chain: &str, expressions: &str) -> String {
    format!(
        r#"{{ "rule": {{ "family": "ip", "table": "t", "chain": "{chain}", "expr": [ {expressions} ] }} }}"#
    )
}

pub(super) fn is(left: &str, right: &str) -> String {
    format!(r#"{{ "match": {{ "op": "==", "left": {left}, "right": {right} }} }}"#)
}

pub(super) fn outcomes(
    filters: &Filters,
    hook: &str,
    packet: &FilteredPacket<'_>,
) -> Vec<FilterOutcome> {
    filters.obstacles(hook, packet, &mut BTreeSet::new()).iter().map(|found| found.1).collect()
}

pub(super) const FORWARD: &str = r#", "type": "filter", "hook": "forward", "policy": "drop""#;
pub(super) const IIF: &str = r#"{ "meta": { "key": "iifname" } }"#;
pub(super) const STATE: &str = r#"{ "ct": { "key": "state" } }"#;
pub(super) const PORT: &str = r#"{ "payload": { "protocol": "tcp", "field": "dport" } }"#;
pub(super) const TO: &str = r#"{ "payload": { "protocol": "ip", "field": "daddr" } }"#;
pub(super) const ACCEPT: &str = r#"{ "accept": null }"#;

#[test]
fn the_verdict_of_a_chain_follows_its_rules() {
    let packet = FilteredPacket {
        iif: Some("wan0"),
        oif: Some("nb0"),
        to: Some(Ipv4Addr::new(203, 0, 113, 10)),
        protocol: Some("tcp"),
        port: Some(80),
        ..FilteredPacket::default()
    };
    let reply = FilteredPacket {
        iif: Some("nb0"),
        oif: Some("wan0"),
        reply: true,
        ..FilteredPacket::default()
    };
    let outcome = |rules: &[String], packet: &FilteredPacket<'_>| {
        let items =
            [chain("F", FORWARD), chain("sub", "")].into_iter().chain(rules.iter().cloned());
        let filters = ruleset(&items.collect::<Vec<_>>().join(","));
        outcomes(&filters, "forward", packet).first().copied().unwrap_or(FilterOutcome::Passes)
    };
    let accept_if = |condition: String| vec![rule("F", &format!("{condition}, {ACCEPT}"))];
    assert_eq!(outcome(&[], &packet), FilterOutcome::Dropped, "the policy");
    for (condition, expected) in [
        (is(IIF, r#""wan0""#), FilterOutcome::Passes),
        (is(IIF, r#""wan*""#), FilterOutcome::Passes),
        (is(IIF, r#"{ "set": ["lan0", "wan0"] }"#), FilterOutcome::Passes),
        (is(IIF, r#""lan0""#), FilterOutcome::Dropped),
        (is(IIF, r#""@links""#), FilterOutcome::Uncertain),
        (is(PORT, "80"), FilterOutcome::Passes),
        (is(PORT, r#"{ "range": [1, 79] }"#), FilterOutcome::Dropped),
        (is(TO, r#"{ "prefix": { "addr": "203.0.113.0", "len": 24 } }"#), FilterOutcome::Passes),
        (is(TO, r#"{ "range": ["203.0.113.11", "203.0.113.20"] }"#), FilterOutcome::Dropped),
        (is(STATE, r#"["established", "related"]"#), FilterOutcome::Dropped),
        (is(STATE, r#"["new"]"#), FilterOutcome::Passes),
        (r#"{ "limit": { "rate": 1 } }"#.into(), FilterOutcome::Uncertain),
        (is(r#"{ "meta": { "key": "mark" } }"#, "1"), FilterOutcome::Uncertain),
    ] {
        assert_eq!(outcome(&accept_if(condition.clone()), &packet), expected, "{condition}");
    }
    let established = accept_if(is(STATE, r#"["established"]"#));
    assert_eq!(outcome(&established, &reply), FilterOutcome::Passes, "a reply");
    let not_lan = is(IIF, r#""lan0""#).replace("==", "!=");
    assert_eq!(outcome(&accept_if(not_lan), &packet), FilterOutcome::Passes);

    let jump = rule("F", r#"{ "jump": { "target": "sub" } }"#);
    let accepted = rule("sub", &format!("{}, {ACCEPT}", is(IIF, r#""wan0""#)));
    assert_eq!(outcome(&[jump.clone(), accepted], &packet), FilterOutcome::Passes);
    let left = rule("sub", r#"{ "return": null }"#);
    assert_eq!(outcome(&[jump, left, rule("F", ACCEPT)], &packet), FilterOutcome::Passes);
    let loops = [
        rule("F", r#"{ "jump": { "target": "sub" } }"#),
        rule("sub", r#"{ "jump": { "target": "sub" } }"#),
    ];
    assert_eq!(outcome(&loops, &packet), FilterOutcome::Uncertain);
}

#[test]
fn nat_rules_rewrite_the_first_packet_and_no_reply() {
    let nat = chain("P", r#", "type": "nat", "hook": "postrouting", "policy": "accept""#);
    let masquerade = rule(
        "P",
        &format!(
            "{}, {{ \"masquerade\": null }}",
            is(r#"{ "meta": { "key": "oifname" } }"#, r#""wan0""#)
        ),
    );
    let filters = ruleset(&[nat, masquerade].join(","));
    let leaving =
        FilteredPacket { iif: Some("nb0"), oif: Some("wan0"), ..FilteredPacket::default() };
    let outcomes = |packet: &FilteredPacket<'_>| outcomes(&filters, "postrouting", packet);
    assert_eq!(outcomes(&leaving), [FilterOutcome::Rewritten]);
    assert_eq!(outcomes(&FilteredPacket { reply: true, ..leaving.clone() }), []);
    assert_eq!(outcomes(&FilteredPacket { oif: Some("lan0"), ..leaving }), []);
    assert!(parse("nonsense").is_none());
}

/// A chain with the policy accept and one rule of these expressions.
fn one_rule(hook: &str, expressions: &str) -> Filters {
    let chain = chain("C", &format!(r#", "type": "filter", "hook": "{hook}", "policy": "accept""#));
    ruleset(&[chain, rule("C", expressions)].join(","))
}

/// A request for port 80, on the way to natbox.
pub(super) fn request() -> FilteredPacket<'static> {
    FilteredPacket {
        iif: Some("wan0"),
        oif: Some("nb0"),
        to: Some(Ipv4Addr::new(203, 0, 113, 1)),
        protocol: Some("tcp"),
        port: Some(80),
        ..FilteredPacket::default()
    }
}

/// The reply to [`request`].
pub(super) fn reply() -> FilteredPacket<'static> {
    FilteredPacket {
        iif: Some("nb0"),
        oif: Some("wan0"),
        from: Some(Ipv4Addr::new(203, 0, 113, 1)),
        protocol: Some("tcp"),
        source_port: Some(80),
        reply: true,
        ..FilteredPacket::default()
    }
}

fn outcome(expressions: &str, packet: &FilteredPacket<'_>) -> FilterOutcome {
    outcomes(&one_rule("forward", expressions), "forward", packet)
        .first()
        .copied()
        .unwrap_or(FilterOutcome::Passes)
}

fn flags(operator: &str, mask: &str, wanted: &str) -> String {
    let flags = r#"{ "payload": { "protocol": "tcp", "field": "flags" } }"#;
    let left =
        if mask.is_empty() { flags.to_owned() } else { format!(r#"{{ "&": [{flags}, {mask}] }}"#) };
    format!(
        r#"{{ "match": {{ "op": "{operator}", "left": {left}, "right": {wanted} }} }}, {{ "drop": null }}"#
    )
}

#[test]
fn iptables_targets_have_verdicts() {
    for (target, expected) in [
        ("REJECT", FilterOutcome::Dropped),
        ("DROP", FilterOutcome::Dropped),
        ("MASQUERADE", FilterOutcome::Rewritten),
        ("SNAT", FilterOutcome::Rewritten),
        ("DNAT", FilterOutcome::Rewritten),
        ("REDIRECT", FilterOutcome::Rewritten),
        ("LOG", FilterOutcome::Passes),
        ("TCPMSS", FilterOutcome::Passes),
        ("SYNPROXY", FilterOutcome::Uncertain),
    ] {
        let target = format!(
            r#"{{ "counter": {{}} }}, {{ "xt": {{ "type": "target", "name": "{target}" }} }}"#
        );
        assert_eq!(outcome(&target, &request()), expected, "{target}");
        let some = format!(r#"{{ "xt": {{ "type": "match", "name": "statistic" }} }}, {target}"#);
        let perhaps =
            if expected == FilterOutcome::Rewritten { FilterOutcome::Uncertain } else { expected };
        assert_eq!(
            outcome(&some, &request()),
            if expected == FilterOutcome::Dropped { FilterOutcome::Passes } else { perhaps },
            "{some}"
        );
    }
    assert_eq!(
        outcome(r#"{ "xt": null }"#, &request()),
        FilterOutcome::Uncertain,
        "nft without the iptables extensions"
    );
}

#[test]
fn verdict_maps_apply_where_the_key_is_known() {
    let vmap = |key: &str, pairs: &str| {
        format!(r#"{{ "vmap": {{ "key": {key}, "data": {{ "set": [{pairs}] }} }} }}"#)
    };
    let pair = |key: &str, verdict: &str| format!(r#"[{key}, {{ "{verdict}": null }}]"#);
    let both =
        r#"{ "concat": [{ "meta": { "key": "iifname" } }, { "meta": { "key": "oifname" } }] }"#;
    let good = [
        vmap(IIF, &[pair(r#""wan0""#, "accept"), pair(r#""*""#, "drop")].join(",")),
        vmap(STATE, &[pair(r#""established""#, "accept"), pair(r#""new""#, "accept")].join(",")),
        vmap(PORT, &pair("80", "accept")),
        vmap(both, &pair(r#"{ "concat": ["wan0", "nb0"] }"#, "accept")),
    ];
    for map in good {
        let filters = ruleset(&[chain("F", FORWARD), rule("F", &map)].join(","));
        assert_eq!(outcomes(&filters, "forward", &request()), [], "{map}");
    }
    let bad = [
        (vmap(IIF, &pair(r#""wan0""#, "drop")), FilterOutcome::Dropped),
        (
            vmap(IIF, &[pair(r#""lan0""#, "accept"), pair(r#""*""#, "drop")].join(",")),
            FilterOutcome::Dropped,
        ),
        (vmap(IIF, &pair(r#""lan0""#, "drop")), FilterOutcome::Passes),
        (vmap(PORT, &pair(r#"{ "range": [90, 100] }"#, "drop")), FilterOutcome::Passes),
        (vmap(r#"{ "meta": { "key": "mark" } }"#, &pair("1", "drop")), FilterOutcome::Passes),
    ];
    for (map, expected) in bad {
        assert_eq!(outcome(&map, &request()), expected, "{map}");
    }
    let by_name = format!(r#"{{ "vmap": {{ "key": {IIF}, "data": "@links" }} }}"#);
    assert_eq!(outcome(&by_name, &request()), FilterOutcome::Uncertain);
}

#[test]
fn rates_sets_and_counts_leave_doubts() {
    let ip = r#"{ "payload": { "protocol": "ip", "field": "saddr" } }"#;
    for asked in [
        r#"{ "ct count": { "val": 1000, "inv": true } }"#.to_owned(),
        format!(r#"{{ "set": {{ "op": "add", "elem": {ip}, "set": "@m", "stmt": [{{ "limit": {{ "rate": 1 }} }}] }} }}"#),
        r#"{ "quota": { "val": 5, "inv": true } }"#.into(),
        is(ip, r#""@bad""#),
        r#"{ "match": { "op": "==", "left": { "fib": { "result": "oif", "flags": ["saddr"] } }, "right": false } }"#.into(),
    ] {
        let filters = one_rule("forward", &format!(r#"{asked}, {{ "drop": null }}"#));
        let mut doubts = BTreeSet::new();
        assert_eq!(filters.obstacles("forward", &request(), &mut doubts), [], "{asked}");
        let said = no_obstacle(&filters, &doubts).unwrap();
        assert!(said.found.contains("1 may drop some of them"), "{said:?}");
    }
    assert_eq!(
        outcome(r#"{ "synproxy": { "mss": 1460 } }"#, &request()),
        FilterOutcome::Uncertain,
        "the kernel answers for the server"
    );
    assert_eq!(
        outcome(r#"{ "queue": { "num": 0 } }"#, &request()),
        FilterOutcome::Uncertain,
        "a program decides"
    );
    let none = no_obstacle(&Filters::default(), &BTreeSet::new()).unwrap();
    assert_eq!(none.found, "no rule of nftables drops or rewrites natbox's packets");
}

#[test]
fn source_ports_of_replies_and_flags_of_first_packets_are_known() {
    let from = |port: u16| {
        format!(
            r#"{}, {{ "drop": null }}"#,
            is(r#"{ "payload": { "protocol": "tcp", "field": "sport" } }"#, &port.to_string())
        )
    };
    assert_eq!(
        (outcome(&from(80), &reply()), outcome(&from(81), &reply())),
        (FilterOutcome::Dropped, FilterOutcome::Passes)
    );
    assert_eq!(outcome(&from(80), &request()), FilterOutcome::Passes, "a client may have any port");
    let at_least = format!("{}, {ACCEPT}", is(PORT, "1024").replace("==", ">="));
    let filters = ruleset(&[chain("F", FORWARD), rule("F", &at_least)].join(","));
    assert_eq!(outcomes(&filters, "forward", &request()), [FilterOutcome::Dropped]);
    for (expressions, of_request, of_reply) in [
        (
            flags("==", r#"["syn", "ack"]"#, r#""syn""#),
            FilterOutcome::Dropped,
            FilterOutcome::Passes,
        ),
        (
            flags("!=", r#"["fin", "syn", "rst", "ack"]"#, r#""syn""#),
            FilterOutcome::Passes,
            FilterOutcome::Dropped,
        ),
        (flags("in", "", r#""syn""#), FilterOutcome::Dropped, FilterOutcome::Dropped),
        (flags("==", "", r#""syn""#), FilterOutcome::Dropped, FilterOutcome::Passes),
        (
            flags("==", r#"{ "|": ["syn", "ack"] }"#, r#"["syn", "ack"]"#),
            FilterOutcome::Passes,
            FilterOutcome::Dropped,
        ),
    ] {
        let found = (outcome(&expressions, &request()), outcome(&expressions, &reply()));
        assert_eq!(found, (of_request, of_reply), "{expressions}");
    }
    let udp = FilteredPacket { protocol: Some("udp"), ..request() };
    assert_eq!(outcome(&flags("in", "", r#""syn""#), &udp), FilterOutcome::Passes);
}

#[test]
fn ingress_chains_apply_to_their_devices() {
    let at = |device: &str| {
        let device =
            if device.is_empty() { String::new() } else { format!(r#", "dev": "{device}""#) };
        let chain = format!(
            r#"{{ "chain": {{ "family": "netdev", "table": "t", "name": "I", "type": "filter", "hook": "ingress",
                "policy": "accept" {device} }} }}"#
        );
        let dropped =
            is(r#"{ "payload": { "protocol": "ip", "field": "daddr" } }"#, r#""203.0.113.1""#);
        let rule = format!(
            r#"{{ "rule": {{ "family": "netdev", "table": "t", "chain": "I", "expr": [ {dropped}, {{ "drop": null }} ] }} }}"#
        );
        ruleset(&[chain, rule].join(","))
    };
    assert_eq!(outcomes(&at("wan0"), "ingress", &request()), [FilterOutcome::Dropped]);
    assert_eq!(outcomes(&at("lan0"), "ingress", &request()), []);
    assert_eq!(
        outcomes(&at(""), "ingress", &request()),
        [FilterOutcome::Uncertain],
        "an old nft does not print the device"
    );
    let mut facts = box_checks::good_box();
    facts.filters = at("wan0");
    let errors = errors(box_checks::evaluate(&facts));
    assert_eq!(
        errors[0].fix,
        [r#"nft 'insert rule netdev t I iifname "wan0" ip daddr 203.0.113.1 accept'"#]
    );
}

#[test]
fn the_boxs_own_packets_must_pass_the_hosts_chains() {
    let drops_dns = |port: &str| {
        let udp = r#"{ "payload": { "protocol": "udp", "field": "dport" } }"#;
        let input = chain("I", r#", "type": "filter", "hook": "input", "policy": "accept""#);
        ruleset(&[input, rule("I", &format!(r#"{}, {{ "drop": null }}"#, is(udp, port)))].join(","))
    };
    let mut facts = box_checks::good_box();
    let dns = "dns: { zone: example.org, names: [{ name: '@' }], \
               name_servers: [{ name: ns1, address: 203.0.113.1 }, { name: ns2, address: 198.51.100.1 }] }";
    facts.config = config_with(1, FIRST, Some(100), "", dns);
    facts.host = HostFacts::assumed(&facts.config).0;
    let fix = [r#"nft 'insert rule ip t I iifname "nb0" accept'"#];
    facts.filters = drops_dns("53");
    assert_eq!(
        errors(box_checks::evaluate(&facts)),
        [],
        "the name server has another port, at the probe address"
    );
    facts.filters = ruleset(&chain("I", INPUT));
    assert_eq!(errors(box_checks::evaluate(&facts))[0].fix, fix);
    let open = format!("{}, {ACCEPT}", is(PORT, "53").replace("tcp", "udp"));
    facts.filters = ruleset(&[chain("I", INPUT), rule("I", &open)].join(","));
    assert_eq!(
        errors(box_checks::evaluate(&facts))[0].fix,
        fix,
        "accepting that port does not help"
    );
    facts.host.assigned_to_host[0][0] = true;
    facts.filters = drops_dns("53");
    assert_eq!(errors(box_checks::evaluate(&facts))[0].fix, fix);
    assert!(
        errors(box_checks::evaluate(&facts))[0]
            .found
            .contains("queries (udp) to the name server at 203.0.113.1")
    );

    // Replies to health checks belong to a tracked connection of the host, unless a `notrack` rule
    // matches.
    facts.config = config_with(1, FIRST, Some(100), ", health: { ping: [192.0.2.1] }", "");
    facts.host = HostFacts::assumed(&facts.config).0;
    let stateful =
        [chain("I", INPUT), rule("I", &format!("{}, {ACCEPT}", is(STATE, r#"["established"]"#)))]
            .join(",");
    facts.filters = ruleset(&stateful);
    assert_eq!(errors(box_checks::evaluate(&facts)), []);
    let other_port = rule("I", &format!("{}, {ACCEPT}", is(PORT, "22")));
    facts.filters = ruleset(&[stateful, other_port, notrack()].join(","));
    assert!(
        errors(box_checks::evaluate(&facts))[0].found.contains("replies to the health checks of"),
        "{:?}",
        errors(box_checks::evaluate(&facts))
    );
}
