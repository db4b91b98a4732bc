//! Packets as the input chooses them. Most are well-formed, and many belong to a session.

use std::net::Ipv4Addr;

use natbox::packet::{ChecksumMode, Protocol, QueryKind, TcpFlags, Tuple, builder, parse};

use super::input::Input;
use super::world::{
    BYPASSED, EXTERNAL, FIRST_PORT, HOST, INSIDE, ODD, PROBES, PUBLISHED, REMOTE, TUN,
};

/// The last packets that left the box: the next ones answer or quote them.
#[derive(Default)]
pub struct Recent(Vec<Vec<u8>>);

impl Recent {
    /// Adds a packet that left the box.
    pub fn note(&mut self, packet: &[u8]) {
        if self.0.len() == MAX_RECENT {
            self.0.remove(0);
        }
        self.0.push(packet.to_vec());
    }

    /// Returns one of the packets.
    pub fn pick(&self, input: &mut Input<'_>) -> Option<&[u8]> {
        let place = input.below(MAX_RECENT);
        self.0.get(place % self.0.len().max(1)).map(Vec::as_slice)
    }

    /// Returns the tuple of a reply to one of the packets.
    fn reply(&self, input: &mut Input<'_>) -> Option<Tuple> {
        parse(self.pick(input)?, ChecksumMode::Complete).ok()?.tuple().map(Tuple::reversed)
    }
}

/// Makes a packet.
pub fn packet(input: &mut Input<'_>, recent: &Recent) -> Vec<u8> {
    let tuple = match input.below(4) {
        0 => recent.reply(input),
        _ => None,
    };
    let tuple = tuple.unwrap_or_else(|| any_tuple(input));
    let (from, to) = (tuple.source.address, tuple.destination.address);
    let payload = payload(input);
    let mut packet = match input.below(16) {
        0..=3 => segment(input, tuple, &payload),
        4..=6 => builder::udp(tuple, &payload),
        7 => builder::udp_without_checksum(tuple, &payload),
        8 | 9 => {
            let kind = input.pick(&[
                QueryKind::EchoRequest,
                QueryKind::EchoReply,
                QueryKind::TimestampRequest,
                QueryKind::TimestampReply,
            ]);
            let reply = matches!(kind, QueryKind::EchoReply | QueryKind::TimestampReply);
            let identifier = if reply { tuple.destination.port } else { tuple.source.port };
            builder::echo(from, to, kind, identifier, 1, &payload)
        }
        10 | 11 => error(input, recent, from, to),
        12 => {
            let whole = builder::udp(tuple, &[7; 100]);
            let fragments = builder::fragments(&whole, 40);
            fragments[input.below(fragments.len())].clone()
        }
        13 => match input.below(4) {
            0 => builder::udp_lite(tuple, 8, &payload),
            1 => builder::dccp(tuple, 0, &payload),
            _ => builder::other(Protocol(input.byte()), from, to, &payload),
        },
        14 => builder::with_ip_options(&builder::udp(tuple, &payload), &options(input)),
        _ => builder::icmp(from, to, input.byte(), input.byte(), [0; 4], &payload),
    };
    header(input, &mut packet);
    packet
}

/// Makes an ICMP error about a recent packet, or about one that was never sent.
fn error(input: &mut Input<'_>, recent: &Recent, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let any = || builder::udp(builder::tuple(Protocol::UDP, (to, 40_001), (from, 53)), b"payload");
    let quoted = recent.pick(input).map_or_else(any, <[u8]>::to_vec);
    let source = Ipv4Addr::new(quoted[12], quoted[13], quoted[14], quoted[15]);
    let to = if input.once_in(4) { to } else { source };
    let header_length = usize::from(quoted[0] & 15) * 4;
    let length = quoted.len().min(header_length + 8 + usize::from(input.byte()));
    let kind = input.pick(&[3, 3, 11, 12]);
    let rest = [0, 0, 2, 0].map(|byte| byte & input.byte());
    builder::icmp(from, to, kind, input.byte() % 16, rest, &quoted[..length])
}

fn segment(input: &mut Input<'_>, tuple: Tuple, payload: &[u8]) -> Vec<u8> {
    let usual = [0x02, 0x12, 0x10, 0x10, 0x18, 0x11, 0x04, 0x14];
    let flags = TcpFlags(if input.once_in(16) { input.byte() } else { input.pick(&usual) });
    // Few sequence numbers, so that many lie in the window.
    let (sequence, acknowledgement) = (u32::from(input.byte()), u32::from(input.byte()));
    let options: &[u8] =
        if input.once_in(4) { &[2, 4, 5, 180, 1, 3, 3, 7] } else { input.bytes(0) };
    builder::tcp(tuple, flags, sequence, acknowledgement, options, payload)
}

/// Makes a payload. Few are longer than an MTU.
fn payload(input: &mut Input<'_>) -> Vec<u8> {
    match input.below(16) {
        0..=5 => Vec::new(),
        15 => vec![0x5a; usize::from(input.number() % 2000)],
        length => vec![0xa5; length],
    }
}

/// Makes a list of IP options, most of which record a route or times.
fn options(input: &mut Input<'_>) -> Vec<u8> {
    let [a, b, c, d] = INSIDE[0].octets();
    match input.below(6) {
        0 => vec![7, 11, 12, a, b, c, d, 192, 0, 2, 9],
        1 => vec![7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0],
        2 => vec![68, 12, 13, 1, a, b, c, d, 0, 0, 0, 9],
        3 => vec![148, 4, 0, 0],
        _ => {
            let length = input.below(41);
            let mut list = input.bytes(length).to_vec();
            if let Some(kind) = list.first_mut() {
                *kind = input.pick(&[7, 68, 130, 131, 137, 148, 1, 0]);
            }
            list
        }
    }
}

/// Changes fields of the IP header.
fn header(input: &mut Input<'_>, packet: &mut [u8]) {
    match input.below(16) {
        0 => builder::set_ttl(packet, input.byte()),
        1 => builder::set_type_of_service(packet, input.byte()),
        2..=4 => builder::set_dont_fragment(packet, true),
        5 => builder::set_identification(packet, input.number()),
        _ => {}
    }
}

/// Returns a tuple in one of the directions that a box serves, or between any two addresses.
pub fn any_tuple(input: &mut Input<'_>) -> Tuple {
    let inside = |input: &mut Input<'_>| (input.pick(&INSIDE), port(input));
    let remote = |input: &mut Input<'_>| (input.pick(&REMOTE), port(input));
    let external = |input: &mut Input<'_>| (input.pick(&EXTERNAL), port(input));
    let (from, to) = match input.below(8) {
        0..=2 => (inside(input), remote(input)),
        3 | 4 => (remote(input), external(input)),
        5 => (inside(input), external(input)),
        _ => ((any_address(input), port(input)), (any_address(input), port(input))),
    };
    builder::tuple(Protocol::UDP, from, to)
}

fn any_address(input: &mut Input<'_>) -> Ipv4Addr {
    match input.below(8) {
        0 | 1 => input.pick(&INSIDE),
        2 => input.pick(&EXTERNAL),
        3 => input.pick(&REMOTE),
        4 => BYPASSED,
        5 => input.pick(&[HOST, PROBES[0], PROBES[1], TUN, Ipv4Addr::new(10, 0, 0, 1)]),
        6 => input.pick(&ODD),
        _ => Ipv4Addr::from(input.word()),
    }
}

fn port(input: &mut Input<'_>) -> u16 {
    match input.below(8) {
        0 => PUBLISHED,
        1 => input.pick(&[80, 53, 500, 0, 65_535]),
        2 => input.number(),
        _ => FIRST_PORT + u16::from(input.byte() % 16),
    }
}

/// Packets that [`Recent`] keeps.
const MAX_RECENT: usize = 16;
