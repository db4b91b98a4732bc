//! A box takes over addresses that another box had. Routers and servers still know the other box's
//! hardware address, and learn the new one at once.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use natbox::lab::Namespace;
use rustix::process::Signal;

use crate::single_box::{
    BOX_INSIDE, Config, Injector, PROVIDER, Published, SERVER, SingleBox, eventually, seconds,
};

/// Hardware address of a box that is gone.
const OLD: &str = "02:00:00:00:99:99";

/// Gives a neighbour table the entry that the old box left: confirmed a moment ago.
fn remember_the_old_box(namespace: &Namespace, interface: &str, address: Ipv4Addr) {
    let entry = ["neigh", "replace", &address.to_string(), "lladdr", OLD, "dev", interface];
    namespace.ip(&[&entry[..], &["nud", "reachable"]].concat()).unwrap();
}

/// Returns true when a neighbour table still has the old box's entry.
fn knows_the_old_box(namespace: &Namespace, address: Ipv4Addr) -> bool {
    let table = namespace.ip_output(&["neigh", "show", &address.to_string()]).unwrap();
    table.contains(OLD)
}

/// Waits until a page arrives. Each attempt is a new connection.
#[track_caller]
fn fetch_within(testbed: &SingleBox, limit: Duration, when: &str) {
    let began = Instant::now();
    eventually(when, || {
        let mut connection = testbed.connect(Duration::from_millis(200)).ok()?;
        connection.get("/").ok()
    });
    assert!(began.elapsed() < limit, "{when}: {:?}", began.elapsed());
}

/// Remembers the old box at the router and at the server.
fn remember_everywhere(testbed: &SingleBox, interface: &str) {
    for address in [testbed.published, testbed.outside] {
        remember_the_old_box(&testbed.net, interface, address);
    }
    remember_the_old_box(&testbed.server, "eth0", BOX_INSIDE);
}

#[test]
fn new_box_at_an_old_address_gets_its_packets_at_once() {
    for kind in [Published::OnLink, Published::Owned, Published::Routed] {
        let testbed = SingleBox::new(kind);
        let _server = testbed.serve();
        remember_everywhere(&testbed, "eth0");
        assert!(testbed.connect(Duration::from_millis(300)).is_err(), "no box gets the packets");
        let running = testbed.start(&testbed.config());
        fetch_within(&testbed, seconds(2), &format!("{kind:?}: the page"));
        let stale = [(&testbed.net, testbed.outside), (&testbed.server, BOX_INSIDE)];
        for (namespace, address) in stale {
            assert!(!knows_the_old_box(namespace, address), "{kind:?}: {address}");
        }
        running.stop(Signal::TERM);
    }
}

/// The other box answered while the uplink of this one was down.
#[test]
fn uplink_that_comes_back_gets_its_packets_at_once() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    // A bridge keeps the router's table while the box's end is down.
    let _bridge = Injector::new(&testbed);
    let running = testbed.start(&testbed.config());
    fetch_within(&testbed, seconds(5), "the page at the start");
    testbed.natbox.ip(&["link", "set", "wan0", "down"]).unwrap();
    running.wait_for_log("interface is down");
    remember_everywhere(&testbed, "br0");
    testbed.natbox.ip(&["link", "set", "wan0", "up"]).unwrap();
    fetch_within(&testbed, seconds(2), "the page over the uplink that came back");
    running.stop(Signal::TERM);
}

/// The interface gets another hardware address: a new network card, or a bond that moved.
#[test]
fn new_hardware_address_is_announced() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let running = testbed.start(&testbed.config());
    fetch_within(&testbed, seconds(5), "the page at the start");
    // The four announcements of the start are over when the router hears no more of them.
    std::thread::sleep(seconds(7));
    testbed.natbox.ip(&["link", "set", "wan0", "address", "02:00:00:00:77:77"]).unwrap();
    fetch_within(&testbed, seconds(2), "the page at the new hardware address");
    running.stop(Signal::TERM);
}

#[test]
fn address_that_the_uplink_gets_later_is_announced() {
    let testbed = SingleBox::new(Published::Owned);
    let _server = testbed.serve();
    let text = testbed.config().to_string();
    let followed = text.replace(&format!("[{}]", testbed.published), "interface");
    assert_ne!(text, followed);
    testbed.natbox.ip(&["address", "flush", "dev", "wan0"]).unwrap();
    let path = testbed.write("natbox", &followed);
    let Config { socket, .. } = testbed.config();
    let running = crate::single_box::RunningBox::launch(&testbed.natbox, "natbox", &path, &socket);
    remember_the_old_box(&testbed.net, "eth0", testbed.published);
    testbed.natbox.address("wan0", testbed.published, 24).unwrap();
    fetch_within(&testbed, seconds(2), "the page at the new address");
    running.stop(Signal::TERM);
}

/// Two boxes on one segment with one configuration: the second takes over from the first.
#[test]
fn second_box_takes_over_from_a_dead_one() {
    let testbed = SingleBox::new(Published::OnLink);
    let second = SingleBox::new(Published::OnLink);
    let [wan, lan] = ["wan", "lan"].map(|role| testbed.lab.namespace(role).unwrap());
    // The second box joins the segments of the first.
    for (interface, ends, switch) in [
        (
            "wan0",
            [(&testbed.natbox, "wan0"), (&second.natbox, "wan0"), (&testbed.net, "eth0")],
            &wan,
        ),
        (
            "lan0",
            [(&testbed.natbox, "lan0"), (&second.natbox, "lan0"), (&testbed.server, "eth0")],
            &lan,
        ),
    ] {
        for (namespace, _) in &ends[..2] {
            namespace.ip(&["link", "del", interface]).unwrap();
        }
        let base = if interface == "wan0" { 50 } else { 60 };
        let ports = ["port0", "port1", "port2"];
        for (number, (end, port)) in ends.iter().zip(ports).enumerate() {
            testbed.lab.veth(base + number as u8, *end, (switch, port)).unwrap();
        }
        switch.bridge("br0", &ports).unwrap();
    }
    testbed.net.address("eth0", PROVIDER, 24).unwrap();
    testbed.server.address("eth0", SERVER, 24).unwrap();
    testbed.server.route("default", BOX_INSIDE).unwrap();
    let join = |natbox: &Namespace, testbed: &SingleBox| {
        natbox.address("wan0", testbed.outside, 24).unwrap();
        natbox.address("lan0", BOX_INSIDE, 24).unwrap();
        natbox.route("default", PROVIDER).unwrap();
    };
    let _server = testbed.serve();
    join(&testbed.natbox, &testbed);
    let first = testbed.start(&testbed.config());
    fetch_within(&testbed, seconds(5), "the page from the first box");
    first.kill();
    for interface in ["wan0", "lan0"] {
        testbed.natbox.ip(&["link", "set", interface, "down"]).unwrap();
    }
    join(&second.natbox, &testbed);
    let took_over = second.start(&second.config());
    fetch_within(&testbed, seconds(2), "the page from the second box");
    testbed.assert_outbound();
    took_over.stop(Signal::TERM);
}
