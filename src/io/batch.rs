//! The buffers of one batch, and the list of outgoing packets.
//!
//! Every frame has a slot of its own. The layout lets one plain read or write carry header and
//! packet, and keeps the virtio, IP and TCP headers (50 bytes without options) in one cache line:
//!
//! ```text
//!   slot ─┬─ 6 bytes free ─┬─ virtio header, 10 bytes ─┬─ packet (16-byte aligned), up to 65,584 bytes ─┐
//!         0                6                           16                                              SLOT_SIZE
//! ```
//!
//! Every batch takes slots from the first one on, so the ones in the cache are used again. Nothing
//! beyond a packet is touched. The memory is mapped zero pages until then, so 64 KiB buffers cost
//! nothing without super-packets.

use super::virtio::{self, HEADER_SIZE};
use crate::packet::{BATCH, Frame, MIN_BUFFER, Offload, PacketHead};

/// Length of the longest packet that an IPv4 header can state, in bytes.
pub(super) const MAX_PACKET: usize = 65_535;

/// The frames and the outgoing packets of one batch, with their memory.
///
/// Every backend has one. [`PacketIo`](super::PacketIo) works on it.
pub struct FrameBuffers {
    /// [`BATCH`] slots, behind the bytes that bring the first one to a cache line.
    memory: Vec<u8>,
    /// Offset of the first slot in `memory`.
    base: usize,
    /// The received frames, each in a slot of its own.
    frames: Vec<ReceivedFrame>,
    outgoing: Vec<Outgoing>,
    /// Packets that are no frames, each with its header in front.
    extra: Vec<u8>,
    /// Packets dropped because of their header.
    bad_vnet_headers: u64,
    /// Examples of these packets, until the worker takes them.
    bad: Vec<PacketHead>,
    /// Examples of outgoing packets that the kernel has rejected.
    rejected: Vec<PacketHead>,
}

struct ReceivedFrame {
    slot: usize,
    length: usize,
    offload: Offload,
}

struct Outgoing {
    start: HeaderPosition,
    length: usize,
    offload: Offload,
}

/// The position of an outgoing packet's header.
enum HeaderPosition {
    /// Offset in `memory`.
    Frame(usize),
    /// Offset in `extra`.
    Extra(usize),
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
            extra: Vec::new(),
            bad_vnet_headers: 0,
            bad: Vec::new(),
            rejected: Vec::new(),
        }
    }

    /// Frees all slots, those of submitted frames included. Keeps extra packets.
    pub(super) fn recycle(&mut self) {
        self.frames.clear();
        self.outgoing.retain(|outgoing| matches!(outgoing.start, HeaderPosition::Extra(_)));
    }

    /// Returns the number of frames.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Returns the slots that hold frames.
    pub(super) fn taken_slots(&self) -> impl Iterator<Item = usize> {
        self.frames.iter().map(|frame| frame.slot)
    }

    /// Returns a slot, from the start of the virtio header on. A packet may be read into it if it
    /// holds no frame.
    ///
    /// # Panics
    /// There are only [`BATCH`] slots.
    pub(super) fn slot(&mut self, slot: usize) -> &mut [u8] {
        assert!(slot < BATCH, "slot {slot} of {BATCH}");
        let start = self.start_of(slot);
        &mut self.memory[start + HEADER_START..start + SLOT_SIZE]
    }

    /// Makes a frame of the `count` bytes, virtio header included, that were read into a slot.
    /// Returns false, counts the packet, and leaves the slot free, if the header is invalid.
    #[inline]
    pub(super) fn accept_read(&mut self, slot: usize, count: usize) -> bool {
        let wire = self.slot(slot);
        let decoded = match (wire.first_chunk::<HEADER_SIZE>(), count.checked_sub(HEADER_SIZE)) {
            (Some(header), Some(length)) => {
                virtio::decode(header, length).ok().map(|offload| (length, offload))
            }
            _ => None,
        };
        match decoded {
            Some((length, offload)) => self.accept(slot, length, offload),
            None => self.refuse(slot, count),
        }
        decoded.is_some()
    }

    /// Counts a packet with an invalid header, and keeps it as an example.
    #[cold]
    fn refuse(&mut self, slot: usize, count: usize) {
        self.bad_vnet_headers += 1;
        let wire = self.slot(slot);
        let head = PacketHead::of(wire.get(HEADER_SIZE..count).unwrap_or_default());
        keep(&mut self.bad, head);
    }

    /// Keeps outgoing packets that the kernel has rejected as examples.
    pub(super) fn keep_rejected(&mut self, numbers: impl IntoIterator<Item = usize>) {
        for number in numbers {
            let wire = self.outgoing().nth(number);
            if let Some(head) = wire.map(|(wire, _)| PacketHead::of(&wire[HEADER_SIZE..])) {
                keep(&mut self.rejected, head);
            }
        }
    }

    /// Takes the examples of packets with an invalid header, at most [`MAX_EXAMPLES`].
    pub(crate) fn take_bad(&mut self) -> Vec<PacketHead> {
        std::mem::take(&mut self.bad)
    }

    /// Takes the examples of rejected packets, at most [`MAX_EXAMPLES`].
    pub(crate) fn take_rejected(&mut self) -> Vec<PacketHead> {
        std::mem::take(&mut self.rejected)
    }

    /// Counts packets that the kernel has dropped because no virtio header describes them.
    pub(super) fn count_bad_headers(&mut self, packets: u64) {
        self.bad_vnet_headers += packets;
    }

    /// See [`PacketIo::bad_vnet_headers`](super::PacketIo::bad_vnet_headers).
    pub(super) fn bad_vnet_headers(&self) -> u64 {
        self.bad_vnet_headers
    }

    /// Makes a frame of the packet that was read into a slot.
    pub(super) fn accept(&mut self, slot: usize, length: usize, offload: Offload) {
        debug_assert!(self.frames.len() < BATCH && length <= BUFFER_SIZE);
        self.frames.push(ReceivedFrame { slot, length, offload });
    }

    /// See [`Frames::frame`](crate::packet::Frames::frame).
    pub(super) fn frame(&mut self, index: usize) -> Frame<'_> {
        let ReceivedFrame { slot, length, offload } = self.frames[index];
        let start = self.start_of(slot);
        Frame { offload, length, buffer: &mut self.memory[start + PACKET_START..start + SLOT_SIZE] }
    }

    /// See [`Frames::submit`](crate::packet::Frames::submit).
    pub(super) fn submit(&mut self, index: usize, length: usize, offload: Offload) {
        assert!(index < self.frames.len(), "frame {index} of {} submitted", self.frames.len());
        assert!(length <= BUFFER_SIZE, "{length} bytes submitted of a buffer of {BUFFER_SIZE}");
        let start = HeaderPosition::Frame(self.start_of(self.frames[index].slot) + HEADER_START);
        self.outgoing.push(Outgoing { start, length, offload });
    }

    /// See [`Frames::send`](crate::packet::Frames::send).
    pub(super) fn send(&mut self, packet: &[u8], offload: Offload) {
        let start = HeaderPosition::Extra(self.extra.len());
        self.extra.extend_from_slice(&[0; HEADER_SIZE]);
        self.extra.extend_from_slice(packet);
        self.outgoing.push(Outgoing { start, length: packet.len(), offload });
    }

    /// Writes the virtio headers in front of the outgoing packets.
    pub(super) fn encode_outgoing(&mut self) {
        for Outgoing { start, offload, .. } in &self.outgoing {
            let (memory, start) = match *start {
                HeaderPosition::Frame(start) => (&mut self.memory, start),
                HeaderPosition::Extra(start) => (&mut self.extra, start),
            };
            memory[start..start + HEADER_SIZE].copy_from_slice(&virtio::encode(offload));
        }
    }

    /// Returns the outgoing packets, in order, behind their headers.
    pub(super) fn outgoing(&self) -> impl Iterator<Item = (&[u8], &Offload)> {
        self.outgoing.iter().map(|Outgoing { start, length, offload }| {
            let (memory, start) = match *start {
                HeaderPosition::Frame(start) => (&self.memory, start),
                HeaderPosition::Extra(start) => (&self.extra, start),
            };
            (&memory[start..start + HEADER_SIZE + length], offload)
        })
    }

    /// Empties the list of outgoing packets.
    pub(super) fn clear_outgoing(&mut self) {
        self.outgoing.clear();
        self.extra.clear();
        // A burst of released fragments must not pin its memory for good.
        self.extra.shrink_to(EXTRA_KEPT);
    }

    fn start_of(&self, slot: usize) -> usize {
        self.base + slot * SLOT_SIZE
    }
}

/// Keeps the last examples.
fn keep(examples: &mut Vec<PacketHead>, head: PacketHead) {
    if examples.len() == MAX_EXAMPLES {
        examples.remove(0);
    }
    examples.push(head);
}

/// Examples of each kind that wait for the worker.
const MAX_EXAMPLES: usize = 16;
/// A batch takes no further packet once it holds this many bytes, headers included. Super-packets
/// are then still in the level-2 cache when they are written back. At least one packet always fits.
pub(super) const BYTE_BUDGET: usize = 256 * 1024;
const CACHE_LINE: usize = 64;
/// Offset of the virtio header in a slot.
const HEADER_START: usize = PACKET_START - HEADER_SIZE;
/// Offset of the packet in a slot.
const PACKET_START: usize = 16;
/// An odd number of cache lines. With a power of two the first lines of all slots would compete for
/// the same few places of the level-1 cache.
const SLOT_SIZE: usize = (PACKET_START + MAX_PACKET).next_multiple_of(CACHE_LINE);
/// Length of [`Frame::buffer`], in bytes.
const BUFFER_SIZE: usize = SLOT_SIZE - PACKET_START;
/// Memory for extra packets that is kept from one batch to the next, in bytes.
const EXTRA_KEPT: usize = 256 * 1024;

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
        batch.clear_outgoing();
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
    fn submitted_and_extra_packets_keep_their_order() {
        let mut batch = FrameBuffers::new();
        receive(&mut batch, b"first");
        receive(&mut batch, b"second");
        batch.submit(1, 6, Offload::default());
        batch.send(b"extra", Offload::default());
        batch.submit(0, 3, Offload::default());
        assert_eq!(sent(&mut batch), [&b"second"[..], b"extra", b"fir"]);
        assert!(sent(&mut batch).is_empty());
    }

    #[test]
    fn recycling_drops_submitted_frames_and_keeps_extra_packets() {
        let mut batch = FrameBuffers::new();
        receive(&mut batch, b"frame");
        batch.submit(0, 5, Offload::default());
        batch.send(b"answer", Offload::default());
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
