//! TTL, MTU and the fields of the IP header.

use std::net::Ipv4Addr;

use natbox::packet::{Protocol, QueryKind, TcpFlags, Tuple, builder};

use super::proves;
use crate::probe::{
    BOX, E1, E2, F, F_TARGET, G, Probe, RX, S1, SYN_ACK, Seen, Setup, assert_carried, at, udp,
};

fn with_df(mut packet: Vec<u8>) -> Vec<u8> {
    builder::set_dont_fragment(&mut packet, true);
    packet
}

/// Asserts the error for an expired TTL: to the packet's sender, with the packet as the sender
/// wrote it.
#[track_caller]
fn assert_time_exceeded(error: &Seen, sent: &[u8]) {
    assert_eq!(error.icmp(), Some((11, 0)), "{error:?}");
    let sent = Seen(sent.to_vec());
    assert_eq!(error.destination().address, sent.source().address);
    let quote = error.quote().expect("a quote");
    assert_eq!((quote.source(), quote.destination()), (sent.source(), sent.destination()));
    assert_eq!(quote.body()[..8], sent.body()[..8]);
}

#[test]
fn box_counts_as_one_hop() {
    let _proof = proves(&["TTL-1", "ICMP-10a"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let with_ttl = |mut packet: Vec<u8>, ttl| {
        builder::set_ttl(&mut packet, ttl);
        packet
    };
    let segment = |source, destination| {
        let tuple = Tuple { protocol: Protocol::TCP, source, destination };
        builder::tcp(tuple, TcpFlags::SYN, 1, 0, &[2, 4, 5, 180], b"")
    };
    let out = [
        udp(at(S1, 5000), at(E1, 53), b"hop"),
        segment(at(S1, 5000), at(E1, 80)),
        builder::echo(S1, E1, QueryKind::EchoRequest, 77, 1, b"hop"),
    ];
    let inward =
        [udp(at(E1, 4444), F, b"hop"), segment(at(E1, 4444), F), udp(at(E1, 53), external, b"hop")];
    for packet in out {
        let dying = with_ttl(packet.clone(), 1);
        probe.inside.send(&dying);
        let error = probe.inside.expect("time exceeded");
        assert_eq!(error.source().address, BOX);
        assert_time_exceeded(&error, &dying);
        for ttl in [2, 3, 64, 255] {
            probe.inside.send(&with_ttl(packet.clone(), ttl));
            assert_eq!(probe.outside.expect("out").ttl(), ttl - 1);
        }
    }
    for packet in inward {
        let dying = with_ttl(packet.clone(), 1);
        probe.outside.send(&dying);
        assert_time_exceeded(&probe.outside.expect("time exceeded"), &dying);
        for ttl in [2, 3, 64, 255] {
            probe.outside.send(&with_ttl(packet.clone(), ttl));
            assert_eq!(probe.inside.expect("in").ttl(), ttl - 1);
        }
    }
    probe.silence();
}

#[test]
fn fragmentation_needed_passes_with_any_mtu() {
    let _proof = proves(&["PMTU-1"]);
    let probe = Probe::plain();
    let connection = probe.connect_out(at(S1, 6000), at(E1, 80));
    let data = TcpFlags::ACK;
    let sent = [
        with_df(udp(at(S1, 5000), at(E1, 53), &[7; 1400])),
        with_df(connection.by_inside(data, &[7; 1400])),
        with_df(builder::echo(S1, E1, QueryKind::EchoRequest, 77, 1, &[7; 1400])),
    ];
    for original in sent {
        probe.inside.send(&original);
        let outside = probe.outside.expect("out");
        for mtu in [0_u16, 1, 68, 552, 1399, 1500, 9000, 65_535] {
            let [high, low] = mtu.to_be_bytes();
            probe.outside.send(&builder::icmp(RX, G, 3, 4, [0, 0, high, low], &outside.0[..100]));
            let error = probe.inside.expect("the error");
            assert_eq!((error.icmp(), error.icmp_last_word()), (Some((3, 4)), mtu));
            assert_eq!((error.source().address, error.destination().address), (RX, S1));
            assert_eq!(error.quote().unwrap().source(), Seen(original.clone()).source());
        }
        // The sender's error, not the box's.
        probe.inside.send(&original);
        probe.outside.expect("as long as before");
        let elsewhere = with_df(udp(at(S1, 5000), at(E2, 53), &[7; 1472]));
        probe.inside.send(&elsewhere);
        probe.outside.expect("a full packet to another host");
    }
    let inward = with_df(udp(at(E1, 4444), F, &[7; 1472]));
    probe.outside.send(&inward);
    assert_eq!(probe.inside.expect("in").0.len(), 1500);
}

#[test]
fn packets_of_every_size_pass() {
    let _proof = proves(&["PMTU-3"]);
    let probe = Probe::start(Setup::new().mtu(65_000, 65_000));
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let around = |length: usize| length - 3..=length + 3;
    let large =
        [2048, 4096, 8192, 9000, 16_384, 32_768, 49_152, 64_997].into_iter().flat_map(around);
    for length in (28..=1600).chain(large) {
        let payload: Vec<u8> = (28..length).map(|at| at as u8).collect();
        let out = with_df(udp(at(S1, 5000), at(E1, 53), &payload));
        probe.inside.send(&out);
        assert_carried(
            &out,
            &probe.outside.expect(&format!("{length} bytes")),
            external,
            at(E1, 53),
        );
        let inward = with_df(udp(at(E1, 4444), F, &payload));
        probe.outside.send(&inward);
        assert_carried(
            &inward,
            &probe.inside.expect(&format!("{length} bytes")),
            at(E1, 4444),
            F_TARGET,
        );
    }
}

#[test]
fn the_mss_is_only_lowered_and_only_in_syns() {
    let _proof = proves(&["MSS-1"]);
    let mss_of = |seen: &Seen| {
        let options = &seen.body()[20..usize::from(seen.body()[12] >> 4) * 4];
        let at = options.windows(2).position(|pair| pair == [2, 4]);
        at.map(|at| u16::from_be_bytes([options[at + 2], options[at + 3]]))
    };
    for (clamp, expected) in [("1000", 1000), ("1450", 1400), ("off", 1400), ("auto", 1360)] {
        let probe = Probe::start(Setup::new().mtu(1400, 1500).nat(&format!("mss_clamp: {clamp}")));
        // MSS 1400, once at an even and once at an odd offset.
        for (port, options) in [(1, &[2, 4, 5, 120][..]), (2, &[1, 2, 4, 5, 120, 1, 1, 1][..])] {
            let (inside, remote, client) = (at(S1, 5000 + port), at(E1, 80), at(E1, 6000 + port));
            let send = |flags, source, destination, sequence, acknowledgement| {
                let tuple = Tuple { protocol: Protocol::TCP, source, destination };
                builder::tcp(tuple, flags, sequence, acknowledgement, options, b"")
            };
            let syn = probe.tcp_out(&send(TcpFlags::SYN, inside, remote, 1, 0));
            assert_eq!(mss_of(&syn), Some(expected), "{clamp}, {syn:?}");
            let answer = probe.tcp_in(&send(SYN_ACK, remote, syn.source(), 9, 2));
            assert_eq!(mss_of(&answer), Some(expected), "{clamp}, {answer:?}");
            let syn = probe.tcp_in(&send(TcpFlags::SYN, client, F, 1, 0));
            assert_eq!(mss_of(&syn), Some(expected), "{clamp}, {syn:?}");
            let answer = probe.tcp_out(&send(SYN_ACK, F_TARGET, client, 9, 2));
            assert_eq!(mss_of(&answer), Some(expected), "{clamp}, {answer:?}");
            // Segments other than SYNs keep their options.
            let data = probe.tcp_in(&send(TcpFlags::ACK, client, F, 2, 10));
            assert_eq!(mss_of(&data), Some(1400));
        }
        // A SYN without the option gets none.
        let bare = builder::tcp(
            builder::tuple(Protocol::TCP, (S1, 5100), (E1, 80)),
            TcpFlags::SYN,
            1,
            0,
            &[],
            b"",
        );
        let seen = probe.tcp_out(&bare);
        assert_eq!((mss_of(&seen), seen.0.len()), (None, bare.len()));
    }
}

#[test]
fn the_type_of_service_passes() {
    let _proof = proves(&["TOS-1"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    for value in 0..=255 {
        let mut out = udp(at(S1, 5000), at(E1, 53), b"tos");
        let mut inward = udp(at(E1, 53), external, b"tos");
        builder::set_type_of_service(&mut out, value);
        builder::set_type_of_service(&mut inward, value);
        probe.inside.send(&out);
        assert_eq!(probe.outside.expect("out").type_of_service(), value);
        probe.outside.send(&inward);
        assert_eq!(probe.inside.expect("in").type_of_service(), value);
    }
}

#[test]
fn ip_options_pass_without_source_routes_and_inside_addresses() {
    let _proof = proves(&["OPT-1"]);
    let probe = Probe::plain();
    let external = probe.open_udp(at(S1, 5000), at(E1, 53));
    let out = |options: &[u8]| {
        builder::with_ip_options(&udp(at(S1, 5000), at(E1, 53), b"options"), options)
    };
    let inward =
        |options: &[u8]| builder::with_ip_options(&udp(at(E1, 53), external, b"options"), options);
    let mut forty = vec![130, 40];
    forty.extend(1..=38);
    let harmless: [&[u8]; 5] = [
        &[1, 1, 1, 1],
        &[0, 0, 0, 0],
        &[148, 4, 0, 0],
        &[130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0],
        &forty,
    ];
    for options in harmless {
        probe.inside.send(&out(options));
        let seen = probe.outside.expect("out");
        assert_eq!((seen.ip_options(), seen.source()), (options, external));
        probe.outside.send(&inward(options));
        let seen = probe.inside.expect("in");
        assert_eq!((seen.ip_options(), seen.destination()), (options, at(S1, 5000)));
        probe.outside.send(&builder::with_ip_options(&udp(at(E1, 7), F, b"options"), options));
        assert_eq!(probe.inside.expect("in over a forward").destination(), F_TARGET);
    }
    // Loose and strict source routes; lengths of zero and beyond the end.
    let refused: [&[u8]; 4] = [
        &[131, 7, 4, 198, 51, 100, 2, 0],
        &[137, 7, 4, 198, 51, 100, 2, 0],
        &[130, 0, 0, 0],
        &[130, 9, 0, 0],
    ];
    for options in refused {
        probe.inside.send(&out(options));
        probe.outside.send(&inward(options));
        assert!(probe.outside.drain().iter().all(|seen| seen.icmp().is_some()), "{options:?}");
        assert!(probe.inside.drain().iter().all(|seen| seen.icmp().is_some()), "{options:?}");
        probe.assert_alive();
    }
    // Record route and timestamps with addresses: the entries of an inside router and host are
    // removed.
    let mut route = vec![7, 39, 8];
    route.extend([10, 0, 0, 254]);
    route.resize(40, 0);
    let mut stamps = vec![68, 36, 13, 1];
    stamps.extend([10, 0, 0, 254, 0, 0, 0, 1]);
    stamps.resize(36, 0);
    for options in [route, stamps] {
        probe.inside.send(&out(&options));
        let seen = probe.outside.expect("out");
        let entries = seen.ip_options().windows(4);
        let addresses: Vec<Ipv4Addr> =
            entries.map(|four| Ipv4Addr::new(four[0], four[1], four[2], four[3])).collect();
        assert!(!addresses.iter().any(|address| address.octets()[..3] == [10, 0, 0]), "{seen:?}");
        assert!(addresses.contains(&G), "the box is named as the outside knows it: {seen:?}");
    }
}
