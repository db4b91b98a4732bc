//! Findings from what was found, without a kernel.

mod filters;
mod of_box;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Finding, Severity};
use crate::config::{self, Config};
use crate::host::doctor::checks::server_checks;
use crate::host::doctor::facts::first_hop::{FirstHop, HopProbe};
use crate::host::doctor::facts::links::{Leg, Offloads, offload_checks};
use crate::host::doctor::facts::server_facts::{Line, ServerFacts};
use crate::host::doctor::nft::filters::Filters;
use crate::host::kernel::listeners::Listener;
use crate::host::kernel::route_lookup::{NeighbourState, RouteResult};
use crate::host::model::snapshot::{FoundRule, Snapshot};
use crate::host::model::steps::{Rule, RuleAction};

#[test]
fn offloads_are_judged_by_what_is_forwarded() {
    let text = "Features for wan0:\nrx-checksumming: on\ntcp-segmentation-offload: off\n\ttx-tcp-segmentation: off\n\
                generic-receive-offload: on\nlarge-receive-offload: on\nrx-vlan-offload: on\n";
    let offloads = Offloads::parse(text);
    assert_eq!((offloads.lro, offloads.gro, offloads.tso), (Some(true), Some(true), Some(false)));
    let leg = Leg { interface: "wan0".into(), mtu: 1500, rp_filter: 0, offloads, card: true };
    let findings = offload_checks(std::slice::from_ref(&leg), true);
    assert_eq!(findings[0].fix, ["ethtool -K wan0 lro off"]);
    assert_eq!(
        (findings[1].severity, findings[1].fix.as_slice()),
        (Severity::Warning, &["ethtool -K wan0 tso on".to_owned()][..])
    );
    assert_eq!(
        offload_checks(std::slice::from_ref(&leg), false).len(),
        1,
        "LRO does no harm to a server"
    );
    assert_eq!(offload_checks(&[Leg { card: false, ..leg }], false)[0].severity, Severity::Ok);
    assert_eq!(Offloads::parse("large-receive-offload: off [fixed]").lro, Some(false));
}

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 202);

fn natbox(number: u8, server: Ipv4Addr, inside: Option<u8>) -> Config {
    with_more(number, server, inside, "", "")
}

/// With more keys of its uplink, and more at the end.
fn with_more(
    number: u8,
    server: Ipv4Addr,
    inside: Option<u8>,
    of_uplink: &str,
    more: &str,
) -> Config {
    let address = inside.map(|last| format!("address: 10.0.0.{last}, ")).unwrap_or_default();
    let text = format!(
        "name: natbox{number}\ninside: {{ interface: lan0, {address}prefixes: [10.0.0.0/24] }}\n\
         uplinks: [{{ interface: wan0, addresses: [203.0.113.{number}] {of_uplink} }}]\n\
         forwards: [{{ name: web, protocol: tcp+udp, port: 80, to: '{server}:80' }}]\n{more}"
    );
    config::parse("f.yaml", &text).expect("a good file").config
}

fn way(last: u8) -> RouteResult {
    RouteResult::Unicast { device: "eth0".into(), via: Some(Ipv4Addr::new(10, 0, 0, last)) }
}

fn line(address: Ipv4Addr, through: usize, last: u8) -> Line {
    Line {
        address,
        through,
        also: Vec::new(),
        interface: Some("eth0".into()),
        up: true,
        way: Some(way(last)),
        arrival: Some(RouteResult::Local),
        answers: Some(NeighbourState::Reachable),
        first_hop: Some(HopProbe {
            first_hop: FirstHop::Is(Ipv4Addr::new(10, 0, 0, last)),
            no_more_than: None,
        }),
    }
}

/// A server behind two boxes with which nothing is wrong.
fn server() -> ServerFacts {
    let listener = |address, udp| Listener { udp, address: Some(address), port: 80 };
    ServerFacts {
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

fn errors(seen: &ServerFacts) -> Vec<Finding> {
    let mut findings = server_checks::evaluate(seen);
    findings.retain(|finding| finding.severity == Severity::Error);
    findings
}

#[test]
fn a_server_with_which_nothing_is_wrong_has_no_errors() {
    let findings = server_checks::evaluate(&server());
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
    assert_eq!(errors(&seen)[0].fix, of_plan);
    let rule = Rule {
        priority: 50,
        iif: None,
        from: None,
        to: None,
        udp: None,
        action: RuleAction::Lookup(9),
    };
    seen.snapshot.rules.push(FoundRule { rule, protocol: 3, more: false });
    assert_eq!(errors(&seen)[0].fix[2], "ip rule add from 10.0.0.202 lookup 7202 priority 49");
}

#[test]
fn a_rule_for_more_than_one_address_stays_as_it_is() {
    let own = [
        "ip route replace throw 10.0.0.0/24 table 7202",
        "ip route replace default via 10.0.0.200 dev eth0 table 7202",
        "ip rule add from 10.0.0.202 lookup 7202 priority 999",
    ];
    let found = |priority, from: Ipv4Net| {
        let action = RuleAction::Lookup(100);
        let rule = Rule { priority, iif: None, from: Some(from), to: None, udp: None, action };
        FoundRule { rule, protocol: 3, more: false }
    };
    let mut seen = server();
    seen.lines[1].way = Some(way(100));
    seen.snapshot.rules = vec![found(1000, Ipv4Net::new_assert([10, 0, 0, 0].into(), 24))];
    assert_eq!(errors(&seen)[0].fix, own, "it serves the other line, too");
    seen.snapshot.rules = vec![found(1000, FIRST.into()), found(1001, SECOND.into())];
    assert_eq!(errors(&seen)[0].fix, own, "two rules, one table");
    seen.snapshot.rules.remove(0);
    assert_eq!(
        errors(&seen)[0].fix,
        ["ip route replace default via 10.0.0.200 dev eth0 table 100"]
    );
}

#[test]
fn behind_one_box_the_default_route_is_mended() {
    let mut seen = server();
    seen.configs.truncate(1);
    seen.lines.truncate(1);
    seen.lines[0].way = Some(RouteResult::Dropped("there is no route".into()));
    assert_eq!(errors(&seen)[0].fix, ["ip route replace default via 10.0.0.100 dev eth0"]);
}

#[test]
fn a_box_whose_address_nobody_knows_is_told_by_its_next_hop_being_its_own() {
    let mut seen = server();
    seen.configs[1] = natbox(2, SECOND, None);
    let finding = server_checks::evaluate(&seen)
        .into_iter()
        .find(|finding| finding.severity == Severity::Warning)
        .unwrap();
    assert!(
        finding.advice.contains("inside.address in the configuration of natbox2"),
        "{finding:?}"
    );
    seen.lines[1].way = Some(way(100));
    let finding = &errors(&seen)[0];
    assert!(
        finding.found.contains("as does what is sent from 10.0.0.101 for natbox1"),
        "{finding:?}"
    );
    assert!(finding.fix[1].contains("${BOX:?"), "{finding:?}");
}

#[test]
fn a_probe_that_reaches_another_box_is_an_error_and_one_that_nobody_answers_a_warning() {
    let of = |first_hop: Option<FirstHop>| {
        let mut seen = server();
        seen.lines[0].first_hop =
            first_hop.map(|first_hop| HopProbe { first_hop, no_more_than: None });
        server_checks::evaluate(&seen).into_iter().find(|finding| finding.id == "replies").unwrap()
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
    assert_eq!(errors[0].fix, ["ip link set dev eth0 mtu 1400"]);
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
    seen.lines[0].answers = Some(NeighbourState::Failed);
    seen.listeners.retain(|listener| listener.udp);
    let errors = errors(&seen);
    let ids: Vec<&str> = errors.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(ids, ["shared-address", "next-hop", "service", "address", "service"]);
    assert_eq!(
        errors[3].fix,
        ["ip address replace 10.0.0.202/24 dev eth0"],
        "beside the other address"
    );
    assert!(
        errors[2].found.starts_with("nobody waits at 10.0.0.101:80 (tcp), where web leads"),
        "{errors:?}"
    );
    seen.lines.clear();
    assert!(
        server_checks::evaluate(&seen)[0]
            .found
            .contains("(10.0.0.101, 10.0.0.202) is on this machine")
    );
}
