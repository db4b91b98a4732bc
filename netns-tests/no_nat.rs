//! Destinations without translation: the view of real kernels at both ends.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use natbox::lab::Namespace;
use rustix::process::Signal;

use crate::single_box::{CLIENT, Published, SERVER, SingleBox, eventually, seconds};

const BYPASSED_PORT: u16 = 4000;
const OTHER_PORT: u16 = 4001;

#[test]
fn a_bypassed_destination_and_the_inside_see_each_others_own_addresses() {
    let _proof = crate::conformance::proves(&["RFC6888-6"]);
    for kind in [Published::OnLink, Published::Owned] {
        let testbed = SingleBox::new(kind);
        testbed.net.route("10.0.0.0/24", testbed.outside).unwrap();
        let before = testbed.host_state();
        let mut config = testbed.config();
        config.extra =
            format!("no_nat: [{{ to: {CLIENT}/32, protocol: udp, port: {BYPASSED_PORT} }}]\n");
        let natbox = testbed.start(&config);
        let bypassed = bind(&testbed.net, CLIENT, BYPASSED_PORT);
        let other = bind(&testbed.net, CLIENT, OTHER_PORT);
        let inside = bind(&testbed.server, SERVER, 5000);
        for size in [100, 9000, 60_000] {
            // Outbound, the reply, and an unsolicited datagram.
            send(&inside, size, SocketAddrV4::new(CLIENT, BYPASSED_PORT));
            let seen = receive(&bypassed, size);
            assert_eq!(seen, SocketAddrV4::new(SERVER, 5000), "{size} bytes, {kind:?}");
            send(&bypassed, size, seen);
            assert_eq!(receive(&inside, size), SocketAddrV4::new(CLIENT, BYPASSED_PORT));
            // To another port of the same host: translated.
            send(&inside, size, SocketAddrV4::new(CLIENT, OTHER_PORT));
            let seen = receive(&other, size);
            assert_eq!(*seen.ip(), testbed.published, "{size} bytes, {kind:?}");
            send(&other, size, seen);
            assert_eq!(receive(&inside, size), SocketAddrV4::new(CLIENT, OTHER_PORT));
        }
        // From that port directly to the inside: not bypassed, and filtered.
        send(&other, 100, SocketAddrV4::new(SERVER, 5000));
        eventually("the packet is dropped", || {
            (natbox.dropped("source-not-allowed") > 0).then_some(())
        });
        send(&bypassed, 101, SocketAddrV4::new(SERVER, 5000));
        assert_eq!(receive(&inside, 101), SocketAddrV4::new(CLIENT, BYPASSED_PORT));
        natbox.stop(Signal::TERM);
        before.assert_same(&testbed.host_state(), &format!("{kind:?}"));
    }
}

fn bind(namespace: &Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind((address, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(seconds(5))).unwrap();
    socket
}

fn send(socket: &UdpSocket, size: usize, to: SocketAddrV4) {
    socket.send_to(&vec![0x5a; size], to).unwrap();
}

/// Receives one datagram of this size and returns its sender.
fn receive(socket: &UdpSocket, size: usize) -> SocketAddrV4 {
    let mut buffer = vec![0; 65_536];
    let (length, peer) =
        socket.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{size} bytes: {error}"));
    assert_eq!(length, size);
    match peer {
        std::net::SocketAddr::V4(peer) => peer,
        std::net::SocketAddr::V6(peer) => panic!("an IPv4 socket hears {peer}"),
    }
}
