//! Destinations of `no_nat` and `outbound` that cannot work, or that open the inside.

use super::*;

/// Asserts that the file has one problem, which says all of these words.
#[track_caller]
fn assert_refused(text: &str, words: &[&str]) {
    let problems = rejection(text);
    assert_eq!(problems.lines().count(), 1, "{problems}");
    for word in words {
        assert!(problems.contains(word), "{word:?} is missing in: {problems}");
    }
}

fn no_nat(to: &str) -> String {
    with(&format!("no_nat: [{{ to: {to} }}]"))
}

/// Regression: `check` accepted these rules in silence.
#[test]
fn a_rule_without_translation_opens_no_large_part_of_the_internet() {
    for to in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "64.0.0.0/2", "32.0.0.0/7"] {
        assert_refused(&no_nat(to), &["no_nat[0].to", to, "10.0.0.0/24", "list these networks"]);
    }
    let narrow = with("no_nat: [{ to: 0.0.0.0/0, protocol: udp, port: 123 }]");
    assert_refused(&narrow, &["no_nat[0].to", "every inside host"]);
}

#[test]
fn a_rule_without_translation_needs_destinations_beyond_the_box() {
    assert_refused(&no_nat("10.0.0.0/24"), &["lies in the inside prefix 10.0.0.0/24", "remove"]);
    assert_refused(&no_nat("10.0.0.7/32"), &["lies in the inside prefix 10.0.0.0/24", "remove"]);
    let own = ["an address of this box (uplinks[0].addresses[0])", "nat.hairpin"];
    assert_refused(&no_nat("203.0.113.10/32"), &own);
    let block = no_nat("203.0.113.8/30").replace("203.0.113.10", "203.0.113.8-15");
    assert_refused(&block, &own);
    for (to, kind) in [
        ("127.0.0.0/8", "loopback"),
        ("224.0.0.0/4", "multicast"),
        ("169.254.0.0/16", "link-local"),
        ("255.255.255.255/32", "broadcast"),
        ("0.0.0.0/8", "this network"),
    ] {
        assert_refused(&no_nat(to), &[kind, "no packet"]);
    }
}

#[test]
fn a_network_around_the_inside_gives_a_warning() {
    for to in ["10.0.0.0/8", "10.0.0.0/23"] {
        let loaded = parse("f.yaml", &no_nat(to)).unwrap();
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        let [warning] = warnings.as_slice() else { panic!("{to}: {warnings:?}") };
        for word in ["no_nat[0].to", "holds the inside prefix 10.0.0.0/24", "list their networks"] {
            assert!(warning.contains(word), "{warning}");
        }
    }
}

#[test]
fn networks_of_other_sites_are_accepted_without_a_warning() {
    for to in ["172.20.0.0/16", "10.9.0.0/16", "203.0.113.0/24", "192.0.2.7/32", "11.0.0.0/8"] {
        let loaded = parse("f.yaml", &no_nat(to)).unwrap();
        assert!(loaded.warnings.is_empty(), "{to}: {:?}", loaded.warnings);
    }
}

#[test]
fn an_outbound_rule_needs_destinations_that_packets_through_natbox_have() {
    let outbound = |to: &str| with(&format!("outbound: [{{ from: 10.0.0.0/25, to: [{to}] }}]"));
    assert_refused(&outbound("127.0.0.0/8"), &["outbound[0].to[0]", "loopback", "remove"]);
    assert_refused(&outbound("192.0.2.0/24, 224.0.0.0/4"), &["outbound[0].to[1]", "multicast"]);
    assert_refused(&outbound("10.0.0.128/25"), &["lies behind lan0 like the sources", "one leg"]);
    for to in ["0.0.0.0/0", "203.0.113.10/32", "10.0.0.0/8", "0.0.0.0/1, 128.0.0.0/1"] {
        assert!(parse("f.yaml", &outbound(to)).unwrap().warnings.is_empty(), "{to}");
    }
    let legs = "inside:\n  - { interface: lan0, prefixes: [10.0.0.0/24] }\n  \
        - { interface: dmz0, prefixes: [10.1.0.0/24] }\n\
        uplinks: [{ interface: wan0, addresses: [203.0.113.10] }]\n\
        outbound: [{ from: 10.0.0.0/24, to: 10.1.0.0/24 }]\n";
    accepted(legs);
}

#[test]
fn the_inside_address_is_one_that_a_host_may_have() {
    for address in ["10.0.0.0", "10.0.0.255"] {
        let text = SHORT.replace("lan0,", &format!("lan0, address: {address},"));
        let words = ["inside.address", "network or broadcast address of 10.0.0.0/24", "write"];
        assert_refused(&text, &words);
    }
    accepted(&SHORT.replace("lan0,", "lan0, address: 10.0.0.254,"));
}
