//! Of rules of others, and of connection tracking.

use std::collections::BTreeSet;

use super::*;
use crate::host::doctor::checks::conntrack;
use crate::host::doctor::nft::filters::{FilterOutcome, Packet, no_obstacle, not_looked_at, parse};
use crate::host::model::facts::HostFacts;

fn ruleset(items: &str) -> Filters {
    let text = format!(r#"{{ "nftables": [ {{ "metainfo": {{}} }}, {items} ] }}"#);
    Filters { chains: parse(&text).expect("JSON"), ..Filters::default() }
}

fn chain(name: &str, more: &str) -> String {
    format!(r#"{{ "chain": {{ "family": "ip", "table": "t", "name": "{name}" {more} }} }}"#)
}

fn rule(chain: &str, expressions: &str) -> String {
    format!(
        r#"{{ "rule": {{ "family": "ip", "table": "t", "chain": "{chain}", "expr": [ {expressions} ] }} }}"#
    )
}

fn is(left: &str, right: &str) -> String {
    format!(r#"{{ "match": {{ "op": "==", "left": {left}, "right": {right} }} }}"#)
}

fn fates(filters: &Filters, hook: &str, packet: &Packet<'_>) -> Vec<FilterOutcome> {
    filters.ask(hook, packet, &mut BTreeSet::new()).iter().map(|found| found.1).collect()
}

const FORWARD: &str = r#", "type": "filter", "hook": "forward", "policy": "drop""#;
const IIF: &str = r#"{ "meta": { "key": "iifname" } }"#;
const STATE: &str = r#"{ "ct": { "key": "state" } }"#;
const PORT: &str = r#"{ "payload": { "protocol": "tcp", "field": "dport" } }"#;
const TO: &str = r#"{ "payload": { "protocol": "ip", "field": "daddr" } }"#;
const ACCEPT: &str = r#"{ "accept": null }"#;

#[test]
fn the_rules_of_a_filter_are_followed_to_their_end() {
    let packet = Packet {
        iif: Some("wan0"),
        oif: Some("nb0"),
        to: Some(Ipv4Addr::new(203, 0, 113, 10)),
        protocol: Some("tcp"),
        port: Some(80),
        ..Packet::default()
    };
    let reply = Packet { iif: Some("nb0"), oif: Some("wan0"), reply: true, ..Packet::default() };
    let fate = |rules: &[String], packet: &Packet<'_>| {
        let items =
            [chain("F", FORWARD), chain("sub", "")].into_iter().chain(rules.iter().cloned());
        let filters = ruleset(&items.collect::<Vec<_>>().join(","));
        fates(&filters, "forward", packet).first().copied().unwrap_or(FilterOutcome::Passes)
    };
    let accept_if = |condition: String| vec![rule("F", &format!("{condition}, {ACCEPT}"))];
    assert_eq!(fate(&[], &packet), FilterOutcome::Dropped, "the policy");
    for (condition, fits) in [
        (is(IIF, r#""wan0""#), FilterOutcome::Passes),
        (is(IIF, r#""wan*""#), FilterOutcome::Passes),
        (is(IIF, r#"{ "set": ["lan0", "wan0"] }"#), FilterOutcome::Passes),
        (is(IIF, r#""lan0""#), FilterOutcome::Dropped),
        (is(IIF, r#""@legs""#), FilterOutcome::Unsure),
        (is(PORT, "80"), FilterOutcome::Passes),
        (is(PORT, r#"{ "range": [1, 79] }"#), FilterOutcome::Dropped),
        (is(TO, r#"{ "prefix": { "addr": "203.0.113.0", "len": 24 } }"#), FilterOutcome::Passes),
        (is(TO, r#"{ "range": ["203.0.113.11", "203.0.113.20"] }"#), FilterOutcome::Dropped),
        (is(STATE, r#"["established", "related"]"#), FilterOutcome::Dropped),
        (is(STATE, r#"["new"]"#), FilterOutcome::Passes),
        (r#"{ "limit": { "rate": 1 } }"#.into(), FilterOutcome::Unsure),
        (is(r#"{ "meta": { "key": "mark" } }"#, "1"), FilterOutcome::Unsure),
    ] {
        assert_eq!(fate(&accept_if(condition.clone()), &packet), fits, "{condition}");
    }
    let established = accept_if(is(STATE, r#"["established"]"#));
    assert_eq!(fate(&established, &reply), FilterOutcome::Passes, "an answer");
    let not_lan = is(IIF, r#""lan0""#).replace("==", "!=");
    assert_eq!(fate(&accept_if(not_lan), &packet), FilterOutcome::Passes);

    let jump = rule("F", r#"{ "jump": { "target": "sub" } }"#);
    let accepted = rule("sub", &format!("{}, {ACCEPT}", is(IIF, r#""wan0""#)));
    assert_eq!(fate(&[jump.clone(), accepted], &packet), FilterOutcome::Passes);
    let left = rule("sub", r#"{ "return": null }"#);
    assert_eq!(fate(&[jump, left, rule("F", ACCEPT)], &packet), FilterOutcome::Passes);
    let loops = [
        rule("F", r#"{ "jump": { "target": "sub" } }"#),
        rule("sub", r#"{ "jump": { "target": "sub" } }"#),
    ];
    assert_eq!(fate(&loops, &packet), FilterOutcome::Unsure);
}

#[test]
fn a_second_translation_is_seen_and_answers_do_not_begin_one() {
    let nat = chain("P", r#", "type": "nat", "hook": "postrouting", "policy": "accept""#);
    let masquerade = rule(
        "P",
        &format!(
            "{}, {{ \"masquerade\": null }}",
            is(r#"{ "meta": { "key": "oifname" } }"#, r#""wan0""#)
        ),
    );
    let filters = ruleset(&[nat, masquerade].join(","));
    let leaving = Packet { iif: Some("nb0"), oif: Some("wan0"), ..Packet::default() };
    let fates = |packet: &Packet<'_>| fates(&filters, "postrouting", packet);
    assert_eq!(fates(&leaving), [FilterOutcome::Rewritten]);
    assert_eq!(fates(&Packet { reply: true, ..leaving.clone() }), []);
    assert_eq!(fates(&Packet { oif: Some("lan0"), ..leaving }), []);
    assert!(parse("nonsense").is_none());
}

/// A rule of these expressions alone, in a chain of the hook that accepts what is not decided.
fn one_rule(hook: &str, expressions: &str) -> Filters {
    let chain = chain("C", &format!(r#", "type": "filter", "hook": "{hook}", "policy": "accept""#));
    ruleset(&[chain, rule("C", expressions)].join(","))
}

/// A request for port 80 on its way to natbox.
fn request() -> Packet<'static> {
    Packet {
        iif: Some("wan0"),
        oif: Some("nb0"),
        to: Some(Ipv4Addr::new(203, 0, 113, 1)),
        protocol: Some("tcp"),
        port: Some(80),
        ..Packet::default()
    }
}

/// Its answer.
fn answer() -> Packet<'static> {
    Packet {
        iif: Some("nb0"),
        oif: Some("wan0"),
        from: Some(Ipv4Addr::new(203, 0, 113, 1)),
        protocol: Some("tcp"),
        source_port: Some(80),
        reply: true,
        ..Packet::default()
    }
}

fn fate(expressions: &str, packet: &Packet<'_>) -> FilterOutcome {
    fates(&one_rule("forward", expressions), "forward", packet)
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
fn targets_that_iptables_leaves_in_its_own_words_are_known() {
    for (target, fits) in [
        ("REJECT", FilterOutcome::Dropped),
        ("DROP", FilterOutcome::Dropped),
        ("MASQUERADE", FilterOutcome::Rewritten),
        ("SNAT", FilterOutcome::Rewritten),
        ("DNAT", FilterOutcome::Rewritten),
        ("REDIRECT", FilterOutcome::Rewritten),
        ("LOG", FilterOutcome::Passes),
        ("TCPMSS", FilterOutcome::Passes),
        ("SYNPROXY", FilterOutcome::Unsure),
    ] {
        let target = format!(
            r#"{{ "counter": {{}} }}, {{ "xt": {{ "type": "target", "name": "{target}" }} }}"#
        );
        assert_eq!(fate(&target, &request()), fits, "{target}");
        let some = format!(r#"{{ "xt": {{ "type": "match", "name": "statistic" }} }}, {target}"#);
        let perhaps = if fits == FilterOutcome::Rewritten { FilterOutcome::Unsure } else { fits };
        assert_eq!(
            fate(&some, &request()),
            if fits == FilterOutcome::Dropped { FilterOutcome::Passes } else { perhaps },
            "{some}"
        );
    }
    assert_eq!(
        fate(r#"{ "xt": null }"#, &request()),
        FilterOutcome::Unsure,
        "nft without the words of iptables"
    );
}

#[test]
fn maps_of_verdicts_are_asked_where_their_key_is_known() {
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
        assert_eq!(fates(&filters, "forward", &request()), [], "{map}");
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
    for (map, fits) in bad {
        assert_eq!(fate(&map, &request()), fits, "{map}");
    }
    let by_name = format!(r#"{{ "vmap": {{ "key": {IIF}, "data": "@legs" }} }}"#);
    assert_eq!(fate(&by_name, &request()), FilterOutcome::Unsure);
}

#[test]
fn what_depends_on_rates_and_counts_is_not_certain() {
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
        assert_eq!(filters.ask("forward", &request(), &mut doubts), [], "{asked}");
        let said = no_obstacle(&filters, &doubts).unwrap();
        assert!(said.found.contains("1 may drop some of it"), "{said:?}");
    }
    assert_eq!(
        fate(r#"{ "synproxy": { "mss": 1460 } }"#, &request()),
        FilterOutcome::Unsure,
        "done by the kernel"
    );
    assert_eq!(
        fate(r#"{ "queue": { "num": 0 } }"#, &request()),
        FilterOutcome::Unsure,
        "done by a program"
    );
    let none = no_obstacle(&Filters::default(), &BTreeSet::new()).unwrap();
    assert_eq!(none.found, "no rule of nftables is in the way");
}

#[test]
fn ports_of_answers_and_flags_of_first_packets_are_known() {
    let from = |port: u16| {
        format!(
            r#"{}, {{ "drop": null }}"#,
            is(r#"{ "payload": { "protocol": "tcp", "field": "sport" } }"#, &port.to_string())
        )
    };
    assert_eq!(
        (fate(&from(80), &answer()), fate(&from(81), &answer())),
        (FilterOutcome::Dropped, FilterOutcome::Passes)
    );
    assert_eq!(fate(&from(80), &request()), FilterOutcome::Passes, "a client's port may be any");
    let at_least = format!("{}, {ACCEPT}", is(PORT, "1024").replace("==", ">="));
    let filters = ruleset(&[chain("F", FORWARD), rule("F", &at_least)].join(","));
    assert_eq!(fates(&filters, "forward", &request()), [FilterOutcome::Dropped]);
    for (expressions, of_request, of_answer) in [
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
        let found = (fate(&expressions, &request()), fate(&expressions, &answer()));
        assert_eq!(found, (of_request, of_answer), "{expressions}");
    }
    let udp = Packet { protocol: Some("udp"), ..request() };
    assert_eq!(fate(&flags("in", "", r#""syn""#), &udp), FilterOutcome::Passes);
}

#[test]
fn filters_of_devices_are_asked_too() {
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
    assert_eq!(fates(&at("wan0"), "ingress", &request()), [FilterOutcome::Dropped]);
    assert_eq!(fates(&at("lan0"), "ingress", &request()), []);
    assert_eq!(
        fates(&at(""), "ingress", &request()),
        [FilterOutcome::Unsure],
        "an old nft does not say which"
    );
    let mut seen = of_box::seen();
    seen.filters = at("wan0");
    let errors = of_box::errors(&seen);
    assert_eq!(
        errors[0].fix,
        [r#"nft 'insert rule netdev t I iifname "wan0" ip daddr 203.0.113.1 accept'"#]
    );
}

const NEEDED: &str =
    r#", "type": "filter", "hook": "prerouting", "prio": -300, "policy": "accept""#;
const INPUT: &str = r#", "type": "filter", "hook": "input", "policy": "drop""#;

/// The rules that doctor prints.
fn notrack() -> String {
    let elsewhere = is(TO, r#"{ "set": [{ "prefix": { "addr": "10.0.0.0", "len": 24 } }] }"#)
        .replace("==", "!=");
    let rules = [
        is(IIF, r#""nb0""#),
        format!("{}, {elsewhere}", is(IIF, r#""lan0""#)),
        format!("{}, {}", is(IIF, r#""wan0""#), is(TO, r#""203.0.113.1""#)),
    ];
    let rules =
        rules.map(|condition| rule("raw", &format!(r#"{condition}, {{ "notrack": null }}"#)));
    [chain("raw", NEEDED), rules.join(",")].join(",")
}

#[test]
fn a_rule_that_asks_for_a_state_never_fits_what_is_not_tracked() {
    let stateful = [
        chain("F", FORWARD),
        rule("F", &format!("{}, {ACCEPT}", is(STATE, r#"["established", "new"]"#))),
    ];
    assert_eq!(fates(&ruleset(&stateful.join(",")), "forward", &answer()), []);
    let both = ruleset(&[stateful.join(","), notrack()].join(","));
    assert_eq!(fates(&both, "forward", &answer()), [FilterOutcome::Dropped]);
    let cannot_tell = rule("raw", r#"{ "xt": { "type": "target", "name": "CT" } }"#);
    let perhaps = ruleset(&[stateful.join(","), chain("raw", NEEDED), cannot_tell].join(","));
    assert_eq!(fates(&perhaps, "forward", &answer()), [FilterOutcome::Unsure]);
    let late = notrack().replace("-300", "-150");
    assert_eq!(
        fates(&ruleset(&[stateful.join(","), late].join(",")), "forward", &answer()),
        [],
        "tracked by then"
    );
}

#[test]
fn tracking_beside_a_box_is_judged_by_the_rules_and_no_mend_breaks_one_that_asks_for_a_state() {
    let of = |filters: Filters, conntrack| {
        let mut seen = of_box::seen();
        seen.filters = Filters { conntrack: Some(conntrack), ..filters };
        conntrack::of_box(&seen)
    };
    let nat =
        chain("P", r#", "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept""#);
    let stateful =
        [chain("I", INPUT), rule("I", &format!("{}, {ACCEPT}", is(STATE, r#"["established"]"#)))]
            .join(",");
    let old_entries = of(Filters::default(), (5, 1000));
    assert_eq!(old_entries.severity, Severity::Ok, "nothing new is tracked: {old_entries:?}");
    let beside = of(ruleset(&nat), (0, 1000));
    assert_eq!(beside.severity, Severity::Warning);
    assert_eq!(
        beside.fix[2..],
        [
            r#"nft 'add rule ip natbox untracked iifname "nb0" notrack'"#,
            r#"nft 'add rule ip natbox untracked iifname "lan0" ip daddr != { 10.0.0.0/24 } notrack'"#,
            r#"nft 'add rule ip natbox untracked iifname "wan0" ip daddr { 203.0.113.1 } notrack'"#,
        ]
    );
    let exempt = of(ruleset(&[nat.clone(), notrack()].join(",")), (5, 1000));
    assert_eq!(exempt.severity, Severity::Ok, "the commands are in place: {exempt:?}");
    let asked = of(ruleset(&stateful), (5, 1000));
    assert_eq!((asked.severity, asked.fix.len()), (Severity::Warning, 0), "{asked:?}");
    let by_iptables = rule("P", r#"{ "xt": { "type": "match", "name": "conntrack" } }"#);
    assert!(of(ruleset(&[nat.clone(), by_iptables].join(",")), (5, 1000)).fix.is_empty());
    let full = of(ruleset(&stateful), (950, 1000));
    assert_eq!(
        (full.severity, full.fix),
        (Severity::Error, vec!["sysctl -w net.netfilter.nf_conntrack_max=4000".to_owned()])
    );
    let mut assigned_to_host = of_box::seen();
    assigned_to_host.facts.assigned_to_host[0][0] = true;
    assigned_to_host.filters = Filters { conntrack: Some((5, 1000)), ..ruleset(&nat) };
    assert!(
        conntrack::of_box(&assigned_to_host).fix.is_empty(),
        "its other connections may be translated"
    );

    let server =
        |conntrack| conntrack::of_server(&Filters { conntrack, ..Filters::default() }).severity;
    assert_eq!((server(None), server(Some((5, 1000)))), (Severity::Ok, Severity::Ok));
    assert_eq!(server(Some((950, 1000))), Severity::Error);
    let blind = Filters { not_looked: Some("no nft".into()), legacy: true, ..Filters::default() };
    assert_eq!(not_looked_at(&blind).len(), 2);
}

#[test]
fn what_the_box_itself_says_and_hears_passes_the_hosts_own_chains() {
    let drops_dns = |port: &str| {
        let udp = r#"{ "payload": { "protocol": "udp", "field": "dport" } }"#;
        let input = chain("I", r#", "type": "filter", "hook": "input", "policy": "accept""#);
        ruleset(&[input, rule("I", &format!(r#"{}, {{ "drop": null }}"#, is(udp, port)))].join(","))
    };
    let mut seen = of_box::seen();
    let dns = "dns: { zone: example.org, names: [{ name: '@' }], \
               name_servers: [{ name: ns1, address: 203.0.113.1 }, { name: ns2, address: 198.51.100.1 }] }";
    seen.config = with_more(1, FIRST, Some(100), "", dns);
    seen.facts = HostFacts::assumed(&seen.config).0;
    let fix = [r#"nft 'insert rule ip t I iifname "nb0" accept'"#];
    seen.filters = drops_dns("53");
    assert_eq!(of_box::errors(&seen), [], "it waits at another port, at an address of its own");
    seen.filters = ruleset(&chain("I", INPUT));
    assert_eq!(of_box::errors(&seen)[0].fix, fix);
    let open = format!("{}, {ACCEPT}", is(PORT, "53").replace("tcp", "udp"));
    seen.filters = ruleset(&[chain("I", INPUT), rule("I", &open)].join(","));
    assert_eq!(of_box::errors(&seen)[0].fix, fix, "nor does it help to let that port in");
    seen.facts.assigned_to_host[0][0] = true;
    seen.filters = drops_dns("53");
    assert_eq!(of_box::errors(&seen)[0].fix, fix);
    assert!(
        of_box::errors(&seen)[0]
            .found
            .contains("questions (udp) to the name server at 203.0.113.1")
    );

    // NeighbourState to health checks belong to a connection of the host, unless nothing is tracked.
    seen.config = with_more(1, FIRST, Some(100), ", health: { ping: [192.0.2.1] }", "");
    seen.facts = HostFacts::assumed(&seen.config).0;
    let stateful =
        [chain("I", INPUT), rule("I", &format!("{}, {ACCEPT}", is(STATE, r#"["established"]"#)))]
            .join(",");
    seen.filters = ruleset(&stateful);
    assert_eq!(of_box::errors(&seen), []);
    let other_port = rule("I", &format!("{}, {ACCEPT}", is(PORT, "22")));
    seen.filters = ruleset(&[stateful, other_port, notrack()].join(","));
    assert!(
        of_box::errors(&seen)[0].found.contains("answers to the health checks of"),
        "{:?}",
        of_box::errors(&seen)
    );
}
