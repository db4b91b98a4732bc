//! A full-tunnel VPN adds rules without a priority.

use natbox::api::EventKind;
use rustix::process::Signal;

use super::{OWN_PORT, events, own_service, pause, reaches_from, shell, soon};
use crate::single_box::{PROVIDER, Published, SingleBox, eventually};

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

fn assert_in_and_out(scene: &SingleBox, when: &str) {
    soon(&format!("the forward {when}"), || scene.fetch().ok());
    scene.assert_traffic();
}

#[test]
fn rules_of_a_vpn_do_not_take_natboxs_packets() {
    for (published, vpn) in [
        (Published::OnLink, WG_QUICK),
        (Published::Owned, WG_QUICK),
        (Published::OnLink, CATCH_ALL),
        (Published::OnLink, OF_THE_INSIDE),
    ] {
        let scene = SingleBox::new(published);
        let _server = scene.serve();
        let natbox = scene.start(&scene.config());
        scene.assert_traffic();
        shell(&scene.natbox, vpn);
        assert_in_and_out(&scene, &format!("after `{vpn}`"));
        let moved = events(&scene, &natbox).into_iter().find_map(|event| {
            if let EventKind::RulesMoved { priority, before } = event {
                Some((priority, before))
            } else {
                None
            }
        });
        let (priority, before) = moved.expect("an event");
        assert!(priority < 1000 && !before.is_empty(), "{priority}: {before:?}");
        natbox.stop(Signal::TERM);
        let natbox = scene.start(&scene.config());
        assert_in_and_out(&scene, &format!("after a restart beside `{vpn}`"));
        natbox.stop(Signal::TERM);
    }
}

#[test]
fn natbox_returns_to_its_place_when_a_vpn_ends() {
    let scene = SingleBox::new(Published::Owned);
    let (_server, _own) = (scene.serve(), own_service(&scene));
    shell(&scene.natbox, WG_QUICK);
    let natbox = scene.start(&scene.config());
    assert_in_and_out(&scene, "after a start beside the VPN");
    shell(&scene.natbox, WG_QUICK_DOWN);
    let rules = || scene.natbox.ip_output(&["rule", "show"]).unwrap();
    // A client that reconnects gets a place before natbox each time.
    for round in 0..3 {
        shell(&scene.natbox, WG_QUICK);
        assert_in_and_out(&scene, &format!("in round {round}"));
        // The host itself answers as well. Its replies to hosts further away take the VPN.
        assert!(reaches_from(&scene, PROVIDER, OWN_PORT));
        shell(&scene.natbox, WG_QUICK_DOWN);
    }
    eventually("the rules return", || {
        rules().contains("1008:\tfrom all iif lan0 lookup 7100").then_some(())
    });
    pause();
    let rules = rules();
    assert_eq!(rules.matches("iif lan0 lookup 7100").count(), 2, "one for hairpin: {rules}");
    assert_in_and_out(&scene, "after the VPN");
    natbox.stop(Signal::TERM);
}
