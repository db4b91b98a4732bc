//! Numbers of tables and rules.

use super::*;

fn config(tun: &str) -> Config {
    Config { tun: Tun { name: tun.into(), ..Tun::default() }, ..natbox1() }
}

fn allocate(host: &Snapshot, tun: &str) -> RoutingIds {
    RoutingIds::allocate(host, &config(tun), RuleOwner::OtherInstance).unwrap()
}

#[test]
fn the_index_follows_the_tun_and_avoids_numbers_in_use() {
    let choose = |host: &Snapshot| allocate(host, "nb3");
    assert_eq!(choose(&host()).inside_table(), 7100 + 3 * 64);
    assert_eq!(choose(&host()).tun_address, ip("169.254.71.4"));
    assert_eq!(choose(&host()).priorities(), 1048..1064);
    let mut host = host();
    host.routes.push(route("10.9.0.0/16", 7100 + 3 * 64 + 20, None));
    let moved = choose(&host);
    assert_eq!((moved.inside_table(), moved.priority(0)), (7100, 1000));
    host.routes.push(route("10.9.0.0/16", 7120, None));
    assert_eq!(choose(&host).inside_table(), 7164);
    host.addresses.push(address(1, "169.254.71.2", "169.254.71.2/32", true));
    assert_eq!(choose(&host).inside_table(), 7100 + 2 * 64);
}

#[test]
fn rules_precede_a_vpns_rules() {
    // As wg-quick adds them while natbox's rules begin at 1000.
    let mut host = host();
    let mut not_marked = rule(999, 3, RuleAction::Lookup(51820));
    (not_marked.more, not_marked.is_inverted) = (true, true);
    let suppressed = FoundRule { more: true, ..rule(998, 3, RuleAction::Lookup(TABLE_MAIN)) };
    host.rules.extend([not_marked, suppressed]);
    host.routes.push(route("0.0.0.0/0", 51820, Some("wan1")));
    assert_eq!(allocate(&host, "nb0").priorities(), 982..998);

    let running = allocate(&self::host(), "nb0");
    let moved = |host: &Snapshot, back| running.moved(host, &config("nb0"), back);
    assert_eq!(moved(&host, false).map(|ids| ids.priorities()), Some(982..998));
    assert_eq!(moved(&self::host(), true), None);
    let back = moved(&host, false).unwrap();
    let back = |may_return| back.moved(&self::host(), &config("nb0"), may_return);
    assert_eq!((back(false), back(true)), (None, Some(running)));
}

#[test]
fn without_a_place_before_another_rule_a_warning_names_that_rule() {
    let mut host = host();
    host.rules.push(rule(9, 0, RuleAction::Lookup(52)));
    host.routes.push(route("0.0.0.0/0", 52, Some("wan1")));
    let (facts, ids) = collect(&natbox1(), &host);
    assert_eq!(ids.priority(0), 1016);
    let wanted = "policy rules: `priority 9 from all lookup 52` of another program takes natbox's \
                  packets, and no place before that rule is free; give that rule a priority above 1032";
    assert_eq!(facts.preceding_rules, [wanted]);
    assert_eq!(facts.warnings, [""; 0]);
}

#[test]
fn two_instances_have_blocks_of_their_own() {
    let mut host = host();
    host.rules.push(rule(1003, RTPROT_NATBOX, RuleAction::Blackhole));
    assert_eq!(allocate(&host, "nb1").priorities(), 1016..1032);
    assert_eq!(allocate(&host, "nb0").priorities(), 984..1000);
}

#[test]
fn a_local_rule_that_another_program_moved_stays_behind_natbox() {
    let mut host = host();
    host.addresses.push(address(3, "203.0.113.10", "203.0.113.0/24", false));
    host.rules[0] = rule(500, 0, RuleAction::Lookup(TABLE_LOCAL));
    host.routes.push(route("203.0.113.10/32", TABLE_LOCAL, Some("wan0")));
    let commands = commands(&natbox1(), &host);
    assert!(!commands.contains("suppress_ifgroup"), "{commands}");
    let local = "ip rule add priority 488 from all to 203.0.113.10 protocol kernel lookup local";
    assert!(commands.contains(local), "{commands}");
}
