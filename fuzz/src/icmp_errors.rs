//! ICMP errors about packets of live sessions, from both sides: right ones arrive with the right
//! quote, wrong ones change nothing.

use std::net::Ipv4Addr;

use natbox::nat::Counters;
use natbox::packet::{ChecksumMode, Payload, Protocol, QueryKind, TcpFlags, Tuple, builder, parse};

use super::input::{Input, damage};
use super::instance::Instance;
use super::world::{self, EXTERNAL, INSIDE, PUBLISHED, REMOTE};

/// A packet that went through the box: as its sender sent it, and as it left.
struct Passed {
    sent: Vec<u8>,
    left: Vec<u8>,
}

/// Opens sessions, and sends errors about their packets.
///
/// # Panics
/// If a right error does not arrive with the right quote, if an error changes the sessions, or if a
/// packet leaves that must not.
pub fn run(data: &[u8]) {
    counters(data);
}

/// Does the work of [`run`], and returns the counters of the worker.
///
/// # Panics
/// As [`run`].
pub fn counters(data: &[u8]) -> Counters {
    let mut input = Input::new(data);
    let limits = world::limits(&mut Input::new(&[]));
    let switches = input.number();
    // Bits 3 and 5 assign addresses to the host, which gets what natbox does not translate. Bit 6
    // takes the second leg's rule away.
    let mut instance = Instance::new(limits, world::policy(switches & !0b0100_0001), 8);
    let passed = open_sessions(&mut instance);
    while !input.is_empty() {
        let sessions = instance.sessions();
        let about = &passed[input.below(passed.len())];
        if input.once_in(2) {
            let (error, from_inside) = right_error(&mut input, about);
            let left = instance.send(&error);
            let [(left, _)] = &left[..] else {
                panic!("{} packets leave for a right error: {error:?}", left.len())
            };
            check_quote(left, &error, about, from_inside);
        } else {
            let error = wrong_error(&mut input, about);
            instance.send(&error);
            // Damage may have made another packet of it, which opens a session of its own.
            if !is_error(&error) {
                continue;
            }
        }
        assert_eq!(instance.sessions(), sessions, "an error opened or ended a session");
    }
    instance.finish()
}

/// Opens a session of each kind.
fn open_sessions(instance: &mut Instance) -> Vec<Passed> {
    let udp = |from, to| builder::udp(builder::tuple(Protocol::UDP, from, to), b"payload");
    let tcp = |from, to| {
        let tuple = builder::tuple(Protocol::TCP, from, to);
        builder::tcp(tuple, TcpFlags::SYN, 1, 0, &[2, 4, 5, 180], b"")
    };
    let echo = QueryKind::EchoRequest;
    let packets = [
        udp((INSIDE[1], 40_001), (REMOTE[0], 53)),
        tcp((INSIDE[2], 40_002), (REMOTE[1], 443)),
        builder::echo(INSIDE[1], REMOTE[1], echo, 77, 1, b"ping"),
        udp((REMOTE[0], 5000), (EXTERNAL[0], PUBLISHED)),
        tcp((REMOTE[1], 5001), (EXTERNAL[2], PUBLISHED)),
        builder::other(Protocol(47), INSIDE[1], REMOTE[0], b"tunnel"),
    ];
    let pass = |sent: &Vec<u8>| {
        let left = instance.send(sent);
        assert_eq!(left.len(), 1, "the session of {sent:?} opens");
        Passed { sent: sent.clone(), left: left[0].0.clone() }
    };
    packets.iter().map(pass).collect()
}

/// Makes the error of a router on the way, or of the receiver, with as much of the packet as the
/// input says. Returns whether the error comes from inside.
fn right_error(input: &mut Input<'_>, about: &Passed) -> (Vec<u8>, bool) {
    let [from, to] = addresses(&about.left);
    let from_inside = INSIDE.contains(&to);
    let router =
        if from_inside { to } else { input.pick(&[to, REMOTE[1], Ipv4Addr::new(192, 0, 2, 254)]) };
    let length = (28 + usize::from(input.byte())).min(about.left.len());
    let mut quoted = about.left[..length].to_vec();
    if input.once_in(2) {
        // Routers on the way count the TTL down.
        builder::set_ttl(&mut quoted, 1 + input.byte() % 64);
    }
    let kind = input.pick(&[3, 3, 3, 11, 12]);
    let mtu = if kind == 3 { [0, 0, 4, input.byte()] } else { [0; 4] };
    let code = if kind == 3 { input.pick(&[0, 1, 2, 3, 4, 9, 10, 13]) } else { 0 };
    (builder::icmp(router, from, kind, code, mtu, &quoted), from_inside)
}

/// Checks that an error has arrived at the sender of the packet with the sender's own tuple.
fn check_quote(left: &[u8], error: &[u8], about: &Passed, from_inside: bool) {
    let [sender, receiver] = addresses(&about.sent);
    let [from, to] = addresses(left);
    assert_eq!(to, sender, "the error arrives at the sender");
    if from_inside {
        assert_eq!(from, receiver, "the external address hides the inside");
    } else {
        assert_eq!(from, addresses(error)[0], "the router's address stays");
    }
    let parsed = parse(left, ChecksumMode::Complete).expect("what leaves is well-formed");
    assert!(matches!(parsed.payload(), Payload::IcmpError(_)), "{left:?}");
    let quote = &left[parsed.header_length() + 8..];
    assert_eq!(addresses(quote), [sender, receiver], "the addresses of the quote");
    // Ports, or the identifier of an echo.
    let identifying = if about.sent[9] == 1 { 24..26 } else { 20..24 };
    assert_eq!(quote[identifying.clone()], about.sent[identifying], "the ports of the quote");
    // A SYN was sent on with another MSS.
    if quote.len() == about.sent.len() && about.sent[9] != 6 {
        assert_eq!(quote[20..], about.sent[20..], "the payload of the quote");
    }
}

/// Makes an error that no router sends, or that is about no packet of the box.
fn wrong_error(input: &mut Input<'_>, about: &Passed) -> Vec<u8> {
    let [from, to] = addresses(&about.left);
    let quoted = if input.once_in(2) { &about.left } else { &about.sent };
    let mut quoted = quoted[..input.below(quoted.len()) + 1].to_vec();
    match input.below(8) {
        0 => damage(&mut quoted, input),
        1 => quoted = builder::icmp_error(3, 1, to, from, &quoted),
        2 => quoted = builder::icmp_error(3, 1, from, to, &quoted),
        3 if quoted.len() >= 20 => {
            quoted[6..8].copy_from_slice(&input.number().to_be_bytes());
            builder::refresh_header_checksum(&mut quoted);
        }
        4 if quoted.len() >= 20 => {
            quoted[12..20].rotate_left(4);
            builder::refresh_header_checksum(&mut quoted);
        }
        5 if quoted.len() >= 20 => quoted[10] ^= 1 + input.byte() % 255,
        6 => quoted = any_packet(input),
        _ => {}
    }
    let hosts = [to, from, REMOTE[1], INSIDE[3], INSIDE[1], EXTERNAL[0], EXTERNAL[2]];
    let (source, destination) = (input.pick(&hosts), input.pick(&hosts));
    let kind = input.pick(&[3, 11, 12, 4, 5, 3]);
    let rest = [input.byte(), input.byte(), input.byte(), input.byte()];
    let mut error = builder::icmp(source, destination, kind, input.byte(), rest, &quoted);
    match input.below(8) {
        0 => error[22] ^= 1 + input.byte() % 255,
        1 => damage(&mut error, input),
        2 => {
            let count = builder::fragments(&error, 16).len();
            error = builder::fragments(&error, 16).swap_remove(input.below(count));
        }
        _ => {}
    }
    error
}

/// Reports whether a packet is malformed, or an error still.
fn is_error(packet: &[u8]) -> bool {
    parse(packet, ChecksumMode::Complete)
        .map_or(true, |parsed| matches!(parsed.payload(), Payload::IcmpError(_)))
}

fn any_packet(input: &mut Input<'_>) -> Vec<u8> {
    let tuple: Tuple = super::packets::any_tuple(input);
    builder::udp(tuple, b"payload")
}

/// Returns source and destination of a packet.
fn addresses(packet: &[u8]) -> [Ipv4Addr; 2] {
    [12, 16].map(|at| Ipv4Addr::from(*packet[at..].first_chunk().expect("a whole header")))
}
