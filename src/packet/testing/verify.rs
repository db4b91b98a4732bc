//! Computes every checksum of a packet in full: the oracle of tests. The code shares nothing with
//! `checksum.rs`, follows the words of the RFCs, and has etherparse compute everything a second
//! time.

use super::builder;
use crate::packet::parse::ChecksumMode;
use etherparse::{Ipv4Header, TcpSlice, UdpHeader};

/// Recomputes and compares every checksum of the IPv4 packet at the front of `bytes`: IP header,
/// TCP, UDP, UDP-Lite, DCCP, ICMP. In an ICMP error, compares the quoted header and, if the quote
/// is complete, the quoted transport checksum.
///
/// In a fragment only the IP header can be verified. A UDP field of 0 means "no checksum" in
/// [`ChecksumMode::Complete`].
///
/// # Errors
/// A sentence about the first wrong checksum or length.
pub fn verify(bytes: &[u8], mode: ChecksumMode) -> Result<(), String> {
    let packet = Packet::read(bytes)?;
    if packet.total_length > bytes.len() {
        return Err(format!("total length {} of {} bytes", packet.total_length, bytes.len()));
    }
    let payload = &bytes[packet.header_length..packet.total_length];
    if packet.is_fragment {
        return Ok(());
    }
    transport(&packet, payload, mode)?;
    if packet.protocol == 1 && matches!(payload[0], 3 | 11 | 12) && payload.len() >= 8 + 20 {
        let stated = usize::from(payload[5]) * 4;
        let quote = &payload[8..];
        quoted(if stated >= 28 && stated <= quote.len() { &quote[..stated] } else { quote })
            .map_err(|problem| format!("quoted packet: {problem}"))?;
    }
    Ok(())
}

/// Verifies a packet inside an ICMP error: its header, and its payload if the quote has all of it.
fn quoted(quote: &[u8]) -> Result<(), String> {
    let packet = Packet::read(quote)?;
    match quote.get(packet.header_length..packet.total_length) {
        Some(payload) if !packet.is_fragment => transport(&packet, payload, ChecksumMode::Complete),
        Some(_) | None => Ok(()),
    }
}

struct Packet {
    header_length: usize,
    total_length: usize,
    is_fragment: bool,
    protocol: u8,
    source: [u8; 4],
    destination: [u8; 4],
}

impl Packet {
    /// Reads the header and verifies its checksum.
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let (header, _) = Ipv4Header::from_slice(bytes).map_err(|error| error.to_string())?;
        let header_length = usize::from(bytes[0] & 15) * 4;
        if builder::ones_complement_sum(&bytes[..header_length]) != 0xffff {
            return Err(format!("IP header checksum {:04x}", header.header_checksum));
        }
        if header.calc_header_checksum() != header.header_checksum {
            let (found, wanted) = (header.header_checksum, header.calc_header_checksum());
            return Err(format!("IP header checksum {found:04x}, etherparse says {wanted:04x}"));
        }
        Ok(Self {
            header_length,
            total_length: usize::from(header.total_len).max(header_length),
            is_fragment: header.is_fragmenting_payload(),
            protocol: header.protocol.0,
            source: header.source,
            destination: header.destination,
        })
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        builder::pseudo_header(self.source, self.destination, self.protocol, length)
    }
}

fn transport(packet: &Packet, payload: &[u8], mode: ChecksumMode) -> Result<(), String> {
    let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    match packet.protocol {
        1 if payload.len() >= 8 => icmp(payload),
        6 if payload.len() >= 20 => match mode {
            ChecksumMode::Partial => partial("TCP", word(16), &packet.pseudo_header(payload.len())),
            ChecksumMode::Complete => {
                let whole = [&packet.pseudo_header(payload.len())[..], payload].concat();
                let segment = TcpSlice::from_slice(payload).map_err(|error| error.to_string())?;
                let wanted = segment
                    .calc_checksum_ipv4(packet.source, packet.destination)
                    .map_err(|error| error.to_string())?;
                complete("TCP", word(16), builder::ones_complement_sum(&whole), wanted)
            }
        },
        17 if payload.len() >= 8 => {
            let length = usize::from(word(4));
            let datagram =
                payload.get(..length).ok_or(format!("UDP length {length} of {}", payload.len()))?;
            match mode {
                ChecksumMode::Partial => partial("UDP", word(6), &packet.pseudo_header(length)),
                ChecksumMode::Complete if word(6) == 0 => Ok(()),
                ChecksumMode::Complete => {
                    let whole = [&packet.pseudo_header(length)[..], datagram].concat();
                    let (header, data) =
                        UdpHeader::from_slice(datagram).map_err(|error| error.to_string())?;
                    let wanted = header
                        .calc_checksum_ipv4_raw(packet.source, packet.destination, data)
                        .map_err(|error| error.to_string())?;
                    complete("UDP", word(6), builder::ones_complement_sum(&whole), wanted)
                }
            }
        }
        33 | 136 if payload.len() >= 8 && mode == ChecksumMode::Partial => {
            partial("transport", word(6), &packet.pseudo_header(payload.len()))
        }
        136 if payload.len() >= 8 => {
            let covered = if word(4) == 0 { payload.len() } else { usize::from(word(4)) };
            if word(6) == 0 {
                return Err("a UDP-Lite checksum of 0".into());
            }
            covering("UDP-Lite", packet, payload, covered)
        }
        33 if payload.len() >= 12 => {
            let header = usize::from(payload[4]) * 4;
            let covered = match usize::from(payload[5] & 15) {
                0 => payload.len(),
                steps => (header + 4 * (steps - 1)).min(payload.len()),
            };
            covering("DCCP", packet, payload, covered)
        }
        1 | 6 | 17 => Err(format!(
            "{} bytes are too short for a header of protocol {}",
            payload.len(),
            packet.protocol
        )),
        _ => Ok(()),
    }
}

/// Verifies a checksum over the pseudo header and the first `covered` bytes of a payload.
/// etherparse does not know these protocols, so its sum is taken of the bytes.
fn covering(name: &str, packet: &Packet, payload: &[u8], covered: usize) -> Result<(), String> {
    let covered = payload.get(..covered).ok_or(format!("{name} coverage {covered}"))?;
    let pseudo_header = packet.pseudo_header(payload.len());
    let sum = builder::ones_complement_sum(&[&pseudo_header[..], covered].concat());
    let etherparse = etherparse::checksum::Sum16BitWords::new()
        .add_slice(&pseudo_header)
        .add_slice(covered)
        .ones_complement();
    match (sum, etherparse) {
        (0xffff, 0) => Ok(()),
        _ => Err(format!(
            "{name} checksum: the sum is {sum:04x}, etherparse leaves {etherparse:04x}"
        )),
    }
}

fn icmp(message: &[u8]) -> Result<(), String> {
    let field = u16::from_be_bytes([message[2], message[3]]);
    // Computed over the bytes, as the typed headers of etherparse drop bytes to which RFC 4884 gave
    // a meaning later.
    let wanted = etherparse::checksum::Sum16BitWords::new()
        .add_slice(&message[..2])
        .add_slice(&message[4..])
        .ones_complement()
        .to_be();
    complete("ICMP", field, builder::ones_complement_sum(message), wanted)
}

/// Compares a sum that includes the field with `0xffff`, and the field with the checksum of
/// etherparse.
fn complete(name: &str, field: u16, sum: u16, etherparse: u16) -> Result<(), String> {
    if sum != 0xffff {
        return Err(format!("{name} checksum {field:04x}: the sum is {sum:04x}"));
    }
    if field != etherparse {
        return Err(format!("{name} checksum {field:04x}, etherparse says {etherparse:04x}"));
    }
    Ok(())
}

fn partial(name: &str, field: u16, pseudo_header: &[u8]) -> Result<(), String> {
    let wanted = builder::ones_complement_sum(pseudo_header);
    if field == wanted {
        Ok(())
    } else {
        Err(format!("partial {name} sum {field:04x}, wanted {wanted:04x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Protocol, QueryKind, TcpFlags};

    #[test]
    fn a_flipped_bit_anywhere_is_detected() {
        let tuple = builder::tuple(Protocol::TCP, ([10, 0, 0, 1], 1), ([192, 0, 2, 1], 2));
        let (source, destination) = (tuple.source.address, tuple.destination.address);
        let udp = builder::udp(tuple, b"odd");
        for bytes in [
            builder::tcp(tuple, TcpFlags::SYN, 1, 2, &[2, 4, 5, 180], b"odd"),
            builder::echo(source, destination, QueryKind::EchoRequest, 1, 2, b"odd"),
            builder::icmp_error(11, 0, destination, source, &udp),
            udp,
        ] {
            builder::verify(&bytes, ChecksumMode::Complete).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(builder::verify(&flipped, ChecksumMode::Complete).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_quote_is_verified_by_itself() {
        let tuple = builder::tuple(Protocol::UDP, ([10, 0, 0, 1], 1), ([192, 0, 2, 1], 2));
        let mut quoted = builder::udp(tuple, b"odd");
        quoted[27] ^= 1;
        let bytes =
            builder::icmp_error(11, 0, tuple.destination.address, tuple.source.address, &quoted);
        assert!(
            builder::verify(&bytes, ChecksumMode::Complete)
                .unwrap_err()
                .starts_with("quoted packet: UDP")
        );
    }
}
