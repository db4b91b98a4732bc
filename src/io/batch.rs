//! The buffers of one batch, and the list of what goes out.
//!
//! Every frame has a slot of its own, laid out so that one plain read or write carries header and packet, and so
//! that the virtio, IP and TCP headers (50 bytes without options) share a cache line:
//!
//! ```text
//!   slot ─┬─ 6 bytes free ─┬─ virtio header, 10 bytes ─┬─ packet (16-byte aligned), up to 65,584 bytes ─┐
//!         0                6                           16                                              SLOT_SIZE
//! ```
//!
//! Slots are taken from the first one in every batch, so the warm ones are used again, and nothing beyond a packet
//! is ever touched: the memory is mapped zero pages until then, and a box that sees no super-packets never pays for
//! 64 KiB buffers.

use super::virtio::{self, HEADER_SIZE};
use super::{BATCH, Frame, MIN_BUFFER, Offload};

/// The longest packet, in bytes: what an IPv4 header can say.
pub(super) const MAX_PACKET: usize = 65_535;

/// The buffers of one batch with their owner's notes.
pub(super) struct FrameBuffers {
    /// [`BATCH`] slots, behind the bytes that bring the first one to a cache line.
    memory: Vec<u8>,
    /// Where the first slot starts in `memory`.
    base: usize,
    /// The received frames, each in a slot of its own.
    frames: Vec<Received>,
    outgoing: Vec<Outgoing>,
    /// Injected packets, each with its header in front.
    injected: Vec<u8>,
}

struct Received {
    slot: usize,
    length: usize,
    offload: Offload,
}

struct Outgoing {
    place: Place,
    length: usize,
    offload: Offload,
}

/// Where a packet that goes out starts with its header.
enum Place {
    /// Offset in `memory`.
    Frame(usize),
    /// Offset in `injected`.
    Injected(usize),
}

impl FrameBuffers {
    /// Reserves (but does not touch) the memory.
    pub(super) fn new() -> Self {
        let memory = vec![0; BATCH * SLOT_SIZE + CACHE_LINE];
        let base = memory.as_ptr().addr().next_multiple_of(CACHE_LINE) - memory.as_ptr().addr();
        Self {
            memory,
            base,
            frames: Vec::with_capacity(BATCH),
            outgoing: Vec::with_capacity(2 * BATCH),
            injected: Vec::new(),
        }
    }

    /// Takes all frames back, also submitted ones; injected packets stay.
    pub(super) fn recycle(&mut self) {
        self.frames.clear();
        self.outgoing.retain(|outgoing| matches!(outgoing.place, Place::Injected(_)));
    }

    /// The number of frames.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// The slots that hold frames.
    pub(super) fn taken_slots(&self) -> impl Iterator<Item = usize> {
        self.frames.iter().map(|frame| frame.slot)
    }

    /// A slot from the start of the header on, for a packet to be read into. No frame is in it.
    ///
    /// # Panics
    /// There are only [`BATCH`] slots.
    pub(super) fn slot(&mut self, slot: usize) -> &mut [u8] {
        assert!(slot < BATCH, "slot {slot} of {BATCH}");
        let start = self.start_of(slot);
        &mut self.memory[start + HEADER_START..start + SLOT_SIZE]
    }

    /// Makes a frame of the packet that was read into a slot.
    pub(super) fn accept(&mut self, slot: usize, length: usize, offload: Offload) {
        debug_assert!(self.frames.len() < BATCH && length <= BUFFER_SIZE);
        self.frames.push(Received { slot, length, offload });
    }

    /// See [`PacketIo::frame`](super::PacketIo::frame).
    pub(super) fn frame(&mut self, index: usize) -> Frame<'_> {
        let Received { slot, length, offload } = self.frames[index];
        let start = self.start_of(slot);
        Frame { offload, length, buffer: &mut self.memory[start + PACKET_START..start + SLOT_SIZE] }
    }

    /// See [`PacketIo::submit`](super::PacketIo::submit).
    pub(super) fn submit(&mut self, index: usize, length: usize, offload: Offload) {
        assert!(index < self.frames.len(), "frame {index} of {} submitted", self.frames.len());
        assert!(length <= BUFFER_SIZE, "{length} bytes submitted of a buffer of {BUFFER_SIZE}");
        let place = Place::Frame(self.start_of(self.frames[index].slot) + HEADER_START);
        self.outgoing.push(Outgoing { place, length, offload });
    }

    /// See [`PacketIo::send`](super::PacketIo::send).
    pub(super) fn inject(&mut self, packet: &[u8], offload: Offload) {
        let place = Place::Injected(self.injected.len());
        self.injected.extend_from_slice(&[0; HEADER_SIZE]);
        self.injected.extend_from_slice(packet);
        self.outgoing.push(Outgoing { place, length: packet.len(), offload });
    }

    /// Puts the headers in front of the packets that are to go out.
    pub(super) fn encode_outgoing(&mut self) {
        for Outgoing { place, offload, .. } in &self.outgoing {
            let (memory, start) = match *place {
                Place::Frame(start) => (&mut self.memory, start),
                Place::Injected(start) => (&mut self.injected, start),
            };
            memory[start..start + HEADER_SIZE].copy_from_slice(&virtio::encode(offload));
        }
    }

    /// The packets that are to go out, in order, behind their headers.
    pub(super) fn outgoing(&self) -> impl Iterator<Item = (&[u8], &Offload)> {
        self.outgoing.iter().map(|Outgoing { place, length, offload }| {
            let (memory, start) = match *place {
                Place::Frame(start) => (&self.memory, start),
                Place::Injected(start) => (&self.injected, start),
            };
            (&memory[start..start + HEADER_SIZE + length], offload)
        })
    }

    /// Forgets what was to go out.
    pub(super) fn forget_outgoing(&mut self) {
        self.outgoing.clear();
        self.injected.clear();
        // A burst of released fragments must not pin its memory for good.
        self.injected.shrink_to(INJECTED_KEPT);
    }

    fn start_of(&self, slot: usize) -> usize {
        self.base + slot * SLOT_SIZE
    }
}

/// A batch takes no further packet once it holds this many bytes, headers included, so that super-packets are still
/// in the level-2 cache when they are written back. To be tuned by measurement; at least one packet always fits.
pub(super) const BYTE_BUDGET: usize = 256 * 1024;
const CACHE_LINE: usize = 64;
/// Where the virtio header starts in a slot.
const HEADER_START: usize = PACKET_START - HEADER_SIZE;
/// Where the packet starts in a slot.
const PACKET_START: usize = 16;
/// A whole number of cache lines, and an odd one: with a power of two the first lines of all slots would compete for
/// the same few places of the level-1 cache.
const SLOT_SIZE: usize = (PACKET_START + MAX_PACKET).next_multiple_of(CACHE_LINE);
/// The buffer that a frame's user sees, in bytes.
const BUFFER_SIZE: usize = SLOT_SIZE - PACKET_START;
/// Memory for injected packets that is kept from one batch to the next, in bytes.
const INJECTED_KEPT: usize = 256 * 1024;

const _: () = assert!((SLOT_SIZE / CACHE_LINE) % 2 == 1);
const _: () = assert!(BUFFER_SIZE >= MAX_PACKET && BUFFER_SIZE >= MIN_BUFFER);

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(batch: &mut FrameBuffers, packet: &[u8]) {
        let slot = batch.len();
        batch.slot(slot)[HEADER_SIZE..HEADER_SIZE + packet.len()].copy_from_slice(packet);
        batch.accept(slot, packet.len(), Offload::default());
    }

    fn sent(batch: &mut FrameBuffers) -> Vec<Vec<u8>> {
        batch.encode_outgoing();
        let packets = batch.outgoing().map(|(wire, _)| wire[HEADER_SIZE..].to_vec()).collect();
        batch.forget_outgoing();
        packets
    }

    #[test]
    fn packets_start_aligned_in_every_slot() {
        let mut batch = FrameBuffers::new();
        for index in 0..BATCH {
            receive(&mut batch, b"packet");
            let frame = batch.frame(index);
            assert_eq!(frame.buffer.as_ptr().addr() % 16, 0);
            assert_eq!(&frame.buffer[..frame.length], b"packet");
        }
    }

    #[test]
    fn submitted_and_injected_packets_keep_their_order() {
        let mut batch = FrameBuffers::new();
        receive(&mut batch, b"first");
        receive(&mut batch, b"second");
        batch.submit(1, 6, Offload::default());
        batch.inject(b"extra", Offload::default());
        batch.submit(0, 3, Offload::default());
        assert_eq!(sent(&mut batch), [&b"second"[..], b"extra", b"fir"]);
        assert!(sent(&mut batch).is_empty());
    }

    #[test]
    fn recycling_forgets_submitted_frames_and_keeps_injected_packets() {
        let mut batch = FrameBuffers::new();
        receive(&mut batch, b"frame");
        batch.submit(0, 5, Offload::default());
        batch.inject(b"answer", Offload::default());
        batch.recycle();
        assert_eq!(batch.len(), 0);
        assert_eq!(sent(&mut batch), [b"answer"]);
    }

    #[test]
    fn the_longest_packet_fits() {
        let mut batch = FrameBuffers::new();
        receive(&mut batch, &vec![7; MAX_PACKET]);
        batch.submit(0, MAX_PACKET, Offload::default());
        assert_eq!(sent(&mut batch), [vec![7; MAX_PACKET]]);
    }

    #[test]
    #[should_panic(expected = "frame 0 of 0 submitted")]
    fn submitting_a_frame_that_was_not_received_panics() {
        FrameBuffers::new().submit(0, 1, Offload::default());
    }
}
