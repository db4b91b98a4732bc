//! Datagrams larger than the uplinks' MTU: real kernels fragment them and reassemble the output of
//! the box.

use std::net::SocketAddrV4;

use crate::lab::{Echo, datagrams, exchange};
use crate::single_box::{CLIENT, DATAGRAMS, Published, SERVER, SingleBox};

/// Datagrams of one, two and many fragments, up to the largest that IPv4 can carry.
pub(crate) const SIZES: [usize; 7] = [1472, 1473, 2960, 4000, 9001, 30_000, 65_507];

#[test]
fn large_datagrams_cross_the_box_both_ways_through_a_forward_and_outbound() {
    for workers in ["1", "2"] {
        let testbed = SingleBox::new(Published::OnLink);
        let mut config = testbed.config();
        config.workers = workers.to_owned();
        let natbox = testbed.start(&config);
        let _inside = Echo::start(&testbed.server, SERVER, DATAGRAMS).unwrap();
        let _outside = Echo::start(&testbed.net, CLIENT, 4000).unwrap();
        let from_outside = datagrams(&testbed.net, CLIENT, 0).unwrap();
        from_outside.connect(testbed.endpoint(DATAGRAMS)).unwrap();
        let from_inside = datagrams(&testbed.server, SERVER, 0).unwrap();
        from_inside.connect(SocketAddrV4::new(CLIENT, 4000)).unwrap();
        for size in SIZES {
            exchange(&from_outside, size).unwrap();
            exchange(&from_inside, size).unwrap();
        }
        for reason in
            ["fragment-overlap", "fragment-duplicate", "fragment-table-full", "fragment-timeout"]
        {
            assert_eq!(natbox.dropped(reason), 0, "{reason} with {workers} workers");
        }
    }
}

#[test]
fn a_large_ping_from_inside_is_answered() {
    let testbed = SingleBox::new(Published::Routed);
    let _natbox = testbed.start(&testbed.config());
    let mut ping = testbed.server.command("ping");
    ping.args(["-c", "5", "-i", "0.05", "-W", "2", "-s", "20000", &CLIENT.to_string()]);
    let output = ping.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(" 0% packet loss"), "{text}");
}
