//! What identifies a datagram and the place of a fragment in it.

use std::net::Ipv4Addr;

use crate::packet::Protocol;

/// What the pieces of one datagram share (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DatagramId {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: Protocol,
    pub(crate) identification: u16,
}

/// Where a piece lies in its datagram: bytes `start..end`, and whether more follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentRange {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) more: bool,
}
