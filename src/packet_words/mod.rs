//! A packet in words: `tcp 192.0.2.7:4242 -> 203.0.113.10:80 syn from outside`.
//!
//! ```text
//!   packet    PROTOCOL SOURCE -> DESTINATION WORD ...
//!   PROTOCOL  tcp, udp, icmp, gre, esp, ah, sctp, or ip-NUMBER
//!   SOURCE    ADDRESS:PORT for tcp and udp, ADDRESS for others
//! ```
//!
//! | word | packets | means | default |
//! |---|---|---|---|
//! | `syn`, `ack`, `fin`, `rst`, `psh`, `urg` | tcp | this flag | `syn` |
//! | `seq N` | tcp | sequence number | 0 |
//! | `request`, `reply` | icmp | an echo request or reply | `request` |
//! | `id N` | icmp | identifier of the query | 1 |
//! | `length N` | all | bytes of the whole IP packet | the headers |
//! | `df` | all | the packet must not be fragmented | not set |
//! | `from inside`, `from outside`, `from INTERFACE` | all | where the packet comes from | by its source |

mod build;
mod parser;
#[cfg(test)]
mod tests;

pub(crate) use parser::parse;

use std::net::Ipv4Addr;

use crate::packet::{Protocol, TcpFlags};

/// A packet as its description says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DescribedPacket {
    protocol: Protocol,
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    flags: TcpFlags,
    sequence: u32,
    is_reply: bool,
    identifier: u16,
    /// Bytes of the whole packet; None: its headers.
    length: Option<u16>,
    dont_fragment: bool,
    /// Where the packet comes from: `inside`, `outside` or an interface. None: its source tells.
    pub(crate) from: Option<String>,
}
