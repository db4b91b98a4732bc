//! Numbers of tables and rules.

use super::*;

#[test]
fn the_index_follows_the_tun_and_avoids_numbers_in_use() {
    let choose = |host: &Snapshot| allocate(host, "nb3", Precedence::AfterLocal).unwrap();
    assert_eq!(choose(&host()).inside_table(), 7100 + 3 * 64);
    assert_eq!(choose(&host()).tun_address, ip("169.254.71.4"));
    let mut host = host();
    host.rules.push(rule(1030, 0, RuleAction::Lookup(52)));
    let moved = choose(&host);
    assert_eq!((moved.inside_table(), moved.after_local(0)), (7100, 1000));
    host.routes.push(route("10.9.0.0/16", 7120, None));
    assert_eq!(choose(&host).inside_table(), 7164);
    host.addresses.push(address(1, "169.254.71.2", "169.254.71.2/32", true));
    assert_eq!(choose(&host).inside_table(), 7100 + 2 * 64);
}

#[test]
fn rules_of_other_programs_stay_behind_the_local_rule() {
    let mut host = host();
    host.rules.push(rule(100, 0, RuleAction::Lookup(52)));
    let ids = allocate(&host, "nb1", Precedence::BeforeLocal).unwrap();
    assert_eq!((ids.local_rule, ids.before_local()), (Some(99), 91));
    host.rules.push(rule(4, 0, RuleAction::Lookup(52)));
    let error = allocate(&host, "nb1", Precedence::BeforeLocal).unwrap_err().to_string();
    assert!(error.contains("the lowest rule of other programs has priority 4"), "{error}");
}

#[test]
fn a_second_instance_shares_the_moved_local_rule() {
    let mut host = host();
    host.rules[0] = rule(999, RTPROT_NATBOX, RuleAction::Lookup(TABLE_LOCAL));
    host.rules.push(rule(991, RTPROT_NATBOX, RuleAction::Blackhole));
    let ids = allocate(&host, "nb1", Precedence::BeforeLocal).unwrap();
    assert_eq!(ids.local_rule, Some(999));
    assert_eq!(ids.before_local(), 995);
}

#[test]
fn a_local_rule_that_another_program_moved_stays() {
    let mut host = host();
    host.rules[0] = rule(500, 0, RuleAction::Lookup(TABLE_LOCAL));
    let ids = allocate(&host, "nb1", Precedence::BeforeLocal).unwrap();
    assert_eq!(ids.local_rule, None);
    assert!(ids.before_local() < 500);
}
