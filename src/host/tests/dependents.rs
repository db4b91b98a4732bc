//! Which uplinks depend on which steps.

use super::*;
use crate::host::model::dependents::Dependencies;
use crate::host::model::other_interfaces::OtherInterface;
use crate::host::model::step::Step;

/// Returns the dependents of each step, as command and text.
fn dependents(config: &Config) -> Vec<(String, String, Vec<usize>)> {
    let (mut facts, ids) = HostFacts::assumed(config);
    facts.other_interfaces.push(OtherInterface { name: "other0".into(), index: 9 });
    let steps: Vec<Step> = list_steps(config, &facts, &ids);
    let of = |step: &Step| {
        let found = Dependencies { config, ids }.of_step(step);
        (step.command(), found.words, found.uplinks.into_iter().collect())
    };
    steps.iter().map(of).collect()
}

#[track_caller]
fn assert_dependents(config: &Config, end: &str, words: &str, uplinks: &[usize]) {
    let all = dependents(config);
    let found: Vec<_> = all.iter().filter(|(command, ..)| command.contains(end)).collect();
    assert!(!found.is_empty(), "{end}: {all:#?}");
    for (command, text, places) in found {
        assert_eq!((text.as_str(), places.as_slice()), (words, uplinks), "{command}");
    }
}

/// Regression: one disputed sysctl of an interface outside the configuration marked every uplink as
/// failed.
#[test]
fn a_setting_of_another_interface_fails_no_uplink() {
    let config = three_legged();
    let nothing = "no translated packet depends on it";
    assert_dependents(&config, "conf.other0.arp_announce", nothing, &[]);
    assert_dependents(&config, "conf.other0.arp_ignore", nothing, &[]);
    assert_dependents(&config, "icmp_msgs_per_sec", nothing, &[]);
}

#[test]
fn a_setting_of_one_uplink_fails_that_uplink_alone() {
    let config = three_legged();
    let second = ["conf.wan1.forwarding", "iif wan1 ", "table 7104", "table 7105", "proxy 198.51"];
    for end in second {
        assert_dependents(&config, end, "uplink isp2 depends on it", &[1]);
    }
    for end in ["conf.wan0.arp_ignore", "iif wan0 ", "table 7102"] {
        assert_dependents(&config, end, "uplinks isp1, isp3 depend on it", &[0, 2]);
    }
    for end in ["table 7107", "proxy 203.0.113.30"] {
        assert_dependents(&config, end, "uplink isp3 depends on it", &[2]);
    }
}

#[test]
fn a_setting_of_all_packets_fails_every_uplink() {
    let config = three_legged();
    let all: Vec<usize> = (0..config.uplinks.len()).collect();
    let words = "every uplink depends on it";
    let leg = &config.inside.legs[0].interface;
    for end in [
        "ip_forward=1",
        "errors_use_inbound",
        "conf.nb0.forwarding",
        "ip link set",
        "169.254.71.1/32 dev nb0",
        "table 7100",
        "table 7101",
        &format!("conf.{leg}.forwarding"),
        &format!("iif {leg} "),
    ] {
        assert_dependents(&config, end, words, &all);
    }
}

#[test]
fn a_setting_of_one_leg_of_several_fails_no_uplink() {
    let mut config = three_legged();
    config.inside.legs.push(leg("dmz0", "10.9.0.0/24"));
    let words = "the hosts behind dmz0 depend on it";
    for end in ["conf.dmz0.forwarding", "iif dmz0 "] {
        assert_dependents(&config, end, words, &[]);
    }
    assert_dependents(&config, "table 22700", "packets of the host itself depend on it", &[]);
}
