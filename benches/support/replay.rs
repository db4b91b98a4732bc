//! [`Replay`]: frames that a generator writes, batch after batch.

use natbox::packet::{BATCH, Frame, Frames, MIN_BUFFER, Offload};

use super::fixtures::{SMALL, Small};

/// A source of full batches that costs next to nothing, so that a bench measures the translator.
///
/// Packets to send are counted. After the first batch nothing is allocated.
pub(crate) struct Replay {
    next: Box<NextPacket>,
    buffers: Box<[[u8; MIN_BUFFER]]>,
    received: usize,
    to_send: u64,
}

/// Writes the next packet.
type NextPacket = dyn FnMut(&mut Small) + Send;

impl Replay {
    /// Delivers the packets that `next` writes.
    pub(crate) fn generate(next: impl FnMut(&mut Small) + Send + 'static) -> Self {
        let buffers = vec![[0; MIN_BUFFER]; BATCH].into_boxed_slice();
        Self { next: Box::new(next), buffers, received: 0, to_send: 0 }
    }

    /// Delivers `packets` in order, repeatedly.
    pub(crate) fn new(packets: Vec<Small>) -> Self {
        let mut index = 0;
        Self::generate(move |buffer| {
            *buffer = packets[index];
            index = if index + 1 == packets.len() { 0 } else { index + 1 };
        })
    }

    /// Replaces the batch with the next one. Returns its length.
    pub(crate) fn receive(&mut self) -> usize {
        for buffer in &mut self.buffers {
            (self.next)(buffer.first_chunk_mut().expect("a buffer is longer than a packet"));
        }
        self.received = self.buffers.len();
        self.received
    }

    /// Returns the number of packets to send since the last call.
    pub(crate) fn flush(&mut self) -> u64 {
        std::mem::take(&mut self.to_send)
    }
}

impl Frames for Replay {
    fn received(&self) -> usize {
        self.received
    }

    #[inline]
    fn frame(&mut self, index: usize) -> Frame<'_> {
        Frame { offload: Offload::default(), length: SMALL, buffer: &mut self.buffers[index] }
    }

    #[inline]
    fn submit(&mut self, index: usize, length: usize, _offload: Offload) {
        // Keeps the compiler from removing the writes, which nothing reads.
        std::hint::black_box(&self.buffers[index][..length]);
        self.to_send += 1;
    }

    fn send(&mut self, _packet: &[u8], _offload: Offload) {
        self.to_send += 1;
    }
}
