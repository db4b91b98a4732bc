//! Two uplinks packet by packet, with one client endpoint on both.

use natbox::packet::{Endpoint, Protocol, QueryKind, TcpFlags, builder};

use crate::probe::{
    BOX, E1, F, F_TARGET, G2, Probe, RX, S1, S2, SYN_ACK, Seen, Setup, Wire, assert_carried, at,
    segment, tuple, udp,
};

/// [`F`] on the second uplink.
const F2: Endpoint = at(G2, 8080);

/// The client endpoint on both uplinks.
const CLIENT: Endpoint = at(E1, 5000);

fn start(setup: Setup) -> Probe {
    Probe::start(setup.second_uplink(1280))
}

/// Returns the two uplinks, each with its published endpoint.
fn uplinks(probe: &Probe) -> [(&Wire, Endpoint); 2] {
    [(&probe.outside, F), (probe.second(), F2)]
}

/// Opens a UDP session over each uplink. Returns the client endpoint that the server sees on each.
fn open_both(probe: &Probe) -> [Endpoint; 2] {
    let peers = uplinks(probe).map(|(uplink, published)| {
        let question = udp(CLIENT, published, b"question");
        uplink.send(&question);
        let seen = probe.inside.expect("the question");
        assert_carried(&question, &seen, seen.source(), F_TARGET);
        seen.source()
    });
    assert_eq!((peers[0], peers[1].address), (CLIENT, E1));
    assert_ne!(peers[1].port, CLIENT.port, "the two clients are distinct");
    peers
}

#[test]
fn replies_use_the_uplink_and_port_of_their_requests() {
    let probe = start(Setup::new());
    let peers = open_both(&probe);
    for _ in 0..3 {
        for ((uplink, published), peer) in uplinks(&probe).into_iter().zip(peers) {
            let answer = udp(F_TARGET, peer, b"answer");
            probe.inside.send(&answer);
            assert_carried(&answer, &uplink.expect("the answer"), published, CLIENT);
            let again = udp(CLIENT, published, b"again");
            uplink.send(&again);
            assert_carried(&again, &probe.inside.expect("the next question"), peer, F_TARGET);
        }
    }
    probe.silence();
}

#[test]
fn connections_and_pings_from_one_endpoint_are_distinguished() {
    let whole = "name: ping, protocol: icmp, to: 10.0.0.11";
    let probe = start(Setup::new().forward(whole));
    let peers = uplinks(&probe).map(|(uplink, published)| {
        uplink.send(&segment(CLIENT, published, TcpFlags::SYN, 1000, 0));
        let seen = probe.inside.expect("a SYN");
        assert_eq!((seen.source().address, seen.destination()), (E1, F_TARGET));
        seen.source()
    });
    assert_ne!(peers[0], peers[1]);
    for ((uplink, published), peer) in uplinks(&probe).into_iter().zip(peers) {
        let answer = segment(F_TARGET, peer, SYN_ACK, 500, 1001);
        probe.inside.send(&answer);
        assert_carried(&answer, &uplink.expect("its answer"), published, CLIENT);
        let end = segment(CLIENT, published, TcpFlags::ACK, 1001, 501);
        uplink.send(&end);
        assert_carried(&end, &probe.inside.expect("the end of the handshake"), peer, F_TARGET);
    }
    let identifiers = uplinks(&probe).map(|(uplink, published)| {
        uplink.send(&builder::echo(E1, published.address, QueryKind::EchoRequest, 77, 1, b"ping"));
        probe.inside.expect("an echo request").identifier()
    });
    assert_ne!(identifiers[0], identifiers[1]);
    for ((uplink, published), identifier) in uplinks(&probe).into_iter().zip(identifiers) {
        probe.inside.send(&builder::echo(S1, E1, QueryKind::EchoReply, identifier, 1, b"ping"));
        let seen = uplink.expect("the reply");
        assert_eq!((seen.source().address, seen.destination().address), (published.address, E1));
        assert_eq!(seen.identifier(), 77);
    }
    probe.silence();
}

#[test]
fn icmp_errors_from_either_side_find_the_right_session() {
    let probe = start(Setup::new());
    let peers = open_both(&probe);
    for ((uplink, published), peer) in uplinks(&probe).into_iter().zip(peers) {
        // By the server, about a request.
        let question = udp(CLIENT, published, b"question");
        uplink.send(&question);
        let arrived = probe.inside.expect("the question");
        probe.inside.send(&builder::icmp_error(3, 3, S1, E1, &arrived.0));
        let error = uplink.expect("the error");
        let ends = (error.source().address, error.destination().address);
        assert_eq!((error.icmp(), ends), (Some((3, 3)), (published.address, E1)));
        let quote = error.quote().expect("a quote");
        assert_eq!((quote.source(), quote.destination()), (CLIENT, published));
        assert_eq!(quote.checksum(), Seen(question).checksum());

        // By a router outside, about a reply.
        let answer = udp(F_TARGET, peer, b"answer");
        probe.inside.send(&answer);
        let arrived = uplink.expect("the answer");
        uplink.send(&builder::icmp_error(11, 0, RX, published.address, &arrived.0));
        let error = probe.inside.expect("the error");
        assert_eq!((error.source().address, error.destination().address), (RX, S1));
        let quote = error.quote().expect("a quote");
        assert_eq!((quote.source(), quote.destination()), (F_TARGET, peer));
    }
    probe.silence();
}

#[test]
fn fragments_follow_their_session_in_both_directions_and_every_order() {
    let probe = start(Setup::new());
    let peers = open_both(&probe);
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        // Fragments of both uplinks with one identification, interleaved.
        let fragments = uplinks(&probe).map(|(_, published)| {
            let mut question = builder::udp(
                tuple(Protocol::UDP, CLIENT, published),
                &[published.address.octets()[3]; 100],
            );
            builder::set_identification(&mut question, 700 + order[0] as u16);
            builder::fragments(&question, 40)
        });
        for number in order {
            for ((uplink, _), fragments) in uplinks(&probe).into_iter().zip(&fragments) {
                uplink.send(&fragments[number]);
            }
        }
        let arrived = probe.inside.expect_all(6, "the fragments");
        let mut numbers: Vec<u16> = arrived.iter().map(Seen::identification).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 2, "two datagrams, never mixed: {arrived:?}");
        for (uplink, peer) in [(1, peers[0]), (2, peers[1])] {
            let body = join(&arrived, |seen| peers_number(&arrived, peer) == seen.identification());
            assert_eq!(body[8..], [uplink; 100], "{peer}");
        }

        for ((uplink, published), peer) in uplinks(&probe).into_iter().zip(peers) {
            let answer = builder::udp(tuple(Protocol::UDP, F_TARGET, peer), &[9; 100]);
            let fragments = builder::fragments(&answer, 40);
            for number in order {
                probe.inside.send(&fragments[number]);
            }
            let arrived = uplink.expect_all(3, "the fragments of the answer");
            assert!(arrived.iter().all(|seen| (seen.source().address, seen.destination().address)
                == (published.address, E1)));
            assert_eq!(join(&arrived, |_| true)[8..], [9; 100]);
        }
    }
    probe.silence();
}

/// Returns the identification of the datagram from this peer.
fn peers_number(fragments: &[Seen], peer: Endpoint) -> u16 {
    let first = fragments.iter().find(|seen| seen.fragment().0 == 0 && seen.source() == peer);
    first.expect("a first fragment of each peer").identification()
}

/// Joins the fragments' bodies in their order.
fn join(fragments: &[Seen], belongs: impl Fn(&Seen) -> bool) -> Vec<u8> {
    let mut fragments: Vec<&Seen> = fragments.iter().filter(|seen| belongs(seen)).collect();
    fragments.sort_by_key(|seen| seen.fragment().0);
    fragments.iter().flat_map(|seen| seen.body().to_vec()).collect()
}

#[test]
fn inside_hosts_reach_published_endpoints_of_either_uplink() {
    let probe = start(Setup::new());
    for host in [S2, S1] {
        let peers = uplinks(&probe).map(|(_, published)| {
            let question = udp(at(host, 5000), published, b"question");
            probe.inside.send(&question);
            let seen = probe.inside.expect("the question");
            assert_carried(&question, &seen, at(published.address, seen.source().port), F_TARGET);
            seen.source()
        });
        for ((_, published), peer) in uplinks(&probe).into_iter().zip(peers) {
            let answer = udp(F_TARGET, peer, b"answer");
            probe.inside.send(&answer);
            assert_carried(&answer, &probe.inside.expect("the answer"), published, at(host, 5000));
        }
    }
    probe.silence();
}

#[test]
fn packet_size_is_checked_against_the_mtu_of_its_own_uplink() {
    let probe = start(Setup::new());
    let peers = open_both(&probe);
    let answer = |peer, size: usize| {
        let mut packet = udp(F_TARGET, peer, &vec![7; size - 28]);
        builder::set_dont_fragment(&mut packet, true);
        packet
    };
    for ((uplink, mtu), peer) in
        [(&probe.outside, 1500), (probe.second(), 1280)].into_iter().zip(peers)
    {
        probe.inside.send(&answer(peer, mtu));
        assert_eq!(uplink.expect("an answer that fits").0.len(), mtu);
        let too_big = answer(peer, mtu + 1);
        if mtu == 1280 {
            probe.inside.send(&too_big);
            let error = probe.inside.expect("fragmentation needed");
            assert_eq!((error.icmp(), error.icmp_last_word()), (Some((3, 4)), 1280));
            assert_eq!((error.source().address, error.destination().address), (BOX, S1));
            let quote = error.quote().expect("a quote");
            assert_eq!((quote.source(), quote.destination()), (F_TARGET, peer));
        }
    }
    // Segment sizes in SYN and SYN-ACK, by the uplink.
    for (number, ((uplink, published), mtu)) in
        uplinks(&probe).into_iter().zip([1500, 1280]).enumerate()
    {
        let client = at(E1, 6000 + number as u16);
        let syn = |from, to, flags| {
            builder::tcp(tuple(Protocol::TCP, from, to), flags, 1, 2, &[2, 4, 5, 180], b"")
        };
        let mss = |seen: Seen| u16::from_be_bytes([seen.body()[22], seen.body()[23]]);
        uplink.send(&syn(client, published, TcpFlags::SYN));
        assert_eq!(mss(probe.inside.expect("a SYN")), mtu - 40);
        probe.inside.send(&syn(F_TARGET, client, SYN_ACK));
        assert_eq!(mss(uplink.expect("its answer")), mtu - 40);
    }
    probe.silence();
}

/// Without a record for a session the box cannot know the uplink of a reply. No packet may leave by
/// a guess, and no client may be mistaken for another.
#[test]
fn a_full_table_sends_nothing_by_the_wrong_uplink() {
    let probe = start(Setup::new().limits("sessions: 1"));
    // An established connection, which is never evicted.
    let open = probe.connect_in(CLIENT, F);
    // From the same endpoint over the other uplink: the server would take it for the open
    // connection.
    for flags in
        [TcpFlags::SYN, TcpFlags::ACK, TcpFlags::RST, TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0)]
    {
        probe.second().send(&segment(CLIENT, F2, flags, open.outside_next, open.inside_next));
        probe.silence();
    }
    // Another client gets in, and the reply waits for a record instead of taking the wrong uplink.
    let other = at(E1, 6000);
    for published in [F2, F] {
        let uplink = if published == F { &probe.outside } else { probe.second() };
        uplink.send(&udp(other, published, b"question"));
        assert_eq!(probe.inside.expect("a question").destination(), F_TARGET);
        probe.inside.send(&udp(F_TARGET, other, b"answer"));
        probe.silence();
    }
    assert!(probe.dropped("uplink-unknown") >= 2, "{:?}", probe.status().drops);
}
