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
        let scene = SingleBox::new(Published::OnLink);
        let mut config = scene.config();
        config.workers = workers.to_owned();
        let natbox = scene.start(&config);
        let _inside = Echo::start(&scene.server, SERVER, DATAGRAMS).unwrap();
        let _outside = Echo::start(&scene.net, CLIENT, 4000).unwrap();
        let from_outside = datagrams(&scene.net, CLIENT, 0).unwrap();
        from_outside.connect(scene.endpoint(DATAGRAMS)).unwrap();
        let from_inside = datagrams(&scene.server, SERVER, 0).unwrap();
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
    let scene = SingleBox::new(Published::Routed);
    let _natbox = scene.start(&scene.config());
    let mut ping = scene.server.command("ping");
    ping.args(["-c", "5", "-i", "0.05", "-W", "2", "-s", "20000", &CLIENT.to_string()]);
    let output = ping.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(" 0% packet loss"), "{text}");
}
