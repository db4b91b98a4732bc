//! Two inside legs: the MTU, the segments and the source of ICMP errors are those of the leg of a
//! packet's inside host.

use crate::nat::{Leg, OutboundRule};

use super::*;

/// The box's own address on the second leg.
const BOX2: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
/// An inside host behind the second leg, whose MTU is 1280.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 7);
/// A router behind the second leg.
const GUEST_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 200);

/// Returns [`settings`] with a second leg. Port 8081 leads to [`GUEST`].
fn two_legs() -> Setup {
    settings().with(|setup| {
        let prefix: ipnet::Ipv4Net = "10.1.0.0/24".parse().expect("a prefix");
        setup.limits.inside.push(prefix);
        setup.policy.legs.push(Leg {
            prefixes: vec![prefix],
            address: Some(BOX2),
            routers: vec![GUEST_ROUTER],
            mtu: 1280,
        });
        let first = setup.policy.outbound[0].clone();
        setup.policy.outbound.push(OutboundRule { from: prefix, ..first });
        setup.policy.forwards.push(forward(ForwardProtocol::TcpUdp, 8081..=8081, GUEST, 80));
    })
}

/// Returns a datagram of a number of bytes that must not be fragmented.
fn datagram(bytes: usize, source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Vec<u8> {
    let payload = vec![0; bytes - 28];
    let mut packet = builder::udp(tuple(Protocol::UDP, source, destination), &payload);
    builder::set_dont_fragment(&mut packet, true);
    packet
}

/// Sends a packet that is answered with "fragmentation needed". Returns source, destination and
/// MTU of the answer.
fn fragmentation_needed(harness: &mut Harness, packet: &[u8]) -> (Ipv4Addr, Ipv4Addr, u16) {
    let out = harness.send(packet).expect("an ICMP error");
    let Payload::IcmpError(error) = parsed(&out).payload() else { panic!("an ICMP error") };
    assert_eq!((error.kind, error.code), (3, 4));
    (parsed(&out).source(), parsed(&out).destination(), u16::from_be_bytes([out[26], out[27]]))
}

#[test]
fn the_mtu_of_one_leg_does_not_limit_packets_to_another() {
    let mut harness = Harness::new(two_legs());
    harness.pass(&datagram(1500, (E1, 4), (G, 8080)));
    harness.pass(&datagram(1280, (E1, 4), (G, 8081)));
    let to_guest = datagram(1281, (E1, 4), (G, 8081));
    assert_eq!(fragmentation_needed(&mut harness, &to_guest), (G, E1, 1280));
    // Over hairpin.
    let hairpin = datagram(1281, (S2, 5), (G, 8081));
    assert_eq!(fragmentation_needed(&mut harness, &hairpin), (BOX, S2, 1280));
    harness.pass(&datagram(1280, (GUEST, 6), (G, 8080)));

    harness.nat.set_leg_mtu(1, 1400);
    harness.pass(&to_guest);
    harness.nat.set_leg_mtu(0, 1300);
    let to_server = datagram(1301, (E1, 4), (G, 8080));
    assert_eq!(fragmentation_needed(&mut harness, &to_server), (G, E1, 1300));
    harness.pass(&to_guest);
}

#[test]
fn the_mss_follows_the_legs_of_both_ends() {
    let mut harness = Harness::new(two_legs());
    let with_mss = |from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)| {
        builder::tcp(tuple(Protocol::TCP, from, to), SYN, 1, 0, &[2, 4, 5, 180], b"")
    };
    let mut mss = |from, to| {
        let out = harness.send(&with_mss(from, to)).expect("passes");
        u16::from_be_bytes([out[42], out[43]])
    };
    assert_eq!(mss((E1, 4), (G, 8080)), 1460);
    assert_eq!(mss((E1, 4), (G, 8081)), 1240);
    assert_eq!(mss((S2, 5), (E1, 443)), 1460);
    assert_eq!(mss((GUEST, 6), (E1, 443)), 1240);
    assert_eq!(mss((S2, 7), (G, 8081)), 1240);
    assert_eq!(mss((GUEST, 8), (G, 8080)), 1240);
    assert_eq!(mss((S2, 9), (G, 8080)), 1460);
}

#[test]
fn an_icmp_error_to_an_inside_host_comes_from_the_box_on_its_leg() {
    let mut harness = Harness::new(two_legs().with(|setup| setup.policy.uplinks[0].mtu = 1000));
    let of_server = datagram(1001, (S2, 5), (E1, 53));
    assert_eq!(fragmentation_needed(&mut harness, &of_server), (BOX, S2, 1000));
    let of_guest = datagram(1001, (GUEST, 6), (E1, 53));
    assert_eq!(fragmentation_needed(&mut harness, &of_guest), (BOX2, GUEST, 1000));

    // The kernel's own error about a packet that came out of the TUN.
    let kernel = Ipv4Addr::new(169, 254, 71, 1);
    let sent = harness.send(&udp((GUEST, 6), (E1, 53))).expect("translated");
    let out = harness.send(&builder::icmp_error(3, 1, kernel, G, &sent)).expect("translated");
    assert_eq!((parsed(&out).source(), parsed(&out).destination()), (BOX2, GUEST));
}

#[test]
fn routers_of_every_leg_may_report_errors() {
    let mut harness = Harness::new(two_legs());
    let to_guest = harness.send(&udp((E1, 4), (G, 8081))).expect("translated");
    for reporter in [GUEST_ROUTER, BOX2, BOX] {
        let out = harness.send(&builder::icmp_error(3, 1, reporter, E1, &to_guest));
        let out = out.expect("translated");
        assert_eq!((parsed(&out).source(), parsed(&out).destination()), (G, E1));
    }
}
