//! Fragmented datagrams.

use std::net::Ipv4Addr;
use std::time::Duration;

use natbox::packet::{ChecksumMode, Endpoint, Protocol, QueryKind, TcpFlags, builder};

use super::ports::wait_until;
use super::proves;
use crate::probe::{
    E1, E2, F, F_TARGET, G, Probe, S1, S2, S3, SYN_ACK, Seen, Setup, at, segment, spray, udp,
};

const PAYLOAD: usize = 2500;

/// Returns bytes that reveal their position.
fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7) as u8 ^ at as u8).collect()
}

fn numbered(mut packet: Vec<u8>, identification: u16) -> Vec<u8> {
    builder::set_identification(&mut packet, identification);
    packet
}

/// Reassembles fragments in any order, with recomputed checksums.
#[track_caller]
fn joined(fragments: &[Seen]) -> Seen {
    let mut fragments = fragments.to_vec();
    fragments.sort_by_key(|fragment| fragment.fragment().0);
    let header = fragments[0].header_length();
    let mut whole = fragments[0].0[..header].to_vec();
    for (number, fragment) in fragments.iter().enumerate() {
        assert_eq!(
            fragment.identification(),
            fragments[0].identification(),
            "one datagram, one number"
        );
        assert_eq!(
            fragment.fragment(),
            (whole.len() - header, number + 1 < fragments.len()),
            "{fragments:?}"
        );
        whole.extend(fragment.body());
    }
    let length = whole.len() as u16;
    whole[2..4].copy_from_slice(&length.to_be_bytes());
    whole[6..8].fill(0);
    builder::refresh_header_checksum(&mut whole);
    builder::verify(&whole, ChecksumMode::Complete).unwrap();
    Seen(whole)
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Asserts that a datagram in three fragments passes in every order, as `original` after
/// translation.
#[track_caller]
fn assert_passes_in_fragments(
    probe: &Probe,
    from_inside: bool,
    original: &[u8],
    source: Endpoint,
    destination: Endpoint,
) {
    let (from, to) =
        if from_inside { (&probe.inside, &probe.outside) } else { (&probe.outside, &probe.inside) };
    for (number, order) in ORDERS.into_iter().enumerate() {
        let whole = numbered(original.to_vec(), 700 + number as u16);
        let fragments = builder::fragments(&whole, 1000);
        assert_eq!(fragments.len(), 3);
        for fragment in order {
            from.send(&fragments[fragment]);
        }
        let seen = joined(&to.expect_all(3, &format!("fragments in the order {order:?}")));
        assert_eq!((seen.source(), seen.destination()), (source, destination), "{order:?}");
        assert_eq!(seen.payload(), Seen(whole).payload(), "{order:?}");
    }
}

#[test]
fn fragments_pass_in_every_order() {
    let _proof = proves(&["UDP-14"]);
    let probe =
        Probe::start(Setup::new().forward("protocol: icmp, address: 192.0.2.1, to: 10.0.0.13"));
    // Outbound and back over a mapping.
    let (inside, remote) = (at(S1, 5000), at(E1, 53));
    let external = probe.open_udp(inside, remote);
    assert_passes_in_fragments(
        &probe,
        true,
        &udp(inside, remote, &text(PAYLOAD)),
        external,
        remote,
    );
    assert_passes_in_fragments(
        &probe,
        false,
        &udp(remote, external, &text(PAYLOAD)),
        remote,
        inside,
    );
    // Inbound over a forward, and its reply.
    let client = at(E1, 4444);
    assert_passes_in_fragments(&probe, false, &udp(client, F, &text(PAYLOAD)), client, F_TARGET);
    assert_passes_in_fragments(&probe, true, &udp(F_TARGET, client, &text(PAYLOAD)), F, client);
    // TCP, in both directions.
    for connection in
        [probe.connect_out(at(S1, 6000), at(E1, 80)), probe.connect_in(at(E1, 6000), F)]
    {
        let data = TcpFlags(TcpFlags::ACK.0 | TcpFlags::PSH.0);
        let out = connection.by_inside(data, &text(PAYLOAD));
        assert_passes_in_fragments(&probe, true, &out, connection.external, connection.outside);
        let back = connection.by_outside(data, &text(PAYLOAD));
        assert_passes_in_fragments(&probe, false, &back, connection.inside_peer, connection.inside);
    }
    // A SYN with data opens a connection, as a whole SYN does.
    let syn = |from, to| {
        builder::tcp(
            builder::tuple(Protocol::TCP, from, to),
            TcpFlags::SYN,
            1000,
            0,
            &[],
            &text(PAYLOAD),
        )
    };
    let external = probe.syn_out(at(S1, 6001), at(E2, 80)).source();
    let out = syn((S1, 6001), (E1, 80));
    assert_passes_in_fragments(&probe, true, &out, external, at(E1, 80));
    probe.tcp_in(&segment(at(E1, 80), external, SYN_ACK, 7000, 1001));
    assert_passes_in_fragments(
        &probe,
        false,
        &syn((E1, 6001), (F.address, F.port)),
        at(E1, 6001),
        F_TARGET,
    );
    assert_eq!(probe.tcp_out(&segment(F_TARGET, at(E1, 6001), SYN_ACK, 7000, 1001)).source(), F);
    // Echo: a request opens its session even if its first fragment comes last.
    let request = builder::echo(S1, E1, QueryKind::EchoRequest, 77, 1, &text(PAYLOAD));
    assert_passes_in_fragments(&probe, true, &request, at(G, 0), at(E1, 0));
    let identifier = probe.open_ping(at(S1, 77), E1);
    let reply = builder::echo(E1, G, QueryKind::EchoReply, identifier.port, 1, &text(PAYLOAD));
    assert_passes_in_fragments(&probe, false, &reply, at(E1, 0), at(S1, 0));
    let request = builder::echo(E1, G, QueryKind::EchoRequest, 78, 1, &text(PAYLOAD));
    assert_passes_in_fragments(&probe, false, &request, at(E1, 0), at(S3, 0));
}

/// Fragmented segments also change the state of a connection.
#[test]
fn fragmented_segments_end_a_connection() {
    let _proof = proves(&["UDP-14", "RFC7857-2"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 1s"));
    let fin = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
    for mut connection in
        [probe.connect_out(at(S1, 6000), at(E1, 80)), probe.connect_in(at(E1, 6000), F)]
    {
        let out = builder::fragments(&numbered(connection.by_inside(fin, &text(PAYLOAD)), 1), 1000);
        out.iter().for_each(|fragment| probe.inside.send(fragment));
        probe.outside.expect_all(out.len(), "fragments");
        connection.inside_next += PAYLOAD as u32 + 1;
        let back =
            builder::fragments(&numbered(connection.by_outside(fin, &text(PAYLOAD)), 2), 1000);
        back.iter().for_each(|fragment| probe.outside.send(fragment));
        probe.inside.expect_all(back.len(), "fragments");
    }
    wait_until("closed connections end", || probe.sessions() == 0);
}

#[test]
fn oversized_packet_without_df_leaves_in_fragments() {
    let _proof = proves(&["UDP-13a"]);
    let probe = Probe::start(Setup::new().mtu(1280, 1500));
    let (inside, remote) = (at(S1, 5000), at(E1, 53));
    let long = udp(inside, remote, &text(1472));
    probe.inside.send(&long);
    let fragments = probe.outside.expect_all(2, "fragments");
    assert_eq!(fragments[0].fragment(), (0, true), "in order");
    assert!(fragments.iter().all(|fragment| fragment.0.len() <= 1280 && !fragment.dont_fragment()));
    let whole = joined(&fragments);
    assert_eq!((whole.destination(), whole.payload()), (remote, Seen(long).payload()));
    let probe = Probe::start(Setup::new().mtu(1500, 1280));
    let long = udp(remote, F, &text(1472));
    probe.outside.send(&long);
    let fragments = probe.inside.expect_all(2, "fragments");
    assert_eq!(fragments[0].fragment(), (0, true), "in order");
    let whole = joined(&fragments);
    assert_eq!((whole.destination(), whole.payload()), (F_TARGET, Seen(long).payload()));
}

#[test]
fn identifications_are_unique_as_if_the_box_had_sent_the_packets() {
    let _proof = proves(&["IPID-1"]);
    let probe = Probe::plain();
    let remote = at(E1, 53);
    // Two hosts with the same identification, interleaved.
    let whole = [S1, S2].map(|host| numbered(udp(at(host, 5000), remote, &text(PAYLOAD)), 7));
    let fragments = whole.clone().map(|whole| builder::fragments(&whole, 1000));
    for (one, other) in fragments[0].iter().zip(&fragments[1]) {
        probe.inside.send(one);
        probe.inside.send(other);
    }
    let seen = probe.outside.expect_all(6, "fragments");
    let (one, other): (Vec<_>, Vec<_>) = seen
        .iter()
        .cloned()
        .partition(|fragment| fragment.identification() == seen[0].identification());
    assert_eq!((one.len(), other.len()), (3, 3));
    assert_eq!(joined(&one).payload(), Seen(whole[0].clone()).payload());
    assert_eq!(joined(&other).payload(), Seen(whole[1].clone()).payload());
    // The quote in an error about a fragment shows the sender's own identification.
    probe.outside.send(&builder::icmp_error(11, 1, E1, G, &one[0].0[..200]));
    assert_eq!(probe.inside.expect("the error").quote().unwrap().identification(), 7);
    // A non-atomic packet gets a unique identification. An atomic packet keeps its own, and DF.
    let mut numbers = std::collections::HashSet::new();
    for port in 0..300 {
        let datagram =
            numbered(udp(at(if port % 2 == 0 { S1 } else { S2 }, 6000 + port), remote, b"x"), 7);
        probe.inside.send(&datagram);
        let seen = probe.outside.expect("a datagram");
        assert!(!seen.dont_fragment());
        assert!(numbers.insert(seen.identification()), "{seen:?}");
    }
    let mut atomic = numbered(udp(at(S1, 5000), remote, b"x"), 7);
    builder::set_dont_fragment(&mut atomic, true);
    probe.inside.send(&atomic);
    let seen = probe.outside.expect("an atomic datagram");
    assert_eq!((seen.dont_fragment(), seen.identification()), (true, 7));
}

#[test]
fn fragment_flood_disturbs_no_other_traffic() {
    let _proof = proves(&["UDP-14a"]);
    let probe = Probe::start(Setup::new().limits("fragments: 512"));
    let mut connection = probe.connect_in(at(E1, 4444), F);
    let mut before = 0;
    for round in 0..40_u32 {
        // Later fragments without a first one, each from an address of its own.
        for number in 0..500_u32 {
            let source = Ipv4Addr::from(0x0b00_0000 + round * 500 + number);
            let whole = numbered(udp(at(source, 1), F, &text(PAYLOAD)), number as u16);
            probe.outside.send(&builder::fragments(&whole, 1000)[1]);
        }
        probe.assert_open(&mut connection);
        // A fragmented datagram of another host.
        let whole = numbered(udp(at(E2, 9), F, &text(PAYLOAD)), round as u16);
        for fragment in builder::fragments(&whole, 1000) {
            probe.outside.send(&fragment);
        }
        assert_eq!(
            joined(&probe.inside.expect_all(3, "fragments")).payload(),
            Seen(whole).payload()
        );
        if round == 5 {
            before = probe.resident();
        }
    }
    let grown = probe.resident().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB more after the flood");
    wait_until("given up fragments are counted", || probe.dropped("fragment-table-full") > 10_000);
}

#[test]
fn overlapping_and_impossible_fragments_are_dropped() {
    let _proof = proves(&["FRAG-1"]);
    let probe = Probe::plain();
    let client = at(E1, 4444);
    let whole =
        |number| builder::fragments(&numbered(udp(client, F, &text(PAYLOAD)), number), 1000);
    // A fragment that begins within an earlier one, or ends beyond the datagram's end.
    let overlapping = {
        let mut fragment = whole(1)[1].clone();
        fragment[6..8].copy_from_slice(&(0x2000_u16 | (1000 / 8 - 2)).to_be_bytes());
        builder::refresh_header_checksum(&mut fragment);
        fragment
    };
    probe.outside.send(&whole(1)[0]);
    probe.inside.expect("the first fragment");
    probe.outside.send(&overlapping);
    probe.outside.send(&whole(1)[1]);
    probe.outside.send(&whole(1)[2]);
    probe.silence();
    probe.assert_dropped("fragment-overlap", 3);
    // A duplicate passes only once.
    for fragment in [0, 0, 1, 1, 1, 2] {
        probe.outside.send(&whole(2)[fragment]);
    }
    joined(&probe.inside.expect_all(3, "each once"));
    probe.silence();
    probe.assert_dropped("fragment-duplicate", 3);
    // Impossible fragments, each dropped by itself.
    let segment = builder::tcp(
        builder::tuple(Protocol::TCP, (E1, 4), (G, 8080)),
        TcpFlags::SYN,
        1,
        0,
        &[],
        &[7; 64],
    );
    let fragment = |packet: &[u8], flags: u16, body: std::ops::Range<usize>| {
        let mut fragment = [&packet[..20], &packet[20..][body]].concat();
        let length = fragment.len() as u16;
        fragment[2..4].copy_from_slice(&length.to_be_bytes());
        fragment[6..8].copy_from_slice(&flags.to_be_bytes());
        builder::refresh_header_checksum(&mut fragment);
        fragment
    };
    let before = probe.dropped("bad-fragment");
    let hostile = [
        fragment(&segment, 0x0001, 8..64), // TCP at offset 8: behind the ports, over the flags (RFC 3128)
        fragment(&segment, 0x2000, 0..8),  // a first fragment without the flags (RFC 1858)
        fragment(&segment, 0x2000, 0..30), // not a multiple of 8, and more to come
        fragment(&segment, 0x2010, 0..0),  // nothing at all
        fragment(&segment, 0x1fff, 0..64), // past 65,535
    ];
    for packet in &hostile {
        probe.outside.send(packet);
    }
    probe.silence();
    assert_eq!(probe.dropped("bad-fragment") - before, hostile.len() as u64);
    // A last fragment of one byte is legal.
    let odd = numbered(udp(client, F, &text(993)), 9);
    let fragments = builder::fragments(&odd, 1000);
    assert_eq!(fragments[1].len(), 21);
    for fragment in &fragments {
        probe.outside.send(fragment);
    }
    assert_eq!(joined(&probe.inside.expect_all(2, "fragments")).payload(), Seen(odd).payload());
}

#[test]
fn incomplete_datagrams_time_out() {
    let _proof = proves(&["FRAG-2"]);
    let probe = Probe::start(Setup::new().timeouts("fragment: 2s"));
    let client = at(E1, 4444);
    let old = builder::fragments(&numbered(udp(client, F, &text(PAYLOAD)), 1), 1000);
    probe.outside.send(&old[2]);
    probe.outside.send(&old[1]);
    probe.silence();
    wait_until("the store drops them silently", || probe.dropped("fragment-timeout") == 2);
    assert_eq!((probe.outside.drain(), probe.inside.drain()), (vec![], vec![]));
    // Another datagram with the same identification: no byte of the old one passes.
    let new = numbered(udp(client, F, &text(1800)), 1);
    for fragment in builder::fragments(&new, 1000) {
        probe.outside.send(&fragment);
    }
    assert_eq!(joined(&probe.inside.expect_all(2, "fragments")).payload(), Seen(new).payload());
    // A late fragment of an ended datagram waits in vain for a first fragment.
    probe.outside.send(&old[0]);
    probe.inside.expect("a first fragment");
    std::thread::sleep(Duration::from_millis(2500));
    probe.outside.send(&old[1]);
    probe.silence();
}

#[test]
fn fragments_read_by_different_workers_are_joined() {
    let _proof = proves(&["FRAG-3"]);
    let probe = Probe::start(Setup::new().workers(4));
    spray(probe.status().pid);
    let whole = |number: u16| numbered(udp(at(E1, 4444), F, &text(PAYLOAD)), number);
    for number in 0..1500 {
        let fragments = builder::fragments(&whole(number), 1000);
        for fragment in ORDERS[usize::from(number) % 6] {
            probe.outside.send(&fragments[fragment]);
        }
        let seen = joined(&probe.inside.expect_all(3, &format!("fragments of datagram {number}")));
        assert_eq!(seen.payload(), Seen(whole(number)).payload());
    }
    let read: Vec<u64> =
        probe.status().workers.iter().map(|worker| worker.counters["packets_in"]).collect();
    assert!(read.len() == 4 && read.iter().all(|packets| *packets > 500), "{read:?}");
}

#[test]
fn a_later_fragment_that_is_too_long_with_df_is_counted() {
    let _proof = proves(&["FRAG-4"]);
    let probe = Probe::start(Setup::new().mtu(1300, 1500));
    let (inside, remote) = (at(S1, 5000), at(E1, 53));
    // The first fragment fits. The kernel would drop the second one silently.
    let whole = numbered(udp(inside, remote, &text(2000)), 7);
    let first = builder::fragments(&whole, 400).swap_remove(0);
    let mut later = numbered(builder::other(Protocol::UDP, S1, E1, &whole[420..1820]), 7);
    later[6..8].copy_from_slice(&(0x4000_u16 | (400 / 8)).to_be_bytes());
    builder::refresh_header_checksum(&mut later);
    probe.inside.send(&first);
    probe.outside.expect("the first fragment");
    probe.inside.send(&later);
    probe.silence();
    probe.assert_dropped("mtu-exceeded", 1);
}
