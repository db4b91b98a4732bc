//! Findings from what was found, without a kernel.

use std::net::Ipv4Addr;

use super::filters::{Fate, Filters, Packet, parse};
use super::first_hop::{FirstHop, Found};
use super::legs::{Leg, Offloads, judge_filters, judge_offloads};
use super::server_judged;
use super::server_seen::{Line, ServerSeen};
use super::{Finding, Severity};
use crate::control::config::{self, Config};
use crate::host::listeners::Listener;
use crate::host::snapshot::{FoundRule, Snapshot};
use crate::host::steps::{Rule, RuleAction};
use crate::host::ways::{Answers, Way};

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
        let items = [chain("F", FORWARD), chain("sub", "")].into_iter().chain(rules.iter().cloned());
        let filters = ruleset(&items.collect::<Vec<_>>().join(","));
        filters.obstacles("forward", packet).first().map_or(Fate::Passes, |(_, fate)| *fate)
    };
    let accept_if = |condition: String| vec![rule("F", &format!("{condition}, {ACCEPT}"))];
    assert_eq!(fate(&[], &packet), Fate::Dropped, "the policy");
    for (condition, fits) in [
        (is(IIF, r#""wan0""#), Fate::Passes),
        (is(IIF, r#""wan*""#), Fate::Passes),
        (is(IIF, r#"{ "set": ["lan0", "wan0"] }"#), Fate::Passes),
        (is(IIF, r#""lan0""#), Fate::Dropped),
        (is(IIF, r#""@legs""#), Fate::Unsure),
        (is(PORT, "80"), Fate::Passes),
        (is(PORT, r#"{ "range": [1, 79] }"#), Fate::Dropped),
        (is(TO, r#"{ "prefix": { "addr": "203.0.113.0", "len": 24 } }"#), Fate::Passes),
        (is(TO, r#"{ "range": ["203.0.113.11", "203.0.113.20"] }"#), Fate::Dropped),
        (is(STATE, r#"["established", "related"]"#), Fate::Dropped),
        (is(STATE, r#"["new"]"#), Fate::Passes),
        (r#"{ "limit": { "rate": 1 } }"#.into(), Fate::Unsure),
        (is(r#"{ "meta": { "key": "mark" } }"#, "1"), Fate::Unsure),
    ] {
        assert_eq!(fate(&accept_if(condition.clone()), &packet), fits, "{condition}");
    }
    let established = accept_if(is(STATE, r#"["established"]"#));
    assert_eq!(fate(&established, &reply), Fate::Passes, "an answer");
    let not_lan = is(IIF, r#""lan0""#).replace("==", "!=");
    assert_eq!(fate(&accept_if(not_lan), &packet), Fate::Passes);

    let jump = rule("F", r#"{ "jump": { "target": "sub" } }"#);
    let accepted = rule("sub", &format!("{}, {ACCEPT}", is(IIF, r#""wan0""#)));
    assert_eq!(fate(&[jump.clone(), accepted], &packet), Fate::Passes);
    let left = rule("sub", r#"{ "return": null }"#);
    assert_eq!(fate(&[jump, left, rule("F", ACCEPT)], &packet), Fate::Passes);
    let loops =
        [rule("F", r#"{ "jump": { "target": "sub" } }"#), rule("sub", r#"{ "jump": { "target": "sub" } }"#)];
    assert_eq!(fate(&loops, &packet), Fate::Unsure);
}

#[test]
fn a_second_translation_is_seen_and_answers_do_not_begin_one() {
    let nat = chain("P", r#", "type": "nat", "hook": "postrouting", "policy": "accept""#);
    let masquerade = rule(
        "P",
        &format!("{}, {{ \"masquerade\": null }}", is(r#"{ "meta": { "key": "oifname" } }"#, r#""wan0""#)),
    );
    let filters = ruleset(&[nat, masquerade].join(","));
    let leaving = Packet { iif: Some("nb0"), oif: Some("wan0"), ..Packet::default() };
    let fates = |packet: &Packet<'_>| {
        filters.obstacles("postrouting", packet).iter().map(|found| found.1).collect::<Vec<_>>()
    };
    assert_eq!(fates(&leaving), [Fate::Rewritten]);
    assert_eq!(fates(&Packet { reply: true, ..leaving.clone() }), []);
    assert_eq!(fates(&Packet { oif: Some("lan0"), ..leaving }), []);
    assert!(parse("nonsense").is_none());
}

#[test]
fn offloads_are_judged_by_what_is_forwarded() {
    let text = "Features for wan0:\nrx-checksumming: on\ntcp-segmentation-offload: off\n\ttx-tcp-segmentation: off\n\
                generic-receive-offload: on\nlarge-receive-offload: on\nrx-vlan-offload: on\n";
    let offloads = Offloads::parse(text);
    assert_eq!((offloads.lro, offloads.gro, offloads.tso), (Some(true), Some(true), Some(false)));
    let leg = Leg { interface: "wan0".into(), mtu: 1500, rp_filter: 0, offloads, card: true };
    let findings = judge_offloads(std::slice::from_ref(&leg), true);
    assert_eq!(findings[0].mend, ["ethtool -K wan0 lro off"]);
    assert_eq!(
        (findings[1].severity, findings[1].mend.as_slice()),
        (Severity::Warning, &["ethtool -K wan0 tso on".to_owned()][..])
    );
    assert_eq!(judge_offloads(std::slice::from_ref(&leg), false).len(), 1, "LRO does no harm to a server");
    assert_eq!(judge_offloads(&[Leg { card: false, ..leg }], false)[0].severity, Severity::Ok);
    assert_eq!(Offloads::parse("large-receive-offload: off [fixed]").lro, Some(false));
}

#[test]
fn a_full_table_of_connections_is_an_error_and_tracking_beside_natbox_a_warning() {
    let untrack = || vec!["nft x".to_owned()];
    let of = |conntrack| judge_filters(&Filters { conntrack, ..Filters::default() }, untrack()).remove(0);
    assert_eq!(of(None).severity, Severity::Ok);
    assert_eq!(of(Some((0, 1000))).severity, Severity::Ok);
    assert_eq!((of(Some((5, 1000))).severity, of(Some((5, 1000))).mend), (Severity::Warning, untrack()));
    let full = of(Some((950, 1000)));
    assert_eq!(
        (full.severity, full.mend[0].as_str()),
        (Severity::Error, "sysctl -w net.netfilter.nf_conntrack_max=4000")
    );
    let server = judge_filters(&Filters { conntrack: Some((5, 1000)), ..Filters::default() }, Vec::new());
    assert_eq!(server[0].severity, Severity::Ok);
    let blind = Filters { not_looked: Some("no nft".into()), legacy: true, ..Filters::default() };
    assert_eq!(
        judge_filters(&blind, Vec::new()).iter().filter(|finding| finding.id == "firewall").count(),
        2
    );
}

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 202);

fn natbox(number: u8, server: Ipv4Addr, inside: Option<u8>) -> Config {
    let address = inside.map(|last| format!("address: 10.0.0.{last}, ")).unwrap_or_default();
    let text = format!(
        "name: natbox{number}\ninside: {{ interface: lan0, {address}prefixes: [10.0.0.0/24] }}\n\
         uplinks: [{{ interface: wan0, addresses: [203.0.113.{number}] }}]\n\
         forwards: [{{ name: web, protocol: tcp+udp, port: 80, to: '{server}:80' }}]\n"
    );
    config::parse("f.yaml", &text).expect("a good file").config
}

fn way(last: u8) -> Way {
    Way::By { device: "eth0".into(), via: Some(Ipv4Addr::new(10, 0, 0, last)) }
}

fn line(address: Ipv4Addr, through: usize, last: u8) -> Line {
    Line {
        address,
        through,
        also: Vec::new(),
        interface: Some("eth0".into()),
        up: true,
        way: Some(way(last)),
        arrival: Some(Way::Local),
        answers: Some(Answers::Yes),
        first_hop: Some(Found { first_hop: FirstHop::Is(Ipv4Addr::new(10, 0, 0, last)), no_more_than: None }),
    }
}

/// A server behind two boxes with which nothing is wrong.
fn server() -> ServerSeen {
    let listener = |address, udp| Listener { udp, address: Some(address), port: 80 };
    ServerSeen {
        configs: vec![natbox(1, FIRST, Some(100)), natbox(2, SECOND, Some(200))],
        stranger: Ipv4Addr::new(192, 0, 2, 1),
        lines: vec![line(FIRST, 0, 100), line(SECOND, 1, 200)],
        servers: vec![FIRST, SECOND],
        snapshot: Snapshot::default(),
        legs: Vec::new(),
        listeners: [FIRST, SECOND]
            .iter()
            .flat_map(|address| [listener(*address, true), listener(*address, false)])
            .collect(),
        filters: Filters::default(),
    }
}

fn errors(seen: &ServerSeen) -> Vec<Finding> {
    let mut findings = server_judged::judge(seen);
    findings.retain(|finding| finding.severity == Severity::Error);
    findings
}

#[test]
fn a_server_with_which_nothing_is_wrong_has_no_errors() {
    let findings = server_judged::judge(&server());
    assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:#?}");
}

#[test]
fn an_address_without_a_rule_gets_one_before_all_others() {
    let mut seen = server();
    seen.lines[1].way = Some(way(100));
    let of_plan = [
        "ip route replace throw 10.0.0.0/24 table 7202",
        "ip route replace default via 10.0.0.200 dev eth0 table 7202",
        "ip rule add from 10.0.0.202 lookup 7202 priority 7202",
    ];
    assert_eq!(errors(&seen)[0].mend, of_plan);
    let rule =
        Rule { priority: 50, iif: None, from: None, to: None, udp: None, action: RuleAction::Lookup(9) };
    seen.snapshot.rules.push(FoundRule { rule, protocol: 3, more: false });
    assert_eq!(errors(&seen)[0].mend[2], "ip rule add from 10.0.0.202 lookup 7202 priority 49");
}

#[test]
fn behind_one_box_the_default_route_is_mended() {
    let mut seen = server();
    seen.configs.truncate(1);
    seen.lines.truncate(1);
    seen.lines[0].way = Some(Way::Refused("there is no route".into()));
    assert_eq!(errors(&seen)[0].mend, ["ip route replace default via 10.0.0.100 dev eth0"]);
}

#[test]
fn a_box_whose_address_nobody_knows_is_told_by_its_next_hop_being_its_own() {
    let mut seen = server();
    seen.configs[1] = natbox(2, SECOND, None);
    let finding = server_judged::judge(&seen)
        .into_iter()
        .find(|finding| finding.severity == Severity::Warning)
        .unwrap();
    assert!(finding.advice.contains("inside.address in the configuration of natbox2"), "{finding:?}");
    seen.lines[1].way = Some(way(100));
    let finding = &errors(&seen)[0];
    assert!(finding.found.contains("as does what is sent from 10.0.0.101 for natbox1"), "{finding:?}");
    assert!(finding.mend[1].contains("${BOX:?"), "{finding:?}");
}

#[test]
fn a_probe_that_reaches_another_box_is_an_error_and_one_that_nobody_answers_a_warning() {
    let of = |first_hop: Option<FirstHop>| {
        let mut seen = server();
        seen.lines[0].first_hop = first_hop.map(|first_hop| Found { first_hop, no_more_than: None });
        server_judged::judge(&seen).into_iter().find(|finding| finding.id == "replies").unwrap()
    };
    assert_eq!(of(Some(FirstHop::Is(Ipv4Addr::new(10, 0, 0, 200)))).severity, Severity::Error);
    assert_eq!(of(Some(FirstHop::Is(Ipv4Addr::new(10, 0, 0, 9)))).severity, Severity::Warning);
    assert_eq!(of(Some(FirstHop::Silent)).severity, Severity::Warning);
    assert_eq!(of(Some(FirstHop::NotAsked("no".into()))).severity, Severity::Warning);
    assert_eq!(of(None).severity, Severity::Ok, "--no-probe");
}

#[test]
fn large_packets_that_get_lost_where_small_ones_do_not_are_an_error() {
    let mut seen = server();
    let found = seen.lines[1].first_hop.as_mut().unwrap();
    found.no_more_than = Some(1400);
    let errors = errors(&seen);
    assert_eq!((errors.len(), errors[0].id.as_str()), (1, "mtu"), "{errors:?}");
    assert_eq!(errors[0].mend, ["ip link set dev eth0 mtu 1400"]);
    assert!(
        errors[0].found.contains("of that size from 10.0.0.202 does not get to 10.0.0.200"),
        "{errors:?}"
    );
}

#[test]
fn what_is_missing_down_silent_or_shared_is_named() {
    let mut seen = server();
    seen.lines[0].also = vec![1];
    (seen.lines[1].interface, seen.lines[1].way) = (None, None);
    seen.lines[0].answers = Some(Answers::No);
    seen.listeners.retain(|listener| listener.udp);
    let errors = errors(&seen);
    let ids: Vec<&str> = errors.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(ids, ["shared-address", "next-hop", "service", "address", "service"]);
    assert_eq!(errors[3].mend, ["ip address replace 10.0.0.202/24 dev eth0"], "beside the other address");
    assert!(
        errors[2].found.starts_with("nobody waits at 10.0.0.101:80 (tcp), where web leads"),
        "{errors:?}"
    );
    seen.lines.clear();
    assert!(server_judged::judge(&seen)[0].found.contains("(10.0.0.101, 10.0.0.202) is on this machine"));
}

mod of_a_box {
    use super::super::box_judged::judge;
    use super::super::box_seen::{BoxSeen, Passage, State};
    use super::*;
    use crate::host::facts::Facts;
    use crate::host::steps::{Step, steps};
    use crate::host::ways::Question;

    /// A box with which nothing is wrong.
    fn seen() -> BoxSeen {
        let config = natbox(1, FIRST, Some(100));
        let (facts, numbers) = Facts::assumed(&config);
        let leg = |name: &str| Leg {
            interface: name.into(),
            mtu: 1500,
            rp_filter: 0,
            offloads: Offloads::default(),
            card: true,
        };
        BoxSeen {
            steps: steps(&config, &facts, &numbers).into_iter().map(|step| (step, State::InPlace)).collect(),
            runs: true,
            owned_since: Vec::new(),
            foreign: Vec::new(),
            passages: Vec::new(),
            legs: vec![leg("lan0"), leg("wan0")],
            filters: Filters::default(),
            gateways: vec![Some((Ipv4Addr::new(203, 0, 113, 254), Some(Answers::Yes)))],
            taken: Vec::new(),
            facts,
            config,
        }
    }

    fn set(seen: &mut BoxSeen, is: impl Fn(&Step) -> bool, state: State) {
        let (_, found) = seen.steps.iter_mut().find(|(step, _)| is(step)).unwrap();
        *found = state;
    }

    fn errors(seen: &BoxSeen) -> Vec<Finding> {
        judge(seen).into_iter().filter(|finding| finding.severity == Severity::Error).collect()
    }

    #[test]
    fn nothing_is_said_against_a_good_one() {
        let findings = judge(&seen());
        assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:#?}");
    }

    #[test]
    fn what_is_missing_is_a_finding_for_each_kind_with_the_commands_of_the_plan() {
        let mut seen = seen();
        set(
            &mut seen,
            |step| matches!(step, Step::Rule(rule) if rule.iif.as_deref() == Some("lan0")),
            State::Missing(None),
        );
        set(&mut seen, |step| matches!(step, Step::Route(_)), State::InTheWay("default dev eth9".into()));
        set(&mut seen, |step| matches!(step, Step::ProxyNeighbour { .. }), State::Unknown("no".into()));
        let found = errors(&seen);
        let ids: Vec<&str> = found.iter().map(|finding| finding.id.as_str()).collect();
        assert_eq!(ids, ["routes", "rules"]);
        assert_eq!(found[0].mend, ["ip route replace default dev nb0 table 7101 proto 110"]);
        assert_eq!(found[1].mend, ["ip rule add priority 1004 from all iif lan0 protocol 110 lookup 7100"]);
        assert!(
            judge(&seen)
                .iter()
                .any(|finding| finding.id == "proxy-arp" && finding.severity == Severity::Warning)
        );
        assert!(judge(&seen).iter().all(|finding| finding.id != "host"));
    }

    #[test]
    fn a_filter_of_sources_is_judged_by_the_greater_of_both_values() {
        let is_filter =
            |step: &Step| matches!(step, Step::Sysctl { path, .. } if path.ends_with("lan0/rp_filter"));
        for (all, own, good) in
            [(0, 0, true), (0, 1, false), (1, 0, false), (1, 2, true), (2, 0, true), (2, 1, true)]
        {
            let mut seen = seen();
            seen.facts.rp_filter_all = all;
            set(&mut seen, is_filter, State::Missing(Some(own.to_string())));
            assert_eq!(errors(&seen).is_empty(), good, "all {all}, own {own}");
        }
    }

    #[test]
    fn a_rule_that_takes_packets_away_is_moved_behind_and_the_way_to_the_inside_spared() {
        let mut seen = seen();
        let passage = |from, to, by: &str, device: &str| Passage {
            what: "a packet",
            question: Question { from, to, by: Some(by.into()) },
            device: device.into(),
            via: None,
            way: Way::By { device: "vpn0".into(), via: None },
        };
        let client = Ipv4Addr::new(192, 0, 2, 1);
        seen.passages = vec![passage(FIRST, client, "lan0", "nb0"), passage(client, FIRST, "nb0", "lan0")];
        assert!(errors(&seen)[0].advice.starts_with("see: "), "nobody's rule is there to blame");
        let rule =
            Rule { priority: 10, iif: None, from: None, to: None, udp: None, action: RuleAction::Lookup(52) };
        seen.foreign.push(FoundRule { rule, protocol: 3, more: false });
        assert_eq!(
            errors(&seen)[0].mend,
            [
                "ip rule add priority 1005 to 10.0.0.0/24 iif nb0 lookup main",
                "ip rule add priority 1015 from all lookup 52",
                "ip rule del priority 10 from all lookup 52",
            ]
        );
        // What is missing explains it.
        set(&mut seen, |step| matches!(step, Step::Route(_)), State::Missing(None));
        assert!(errors(&seen).iter().all(|finding| finding.id != "path"));
    }

    #[test]
    fn lines_and_addresses_that_are_not_what_they_should_be_are_named() {
        let mut seen = seen();
        seen.config.uplinks[0].gateway = Some(Ipv4Addr::new(203, 0, 113, 254));
        seen.gateways = vec![Some((Ipv4Addr::new(203, 0, 113, 254), None))];
        seen.taken = vec![(Ipv4Addr::new(203, 0, 113, 1), "wan0".into())];
        seen.owned_since = vec![Ipv4Addr::new(203, 0, 113, 1)];
        let ids: Vec<String> = errors(&seen).into_iter().map(|finding| finding.id).collect();
        assert_eq!(ids, ["owned-address", "gateway", "duplicate-address"]);
    }

    #[test]
    fn segments_too_long_for_a_line_are_warned_of_unless_they_are_clamped() {
        let mut seen = seen();
        seen.legs[1].mtu = 1400;
        let warned = |seen: &BoxSeen| {
            judge(seen).iter().any(|finding| finding.id == "mtu" && finding.severity == Severity::Warning)
        };
        assert!(!warned(&seen), "auto");
        seen.config.nat.mss_clamp = crate::control::config::MssClamp::Off;
        assert!(warned(&seen));
        seen.config.nat.mss_clamp = crate::control::config::MssClamp::To(1360);
        assert!(!warned(&seen));
        seen.config.nat.mss_clamp = crate::control::config::MssClamp::To(1361);
        assert!(warned(&seen));
    }
}
