//! The frame condition: translation changes the translated endpoints, the TTL and the checksums of
//! a packet, and nothing else.

use natbox::packet::{Endpoint, Protocol, builder};

use super::Seen;

/// Returns the packet as it must arrive with these endpoints. For the identification see
/// [`assert_carried`].
fn expected(sent: &[u8], source: Endpoint, destination: Endpoint) -> Vec<u8> {
    let mut packet = sent.to_vec();
    let before = Seen(sent.to_vec());
    let header = before.header_length();
    packet[8] -= 1;
    packet[12..16].copy_from_slice(&source.address.octets());
    packet[16..20].copy_from_slice(&destination.address.octets());
    if before.fragment().0 == 0 {
        match before.protocol() {
            Protocol::TCP | Protocol::UDP => {
                packet[header..header + 2].copy_from_slice(&source.port.to_be_bytes());
                packet[header + 2..header + 4].copy_from_slice(&destination.port.to_be_bytes());
            }
            // The identifier stands on the side of the query's sender.
            Protocol::ICMP => {
                let identifier =
                    if packet[header] == 8 || packet[header] == 13 { source } else { destination };
                packet[header + 4..header + 6].copy_from_slice(&identifier.port.to_be_bytes());
            }
            _ => {}
        }
    }
    packet
}

/// Asserts that the packet arrived as sent, except for endpoints, TTL (one less) and checksums. The
/// identification may differ if the packet is not atomic, because the box then chooses it (RFC
/// 6864).
#[track_caller]
pub(crate) fn assert_carried(sent: &[u8], seen: &Seen, source: Endpoint, destination: Endpoint) {
    let mut wanted = expected(sent, source, destination);
    let mut found = seen.0.clone();
    let before = Seen(sent.to_vec());
    if !before.dont_fragment() || before.fragment() != (0, false) {
        let identification = seen.identification();
        builder::set_identification(&mut wanted, identification);
    }
    for packet in [&mut wanted, &mut found] {
        blank_checksums(packet);
    }
    assert_eq!(Seen(found), Seen(wanted), "not carried as sent: {seen:?}");
}

/// Zeroes the checksum fields: the oracle of the wires verifies them.
fn blank_checksums(packet: &mut [u8]) {
    let view = Seen(packet.to_vec());
    packet[10..12].fill(0);
    if view.fragment().0 != 0 {
        return;
    }
    let at = match view.protocol() {
        Protocol::TCP => 16,
        // A UDP packet without a checksum must stay without one.
        Protocol::UDP if view.checksum() != 0 => 6,
        Protocol::UDP_LITE | Protocol::DCCP => 6,
        Protocol::ICMP => 2,
        _ => return,
    };
    let at = view.header_length() + at;
    if packet.len() >= at + 2 {
        packet[at..at + 2].fill(0);
    }
}
