//! Of a box.

use super::*;
use crate::host::doctor::checks::box_checks::evaluate;
use crate::host::doctor::facts::box_facts::{BoxFacts, Passage, State};
use crate::host::kernel::route_lookup::RouteQuery;
use crate::host::model::facts::HostFacts;
use crate::host::model::steps::{Step, steps};

/// A box with which nothing is wrong.
pub(crate) fn seen() -> BoxFacts {
    let config = natbox(1, FIRST, Some(100));
    let (facts, ids) = HostFacts::assumed(&config);
    let leg = |name: &str| Leg {
        interface: name.into(),
        mtu: 1500,
        rp_filter: 0,
        offloads: Offloads::default(),
        card: true,
    };
    BoxFacts {
        steps: steps(&config, &facts, &ids)
            .into_iter()
            .map(|step| (step, State::InPlace))
            .collect(),
        runs: true,
        assigned_since_start: Vec::new(),
        foreign: Vec::new(),
        passages: Vec::new(),
        legs: vec![leg("lan0"), leg("wan0")],
        filters: Filters::default(),
        gateways: vec![Some((Ipv4Addr::new(203, 0, 113, 254), Some(NeighbourState::Reachable)))],
        taken: Vec::new(),
        facts,
        config,
    }
}

fn set(seen: &mut BoxFacts, is: impl Fn(&Step) -> bool, state: State) {
    let (_, found) = seen.steps.iter_mut().find(|(step, _)| is(step)).unwrap();
    *found = state;
}

pub(crate) fn errors(seen: &BoxFacts) -> Vec<Finding> {
    evaluate(seen).into_iter().filter(|finding| finding.severity == Severity::Error).collect()
}

#[test]
fn nothing_is_said_against_a_good_one() {
    let findings = evaluate(&seen());
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
    set(
        &mut seen,
        |step| matches!(step, Step::Route(_)),
        State::InTheWay("default dev eth9".into()),
    );
    set(&mut seen, |step| matches!(step, Step::ProxyNeighbour { .. }), State::Unknown("no".into()));
    let found = errors(&seen);
    let ids: Vec<&str> = found.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(ids, ["routes", "rules"]);
    assert_eq!(found[0].fix, ["ip route replace default dev nb0 table 7101 proto 110"]);
    assert_eq!(
        found[1].fix,
        ["ip rule add priority 1004 from all iif lan0 protocol 110 lookup 7100"]
    );
    assert!(
        evaluate(&seen)
            .iter()
            .any(|finding| finding.id == "proxy-arp" && finding.severity == Severity::Warning)
    );
    assert!(evaluate(&seen).iter().all(|finding| finding.id != "host"));
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
        question: RouteQuery { from, to, by: Some(by.into()) },
        device: device.into(),
        via: None,
        way: RouteResult::Unicast { device: "vpn0".into(), via: None },
    };
    let client = Ipv4Addr::new(192, 0, 2, 1);
    seen.passages =
        vec![passage(FIRST, client, "lan0", "nb0"), passage(client, FIRST, "nb0", "lan0")];
    assert!(errors(&seen)[0].advice.starts_with("see: "), "nobody's rule is there to blame");
    let rule = Rule {
        priority: 10,
        iif: None,
        from: None,
        to: None,
        udp: None,
        action: RuleAction::Lookup(52),
    };
    seen.foreign.push(FoundRule { rule, protocol: 3, more: false });
    assert_eq!(
        errors(&seen)[0].fix,
        [
            "ip rule add priority 1005 to 10.0.0.0/24 iif nb0 lookup main",
            "ip rule add priority 1015 from all lookup 52",
            "ip rule del priority 10 from all lookup 52",
        ]
    );
    // What is missing explains it, be it an address or a setting.
    seen.facts.warnings = vec!["inside.address: 10.0.0.100 is not an address of this host".into()];
    assert!(errors(&seen).iter().all(|finding| finding.id != "path"));
    seen.facts.warnings.clear();
    set(&mut seen, |step| matches!(step, Step::Route(_)), State::Missing(None));
    assert!(errors(&seen).iter().all(|finding| finding.id != "path"));
}

#[test]
fn lines_and_addresses_that_are_not_what_they_should_be_are_named() {
    let mut seen = seen();
    seen.config.uplinks[0].gateway = Some(Ipv4Addr::new(203, 0, 113, 254));
    seen.gateways = vec![Some((Ipv4Addr::new(203, 0, 113, 254), None))];
    seen.taken = vec![(Ipv4Addr::new(203, 0, 113, 1), "wan0".into(), true)];
    seen.assigned_since_start = vec![Ipv4Addr::new(203, 0, 113, 1)];
    let ids: Vec<String> = errors(&seen).into_iter().map(|finding| finding.id).collect();
    assert_eq!(ids, ["owned-address", "gateway", "duplicate-address"]);
}

#[test]
fn segments_too_long_for_a_line_are_warned_of_unless_they_are_clamped() {
    let mut seen = seen();
    seen.legs[1].mtu = 1400;
    let warned = |seen: &BoxFacts| {
        evaluate(seen)
            .iter()
            .any(|finding| finding.id == "mtu" && finding.severity == Severity::Warning)
    };
    assert!(!warned(&seen), "auto");
    seen.config.nat.mss_clamp = crate::config::MssClamp::Off;
    assert!(warned(&seen));
    seen.config.nat.mss_clamp = crate::config::MssClamp::To(1360);
    assert!(!warned(&seen));
    seen.config.nat.mss_clamp = crate::config::MssClamp::To(1361);
    assert!(warned(&seen));
}

#[test]
fn a_gateway_that_is_still_being_asked_is_not_said_to_answer() {
    let mut seen = seen();
    seen.gateways =
        vec![Some((Ipv4Addr::new(203, 0, 113, 254), Some(NeighbourState::Unconfirmed)))];
    let finding = evaluate(&seen).into_iter().find(|finding| finding.id == "gateway").unwrap();
    assert_eq!(finding.severity, Severity::Warning, "{finding:?}");
}

#[test]
fn an_interface_without_its_address_is_an_error() {
    let mut seen = seen();
    seen.facts.warnings = vec!["inside.address: 10.0.0.100 is not an address of this host".into()];
    assert_eq!(errors(&seen)[0].fix, ["ip address add 10.0.0.100/24 dev lan0"]);
    seen.config.inside.address = None;
    assert!(errors(&seen)[0].advice.contains("dev lan0"));
    seen.facts.warnings = vec!["uplinks[0].gateway: strange".into()];
    assert_eq!(errors(&seen), []);

    let leg = &mut seen.facts.uplinks[0];
    (leg.assumed, leg.address) = (false, None);
    seen.facts.on_link[0][0] = false;
    set(&mut seen, |step| matches!(step, Step::Route(_)), State::Missing(None));
    let found = errors(&seen);
    assert!(
        found.len() == 1 && found[0].found.starts_with("wan0 has no address"),
        "no routes for without: {found:?}"
    );
    set(&mut seen, |step| matches!(step, Step::Route(_)), State::InPlace);
    seen.facts.uplinks[0].address = Some(Ipv4Addr::new(203, 0, 113, 9));
    assert_eq!(errors(&seen), [], "a block that is routed to it");
}
