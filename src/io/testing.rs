//! A queue without a device, for tests of the backends: a pair of sockets that keep message
//! boundaries.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};

use super::TunQueue;
use super::virtio::{self, HEADER_SIZE};
use crate::packet::{Offload, PartialChecksum, Segmentation, SegmentationKind};

/// The offload of a TCP super-packet.
pub(super) const SUPER: Offload = Offload {
    checksum: Some(PartialChecksum { start: 20, offset: 16 }),
    segmentation: Some(Segmentation {
        kind: SegmentationKind::Tcp4,
        size: 1448,
        header_length: 52,
    }),
    valid: false,
};

/// Opens a queue, and the kernel's end of it.
pub(super) fn queue() -> (TunQueue, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (ours, kernel) =
        socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).expect("a socket pair");
    for end in [&ours, &kernel] {
        // More than the byte budget fits in, and less than a batch of super-packets, on every
        // machine.
        sockopt::set_socket_send_buffer_size_force(end, 300_000)
            .or_else(|_| sockopt::set_socket_send_buffer_size(end, 300_000))
            .expect("a socket has a send buffer");
    }
    (TunQueue::from_file(ours), kernel)
}

/// Hands a packet to the queue.
pub(super) fn deliver(kernel: &OwnedFd, offload: Offload, packet: &[u8]) {
    let wire = [&virtio::encode(&offload)[..], packet].concat();
    rustix::io::write(kernel, &wire).expect("the socket takes the packet");
}

/// Takes the next packet that the backend has written. `None` if there is none.
pub(super) fn collect(kernel: &OwnedFd) -> Option<(Offload, Vec<u8>)> {
    let mut wire = vec![0; 70_000];
    let count = rustix::io::read(kernel, &mut wire).ok()?;
    let header = wire.first_chunk().expect("ten bytes");
    let packet = wire[HEADER_SIZE..count].to_vec();
    Some((virtio::decode(header, packet.len()).expect("a valid header"), packet))
}
