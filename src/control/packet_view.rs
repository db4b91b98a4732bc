//! Packets for an operator: what their headers say, which subject they are for a filter, and how
//! much of them a user may see.

use data_encoding::HEXLOWER;
use etherparse::Ipv4HeaderSlice;

use super::sessions;
use crate::api::PacketView;
use crate::filter::Subject;
use crate::nat::{PacketEnds, PacketOrigin};
use crate::packet::{Endpoint, PacketHead, Protocol, Tuple};
use crate::time::Tick;

/// How much of a packet a user may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visible {
    /// The headers. The user may only read, and payload is the business of the hosts.
    Headers,
    /// All bytes that are kept.
    Everything,
}

/// The headers of a packet, as far as they can be read. Malformed packets have some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Headers {
    /// None: the packet has no IPv4 header. Ports are 0 where the packet has none.
    pub(super) tuple: Option<Tuple>,
    /// Offset of the payload.
    end: usize,
    summary: String,
}

impl Headers {
    /// Reads the headers of a packet.
    pub(super) fn of(head: &PacketHead) -> Self {
        let bytes = head.bytes();
        let Ok(ip) = Ipv4HeaderSlice::from_slice(bytes) else {
            let summary = format!("no IPv4 header, {} bytes", head.length());
            return Self { tuple: None, end: 0, summary };
        };
        let header = ip.slice().len();
        let (protocol, offset) = (Protocol(ip.protocol().0), ip.fragments_offset().value());
        let transport = if offset == 0 { &bytes[header..] } else { &[] };
        let Transport { ports: (source, destination), length, words } =
            Transport::of(protocol, transport);
        let tuple = Tuple {
            protocol,
            source: Endpoint::new(ip.source_addr(), source),
            destination: Endpoint::new(ip.destination_addr(), destination),
        };
        let mut summary = format!("{tuple}{words}, ttl {}, {} bytes", ip.ttl(), head.length());
        if ip.is_fragmenting_payload() {
            let more = if ip.more_fragments() { " and more" } else { "" };
            let (identification, start) = (ip.identification(), u32::from(offset) * 8);
            summary += &format!(", fragment of {identification:#06x} from byte {start}{more}");
        }
        Self { tuple: Some(tuple), end: header + length, summary }
    }

    /// Returns the view of the packet.
    pub(super) fn view(&self, head: &PacketHead, visible: Visible) -> PacketView {
        let bytes = match visible {
            Visible::Everything => head.bytes(),
            Visible::Headers => &head.bytes()[..self.end.min(head.bytes().len())],
        };
        let (length, summary) = (head.length(), self.summary.clone());
        PacketView { length, summary, bytes: HEXLOWER.encode(bytes) }
    }
}

/// The transport header of a packet.
struct Transport {
    ports: (u16, u16),
    length: usize,
    words: String,
}

impl Transport {
    fn of(protocol: Protocol, bytes: &[u8]) -> Self {
        let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let ports = (word(0).unwrap_or(0), word(2).unwrap_or(0));
        match (protocol, bytes) {
            (Protocol::TCP, [_, _, _, _, ..]) => {
                let header = bytes.get(12).map_or(bytes.len(), |byte| usize::from(byte >> 4) * 4);
                let words = bytes.get(13).map(|flags| format!(" [{}]", flag_letters(*flags)));
                Self { ports, length: header.max(20), words: words.unwrap_or_default() }
            }
            (Protocol::UDP, [_, _, _, _, ..]) => Self { ports, length: 8, words: String::new() },
            (Protocol::ICMP, [kind, code, ..]) => {
                let identifier = word(4).unwrap_or(0);
                // As in `crate::packet::Endpoint`.
                let ports = match kind {
                    8 | 13 => (identifier, 0),
                    0 | 14 => (0, identifier),
                    _ => (0, 0),
                };
                Self { ports, length: 8, words: format!(" type {kind} code {code}") }
            }
            _ => Self { ports: (0, 0), length: 0, words: String::new() },
        }
    }
}

/// Returns TCP flags as tcpdump shows them.
fn flag_letters(flags: u8) -> String {
    let letters = [(2, 'S'), (1, 'F'), (4, 'R'), (8, 'P'), (32, 'U'), (16, '.')];
    letters.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| letter).collect()
}

/// Returns the subject of a packet that belongs to no session.
pub(super) fn subject_without_session(original: Tuple, ends: &PacketEnds) -> Subject<'_> {
    Subject {
        original,
        reply: None,
        opened_from_inside: ends.from_inside,
        answered_from_inside: ends.to_external,
        uplink: ends.uplink.as_deref(),
        forward: ends.forward.as_deref(),
        state: None,
        origin: None,
        idle: None,
        age: None,
        expires: None,
    }
}

/// Returns the subject of a packet: its session, if it belongs to one.
pub(super) fn subject_of(origin: &PacketOrigin, now: Tick) -> Subject<'_> {
    let ends = &origin.ends;
    match &origin.session {
        None => subject_without_session(origin.tuple, ends),
        Some(session) => {
            sessions::subject(session, ends.uplink.as_deref(), ends.forward.as_deref(), now)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::packet::{QueryKind, TcpFlags, builder};

    const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

    fn headers(packet: &[u8]) -> Headers {
        Headers::of(&PacketHead::of(packet))
    }

    fn tuple(protocol: Protocol) -> Tuple {
        builder::tuple(protocol, (CLIENT, 4242), (SERVER, 80))
    }

    #[test]
    fn headers_are_read_as_the_translator_reads_them() {
        let segment = builder::tcp(tuple(Protocol::TCP), TcpFlags::SYN, 1, 0, &[], b"secret");
        let found = headers(&segment);
        assert_eq!(found.tuple, Some(tuple(Protocol::TCP)));
        assert!(found.summary.starts_with("tcp 192.0.2.7:4242 > 203.0.113.10:80 [S], ttl "));
        let datagram = builder::udp(tuple(Protocol::UDP), &[7; 400]);
        assert_eq!(headers(&datagram).tuple, Some(tuple(Protocol::UDP)));
        for kind in [QueryKind::EchoRequest, QueryKind::EchoReply] {
            let echo = builder::echo(CLIENT, SERVER, kind, 9, 1, b"");
            let mode = crate::packet::ChecksumMode::Complete;
            let parsed = crate::packet::parse(&echo, mode).expect("well-formed");
            assert_eq!(headers(&echo).tuple, parsed.tuple());
        }
        let later = &builder::fragments(&datagram, 200)[1];
        let without_ports = builder::tuple(Protocol::UDP, (CLIENT, 0), (SERVER, 0));
        assert_eq!(headers(later).tuple, Some(without_ports));
        assert!(headers(later).summary.contains("from byte 200"), "{later:?}");
        assert_eq!(headers(&[0x60; 40]).tuple, None);
    }

    #[test]
    fn a_reader_sees_no_payload() {
        let secret = b"secret";
        for packet in [
            builder::tcp(tuple(Protocol::TCP), TcpFlags::ACK, 1, 0, &[2, 4, 5, 180], secret),
            builder::udp(tuple(Protocol::UDP), secret),
            builder::echo(CLIENT, SERVER, QueryKind::EchoRequest, 9, 1, secret),
            builder::other(Protocol(47), CLIENT, SERVER, secret),
        ] {
            let head = PacketHead::of(&packet);
            let shown = |visible| Headers::of(&head).view(&head, visible).bytes;
            let all = HEXLOWER.encode(&packet);
            assert_eq!(shown(Visible::Everything), all);
            assert_eq!(shown(Visible::Headers), all[..all.len() - 2 * secret.len()]);
        }
        // Without a header, all bytes may be payload.
        let head = PacketHead::of(secret);
        assert_eq!(Headers::of(&head).view(&head, Visible::Headers).bytes, "");
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_view(bytes in prop::collection::vec(any::<u8>(), 0..200), ip: bool) {
            let mut bytes = bytes;
            if let (true, Some(first)) = (ip, bytes.first_mut()) {
                *first = 0x45;
            }
            let head = PacketHead::of(&bytes);
            let view = Headers::of(&head).view(&head, Visible::Headers);
            prop_assert!(HEXLOWER.encode(&bytes).starts_with(&view.bytes));
        }
    }
}
