//! Packets of the host and of inside hosts that must not leave untranslated.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use natbox::lab::{Namespace, http};
use rustix::process::Signal;

use super::{INSIDE, PrivateSources};
use crate::single_box::{
    CLIENT, PROVIDER, Published, RunningBox, SERVER, SingleBox, eventually, serve,
};

/// Runs `ping` once with these arguments. Returns true when a reply arrived.
pub(super) fn ping(from: &Namespace, arguments: &[&str]) -> bool {
    let mut command = from.command("ping");
    command.args(["-n", "-c", "1", "-W", "0.5"]).args(arguments);
    command.output().unwrap().status.success()
}

/// Sends packets of every kind from the host's inside address.
fn send_from_inside_address(testbed: &SingleBox) {
    let (inside, client, provider) = (INSIDE.to_string(), CLIENT.to_string(), PROVIDER.to_string());
    for target in [&client, &provider] {
        ping(&testbed.natbox, &["-I", &inside, target]);
        // A socket that is also bound to the uplink's interface gets the on-link route of that
        // interface.
        ping(&testbed.natbox, &["-I", "wan0", "-I", &inside, target]);
    }
    testbed
        .natbox
        .enter(|| {
            let socket = UdpSocket::bind((INSIDE, 0)).unwrap();
            for target in [CLIENT, PROVIDER] {
                let _ = socket.send_to(b"x", (target, 9));
                let to = SocketAddrV4::new(target, 9);
                let _ = http::connect(Some(INSIDE), to, Duration::from_millis(300));
            }
        })
        .unwrap();
}

#[test]
fn the_hosts_packets_from_its_inside_address_leave_translated() {
    let testbed = SingleBox::new(Published::OnLink);
    let _outside = serve(&testbed.net, CLIENT, 8080);
    let natbox = testbed.start(&testbed.config());
    let private = PrivateSources::watch(&testbed.net);
    let to = SocketAddrV4::new(CLIENT, 8080);
    let connect = || http::connect(Some(INSIDE), to, Duration::from_secs(3));
    let mut connection = testbed.natbox.enter(connect).unwrap().unwrap();
    let seen = connection.get("/").unwrap().text().trim().to_owned();
    assert_eq!(seen, testbed.published.to_string());
    assert!(ping(&testbed.natbox, &["-I", &INSIDE.to_string(), &CLIENT.to_string()]));
    // The provider's router is on the segment of the uplink.
    assert!(ping(&testbed.natbox, &["-I", &INSIDE.to_string(), &PROVIDER.to_string()]));
    send_from_inside_address(&testbed);
    private.assert_none();
    natbox.stop(Signal::TERM);
}

#[test]
fn without_an_outbound_rule_the_hosts_packets_from_its_inside_address_are_dropped() {
    let testbed = SingleBox::new(Published::OnLink);
    let text = testbed
        .config()
        .to_string()
        .replace("outbound:\n  - { from: 10.0.0.0/24 }", "outbound:\n  - { from: 10.0.0.101/32 }");
    let config = testbed.config();
    let path = testbed.write("restricted", &text);
    let natbox = RunningBox::launch(&testbed.natbox, "restricted", &path, &config.socket);
    let private = PrivateSources::watch(&testbed.net);
    send_from_inside_address(&testbed);
    private.assert_none();
    assert!(natbox.dropped("no-outbound-rule") > 0, "{:?}", natbox.status().drops);
    natbox.stop(Signal::TERM);
}

/// Neither the inside nor the host sends untranslated packets while natbox is dead or its device is
/// down. Inside hosts get an error at once.
#[test]
fn nothing_leaves_untranslated_while_natbox_is_dead() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    testbed.natbox.sysctl("net/ipv4/ip_forward", "1").unwrap();
    let natbox = testbed.start(&testbed.config());
    testbed.assert_traffic();
    let private = PrivateSources::watch(&testbed.net);
    // natbox sets its device up again.
    testbed.natbox.ip(&["link", "set", "nb0", "down"]).unwrap();
    ping(&testbed.server, &[&CLIENT.to_string()]);
    send_from_inside_address(&testbed);
    eventually("traffic after the device was down", || testbed.fetch().ok());
    natbox.kill();
    eventually("the kernel removes the device", || {
        testbed.natbox.ip_output(&["link", "show", "nb0"]).is_err().then_some(())
    });
    assert!(!ping(&testbed.server, &[&CLIENT.to_string()]));
    let to = SocketAddrV4::new(CLIENT, 9).into();
    let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(2));
    eventually("the kernel tells inside hosts that the outside is unreachable", || {
        let error = testbed.server.enter(connect).unwrap().unwrap_err();
        (error.kind() == std::io::ErrorKind::HostUnreachable).then_some(())
    });
    send_from_inside_address(&testbed);
    private.assert_none();
    let natbox = testbed.start(&testbed.config());
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
}

/// Where the published address is the host's own, the host gets its packets after natbox has died,
/// from outside and from inside.
#[test]
fn a_dead_natbox_leaves_the_host_its_own_address() {
    let testbed = SingleBox::new(Published::Owned);
    let _own = serve(&testbed.natbox, Ipv4Addr::UNSPECIFIED, 8022);
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    testbed.assert_traffic();
    natbox.kill();
    eventually("the kernel removes the device", || {
        testbed.natbox.ip_output(&["link", "show", "nb0"]).is_err().then_some(())
    });
    for (from, source) in [(&testbed.net, CLIENT), (&testbed.server, SERVER)] {
        let connect =
            || http::connect(Some(source), testbed.endpoint(8022), Duration::from_secs(3));
        let mut connection = from.enter(connect).unwrap().unwrap();
        assert_eq!(connection.get("/").unwrap().text().trim(), source.to_string());
    }
}

/// If an uplink's interface has no address, the kernel takes an inside address for the host's
/// packets.
#[test]
fn the_hosts_packets_by_an_interface_without_an_address_leave_translated() {
    let testbed = SingleBox::new(Published::Routed);
    let _outside = serve(&testbed.net, CLIENT, 8080);
    let outside = testbed.outside.to_string();
    testbed.natbox.ip(&["address", "del", &format!("{outside}/24"), "dev", "wan0"]).unwrap();
    let segment = ["route", "add", "203.0.113.0/24", "dev", "wan0"];
    testbed.natbox.ip(&segment).unwrap();
    testbed.natbox.route("default", PROVIDER).unwrap();
    // The provider reaches the box without ARP for its address.
    let mac = testbed.natbox.ip_output(&["-o", "link", "show", "wan0"]).unwrap();
    let mac = mac.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap();
    testbed.net.ip(&["neigh", "replace", &outside, "lladdr", mac, "dev", "eth0"]).unwrap();
    let natbox = testbed.start(&testbed.config());
    let private = PrivateSources::watch(&testbed.net);
    let to = SocketAddrV4::new(CLIENT, 8080);
    let connect = || http::connect(None, to, Duration::from_secs(3));
    let mut connection = testbed.natbox.enter(connect).unwrap().unwrap();
    let seen = connection.get("/").unwrap().text().trim().to_owned();
    assert_eq!(seen, testbed.published.to_string());
    assert!(ping(&testbed.natbox, &[&CLIENT.to_string()]));
    ping(&testbed.natbox, &["-I", "wan0", &CLIENT.to_string()]);
    testbed
        .natbox
        .enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.send_to(b"x", (CLIENT, 9)).unwrap();
        })
        .unwrap();
    private.assert_none();
    natbox.stop(Signal::TERM);
}
