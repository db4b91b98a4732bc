//! Another program adds routes to natbox's own tables, or before its route of the local table.

use std::time::Instant;

use natbox::api::EventKind;
use rustix::process::Signal;

use super::{events, host_status, pause, restored, rules_and_routes, settled, shell, soon};
use crate::single_box::{Published, RunningBox, SingleBox, eventually, seconds};

/// Replaces the uplink's way out.
const REPLACE_DEFAULT: &str = "ip route replace default via 203.0.113.253 dev wan0 table 7103";

/// Routes that have the place of one of natbox's, or precede one.
const INTRUDERS: [&str; 11] = [
    REPLACE_DEFAULT,
    "ip route prepend default via 203.0.113.253 dev wan0 table 7103",
    "ip route append default via 203.0.113.253 dev wan0 table 7103",
    "ip route add 192.0.2.0/24 via 203.0.113.253 dev wan0 proto static table 7103",
    "ip route add blackhole 192.0.2.0/24 table 7103",
    "ip route replace prohibit default table 7103",
    "ip route add 192.0.2.0/24 table 7103 nexthop via 203.0.113.253 dev wan0 \
     nexthop via 203.0.113.252 dev wan0",
    "ip nexthop add id 77 via 203.0.113.253 dev wan0; ip route add 192.0.2.0/25 nhid 77 table 7103",
    "ip route replace blackhole 203.0.113.10 table 7102",
    "ip route replace unreachable default table 7100",
    "ip route add 192.0.2.11 via 203.0.113.253 dev wan0 tos 0 proto 110 table 7100",
];

#[test]
fn natboxs_tables_have_natboxs_routes_alone() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let before = testbed.host_state();
    // A box for each part, because natbox answers only some removals at once.
    for scripts in INTRUDERS.chunks(4) {
        let natbox = testbed.start(&testbed.config());
        pause();
        let wanted = rules_and_routes(&testbed);
        for script in scripts {
            shell(&testbed.natbox, script);
            settled(&testbed, &wanted, script);
            testbed.assert_traffic();
            assert_eq!(host_status(&natbox).missing, [""; 0], "{script}");
        }
        let restored = restored(&testbed, &natbox);
        for script in scripts.iter().filter(|script| **script == REPLACE_DEFAULT) {
            let removal = script.replacen("replace", "del", 1);
            let again = "ip route replace default via 203.0.113.254 dev wan0 table 7103 proto 110";
            for command in [removal.as_str(), again] {
                assert!(restored.iter().any(|known| known == command), "{command}: {restored:#?}");
            }
        }
        natbox.stop(Signal::TERM);
        before.assert_same(&testbed.host_state(), &format!("after {scripts:?}"));
    }
}

#[test]
fn a_program_that_takes_a_table_again_and_again_is_an_error_in_the_status() {
    let testbed = SingleBox::new(Published::Owned);
    let _server = testbed.serve();
    let fixed = testbed.config().to_string();
    let followed =
        fixed.replace("addresses: [203.0.113.10], gateway: 203.0.113.254", "addresses: interface");
    assert_ne!(followed, fixed);
    for text in [fixed, followed] {
        let path = testbed.write("natbox", &text);
        let socket = testbed.config().socket;
        let natbox = RunningBox::launch(&testbed.natbox, "natbox", &path, &socket);
        pause();
        let start = Instant::now();
        while start.elapsed() < seconds(6) {
            shell(&testbed.natbox, REPLACE_DEFAULT);
            std::thread::sleep(seconds(1) / 5);
        }
        let host = host_status(&natbox);
        let error = host.error.clone().expect("an error");
        assert!(error.contains("table 7103") && error.contains("ip monitor route"), "{error}");
        assert!(!host.missing.is_empty(), "{host:?}");
        let disputes = events(&testbed, &natbox).into_iter();
        let disputes = disputes.filter(|event| matches!(event, EventKind::HostDisputed { .. }));
        assert_eq!(disputes.count(), 1);
        eventually("the route comes back", || {
            host_status(&natbox).missing.is_empty().then_some(())
        });
        testbed.assert_traffic();
        natbox.stop(Signal::TERM);
    }
}

#[test]
fn natboxs_route_of_an_own_address_stays_the_first() {
    let testbed = SingleBox::new(Published::Owned);
    let _server = testbed.serve();
    let before = testbed.host_state();
    let natbox = testbed.start(&testbed.config());
    pause();
    shell(&testbed.natbox, "ip route prepend local 203.0.113.10 dev wan0 table local");
    soon("the forward", || testbed.fetch().ok());
    let first = || {
        let routes = testbed.natbox.ip_output(&["route", "show", "table", "local"]).unwrap();
        routes.lines().find(|line| line.contains("local 203.0.113.10 ")).map(str::to_owned)
    };
    soon("natbox's route", || first().filter(|line| line.contains("dev nb0")));
    testbed.assert_traffic();
    shell(&testbed.natbox, "ip route del local 203.0.113.10 dev wan0 proto boot table local");
    natbox.stop(Signal::TERM);
    before.assert_same(&testbed.host_state(), "after the stop");
}

/// In the tables of the host natbox takes no route away, and says so.
#[test]
fn a_route_of_the_main_table_stays_and_is_a_conflict() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    pause();
    let route = "203.0.113.10 via 203.0.113.253 dev wan0";
    shell(&testbed.natbox, &format!("ip route replace {route}"));
    let missing = soon("the conflict", || {
        Some(host_status(&natbox).missing).filter(|missing| !missing.is_empty())
    });
    assert!(missing[0].contains(route) && missing[0].contains("remove the route"), "{missing:?}");
    assert!(!natbox.status().uplinks[0].healthy);
    shell(&testbed.natbox, &format!("ip route del {route}"));
    soon("natbox's route", || host_status(&natbox).missing.is_empty().then_some(()));
}
