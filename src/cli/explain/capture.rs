//! The packets of a capture in one of the two usual formats.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::{Block, PcapNgReader};

use super::super::exit::Failure;

/// A packet of a capture.
pub(super) struct CapturedPacket {
    /// Time of the capture.
    pub(super) time: Duration,
    /// The IPv4 packet, with zeros for the bytes that the capture has cut off. None: another frame.
    pub(super) packet: Option<Vec<u8>>,
}

/// Passes each packet of a capture to `take`, until it returns false.
///
/// # Errors
/// A user error when the file cannot be read or is no capture. The errors of `take`.
pub(super) fn read(
    path: &Path,
    mut take: impl FnMut(CapturedPacket) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let named = || format!("{}: no capture", path.display());
    let open = || -> std::io::Result<(File, [u8; 4])> {
        let mut file = File::open(path)?;
        let mut magic = [0; 4];
        file.read_exact(&mut magic)?;
        file.rewind()?;
        Ok((file, magic))
    };
    let (file, magic) = open().with_context(named).map_err(Failure::user)?;
    let wrong = |error| anyhow!("{}: {error}; save it again", named());
    let wrong = |error: pcap_file::PcapError| Failure::user(wrong(error));
    if magic == PCAPNG {
        let mut reader = PcapNgReader::new(BufReader::new(file)).map_err(wrong)?;
        let mut links = Vec::new();
        while let Some(block) = reader.next_block() {
            let block = block.map_err(wrong)?;
            let packet = if let Block::EnhancedPacket(packet) = &block {
                let link = links.get(packet.interface_id as usize).copied();
                captured(link, packet.timestamp, &packet.data)
            } else if let Block::SimplePacket(packet) = &block {
                captured(links.first().copied(), Duration::ZERO, &packet.data)
            } else {
                if let Block::SectionHeader(_) = &block {
                    links.clear();
                } else if let Block::InterfaceDescription(interface) = &block {
                    links.push(interface.linktype);
                }
                continue;
            };
            if !take(packet)? {
                return Ok(());
            }
        }
        return Ok(());
    }
    let mut reader = PcapReader::new(BufReader::new(file)).map_err(wrong)?;
    let link = reader.header().datalink;
    while let Some(packet) = reader.next_packet() {
        let packet = packet.map_err(wrong)?;
        if !take(captured(Some(link), packet.timestamp, &packet.data))? {
            return Ok(());
        }
    }
    Ok(())
}

fn captured(link: Option<DataLink>, time: Duration, frame: &[u8]) -> CapturedPacket {
    CapturedPacket { time, packet: link.and_then(|link| ipv4_of(link, frame)).map(whole) }
}

/// Returns the IPv4 packet of a frame.
fn ipv4_of(link: DataLink, frame: &[u8]) -> Option<&[u8]> {
    let packet = if [DataLink::RAW, DataLink::IPV4].contains(&link) {
        frame
    } else if link == DataLink::ETHERNET {
        behind_tags(frame.get(12..)?)?
    } else if link == DataLink::LINUX_SLL {
        behind_tags(frame.get(14..)?)?
    } else if link == DataLink::LINUX_SLL2 && frame.get(..2)? == IPV4 {
        frame.get(20..)?
    } else {
        return None;
    };
    (packet.first()? >> 4 == 4).then_some(packet)
}

/// Returns the IPv4 packet behind the type of a frame and its VLAN tags.
fn behind_tags(mut rest: &[u8]) -> Option<&[u8]> {
    while VLAN.contains(&rest.get(..2)?.try_into().ok()?) {
        rest = rest.get(4..)?;
    }
    (rest.get(..2)? == IPV4).then(|| &rest[2..])
}

/// Returns a packet in its full length, without padding of the frame behind it.
fn whole(packet: &[u8]) -> Vec<u8> {
    let length = packet.get(2..4).map(|bytes| usize::from(bytes[0]) << 8 | usize::from(bytes[1]));
    let mut packet = packet.to_vec();
    // A length of 0 is that of a super-packet, which the kernel did not fill in.
    if let Some(length) = length.filter(|length| *length != 0) {
        packet.resize(length, 0);
    }
    packet
}

/// First bytes of a pcapng file, in any byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Ethernet type of IPv4.
const IPV4: [u8; 2] = [8, 0];
/// Ethernet types of VLAN tags.
const VLAN: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_is_found_behind_every_usual_header() {
        let packet = [0x45, 0, 0, 5, 9];
        let ethernet = |middle: &[u8]| [&[0; 12][..], middle, &[8, 0], &packet, &[0; 3]].concat();
        let [sll, sll2] = [[&[0; 14][..], &[8, 0]].concat(), [&[8, 0][..], &[0; 18]].concat()];
        for (link, frame) in [
            (DataLink::RAW, packet.to_vec()),
            (DataLink::IPV4, packet.to_vec()),
            (DataLink::ETHERNET, ethernet(&[])),
            (DataLink::ETHERNET, ethernet(&[0x81, 0, 0, 7])),
            (DataLink::ETHERNET, ethernet(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8])),
            (DataLink::LINUX_SLL, [&sll[..], &packet].concat()),
            (DataLink::LINUX_SLL2, [&sll2[..], &packet].concat()),
        ] {
            let found = ipv4_of(link, &frame).map(whole);
            assert_eq!(found.as_deref(), Some(&packet[..]), "{link:?}");
        }
        for (link, frame) in [
            (DataLink::RAW, vec![0x60]),
            (DataLink::RAW, Vec::new()),
            (DataLink::ETHERNET, [&[0; 12][..], &[0x86, 0xdd, 0x60]].concat()),
            (DataLink::ETHERNET, vec![0; 5]),
            (DataLink::USB_LINUX, vec![0; 5]),
        ] {
            assert_eq!(ipv4_of(link, &frame), None, "{link:?}");
        }
    }

    #[test]
    fn bytes_that_a_capture_has_cut_off_are_zeros() {
        assert_eq!(whole(&[0x45, 0, 0, 7, 1]), [0x45, 0, 0, 7, 1, 0, 0]);
    }
}
