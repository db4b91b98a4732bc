//! TCP connections through the box, segment by segment.

use std::time::Duration;

use natbox::packet::{Protocol, TcpFlags, Tuple, builder};

use super::ports::wait_until;
use super::proves;
use crate::probe::{
    Connection, E1, F, F_TARGET, G, Probe, S1, SYN_ACK, Seen, Setup, assert_carried, at, segment,
};

const ACK: TcpFlags = TcpFlags::ACK;
const SYN: TcpFlags = TcpFlags::SYN;
const RST: TcpFlags = TcpFlags::RST;
const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);

/// Closes a connection. The arguments choose the sender of the first FIN, and whether both send one
/// at once.
fn close(probe: &Probe, connection: &mut Connection, inside_first: bool, at_once: bool) {
    let fin = |probe: &Probe, connection: &mut Connection, inside: bool| {
        if inside {
            probe.tcp_out(&connection.by_inside(FIN, b""));
            connection.inside_next += 1;
        } else {
            probe.tcp_in(&connection.by_outside(FIN, b""));
            connection.outside_next += 1;
        }
    };
    let ack = |probe: &Probe, connection: &Connection, inside: bool| {
        if inside {
            assert_eq!(probe.tcp_out(&connection.by_inside(ACK, b"")).flags(), ACK);
        } else {
            assert_eq!(probe.tcp_in(&connection.by_outside(ACK, b"")).flags(), ACK);
        }
    };
    fin(probe, connection, inside_first);
    if !at_once {
        ack(probe, connection, !inside_first);
    }
    fin(probe, connection, !inside_first);
    ack(probe, connection, inside_first);
    if at_once {
        ack(probe, connection, !inside_first);
    }
}

/// Opens a connection in each direction.
fn connections(probe: &Probe, port: u16) -> [Connection; 2] {
    [probe.connect_out(at(S1, port), at(E1, 80)), probe.connect_in(at(E1, port), F)]
}

#[test]
fn every_legal_order_of_tcp_segments_passes() {
    let _proof = proves(&["TCP-2"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 2s, tcp_syn: 2s"));
    for (number, (inside_first, at_once)) in
        [(true, false), (false, false), (true, true), (false, true)].into_iter().enumerate()
    {
        for mut connection in connections(&probe, 5000 + number as u16) {
            probe.assert_open(&mut connection);
            close(&probe, &mut connection, inside_first, at_once);
        }
    }
    // A reset passes in every state.
    let syn = probe.syn_out(at(S1, 6000), at(E1, 80));
    let refused = segment(at(E1, 80), syn.source(), TcpFlags(RST.0 | ACK.0), 0, 1001);
    assert_eq!(probe.tcp_in(&refused).flags(), TcpFlags(RST.0 | ACK.0));
    for (number, from_inside) in [true, false].into_iter().enumerate() {
        for connection in connections(&probe, 7000 + number as u16) {
            if from_inside {
                assert_eq!(probe.tcp_out(&connection.by_inside(RST, b"")).flags(), RST);
            } else {
                assert_eq!(probe.tcp_in(&connection.by_outside(RST, b"")).flags(), RST);
            }
        }
    }
    wait_until("all of them end", || probe.sessions() == 0);
}

#[test]
fn simultaneous_open_works() {
    let _proof = proves(&["TCP-2a"]);
    for filtering in ["address-and-port-dependent", "address-dependent", "endpoint-independent"] {
        let probe = Probe::start(Setup::new().nat(&format!("filtering: {filtering}")));
        for (port, inside_answers_first) in [(5000, true), (5001, false)] {
            let (one, other) = (at(S1, port), at(E1, 80));
            let external = probe.syn_out(one, other).source();
            probe.syn_in(other, external);
            assert_eq!(probe.inside.expect("the other SYN").flags(), SYN);
            let from_inside = || {
                assert_eq!(
                    probe.tcp_out(&segment(one, other, SYN_ACK, 1000, 7001)).flags(),
                    SYN_ACK
                );
            };
            let from_outside = || {
                assert_eq!(
                    probe.tcp_in(&segment(other, external, SYN_ACK, 7000, 1001)).flags(),
                    SYN_ACK
                );
            };
            if inside_answers_first {
                from_inside();
                from_outside();
            } else {
                from_outside();
                from_inside();
            }
            let mut connection = Connection {
                inside: one,
                inside_peer: other,
                outside: other,
                external,
                inside_next: 1001,
                outside_next: 7001,
            };
            probe.assert_open(&mut connection);
        }
    }
}

#[test]
fn single_syn_reopens_no_closed_connection() {
    let _proof = proves(&["RFC7857-2"]);
    let probe = Probe::start(
        Setup::new().timeouts("tcp_transitory: 2s, tcp_syn: 2s, tcp_established: 60s"),
    );
    for mut connection in connections(&probe, 5000) {
        close(&probe, &mut connection, true, false);
        // Repeated FINs and late ACKs pass.
        let again = Connection { inside_next: connection.inside_next - 1, ..connection };
        assert_eq!(probe.tcp_out(&again.by_inside(FIN, b"")).flags(), FIN);
        assert_eq!(probe.tcp_in(&connection.by_outside(ACK, b"")).flags(), ACK);
        // A SYN of one side without an answer.
        if connection.external == F {
            probe.syn_in(connection.outside, F);
            probe.inside.expect("a SYN");
        } else {
            probe.syn_out(connection.inside, connection.inside_peer);
        }
    }
    wait_until("what was not answered ends soon", || probe.sessions() == 0);
}

#[test]
fn reset_ends_a_connection_only_if_no_segment_follows() {
    let _proof = proves(&["RFC7857-2.2"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 2s"));
    let [mut alive, dead] = connections(&probe, 5000);
    for connection in [alive, dead] {
        assert_eq!(probe.tcp_in(&connection.by_outside(RST, b"")).flags(), RST);
    }
    // The reset did not come from the peer: the connection continues and stays alive.
    for _ in 0..8 {
        probe.assert_open(&mut alive);
        std::thread::sleep(Duration::from_millis(400));
    }
    wait_until("the silent one ends", || probe.sessions() == 1);
    probe.assert_open(&mut alive);
    wait_until("in the end so does the other, or it is open", || {
        probe.assert_open(&mut alive);
        true
    });
}

#[test]
fn repeated_and_stale_handshake_segments_pass() {
    let _proof = proves(&["TCP-HS"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_syn: 3s"));
    let (one, other) = (at(S1, 5000), at(E1, 80));
    let external = probe.syn_out(one, other).source();
    // The SYN again without an answer; then the SYN-ACK of an older connection, the reset that it
    // provokes, and the next SYN.
    assert_eq!(probe.syn_out(one, other).source(), external);
    assert_eq!(probe.tcp_in(&segment(other, external, ACK, 555, 666)).flags(), ACK);
    assert_eq!(probe.tcp_out(&segment(one, other, RST, 666, 0)).flags(), RST);
    assert_eq!(probe.syn_out(one, other).source(), external);
    assert_eq!(probe.tcp_in(&segment(other, external, SYN_ACK, 7000, 1001)).flags(), SYN_ACK);
    assert_eq!(probe.tcp_in(&segment(other, external, SYN_ACK, 7000, 1001)).flags(), SYN_ACK);
    let mut connection = Connection {
        inside: one,
        inside_peer: other,
        outside: other,
        external,
        inside_next: 1001,
        outside_next: 7001,
    };
    assert_eq!(probe.tcp_out(&connection.by_inside(ACK, b"")).flags(), ACK);
    std::thread::sleep(Duration::from_millis(3500));
    probe.assert_open(&mut connection);
    // Inbound: the server's stale SYN-ACK and the challenge.
    let client = at(E1, 4444);
    probe.syn_in(client, F);
    probe.inside.expect("a SYN");
    assert_eq!(probe.tcp_out(&segment(F_TARGET, client, ACK, 555, 666)).flags(), ACK);
    assert_eq!(probe.tcp_in(&segment(client, F, RST, 666, 0)).flags(), RST);
    probe.connect_in(client, F);
}

/// Segments of failed attempts do not count when an attempt succeeds.
#[test]
fn window_tracking_uses_the_numbers_of_the_successful_attempt() {
    let _proof = proves(&["TCP-HS", "TCP-5e"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 1s, tcp_syn: 1s"));
    let (inside, outside) = (at(S1, 5000), at(E1, 80));
    let external = probe.tcp_out(&segment(inside, outside, SYN, 3_000_000_000, 0)).source();
    probe.tcp_in(&segment(outside, external, SYN_ACK, 900_000_000, 555));
    probe.tcp_out(&segment(inside, outside, RST, 555, 0));
    probe.tcp_out(&segment(inside, outside, SYN, 1000, 0));
    probe.tcp_in(&segment(outside, external, SYN_ACK, 7000, 1001));
    probe.tcp_out(&segment(inside, outside, ACK, 1001, 7001));
    std::thread::sleep(Duration::from_millis(2000));
    probe.tcp_in(&segment(outside, external, ACK, 7001, 1001));
    probe.tcp_out(&segment(inside, outside, FIN, 1001, 7001));
    probe.tcp_in(&segment(outside, external, FIN, 7001, 1002));
    wait_until("a closed connection ends", || probe.sessions() == 0);
}

#[test]
fn closed_tcp_tuple_can_be_reopened_at_once() {
    let _proof = proves(&["TCP-TW"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 2s, tcp_syn: 2s"));
    for inside_first in [true, false] {
        for mut connection in connections(&probe, 5000) {
            close(&probe, &mut connection, inside_first, false);
        }
        let again = connections(&probe, 5000);
        for mut connection in again {
            probe.assert_open(&mut connection);
            std::thread::sleep(Duration::from_millis(1200));
            probe.assert_open(&mut connection);
        }
    }
    // The same after a reset.
    for connection in connections(&probe, 5001) {
        probe.tcp_out(&connection.by_inside(RST, b""));
    }
    for mut connection in connections(&probe, 5001) {
        probe.assert_open(&mut connection);
    }
    std::thread::sleep(Duration::from_millis(3000));
    assert_eq!(probe.sessions(), 4, "what was opened again lives past the closing timeout");
}

/// A regression test: both ends have lost a connection that is open for the box, and reuse its
/// tuple. The box compared the new segments with the old numbers, ignored the FINs, and kept the
/// session for two hours.
#[test]
fn reused_tcp_tuple_closes_by_its_new_numbers() {
    let _proof = proves(&["RFC7857-2", "TCP-5t", "TCP-TW"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 1s"));
    for opening in connections(&probe, 5000) {
        let Connection { inside, inside_peer, outside, external, .. } = opening;
        let [inner, outer] = [(inside, inside_peer), (outside, external)];
        let from_inside = opening.inside.port == 5000;
        let pass = |from_inside: bool, flags, sequence, acknowledgement| {
            let (from, to) = if from_inside { inner } else { outer };
            let segment = segment(from, to, flags, sequence, acknowledgement);
            let seen = if from_inside { probe.tcp_out(&segment) } else { probe.tcp_in(&segment) };
            assert_eq!(seen.flags(), flags);
        };
        pass(from_inside, SYN, 2_000_000_000, 0);
        pass(!from_inside, SYN_ACK, 3_000_000_000, 2_000_000_001);
        pass(from_inside, ACK, 2_000_000_001, 3_000_000_001);
        pass(from_inside, FIN, 2_000_000_001, 3_000_000_001);
        pass(!from_inside, FIN, 3_000_000_001, 2_000_000_002);
        pass(from_inside, ACK, 2_000_000_002, 3_000_000_002);
    }
    wait_until("closed connections end", || probe.sessions() == 0);
}

/// A connection that closes just after a restart of the box leaves no session, whichever end sends
/// first.
#[test]
fn connections_that_close_after_a_restart_leave_no_session() {
    let _proof = proves(&["RFC7857-2", "TCP-5t", "FWD-5"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 1s"));
    let mut all: Vec<_> = (0..3).map(|number| probe.connect_in(at(E1, 4444 + number), F)).collect();
    probe.kill();
    probe.launch();
    // The client sends and closes before its server sends.
    assert_eq!(probe.tcp_in(&all[0].by_outside(ACK, b"")).flags(), ACK);
    close(&probe, &mut all[0], false, false);
    assert_eq!(probe.tcp_in(&all[1].by_outside(ACK, b"")).flags(), ACK);
    close(&probe, &mut all[1], false, true);
    assert_eq!(probe.tcp_out(&all[2].by_inside(ACK, b"")).flags(), ACK);
    close(&probe, &mut all[2], true, false);
    wait_until("closed connections end", || probe.sessions() == 0);
}

#[test]
fn half_closed_connections_continue() {
    let _proof = proves(&["TCP-HC"]);
    let probe = Probe::start(Setup::new().timeouts("tcp_transitory: 1s, tcp_syn: 1s"));
    let [mut out, mut inward] = connections(&probe, 5000);
    probe.tcp_out(&out.by_inside(FIN, b""));
    out.inside_next += 1;
    probe.tcp_in(&inward.by_outside(FIN, b""));
    inward.outside_next += 1;
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(probe.tcp_in(&out.by_outside(ACK, b"more")).payload(), b"more");
        out.outside_next += 4;
        assert_eq!(probe.tcp_out(&out.by_inside(ACK, b"")).flags(), ACK);
        assert_eq!(probe.tcp_out(&inward.by_inside(ACK, b"more")).payload(), b"more");
        inward.inside_next += 4;
        assert_eq!(probe.tcp_in(&inward.by_outside(ACK, b"")).flags(), ACK);
    }
}

#[test]
fn tcp_fields_and_options_pass_unchanged() {
    let _proof = proves(&["TCP-OPT"]);
    let probe = Probe::start(Setup::new().nat("mss_clamp: off"));
    let connection = probe.connect_out(at(S1, 5000), at(E1, 80));
    let tuple = Tuple {
        protocol: Protocol::TCP,
        source: connection.inside,
        destination: connection.inside_peer,
    };
    let mut state = 0x2545_f491_u32;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    for number in 0..300 {
        let options: Vec<u8> = (0..random() % 41).map(|_| random() as u8).collect();
        let payload: Vec<u8> = (0..random() % 100).map(|_| random() as u8).collect();
        let mut packet = builder::tcp(
            tuple,
            ACK,
            connection.inside_next,
            connection.outside_next,
            &options,
            &payload,
        );
        // Window, urgent pointer and the reserved bits, with a corrected checksum.
        let (window, urgent) = (random() as u16, random() as u16);
        let mut sum = 0_u32;
        let mut change = |packet: &mut Vec<u8>, at: usize, value: u16| {
            sum += u32::from(!u16::from_be_bytes([packet[at], packet[at + 1]])) + u32::from(value);
            packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
        };
        change(&mut packet, 34, window);
        change(&mut packet, 38, urgent);
        let flags = u16::from_be_bytes([packet[32], packet[33]]) | (random() as u16 & 0x0fe0);
        change(&mut packet, 32, flags);
        let mut checksum = u32::from(!u16::from_be_bytes([packet[36], packet[37]])) + sum;
        while checksum > 0xffff {
            checksum = (checksum & 0xffff) + (checksum >> 16);
        }
        packet[36..38].copy_from_slice(&(!(checksum as u16)).to_be_bytes());
        builder::set_dont_fragment(&mut packet, true);
        builder::set_type_of_service(&mut packet, random() as u8);
        builder::verify(&packet, natbox::packet::ChecksumMode::Complete)
            .expect("the test made it right");
        probe.inside.send(&packet);
        let seen = probe.outside.expect(&format!("segment {number}"));
        assert_carried(&packet, &seen, connection.external, connection.outside);
    }
    // Data in a SYN.
    let fast_open = builder::tcp(
        builder::tuple(Protocol::TCP, (E1, 9), (G, 8080)),
        SYN,
        1,
        0,
        &[2, 4, 5, 180, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8],
        b"GET /",
    );
    probe.outside.send(&fast_open);
    assert_carried(&fast_open, &probe.inside.expect("a SYN with data"), at(E1, 9), F_TARGET);
}

#[test]
fn window_tracking_never_drops_legal_segments() {
    let _proof = proves(&["TCP-OOW"]);
    let probe = Probe::plain();
    let (one, other) = (at(S1, 5000), at(E1, 80));
    // Sequence numbers that wrap within the test, and windows scaled by 2^14.
    let scaled = [2, 4, 5, 180, 3, 3, 14, 0];
    let tuple = |source, destination| Tuple { protocol: Protocol::TCP, source, destination };
    let syn = builder::tcp(tuple(one, other), SYN, 0xffff_0000, 0, &scaled, b"");
    let external = probe.tcp_out(&syn).source();
    let answer =
        builder::tcp(tuple(other, external), SYN_ACK, 0xffff_ff00, 0xffff_0001, &scaled, b"");
    probe.tcp_in(&answer);
    let (mut inside, mut outside) = (0xffff_0001_u32, 0xffff_ff01_u32);
    let out = |sequence: u32, acknowledgement: u32, payload: &[u8]| {
        let seen = probe.tcp_out(&builder::tcp(
            tuple(one, other),
            ACK,
            sequence,
            acknowledgement,
            &[],
            payload,
        ));
        assert_eq!((seen.source(), seen.payload()), (external, payload));
    };
    let inward = |sequence: u32, acknowledgement: u32, payload: &[u8]| {
        let seen = probe.tcp_in(&builder::tcp(
            tuple(other, external),
            ACK,
            sequence,
            acknowledgement,
            &[],
            payload,
        ));
        assert_eq!((seen.destination(), seen.payload()), (one, payload));
    };
    out(inside, outside, b"");
    let block = [7_u8; 1400];
    for number in 0..120 {
        out(inside, outside, &block);
        inside = inside.wrapping_add(1400);
        inward(outside, inside, &block);
        outside = outside.wrapping_add(1400);
        if number % 10 == 0 {
            // An old retransmission, a keep-alive, a probe of a closed window, and a segment far
            // ahead in the window.
            out(inside.wrapping_sub(28_000), outside, &block);
            out(inside.wrapping_sub(1), outside, b"");
            out(inside, outside, b"!");
            inward(outside.wrapping_add(1_000_000), inside, &block);
            inward(outside.wrapping_sub(1), inside, b"");
        }
    }
    out(inside, outside, b"");
    let last: Seen =
        probe.tcp_in(&builder::tcp(tuple(other, external), FIN, outside, inside, &[], b""));
    assert_eq!(last.flags(), FIN);
}
