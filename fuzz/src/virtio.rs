//! Any ten bytes as the virtio header of a packet that may be good.

use natbox::nat::Counters;
use natbox::packet::{Protocol, TcpFlags, builder};

use super::input::{Input, damage};
use super::instance::Instance;
use super::world::{self, EXTERNAL, INSIDE, PUBLISHED, REMOTE};

/// Sends packets with the headers of the input through a worker.
///
/// # Panics
/// If a packet leaves that must not, or something vanishes.
pub fn run(data: &[u8]) {
    counters(data);
}

/// Does the work of [`run`], and returns the counters of the worker.
///
/// # Panics
/// As [`run`].
pub fn counters(data: &[u8]) -> Counters {
    let mut input = Input::new(data);
    let mut instance = Instance::new(world::limits(&mut Input::new(&[])), world::policy(0), 8);
    while !input.is_empty() {
        for _ in 0..=input.below(4) {
            let packet = packet(&mut input);
            let header = header(&mut input, &packet);
            instance.push(&header, &packet);
        }
        let sent = instance.run();
        for (packet, offload) in sent {
            let ends =
                offload.checksum.map(|it| usize::from(it.start) + usize::from(it.offset) + 2);
            assert!(ends.is_none_or(|end| end <= packet.len()), "a checksum outside the packet");
            let headers = offload.segmentation.map(|it| usize::from(it.header_length));
            assert!(headers.is_none_or(|end| end <= packet.len()), "headers outside the packet");
        }
    }
    instance.finish()
}

/// Makes a packet through the forward or out of it, of any length up to the longest.
fn packet(input: &mut Input<'_>) -> Vec<u8> {
    let length = match input.below(8) {
        0 => usize::from(input.number()).min(65_535 - 60),
        1 => usize::from(input.number() % 4000),
        _ => input.below(256),
    };
    let payload = vec![input.byte(); length];
    let (from, to) = match input.below(2) {
        0 => ((REMOTE[0], 5000), (EXTERNAL[0], PUBLISHED)),
        _ => ((INSIDE[1], 5000), (REMOTE[1], 80)),
    };
    let mut packet = match input.below(4) {
        0 => builder::udp(builder::tuple(Protocol::UDP, from, to), &payload),
        1 => builder::other(Protocol(input.byte()), from.0, to.0, &payload),
        _ => {
            let flags = if input.once_in(2) { TcpFlags::SYN } else { TcpFlags::ACK };
            builder::tcp(builder::tuple(Protocol::TCP, from, to), flags, 1, 1, &[], &payload)
        }
    };
    match input.below(8) {
        0 => damage(&mut packet, input),
        1 => packet.extend(input.bytes(9)),
        2 => packet = input.bytes(40).to_vec(),
        3 => builder::set_dont_fragment(&mut packet, true),
        _ => {}
    }
    packet.truncate(65_535);
    packet
}

/// Makes a header: right for the packet, nearly right, any ten bytes, or fewer.
fn header(input: &mut Input<'_>, packet: &[u8]) -> Vec<u8> {
    let offset = if packet.get(9) == Some(&17) { 6 } else { 16 };
    let kind = input.pick(&[0, 1, 0x81, 5]);
    let [size, headers] = [input.number() % 2000, input.number() % 100].map(u16::to_le_bytes);
    let [h0, h1, s0, s1] = [headers[0], headers[1], size[0], size[1]];
    let mut header = vec![input.byte() & 3, kind, h0, h1, s0, s1, 20, 0, offset, 0];
    match input.below(4) {
        0 => header.iter_mut().for_each(|byte| *byte = input.byte()),
        1 => {
            let at = input.below(10);
            header[at] = input.byte();
        }
        2 if input.once_in(16) => header.truncate(input.below(10)),
        _ => {}
    }
    header
}
