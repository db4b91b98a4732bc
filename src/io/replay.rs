//! [`ReplayIo`]: a backend without a device, for benches.

use std::io;
use std::time::Duration;

use super::batch::{FrameBuffers, MAX_PACKET};
use super::virtio::HEADER_SIZE;
use super::{Flushed, PacketIo};
use crate::packet::{BATCH, Offload};

/// A queue that is never empty and costs next to nothing, so that a bench measures the work in
/// between.
///
/// Every batch is full. Sent packets are encoded as for a device, and then only counted. After the
/// first batch nothing is allocated, except for extra packets beyond the memory that is kept for
/// them.
pub struct ReplayIo {
    next: Box<NextPacket>,
    batch: FrameBuffers,
    limit: usize,
    sent: u64,
}

/// Writes the next packet to the start of a buffer and returns its length and offload.
type NextPacket = dyn FnMut(&mut [u8]) -> (usize, Offload) + Send;

impl ReplayIo {
    /// Number of bytes of each packet that [`new`](Self::new) writes into every batch: all headers
    /// that a worker reads.
    pub const REPLAYED_BYTES: usize = 128;

    /// Delivers `frames` in order, over and over.
    ///
    /// Writes the first [`REPLAYED_BYTES`](Self::REPLAYED_BYTES) of each packet each time. The
    /// bytes behind them are left over from earlier packets.
    ///
    /// # Panics
    /// There are no frames, or one is longer than an IPv4 packet can be.
    pub fn new(frames: Vec<(Vec<u8>, Offload)>) -> Self {
        assert!(!frames.is_empty(), "nothing to replay");
        assert!(
            frames.iter().all(|(packet, _)| packet.len() <= MAX_PACKET),
            "a frame is no IPv4 packet"
        );
        let mut index = 0;
        Self::generate(move |buffer| {
            let (packet, offload) = &frames[index];
            index = if index + 1 == frames.len() { 0 } else { index + 1 };
            let head = packet.len().min(Self::REPLAYED_BYTES);
            buffer[..head].copy_from_slice(&packet[..head]);
            (packet.len(), *offload)
        })
    }

    /// Delivers the packets that `next` writes to the start of each buffer, of which it returns
    /// length and offload. The buffer still holds an earlier packet. Serves benches with more
    /// sessions than there is memory for packets.
    pub fn generate(next: impl FnMut(&mut [u8]) -> (usize, Offload) + Send + 'static) -> Self {
        Self { next: Box::new(next), batch: FrameBuffers::new(), limit: BATCH, sent: 0 }
    }

    /// Sets the length of batches to `limit` frames, 1 to [`BATCH`].
    ///
    /// # Panics
    /// `limit` is out of range.
    pub fn with_limit(self, limit: usize) -> Self {
        assert!((1..=BATCH).contains(&limit), "batches hold 1 to {BATCH} frames, not {limit}");
        Self { limit, ..self }
    }

    /// Returns the number of packets sent since the start, extra packets included.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

impl PacketIo for ReplayIo {
    fn receive(&mut self, _wait: Duration) -> io::Result<usize> {
        self.batch.recycle();
        while self.batch.len() < self.limit {
            let slot = self.batch.len();
            let (length, offload) = (self.next)(&mut self.batch.slot(slot)[HEADER_SIZE..]);
            self.batch.accept(slot, length, offload);
        }
        Ok(self.limit)
    }

    fn flush(&mut self) -> io::Result<Flushed> {
        let mut flushed = Flushed::default();
        self.batch.encode_outgoing();
        for (wire, _) in self.batch.outgoing() {
            // Keeps the compiler from removing the header, which nothing reads.
            std::hint::black_box(wire);
            flushed.sent += 1;
        }
        self.batch.clear_outgoing();
        self.sent += u64::from(flushed.sent);
        Ok(flushed)
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

    fn bad_vnet_headers(&self) -> u64 {
        0
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
    fn replay_undoes_what_was_done_to_the_headers_and_starts_over_at_the_end() {
        let mut io = ReplayIo::new(vec![
            (b"one".to_vec(), Offload::default()),
            (b"two".to_vec(), PARTIAL),
            (b"three".to_vec(), Offload::default()),
        ])
        .with_limit(2);
        for expected in [["one", "two"], ["three", "one"], ["two", "three"]] {
            assert_eq!(io.receive(Duration::ZERO).expect("memory"), 2);
            for (index, expected) in expected.into_iter().enumerate() {
                let frame = io.frame(index);
                assert_eq!(&frame.buffer[..frame.length], expected.as_bytes());
                frame.buffer[..3].fill(0);
                io.submit(index, 3, Offload::default());
            }
            assert_eq!(io.flush().expect("memory").sent, 2);
        }
        assert_eq!(io.sent(), 6);
    }

    #[test]
    fn replay_can_make_its_packets() {
        let mut count = 0u32;
        let mut io = ReplayIo::generate(move |buffer| {
            buffer[..4].copy_from_slice(&count.to_be_bytes());
            count += 1;
            (4, Offload::default())
        });
        io.receive(Duration::ZERO).expect("memory");
        assert_eq!(io.receive(Duration::ZERO).expect("memory"), BATCH);
        assert_eq!(io.frame(1).buffer[..4], (BATCH as u32 + 1).to_be_bytes());
    }
}
