//! Checks of a server.

use ipnet::Ipv4Net;

use super::*;
use crate::host::doctor::checks::server_checks::evaluate;
use crate::host::doctor::facts::first_hop::{FirstHop, HopProbe};
use crate::host::doctor::facts::server_facts::{AddressFacts, ServerFacts};
use crate::host::kernel::listeners::Listener;
use crate::host::model::snapshot::Snapshot;

fn route_via(last: u8) -> RouteResult {
    RouteResult::Unicast { device: "eth0".into(), via: Some(Ipv4Addr::new(10, 0, 0, last)) }
}

fn address_facts(address: Ipv4Addr, through: usize, last: u8) -> AddressFacts {
    AddressFacts {
        address,
        through,
        other_boxes: Vec::new(),
        interface: Some("eth0".into()),
        up: true,
        reply_route: Some(route_via(last)),
        request_route: Some(RouteResult::Local),
        next_hop: Some(NeighbourState::Reachable),
        first_hop: Some(HopProbe {
            first_hop: FirstHop::Router(Ipv4Addr::new(10, 0, 0, last)),
            largest: None,
        }),
    }
}

/// A server behind two boxes without any problem.
fn server() -> ServerFacts {
    let listener = |address, udp| Listener { udp, address: Some(address), port: 80 };
    ServerFacts {
        configs: vec![natbox(1, FIRST, Some(100)), natbox(2, SECOND, Some(200))],
        outside: Ipv4Addr::new(192, 0, 2, 1),
        addresses: vec![address_facts(FIRST, 0, 100), address_facts(SECOND, 1, 200)],
        servers: vec![FIRST, SECOND],
        snapshot: Snapshot::default(),
        links: Vec::new(),
        listeners: [FIRST, SECOND]
            .iter()
            .flat_map(|address| [listener(*address, true), listener(*address, false)])
            .collect(),
        filters: Filters::default(),
    }
}

#[test]
fn a_good_server_has_no_errors() {
    let findings = evaluate(&server());
    assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:#?}");
}

#[test]
fn an_address_without_a_rule_gets_one_before_all_others() {
    let mut facts = server();
    facts.addresses[1].reply_route = Some(route_via(100));
    let of_plan = [
        "ip route replace throw 10.0.0.0/24 table 7202",
        "ip route replace default via 10.0.0.200 dev eth0 table 7202",
        "ip rule add from 10.0.0.202 lookup 7202 priority 7202",
    ];
    assert_eq!(errors(evaluate(&facts))[0].fix, of_plan);
    let rule = Rule::new(50, RuleAction::Lookup(9));
    facts.snapshot.rules.push(found(rule));
    assert_eq!(
        errors(evaluate(&facts))[0].fix[2],
        "ip rule add from 10.0.0.202 lookup 7202 priority 49"
    );
}

#[test]
fn a_rule_for_several_addresses_stays() {
    let own = [
        "ip route replace throw 10.0.0.0/24 table 7202",
        "ip route replace default via 10.0.0.200 dev eth0 table 7202",
        "ip rule add from 10.0.0.202 lookup 7202 priority 999",
    ];
    let found = |priority, from: Ipv4Net| {
        let action = RuleAction::Lookup(100);
        let rule = Rule { from: Some(from), ..Rule::new(priority, action) };
        found(rule)
    };
    let mut facts = server();
    facts.addresses[1].reply_route = Some(route_via(100));
    facts.snapshot.rules = vec![found(1000, Ipv4Net::new_assert([10, 0, 0, 0].into(), 24))];
    assert_eq!(errors(evaluate(&facts))[0].fix, own, "the rule serves both addresses");
    facts.snapshot.rules = vec![found(1000, FIRST.into()), found(1001, SECOND.into())];
    assert_eq!(errors(evaluate(&facts))[0].fix, own, "two rules, one table");
    facts.snapshot.rules.remove(0);
    assert_eq!(
        errors(evaluate(&facts))[0].fix,
        ["ip route replace default via 10.0.0.200 dev eth0 table 100"]
    );
}

#[test]
fn behind_one_box_the_fix_is_a_default_route() {
    let mut facts = server();
    facts.configs.truncate(1);
    facts.addresses.truncate(1);
    facts.addresses[0].reply_route = Some(RouteResult::Dropped("there is no route".into()));
    assert_eq!(
        errors(evaluate(&facts))[0].fix,
        ["ip route replace default via 10.0.0.100 dev eth0"]
    );
}

#[test]
fn a_box_without_inside_address_is_an_error_only_with_the_next_hop_of_another_box() {
    let mut facts = server();
    facts.configs[1] = natbox(2, SECOND, None);
    let finding =
        evaluate(&facts).into_iter().find(|finding| finding.severity == Severity::Warning).unwrap();
    assert!(
        finding.advice.contains("inside.address in the configuration of natbox2"),
        "{finding:?}"
    );
    facts.addresses[1].reply_route = Some(route_via(100));
    let finding = &errors(evaluate(&facts))[0];
    assert!(finding.found.contains("and so do packets from 10.0.0.101 for natbox1"), "{finding:?}");
    assert!(finding.fix[1].contains("${BOX:?"), "{finding:?}");
}

#[test]
fn a_probe_that_dies_at_another_box_is_an_error_and_an_unanswered_one_a_warning() {
    let of = |first_hop: Option<FirstHop>| {
        let mut facts = server();
        facts.addresses[0].first_hop =
            first_hop.map(|first_hop| HopProbe { first_hop, largest: None });
        evaluate(&facts).into_iter().find(|finding| finding.id == "replies").unwrap()
    };
    assert_eq!(of(Some(FirstHop::Router(Ipv4Addr::new(10, 0, 0, 200)))).severity, Severity::Error);
    assert_eq!(of(Some(FirstHop::Router(Ipv4Addr::new(10, 0, 0, 9)))).severity, Severity::Warning);
    assert_eq!(of(Some(FirstHop::Silent)).severity, Severity::Warning);
    assert_eq!(of(Some(FirstHop::NotProbed("no".into()))).severity, Severity::Warning);
    assert_eq!(of(None).severity, Severity::Ok, "--no-probe");
}

#[test]
fn lost_large_packets_are_an_error() {
    let mut facts = server();
    let found = facts.addresses[1].first_hop.as_mut().unwrap();
    found.largest = Some(1400);
    let errors = errors(evaluate(&facts));
    assert_eq!((errors.len(), errors[0].id.as_str()), (1, "mtu"), "{errors:?}");
    assert_eq!(errors[0].fix, ["ip link set dev eth0 mtu 1400"]);
    assert!(
        errors[0].found.contains("of that size from 10.0.0.202 does not reach 10.0.0.200"),
        "{errors:?}"
    );
}

#[test]
fn each_missing_shared_or_silent_part_has_a_finding() {
    let mut facts = server();
    facts.addresses[0].other_boxes = vec![1];
    (facts.addresses[1].interface, facts.addresses[1].reply_route) = (None, None);
    facts.addresses[0].next_hop = Some(NeighbourState::Failed);
    facts.listeners.retain(|listener| listener.udp);
    let errors = errors(evaluate(&facts));
    let ids: Vec<&str> = errors.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(ids, ["shared-address", "next-hop", "service", "address", "service"]);
    assert_eq!(
        errors[3].fix,
        ["ip address replace 10.0.0.202/24 dev eth0"],
        "beside the other address"
    );
    assert!(
        errors[2].found.starts_with("no program listens at 10.0.0.101:80 (tcp), the target of web"),
        "{errors:?}"
    );
    facts.addresses.clear();
    assert!(evaluate(&facts)[0].found.contains("(10.0.0.101, 10.0.0.202) is on this machine"));
}
