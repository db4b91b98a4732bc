//! Packets: parsed once, rewritten in place.
//!
//! [`parse`](fn@parse) checks every length, offset and checksum that later code relies on. It
//! returns a [`Parsed`]: a small copy of the header fields, in host order, that cannot be invalid.
//! [`Parsed::rewrite`] keeps every checksum exact by adding the difference to it. A packet that
//! arrived damaged therefore leaves equally damaged. The cost of a rewrite does not depend on the
//! length of the packet.
//!
//! ```text
//!   bytes ─▶ parse ─▶ Parsed ─▶ rewrite / rewrite_error / clamp_mss ─▶ the same bytes, translated
//!              │         ├────▶ set_identification / strip_recorded_addresses: the rest of the header
//!              │         └────▶ icmp_error ─▶ an ICMP error to the sender, in the same buffer
//!              └─▶ Malformed: the packet is dropped and counted under this cause
//! ```
//!
//! Terms:
//! * A *query* is an ICMP echo or timestamp message. Its *identifier* takes the place of a port
//!   (see [`Endpoint`]).
//! * The *quote* is the start of another packet that an ICMP error carries.
//! * A *super-packet* is a TCP or UDP packet of up to 65,535 bytes that will be segmented later.
//!
//! Invariants:
//! * No function panics on any bytes.
//! * No function allocates, except in [`builder`] and [`VecFrames`], which are not for the hot
//!   path.
//! * Network byte order does not leave this module.
//! * This module imports nothing else of this crate.

mod checksum;
mod frames;
mod head;
mod icmp;
mod ipv4;
mod malformed;
mod offload;
mod parse;
mod rewrite;
mod tcp;
mod tcp_options;
mod testing;
mod tuple;
mod udp;

pub use frames::{BATCH, Frame, Frames, MIN_BUFFER, VecFrames};
pub use head::PacketHead;
pub use icmp::{IcmpError, IcmpErrorKind, QueryKind, icmp_error};
pub use malformed::Malformed;
pub use offload::{Offload, PartialChecksum, Segmentation, SegmentationKind};
pub use parse::{ChecksumMode, Parsed, Payload, parse};
pub use rewrite::Ttl;
pub use tcp::{Tcp, TcpFlags};
pub use testing::builder;
pub use tuple::{Endpoint, Protocol, Tuple};
