//! ICMP errors that kernels, including the box's own, write about translated packets. Each reaches
//! the sender of the packet, with the addresses that the sender knows.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use natbox::lab::Namespace;
use natbox::lab::http;
use natbox::packet::{Protocol, builder};

use crate::lab::hops;
use crate::single_box::{
    BOX_INSIDE, CLIENT, DATAGRAMS, DEAD, ErrorWatch, FAR, Injector, PROVIDER, Published, SERVER,
    SingleBox, Sink, WEB, seconds,
};

/// ICMP types and codes.
const UNREACHABLE: u8 = 3;
const HOST: u8 = 1;
const PORT: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;

/// The kinds of address that a box can publish.
const KINDS: [Published; 3] = [Published::OnLink, Published::Routed, Published::Owned];

/// Builds a setup whose box treats a silent neighbour as unreachable after half a second.
fn impatient(kind: Published) -> SingleBox {
    let testbed = SingleBox::new(kind);
    for interface in ["lan0", "wan0"] {
        testbed
            .natbox
            .sysctl(&format!("net/ipv4/neigh/{interface}/retrans_time_ms"), "150")
            .unwrap();
    }
    testbed
}

/// Sends a datagram and returns the error that comes back.
fn answer(namespace: &Namespace, from: Ipv4Addr, to: SocketAddrV4) -> (ErrorKind, u16) {
    let socket = namespace.enter(|| UdpSocket::bind((from, 0))).unwrap().unwrap();
    socket.set_read_timeout(Some(seconds(5))).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"anybody there").unwrap();
    // The kernel passes an error to the socket only if the quoted packet is one that the socket has
    // sent.
    let error = socket.recv(&mut [0; 64]).unwrap_err();
    (error.kind(), socket.local_addr().unwrap().port())
}

/// Sends a datagram and returns its source port. Linux does not report "host unreachable" to the
/// socket of a datagram.
fn send_datagram(namespace: &Namespace, from: Ipv4Addr, to: SocketAddrV4) -> (UdpSocket, u16) {
    let socket = namespace.enter(|| UdpSocket::bind((from, 0))).unwrap().unwrap();
    socket.send_to(b"anybody there", to).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

#[test]
fn unreachable_server_is_reported_to_the_client_by_the_published_address() {
    for kind in KINDS {
        let testbed = impatient(kind);
        let _natbox = testbed.start(&testbed.config());
        let watch = ErrorWatch::start(&testbed.net);
        let (_socket, port) = send_datagram(&testbed.net, CLIENT, testbed.endpoint(DEAD));
        let seen = watch.wait_for("host unreachable", |error| error.code == HOST);
        assert_eq!(
            (seen.kind, seen.source, seen.destination),
            (UNREACHABLE, testbed.published, CLIENT)
        );
        assert_eq!((seen.quoted, seen.ports), ((CLIENT, testbed.published), (port, DEAD)));

        // The kernel passes an error to a socket only if the quoted packet is one that the socket
        // has sent.
        let connect = || http::connect(Some(CLIENT), testbed.endpoint(DEAD), seconds(5));
        let error = testbed.net.enter(connect).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostUnreachable, "TCP, {kind:?}");
        watch.assert_nothing_private();
    }
}

#[test]
fn unreachable_outside_host_is_reported_to_the_inside() {
    for kind in KINDS {
        let testbed = impatient(kind);
        let _natbox = testbed.start(&testbed.config());
        let watch = ErrorWatch::start(&testbed.server);
        let unused = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 99), 9);
        let (_socket, port) = send_datagram(&testbed.server, SERVER, unused);
        let seen = watch.wait_for("host unreachable", |error| error.code == HOST);
        assert_eq!((seen.source, seen.destination), (BOX_INSIDE, SERVER), "{kind:?}");
        assert_eq!((seen.quoted, seen.ports), ((SERVER, *unused.ip()), (port, 9)));

        let connect = || http::connect(None, unused, seconds(5));
        let error = testbed.server.enter(connect).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HostUnreachable, "TCP, {kind:?}");
    }
}

#[test]
fn a_closed_port_is_reported_in_both_directions() {
    for kind in KINDS {
        let testbed = SingleBox::new(kind);
        let _natbox = testbed.start(&testbed.config());
        let outside = ErrorWatch::start(&testbed.net);
        let (error, port) = answer(&testbed.net, CLIENT, testbed.endpoint(DATAGRAMS));
        assert_eq!(error, ErrorKind::ConnectionRefused, "{kind:?}");
        let seen = outside.wait_for("port unreachable", |error| error.code == PORT);
        assert_eq!(
            (seen.kind, seen.source, seen.destination),
            (UNREACHABLE, testbed.published, CLIENT)
        );
        assert_eq!((seen.quoted, seen.ports), ((CLIENT, testbed.published), (port, DATAGRAMS)));
        outside.assert_nothing_private();

        let inside = ErrorWatch::start(&testbed.server);
        let (error, port) = answer(&testbed.server, SERVER, SocketAddrV4::new(CLIENT, 9));
        assert_eq!(error, ErrorKind::ConnectionRefused, "{kind:?}");
        let seen = inside.wait_for("port unreachable", |error| error.code == PORT);
        assert_eq!((seen.kind, seen.source, seen.destination), (UNREACHABLE, CLIENT, SERVER));
        assert_eq!((seen.quoted, seen.ports), ((SERVER, CLIENT), (port, 9)));
    }
}

#[test]
fn traceroute_from_inside_sees_every_router_once() {
    let testbed = SingleBox::new(Published::OnLink);
    let far = testbed.with_far(1500);
    let _web = crate::single_box::serve(&far, FAR, WEB);
    let _natbox = testbed.start(&testbed.config());
    let watch = ErrorWatch::start(&testbed.net);
    let expected = [BOX_INSIDE, PROVIDER, FAR];
    for method in [&["-U"] as &[&str], &["-I"], &["-T", "-p", "80"]] {
        assert_eq!(hops(&testbed.server, method, FAR).unwrap(), expected, "{method:?}");
    }
    watch.assert_nothing_private();
}

#[test]
fn traceroute_from_outside_sees_the_box_and_then_the_published_address() {
    for kind in [Published::OnLink, Published::Routed] {
        let testbed = SingleBox::new(kind);
        let far = testbed.with_far(1500);
        let _server = testbed.serve();
        let _natbox = testbed.start(&testbed.config());
        let watch = ErrorWatch::start(&testbed.net);
        let provider = Ipv4Addr::new(198, 18, 0, 1);
        let expected = [provider, testbed.outside, testbed.published];
        for method in [&["-U", "-p", "7"] as &[&str], &["-T", "-p", "80"]] {
            assert_eq!(
                hops(&far, method, testbed.published).unwrap(),
                expected,
                "{method:?} ({kind:?})"
            );
        }
        watch.assert_nothing_private();
    }
}

#[test]
fn path_mtu_beyond_the_provider_is_discovered_in_both_directions() {
    for (kind, offload) in [
        (Published::OnLink, "auto"),
        (Published::Routed, "auto"),
        (Published::Owned, "auto"),
        (Published::OnLink, "none"),
    ] {
        let testbed = SingleBox::new(kind);
        let far = testbed.with_far(1300);
        let _server = testbed.serve();
        let config = crate::single_box::Config { offload: offload.into(), ..testbed.config() };
        let _natbox = testbed.start(&config);
        let watch = ErrorWatch::start(&testbed.server);
        let is_too_big = |error: &crate::single_box::IcmpError| {
            (error.kind, error.code, error.mtu) == (UNREACHABLE, FRAGMENTATION_NEEDED, 1300)
        };

        let sink = Sink::listen(&far, FAR, 9000);
        let mut upload = sink.connect(&testbed.server, None);
        let port = upload.local_addr().unwrap().port();
        sink.upload(&mut upload, 1_000_000);
        let seen = watch.wait_for("fragmentation needed", is_too_big);
        assert_eq!((seen.source, seen.destination), (PROVIDER, SERVER));
        assert_eq!(
            (seen.quoted, seen.ports),
            ((SERVER, FAR), (port, 9000)),
            "about the upload ({kind:?})"
        );

        testbed.server.ip(&["route", "flush", "cache"]).unwrap();
        watch.forget();
        let connect = || http::connect(None, testbed.endpoint(WEB), seconds(5));
        let mut connection = far.enter(connect).unwrap().unwrap();
        assert_eq!(connection.get("/bytes/1000000").unwrap().body.len(), 1_000_000);
        let port = connection.stream_ref().local_addr().unwrap().port();
        let seen = watch.wait_for("fragmentation needed", is_too_big);
        assert_eq!(
            (seen.quoted, seen.ports),
            ((SERVER, FAR), (WEB, port)),
            "about the download ({kind:?})"
        );
    }
}

#[test]
fn packet_too_big_for_the_private_side_gets_an_error_with_its_own_addresses() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let injector = Injector::new(&testbed);
    testbed.natbox.ip(&["link", "set", "lan0", "mtu", "1300"]).unwrap();
    natbox.wait_for_log("MTU changed");
    let watch = ErrorWatch::start(&testbed.net);
    let tuple = builder::tuple(Protocol::UDP, (CLIENT, 4000), (testbed.published, DATAGRAMS));
    let mut packet = builder::udp(tuple, &[5; 1400]);
    builder::set_dont_fragment(&mut packet, true);
    injector.send(&packet);
    let seen = watch.wait_for("fragmentation needed", |error| error.code == FRAGMENTATION_NEEDED);
    assert_eq!((seen.source, seen.destination, seen.mtu), (testbed.published, CLIENT, 1300));
    assert_eq!((seen.quoted, seen.ports), ((CLIENT, testbed.published), (4000, DATAGRAMS)));
    watch.assert_nothing_private();

    // Without DF the kernel fragments the packet.
    let inside = testbed.server.enter(|| UdpSocket::bind((SERVER, DATAGRAMS))).unwrap().unwrap();
    inside.set_read_timeout(Some(seconds(3))).unwrap();
    injector.send(&builder::udp(tuple, &[5; 1400]));
    assert_eq!(inside.recv(&mut [0; 2000]).unwrap(), 1400);
}

#[test]
fn upload_fits_a_private_side_with_a_smaller_mtu() {
    let testbed = SingleBox::new(Published::OnLink);
    testbed.natbox.ip(&["link", "set", "lan0", "mtu", "1300"]).unwrap();
    let _natbox = testbed.start(&testbed.config());
    // The server does not know the smaller MTU and offers segments for 1500.
    let sink = Sink::listen(&testbed.server, SERVER, WEB);
    let mut upload = sink.connect(&testbed.net, Some(testbed.endpoint(WEB)));
    sink.upload(&mut upload, 1_000_000);
}
