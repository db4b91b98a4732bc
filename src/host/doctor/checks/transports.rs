//! The transport protocols of a forward.

use crate::config::{Forward, ForwardProtocol};

/// Lists the transport protocols of a forward that filters may match.
pub(super) fn protocols(forward: &Forward) -> &'static [&'static str] {
    match forward.protocol {
        ForwardProtocol::Tcp => &["tcp"],
        ForwardProtocol::Udp => &["udp"],
        ForwardProtocol::TcpUdp => &["tcp", "udp"],
        ForwardProtocol::Icmp | ForwardProtocol::Any => &[],
    }
}
