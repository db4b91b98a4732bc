//! A packet, as far as rules of nftables can match it.

use std::net::Ipv4Addr;

/// A packet. A field of None matches any condition perhaps.
#[derive(Clone, Debug, Default)]
pub(crate) struct FilteredPacket<'a> {
    /// Incoming interface.
    pub(crate) iif: Option<&'a str>,
    /// Outgoing interface.
    pub(crate) oif: Option<&'a str>,
    /// Source.
    pub(crate) from: Option<Ipv4Addr>,
    /// Destination.
    pub(crate) to: Option<Ipv4Addr>,
    /// `tcp`, `udp` or `icmp`.
    pub(crate) protocol: Option<&'a str>,
    /// Destination port.
    pub(crate) port: Option<u16>,
    pub(crate) source_port: Option<u16>,
    /// True when the other side has opened the connection.
    pub(crate) reply: bool,
    pub(crate) tracking: Tracking,
}

/// Whether connection tracking handles a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tracking {
    #[default]
    Tracked,
    /// A rule says `notrack`.
    Untracked,
    /// The rules do not determine the answer.
    Unknown,
}
