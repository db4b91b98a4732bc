//! Checks of a box.

use super::*;
pub(super) use crate::host::doctor::checks::box_checks::evaluate;
use crate::host::doctor::facts::box_facts::{
    BoxFacts, ExpectedPath, Gateway, PublishedAddress, StepState,
};
use crate::host::doctor::facts::network_programs::{NetworkPrograms, RemovingKey};
use crate::host::kernel::route_lookup::RouteQuery;
use crate::host::model::facts::HostFacts;
use crate::host::model::step::Step;
use crate::host::model::steps::steps;

/// A running box without any problem.
pub(super) fn good_box() -> BoxFacts {
    let config = natbox(1, FIRST, Some(100));
    let (host, ids) = HostFacts::assumed(&config);
    let link = |name: &str| LinkSettings {
        interface: name.into(),
        mtu: 1500,
        rp_filter: 0,
        offloads: Offloads::default(),
        is_network_card: true,
    };
    BoxFacts {
        steps: steps(&config, &host, &ids)
            .into_iter()
            .map(|step| (step, StepState::InPlace))
            .collect(),
        is_running: true,
        other_rules: Vec::new(),
        paths: Vec::new(),
        links: vec![link("lan0"), link("wan0")],
        filters: Filters::default(),
        gateways: vec![gateway(Some(NeighbourState::Reachable))],
        listeners: Vec::new(),
        published: Vec::new(),
        network_programs: NetworkPrograms::default(),
        host,
        config,
    }
}

fn gateway(state: Option<NeighbourState>) -> Option<Gateway> {
    Some(Gateway { address: Ipv4Addr::new(203, 0, 113, 254), state })
}

fn set(facts: &mut BoxFacts, is: impl Fn(&Step) -> bool, state: StepState) {
    let (_, found) = facts.steps.iter_mut().find(|(step, _)| is(step)).unwrap();
    *found = state;
}

#[test]
fn a_good_box_has_no_errors() {
    let findings = evaluate(&good_box());
    assert!(findings.iter().all(|finding| finding.severity == Severity::Ok), "{findings:#?}");
}

#[test]
fn missing_settings_are_one_finding_per_kind_with_the_commands_of_the_plan() {
    let mut facts = good_box();
    set(
        &mut facts,
        |step| matches!(step, Step::Rule(rule) if rule.iif.as_deref() == Some("lan0")),
        StepState::Missing(None),
    );
    set(
        &mut facts,
        |step| matches!(step, Step::Route(_)),
        StepState::Conflict("default dev eth9".into()),
    );
    set(
        &mut facts,
        |step| matches!(step, Step::ProxyNeighbour { .. }),
        StepState::Unreadable("no".into()),
    );
    let found = errors(evaluate(&facts));
    let ids: Vec<&str> = found.iter().map(|finding| finding.id.as_str()).collect();
    assert_eq!(ids, ["routes", "rules"]);
    assert_eq!(found[0].fix, ["ip route replace default dev nb0 table 7101 proto 110"]);
    assert_eq!(
        found[1].fix,
        ["ip rule add priority 1008 from all iif lan0 protocol 110 lookup 7100"]
    );
    assert!(
        evaluate(&facts)
            .iter()
            .any(|finding| finding.id == "proxy-arp" && finding.severity == Severity::Warning)
    );
    assert!(evaluate(&facts).iter().all(|finding| finding.id != "host"));
}

#[test]
fn the_greater_of_both_source_filters_counts() {
    let is_filter =
        |step: &Step| matches!(step, Step::Sysctl { path, .. } if path.ends_with("lan0/rp_filter"));
    for (all, own, good) in
        [(0, 0, true), (0, 1, false), (1, 0, false), (1, 2, true), (2, 0, true), (2, 1, true)]
    {
        let mut facts = good_box();
        facts.host.settings.rp_filter_all = all;
        set(&mut facts, is_filter, StepState::Missing(Some(own.to_string())));
        assert_eq!(errors(evaluate(&facts)).is_empty(), good, "all {all}, own {own}");
    }
}

#[test]
fn the_fix_moves_a_catch_all_rule_behind_natbox() {
    let mut facts = good_box();
    let path = |from, to, iif: &str, device: &str| ExpectedPath {
        packets: "packets",
        query: RouteQuery { from, to, iif: Some(iif.into()) },
        device: device.into(),
        via: None,
        result: RouteResult::Unicast { device: "vpn0".into(), via: None },
    };
    let client = Ipv4Addr::new(192, 0, 2, 1);
    facts.paths = vec![path(FIRST, client, "lan0", "nb0"), path(client, FIRST, "nb0", "lan0")];
    assert!(
        errors(evaluate(&facts))[0].advice.starts_with("check: "),
        "no other rule explains the path"
    );
    let rule = Rule::new(10, RuleAction::Lookup(52));
    facts.other_rules.push(found(rule));
    assert_eq!(
        errors(evaluate(&facts))[0].fix,
        [
            "ip rule add priority 1024 from all lookup 52",
            "ip rule del priority 10 from all lookup 52",
        ]
    );
    // A missing address or setting explains the path.
    facts.host.warnings = vec!["inside.address: 10.0.0.100 is not assigned to this host".into()];
    assert!(errors(evaluate(&facts)).iter().all(|finding| finding.id != "path"));
    facts.host.warnings.clear();
    set(&mut facts, |step| matches!(step, Step::Route(_)), StepState::Missing(None));
    assert!(errors(evaluate(&facts)).iter().all(|finding| finding.id != "path"));
}

#[test]
fn silent_gateways_and_duplicates_have_findings() {
    let mut facts = good_box();
    facts.config.uplinks[0].gateway = Some(Ipv4Addr::new(203, 0, 113, 254));
    facts.gateways = vec![gateway(None)];
    let address = Ipv4Addr::new(203, 0, 113, 1);
    let interface = "wan0".into();
    facts.published = vec![PublishedAddress { address, interface, is_duplicate: true }];
    let ids: Vec<String> = errors(evaluate(&facts)).into_iter().map(|finding| finding.id).collect();
    assert_eq!(ids, ["gateway", "duplicate-address"]);
}

#[test]
fn segments_too_long_for_an_uplink_are_a_warning_unless_clamped() {
    let mut facts = good_box();
    facts.links[1].mtu = 1400;
    let warned = |facts: &BoxFacts| {
        evaluate(facts)
            .iter()
            .any(|finding| finding.id == "mtu" && finding.severity == Severity::Warning)
    };
    assert!(!warned(&facts), "auto");
    facts.config.nat.mss_clamp = crate::config::MssClamp::Off;
    assert!(warned(&facts));
    facts.config.nat.mss_clamp = crate::config::MssClamp::To(1360);
    assert!(!warned(&facts));
    facts.config.nat.mss_clamp = crate::config::MssClamp::To(1361);
    assert!(warned(&facts));
}

#[test]
fn an_inside_address_that_the_outside_segment_reaches_is_a_warning() {
    let mut facts = good_box();
    let warned = |facts: &BoxFacts| {
        let findings = evaluate(facts);
        findings.into_iter().find(|finding| finding.id == "exposure")
    };
    assert_eq!(warned(&facts), None);
    facts.config.host.block_private = false;
    let finding = warned(&facts).expect("natbox's filter is off");
    assert_eq!(finding.found, "the segment of wan0 reaches 10.0.0.100, the address on lan0");
    assert!(finding.advice.contains("host.block_private: true") && finding.fix.is_empty());
    (facts.config.host.manage, facts.config.host.block_private) = (false, true);
    let fix = warned(&facts).expect("natbox sets no filter").fix;
    assert!(
        fix.last().is_some_and(|rule| rule.contains("iifname \"wan0\" ip daddr 10.0.0.100 drop"))
    );
}

#[test]
fn an_unconfirmed_gateway_is_a_warning() {
    let mut facts = good_box();
    facts.gateways = vec![gateway(Some(NeighbourState::Unconfirmed))];
    let finding = evaluate(&facts).into_iter().find(|finding| finding.id == "gateway").unwrap();
    assert_eq!(finding.severity, Severity::Warning, "{finding:?}");
}

#[test]
fn an_interface_without_its_address_is_an_error() {
    let mut facts = good_box();
    facts.host.warnings = vec!["inside.address: 10.0.0.100 is not assigned to this host".into()];
    assert_eq!(errors(evaluate(&facts))[0].fix, ["ip address add 10.0.0.100/24 dev lan0"]);
    facts.config.inside.legs[0].address = None;
    assert!(errors(evaluate(&facts))[0].advice.contains("dev lan0"));
    facts.host.warnings = vec!["uplinks[0].gateway: strange".into()];
    assert_eq!(errors(evaluate(&facts)), []);

    let interface = &mut facts.host.uplinks[0];
    (interface.assumed, interface.address) = (false, None);
    facts.host.on_link[0][0] = false;
    set(&mut facts, |step| matches!(step, Step::Route(_)), StepState::Missing(None));
    let found = errors(evaluate(&facts));
    assert!(
        found.len() == 1 && found[0].found.starts_with("wan0 has no address"),
        "routes are not compared without the address: {found:?}"
    );
    set(&mut facts, |step| matches!(step, Step::Route(_)), StepState::InPlace);
    facts.host.uplinks[0].address = Some(Ipv4Addr::new(203, 0, 113, 9));
    assert_eq!(errors(evaluate(&facts)), [], "a block that is routed to the box");
}

/// Regression: doctor named these settings only while a dispute lasted.
#[test]
fn network_programs_that_would_remove_settings_are_warnings_with_the_lines_to_set() {
    let mut facts = good_box();
    let of = |facts: &BoxFacts, id: &str| {
        let all = evaluate(facts);
        all.into_iter().find(|finding| finding.id == id)
    };
    assert_eq!((of(&facts, "networkd"), of(&facts, "network-manager")), (None, None));
    facts.network_programs =
        NetworkPrograms { networkd: Some(Vec::new()), network_manager: Some(false) };
    for id in ["networkd", "network-manager"] {
        assert_eq!(of(&facts, id).unwrap().severity, Severity::Ok, "{id}");
    }
    let removing = |key, file: Option<&str>| RemovingKey { key, file: file.map(Into::into) };
    let set_by = "/etc/systemd/networkd.conf.d/10-rules.conf";
    facts.network_programs = NetworkPrograms {
        networkd: Some(vec![
            removing("ManageForeignRoutingPolicyRules", Some(set_by)),
            removing("ManageForeignRoutes", None),
        ]),
        network_manager: Some(true),
    };
    let networkd = of(&facts, "networkd").unwrap();
    let manager = of(&facts, "network-manager").unwrap();
    assert_eq!([networkd.severity, manager.severity], [Severity::Warning; 2]);
    assert!(networkd.found.contains(set_by), "{networkd:?}");
    for line in ["ManageForeignRoutingPolicyRules=no", "ManageForeignRoutes=no", "[Network]"] {
        assert!(networkd.advice.contains(line), "{networkd:?}");
    }
    for line in ["unmanaged-devices+=interface-name:natbox1", "[keyfile]"] {
        let line = line.replace("natbox1", &facts.config.tun.name);
        assert!(manager.advice.contains(&line), "{manager:?}");
    }
}
