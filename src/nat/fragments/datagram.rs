//! Identity of a datagram, and the range of a fragment in it.

use std::net::Ipv4Addr;

use crate::packet::Protocol;

/// Fields that the fragments of one datagram share (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DatagramId {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: Protocol,
    pub(crate) identification: u16,
}

/// Range of a fragment in its datagram: bytes `start..end`, and whether more follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FragmentRange {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) more: bool,
}
