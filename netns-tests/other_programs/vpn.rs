//! A full-tunnel VPN adds rules without a priority.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use natbox::api::EventKind;
use natbox::cli::doctor::Severity;
use natbox::lab::http;
use rustix::process::Signal;

use super::{OWN_PORT, events, own_service, pause, reaches_from, restored, shell, soon};
use crate::single_box::{PROVIDER, Published, RunningBox, SingleBox, WEB, eventually};

/// The rules of wg-quick for a tunnel that takes everything, with a device that swallows packets.
pub(super) const WG_QUICK: &str = "ip link add wg0 type veth peer name wg1; ip link set wg1 up; ip link set wg0 up; \
    ip route add default dev wg0 table 51820; \
    ip rule add not fwmark 51820 table 51820; ip rule add table main suppress_prefixlength 0";
/// Ends the tunnel as wg-quick does.
const WG_QUICK_DOWN: &str = "ip rule del table 51820; \
    ip rule del table main suppress_prefixlength 0; ip link del wg0";
/// A VPN whose rules take every packet.
const CATCH_ALL: &str = "ip link add tun9 type veth peer name tun8; ip link set tun8 up; ip link set tun9 up; \
    ip route add default dev tun9 table 200; ip rule add from all table 200";
/// A VPN for the private network.
const OF_THE_INSIDE: &str = "ip link add tun9 type veth peer name tun8; ip link set tun8 up; ip link set tun9 up; \
    ip route add default dev tun9 table 200; ip rule add from 10.0.0.0/24 table 200";
/// Rules that have priorities of natbox's own.
const IN_NATBOXS_PLACE: &str = "ip link add tun9 type veth peer name tun8; ip link set tun8 up; ip link set tun9 up; \
    ip route add default dev tun9 table 200; ip rule del priority 1008; \
    ip rule add priority 1008 iif lan0 table 200; ip rule add priority 1010 iif nb0 table 200";

fn assert_in_and_out(testbed: &SingleBox, when: &str) {
    soon(&format!("the forward {when}"), || testbed.fetch().ok());
    testbed.assert_traffic();
}

#[test]
fn rules_of_a_vpn_do_not_take_natboxs_packets() {
    for (published, vpn) in [
        (Published::OnLink, WG_QUICK),
        (Published::Owned, WG_QUICK),
        (Published::OnLink, CATCH_ALL),
        (Published::OnLink, OF_THE_INSIDE),
        (Published::OnLink, IN_NATBOXS_PLACE),
    ] {
        let testbed = SingleBox::new(published);
        let _server = testbed.serve();
        let natbox = testbed.start(&testbed.config());
        testbed.assert_traffic();
        shell(&testbed.natbox, vpn);
        assert_in_and_out(&testbed, &format!("after `{vpn}`"));
        let moved = events(&testbed, &natbox).into_iter().find_map(|event| {
            if let EventKind::RulesMoved { priority, before } = event {
                Some((priority, before))
            } else {
                None
            }
        });
        let (priority, before) = moved.expect("an event");
        assert!(priority < 1000 && !before.is_empty(), "{priority}: {before:?}");
        natbox.stop(Signal::TERM);
        let natbox = testbed.start(&testbed.config());
        assert_in_and_out(&testbed, &format!("after a restart beside `{vpn}`"));
        natbox.stop(Signal::TERM);
    }
}

#[test]
fn natbox_returns_to_its_place_when_a_vpn_ends() {
    let testbed = SingleBox::new(Published::Owned);
    let (_server, _own) = (testbed.serve(), own_service(&testbed));
    shell(&testbed.natbox, WG_QUICK);
    let natbox = testbed.start(&testbed.config());
    assert_in_and_out(&testbed, "after a start beside the VPN");
    shell(&testbed.natbox, WG_QUICK_DOWN);
    let rules = || testbed.natbox.ip_output(&["rule", "show"]).unwrap();
    // A client that reconnects gets a place before natbox each time.
    for round in 0..3 {
        shell(&testbed.natbox, WG_QUICK);
        assert_in_and_out(&testbed, &format!("in round {round}"));
        // The host itself answers as well. Its replies to hosts further away take the VPN.
        assert!(reaches_from(&testbed, PROVIDER, OWN_PORT));
        shell(&testbed.natbox, WG_QUICK_DOWN);
    }
    eventually("the rules return", || {
        rules().contains("1008:\tfrom all iif lan0 lookup 7100").then_some(())
    });
    pause();
    let rules = rules();
    assert_eq!(rules.matches("iif lan0 lookup 7100").count(), 2, "one for hairpin: {rules}");
    assert_in_and_out(&testbed, "after the VPN");
    natbox.stop(Signal::TERM);
}

/// A VPN for a quarter of all addresses, which holds none of natbox's networks.
const OF_A_QUARTER: [&str; 3] = [
    "ip link add tun9 type veth peer name tun8; ip link set tun8 up; ip link set tun9 up",
    "ip route add default dev tun9 table 200",
    "ip rule add to 64.0.0.0/2 table 200",
];
/// A host within that quarter.
const WITHIN: Ipv4Addr = Ipv4Addr::new(66, 0, 0, 6);

#[test]
fn a_rule_for_a_part_of_the_internet_does_not_take_natboxs_packets() {
    for order in [[0, 1, 2], [0, 2, 1]] {
        let scene = SingleBox::new(Published::OnLink);
        let _server = scene.serve();
        scene.net.address("lo", WITHIN, 32).unwrap();
        let _far = crate::single_box::serve(&scene.net, WITHIN, 8080);
        let natbox = scene.start(&scene.config());
        for script in order.map(|number| OF_A_QUARTER[number]) {
            shell(&scene.natbox, script);
            pause();
        }
        soon("a client in the quarter", || reaches_from(&scene, WITHIN, WEB).then_some(()));
        soon("a server in the quarter", || {
            let to = SocketAddrV4::new(WITHIN, 8080);
            let connect = || http::connect(None, to, Duration::from_millis(400));
            scene.server.enter(connect).unwrap().ok()
        });
        assert!(events(&scene, &natbox).iter().any(is_move), "{:?}", events(&scene, &natbox));
        natbox.stop(Signal::TERM);
    }
}

fn is_move(event: &EventKind) -> bool {
    matches!(event, EventKind::RulesMoved { .. })
}

/// No packet of natbox has an outgoing interface before its route is known.
#[test]
fn a_rule_for_bound_sockets_leaves_natboxs_rules_in_place() {
    let scene = SingleBox::new(Published::OnLink);
    let _server = scene.serve();
    let natbox = scene.start(&scene.config());
    shell(
        &scene.natbox,
        "ip link add tun9 type veth peer name tun8; ip link set tun8 up; ip link set tun9 up; \
         ip route add default dev tun9 table 200; \
         ip rule add priority 5 oif tun9 table 200; ip rule add priority 500 oif wan0 table 200",
    );
    let looks = |number: usize| {
        shell(&scene.natbox, "ip rule del priority 1008");
        soon("a look at the rules", || (restored(&scene, &natbox).len() > number).then_some(()));
    };
    looks(0);
    pause();
    looks(1);
    assert_eq!(natbox.status().warnings, []);
    assert!(!events(&scene, &natbox).iter().any(is_move), "{:?}", events(&scene, &natbox));
    scene.assert_traffic();
    natbox.stop(Signal::TERM);
}

/// The routes of OpenVPN's `redirect-gateway def1`, with a device that swallows packets.
const REDIRECT_GATEWAY: &str = "ip link add tun9 type veth peer name tun8; ip link set tun8 up; \
    ip link set tun9 up; ip route add 0.0.0.0/1 dev tun9; ip route add 128.0.0.0/1 dev tun9";
/// Another router of the provider.
const SECOND_ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 253);

/// Starts a box whose uplink has no gateway in the configuration.
fn start_without_a_gateway(testbed: &SingleBox) -> RunningBox {
    let text = testbed.config().to_string();
    let without = text.replace(", gateway: 203.0.113.254", "");
    assert_ne!(without, text);
    let path = testbed.write("natbox", &without);
    RunningBox::launch(&testbed.natbox, "natbox", &path, &testbed.config().socket)
}

#[test]
fn routes_of_a_vpn_do_not_take_natboxs_packets() {
    for published in [Published::OnLink, Published::Owned] {
        let testbed = SingleBox::new(published);
        let _server = testbed.serve();
        let natbox = start_without_a_gateway(&testbed);
        testbed.assert_traffic();
        shell(&testbed.natbox, REDIRECT_GATEWAY);
        pause();
        assert_in_and_out(&testbed, "beside the VPN");
        natbox.stop(Signal::TERM);
        let natbox = start_without_a_gateway(&testbed);
        assert_in_and_out(&testbed, "after a restart beside the VPN");
        natbox.stop(Signal::TERM);
    }
}

/// A DHCP client, or a person, changes the host's routes by the uplink's interface.
#[test]
fn an_uplink_without_a_gateway_follows_the_hosts_routes() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    testbed.net.address("eth0", SECOND_ROUTER, 24).unwrap();
    let natbox = start_without_a_gateway(&testbed);
    let before = testbed.natbox.ip_output(&["route", "show", "table", "7103"]).unwrap();
    let has_route = |route: &str| {
        let table = testbed.natbox.ip_output(&["route", "show", "table", "7103"]).unwrap();
        table.contains(route).then_some(())
    };
    shell(&testbed.natbox, "ip route replace default via 203.0.113.253 dev wan0");
    soon("the other router", || has_route("default via 203.0.113.253 dev wan0"));
    testbed.assert_traffic();
    // The way to the client alone is right.
    shell(
        &testbed.natbox,
        "ip route add 192.0.2.0/24 via 203.0.113.254 dev wan0; \
         ip route replace default via 203.0.113.252 dev wan0",
    );
    soon("the static route", || has_route("192.0.2.0/24 via 203.0.113.254 dev wan0"));
    soon("the next router", || has_route("default via 203.0.113.252 dev wan0"));
    testbed.assert_traffic();
    shell(&testbed.natbox, "ip route del default; ip route del 192.0.2.0/24");
    soon("the end of the uplink", || (!natbox.status().uplinks[0].healthy).then_some(()));
    let warnings = natbox.status().warnings;
    assert!(warnings[0].found.contains("wan0 has no default route"), "{warnings:?}");
    // As a DHCP client renews its lease.
    shell(
        &testbed.natbox,
        "ip address flush dev wan0; ip address add 203.0.113.1/24 dev wan0; \
         ip route add default via 203.0.113.254",
    );
    soon("the uplink", || natbox.status().uplinks[0].healthy.then_some(()));
    assert_in_and_out(&testbed, "after the lease");
    assert_eq!(natbox.status().warnings, []);
    let after = testbed.natbox.ip_output(&["route", "show", "table", "7103"]).unwrap();
    assert_eq!(after, before);
    natbox.stop(Signal::TERM);
}

/// A rule before which no place is left for natbox's. Nothing but a person can help.
#[test]
fn a_rule_that_natbox_cannot_precede_is_an_error_in_the_status() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let rule = "priority 5 from all lookup 200";
    let add = "ip route replace unreachable default table 200; ip rule add priority 5 lookup 200";
    let mut natbox = testbed.start(&testbed.config());
    assert_eq!(natbox.status().warnings, []);
    for is_there_at_the_start in [false, true] {
        if is_there_at_the_start {
            natbox.stop(Signal::TERM);
            shell(&testbed.natbox, add);
            natbox = testbed.start(&testbed.config());
        } else {
            shell(&testbed.natbox, add);
        }
        let warning = soon("the warning", || natbox.status().warnings.into_iter().next());
        assert!(warning.found.contains(rule), "{warning:?}");
        assert_eq!(warning.severity, Severity::Error);
        let socket = natbox.socket().to_str().unwrap();
        let text = testbed.natbox(&[], &["status", "--socket", socket]).stdout;
        assert!(text.contains(rule), "{text}");
        let found = warning.found.clone();
        let began = events(&testbed, &natbox).into_iter().any(
            |event| matches!(event, EventKind::HostWarning { found: said, .. } if said == found),
        );
        assert!(began, "an event");
        shell(&testbed.natbox, "ip rule del priority 5");
        soon("the end", || natbox.status().warnings.is_empty().then_some(()));
        let ended = EventKind::HostWarningEnded { found };
        assert!(events(&testbed, &natbox).contains(&ended), "an event");
        assert_in_and_out(&testbed, "without the rule");
    }
}
