//! [`MemoryIo`]: a backend without a device, for tests and fuzz targets.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::batch::{FrameBuffers, MAX_PACKET};
use super::virtio::{self, HEADER_SIZE};
use super::{Flushed, PacketIo};
use crate::packet::{BATCH, Offload};

/// A queue with the test at its other end: delivers the pushed packets and keeps the sent ones.
///
/// Never waits. Drops packets with invalid offload headers, as the queue of a device does. Rejects
/// packets to send with such headers, as the kernel does.
pub(crate) struct MemoryIo {
    /// Packets behind their headers, as a read of a device returns them.
    arriving: VecDeque<Vec<u8>>,
    sent: Vec<(Vec<u8>, Offload)>,
    batch: FrameBuffers,
    limit: usize,
}

impl MemoryIo {
    /// Creates an empty queue with batches of up to [`BATCH`] frames.
    pub(crate) fn new() -> Self {
        Self::with_limit(BATCH)
    }

    /// Creates an empty queue with batches of up to `limit` frames, 1 to [`BATCH`].
    ///
    /// # Panics
    /// `limit` is out of range.
    pub(crate) fn with_limit(limit: usize) -> Self {
        assert!((1..=BATCH).contains(&limit), "batches hold 1 to {BATCH} frames, not {limit}");
        Self { arriving: VecDeque::new(), sent: Vec::new(), batch: FrameBuffers::new(), limit }
    }

    /// Queues a packet for receiving.
    ///
    /// # Panics
    /// The packet is longer than an IPv4 packet can be.
    #[cfg(test)]
    pub(crate) fn push(&mut self, packet: &[u8], offload: Offload) {
        self.push_wire(&[&virtio::encode(&offload)[..], packet].concat());
    }

    /// Queues the bytes that a read of the device returns: a virtio header, whole or not, valid or
    /// not, and a packet.
    ///
    /// # Panics
    /// The packet is longer than an IPv4 packet can be.
    pub(crate) fn push_wire(&mut self, wire: &[u8]) {
        let length = wire.len().saturating_sub(HEADER_SIZE);
        assert!(length <= MAX_PACKET, "{length} bytes are no IPv4 packet");
        self.arriving.push_back(wire.to_vec());
    }

    /// Returns the packets that were flushed since the last call, in order.
    pub(crate) fn sent(&mut self) -> Vec<(Vec<u8>, Offload)> {
        std::mem::take(&mut self.sent)
    }
}

impl Default for MemoryIo {
    fn default() -> Self {
        Self::new()
    }
}

impl PacketIo for MemoryIo {
    fn receive(&mut self, _wait: Duration) -> io::Result<usize> {
        self.batch.recycle();
        while self.batch.len() < self.limit {
            let Some(wire) = self.arriving.pop_front() else { break };
            let slot = self.batch.len();
            self.batch.slot(slot)[..wire.len()].copy_from_slice(&wire);
            self.batch.accept_read(slot, wire.len());
        }
        Ok(self.batch.len())
    }

    fn flush(&mut self) -> io::Result<Flushed> {
        let mut flushed = Flushed::default();
        self.batch.encode_outgoing();
        let mut rejected = Vec::new();
        for (number, (wire, _)) in self.batch.outgoing().enumerate() {
            let (header, packet) = wire.split_first_chunk().expect("a header leads each packet");
            match virtio::decode(header, packet.len()) {
                Ok(offload) => {
                    self.sent.push((packet.to_vec(), offload));
                    flushed.sent += 1;
                }
                Err(_) => rejected.push(number),
            }
        }
        flushed.rejected = rejected.len() as u32;
        self.batch.keep_rejected(rejected);
        self.batch.clear_outgoing();
        Ok(flushed)
    }

    fn stop_reading(&mut self) -> io::Result<()> {
        self.arriving.clear();
        Ok(())
    }

    fn buffers(&self) -> &FrameBuffers {
        &self.batch
    }

    fn buffers_mut(&mut self) -> &mut FrameBuffers {
        &mut self.batch
    }

    fn batch_limit(&self) -> usize {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Frames, PartialChecksum};

    const PARTIAL: Offload = Offload {
        checksum: Some(PartialChecksum { start: 20, offset: 6 }),
        segmentation: None,
        valid: false,
    };

    #[test]
    fn pushed_packets_arrive_in_order_in_batches_of_the_limit() {
        let mut io = MemoryIo::with_limit(2);
        for number in 0..5u8 {
            io.push(&[number; 40], PARTIAL);
        }
        let mut seen = Vec::new();
        loop {
            let count = io.receive(Duration::MAX).expect("memory");
            if count == 0 {
                break;
            }
            assert!(count <= io.batch_limit());
            for index in 0..count {
                let frame = io.frame(index);
                assert_eq!((frame.length, frame.offload), (40, PARTIAL));
                seen.push(frame.buffer[0]);
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn only_submitted_and_extra_packets_are_sent_and_in_that_order() {
        let mut io = MemoryIo::new();
        io.push(b"dropped", Offload::default());
        io.push(&[b'-'; 40], Offload::default());
        assert_eq!(io.receive(Duration::ZERO).expect("memory"), 2);
        io.send(b"answer", Offload::default());
        io.frame(1).buffer[..10].copy_from_slice(b"TRANSLATED");
        io.submit(1, 28, PARTIAL);
        assert!(io.sent().is_empty(), "nothing is sent before the flush");
        assert_eq!(io.flush().expect("memory"), Flushed { sent: 2, rejected: 0 });
        assert_eq!(
            io.sent(),
            [
                (b"answer".to_vec(), Offload::default()),
                (b"TRANSLATED------------------".to_vec(), PARTIAL)
            ]
        );
        assert_eq!(io.flush().expect("memory"), Flushed::default());
        assert!(io.sent().is_empty());
    }

    #[test]
    fn buffers_hold_an_icmp_error_in_place() {
        let mut io = MemoryIo::new();
        io.push(b"tiny", Offload::default());
        io.receive(Duration::ZERO).expect("memory");
        assert!(io.frame(0).buffer.len() >= crate::packet::MIN_BUFFER);
        io.submit(0, 576, Offload::default());
        io.flush().expect("memory");
        assert_eq!(io.sent()[0].0.len(), 576);
    }

    #[test]
    fn a_header_that_points_outside_its_packet_is_counted_not_delivered() {
        let mut io = MemoryIo::new();
        io.push(&[0; 27], PARTIAL);
        io.push(&[0; 28], PARTIAL);
        assert_eq!(io.receive(Duration::ZERO).expect("memory"), 1);
        assert_eq!(io.frame(0).length, 28);
        assert_eq!(io.bad_vnet_headers(), 1);
    }

    #[test]
    fn a_packet_to_send_with_a_header_that_points_outside_it_is_rejected() {
        let mut io = MemoryIo::new();
        io.push(&[0; 28], PARTIAL);
        io.receive(Duration::ZERO).expect("memory");
        io.submit(0, 27, PARTIAL);
        io.submit(0, 28, PARTIAL);
        assert_eq!(io.flush().expect("memory"), Flushed { sent: 1, rejected: 1 });
    }

    #[test]
    fn a_read_without_a_whole_header_is_counted_not_delivered() {
        let mut io = MemoryIo::new();
        (0..=HEADER_SIZE).for_each(|length| io.push_wire(&vec![0; length]));
        assert_eq!(io.receive(Duration::ZERO).expect("memory"), 1);
        assert_eq!((io.frame(0).length, io.bad_vnet_headers()), (0, HEADER_SIZE as u64));
    }

    #[test]
    #[should_panic(expected = "out of bounds")]
    fn a_frame_of_the_batch_before_is_gone() {
        let mut io = MemoryIo::new();
        io.push(b"packet", Offload::default());
        io.receive(Duration::ZERO).expect("memory");
        io.receive(Duration::ZERO).expect("memory");
        io.frame(0);
    }
}
