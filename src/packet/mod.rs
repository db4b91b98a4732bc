//! Packets: parsed once, rewritten in place.
//!
//! [`parse`](fn@parse) checks every length, offset and checksum that anything later relies on, and returns a [`Parsed`]: a small
//! copy of the header fields, in host order, that cannot be wrong. What [`Parsed::rewrite`] does to the bytes keeps
//! every checksum exact by adding the difference to it, so a packet that arrived damaged leaves equally damaged, and
//! nothing but the header is touched however long the packet is.
//!
//! ```text
//!   bytes ─▶ parse ─▶ Parsed ─▶ rewrite / rewrite_error / clamp_mss ─▶ the same bytes, translated
//!              │         ├────▶ renumber / conceal_recorded: what else the header tells of the inside
//!              │         └────▶ icmp_error ─▶ an answer to the sender, in the same buffer
//!              └─▶ Malformed: the packet is dropped and counted under this cause
//! ```
//!
//! Words: a *query* is an ICMP echo or timestamp message, its *identifier* takes the place of a port (see
//! [`Endpoint`]); the *quote* is the start of another packet that an ICMP error carries; a *super-packet* is a TCP or UDP
//! packet of up to 65,535 bytes that will be segmented later.
//!
//! Invariants: nothing here panics on any bytes; nothing here allocates ([`builder`] does, it is not for the hot
//! path); network byte order does not leave this module; nothing else of this crate is known here.

mod checksum;
mod frames;
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
pub use icmp::{IcmpError, IcmpErrorKind, QueryKind, icmp_error};
pub use malformed::Malformed;
pub use offload::{Offload, PartialChecksum, Segmentation, SegmentationKind};
pub use parse::{ChecksumMode, Parsed, Payload, parse};
pub use tcp::{Tcp, TcpFlags};
pub use testing::builder;
pub use tuple::{Endpoint, Protocol, Tuple};
