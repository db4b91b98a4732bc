//! Batches of packets as a translator sees them, without any input or output.

use crate::packet::Offload;

/// Maximum number of frames in a batch.
pub const BATCH: usize = 64;

/// Minimum length of a frame's buffer, in bytes, whatever the length of its packet. It is enough to
/// turn any packet into an ICMP error in place.
pub const MIN_BUFFER: usize = 2048;

/// A batch of received packets, and the list of packets to send.
///
/// Packets go out in the order of [`submit`](Self::submit) and [`send`](Self::send).
pub trait Frames {
    /// Returns the number of received frames.
    fn received(&self) -> usize;

    /// Returns the `index`-th received frame.
    ///
    /// # Panics
    /// `index` is not below [`received`](Self::received).
    fn frame(&mut self, index: usize) -> Frame<'_>;

    /// Marks a received frame for sending with this offload header. Its first `length` bytes are
    /// the packet.
    ///
    /// The caller does not change the frame afterwards. A frame that is submitted twice is sent
    /// twice.
    ///
    /// # Panics
    /// There is no such frame, or `length` exceeds its buffer.
    fn submit(&mut self, index: usize, length: usize, offload: Offload);

    /// Sends a packet that is not a received frame, such as an ICMP error or a released fragment.
    /// The bytes are copied.
    fn send(&mut self, packet: &[u8], offload: Offload);
}

/// A received packet in its buffer.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The work that the kernel left undone in this packet. Offsets lie inside `buffer[..length]`.
    pub offload: Offload,
    /// Length of the packet, in bytes, 0 to 65535.
    pub length: usize,
    /// The packet is `buffer[..length]`. The buffer has at least [`MIN_BUFFER`] bytes, and at least
    /// `length`. The bytes after the packet belong to earlier packets. Their memory may be
    /// untouched, so that a write there costs page faults.
    pub buffer: &'a mut [u8],
}

/// Frames in memory: packets are pushed as bytes, and those to send are kept.
///
/// ```
/// use natbox::packet::{Frames, VecFrames};
///
/// let mut frames = VecFrames::new();
/// frames.push(&[0x45, 0, 0, 20]);
/// assert_eq!(frames.received(), 1);
/// frames.submit(0, 4, Default::default());
/// assert_eq!(frames.take_sent(), [(vec![0x45, 0, 0, 20], Default::default())]);
/// assert_eq!(frames.received(), 0);
/// ```
#[derive(Debug, Default)]
pub struct VecFrames {
    received: Vec<Received>,
    sent: Vec<(Vec<u8>, Offload)>,
}

#[derive(Debug)]
struct Received {
    buffer: Vec<u8>,
    length: usize,
    offload: Offload,
}

impl VecFrames {
    /// Makes an empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a complete packet to the received ones.
    pub fn push(&mut self, packet: &[u8]) {
        self.push_with(packet, Offload::default());
    }

    /// Adds a packet with an offload header to the received ones.
    ///
    /// The offsets of the header must lie inside the packet, as those of a device's queue do.
    pub fn push_with(&mut self, packet: &[u8], offload: Offload) {
        let mut buffer = packet.to_vec();
        buffer.resize(packet.len().max(MIN_BUFFER), 0);
        self.received.push(Received { buffer, length: packet.len(), offload });
    }

    /// Takes the packets to send, in order, and forgets the received ones.
    pub fn take_sent(&mut self) -> Vec<(Vec<u8>, Offload)> {
        self.received.clear();
        std::mem::take(&mut self.sent)
    }
}

impl Frames for VecFrames {
    fn received(&self) -> usize {
        self.received.len()
    }

    fn frame(&mut self, index: usize) -> Frame<'_> {
        let Received { buffer, length, offload } = &mut self.received[index];
        Frame { offload: *offload, length: *length, buffer }
    }

    fn submit(&mut self, index: usize, length: usize, offload: Offload) {
        self.sent.push((self.received[index].buffer[..length].to_vec(), offload));
    }

    fn send(&mut self, packet: &[u8], offload: Offload) {
        self.sent.push((packet.to_vec(), offload));
    }
}
