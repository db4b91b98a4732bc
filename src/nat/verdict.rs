//! The outcome of a packet, and the one list of drop reasons for counters, logs and the admin
//! socket.

use crate::packet::Malformed;

/// Outcome of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send the packet, which was rewritten in place.
    Translated,
    /// Send the packet unchanged: it belongs to the host itself.
    PassToHost,
    /// Send this many bytes of the packet's buffer, which now holds an ICMP error to the sender.
    /// The packet itself is dropped for the reason given.
    Reply(usize, DropReason),
    /// Send nothing yet: the packet is a fragment that waits for the first fragment of its
    /// datagram.
    Held,
    /// Drop the packet.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Cause of a drop. The names are stable: counters and listings show them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name that counters and listings show.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// One sentence that explains the reason.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)+
                }
            }
        }
    };
}

impl DropReason {
    /// True when a resource is exhausted that the operator can provide more of (RFC 6888 REQ-11).
    pub const fn is_shortage(self) -> bool {
        matches!(
            self,
            Self::TableFull
                | Self::PortsExhausted
                | Self::HostSessionLimit
                | Self::HostSessionRate
                | Self::InboundLimit
        )
    }
}

drop_reasons! {
    /// The packet is not IPv4: empty, too short, or of another version.
    NotIpv4 => "not-ipv4",
    /// The packet is IPv6. natbox translates IPv4 only.
    Ipv6 => "ipv6",
    /// The IPv4 header is inconsistent: its length, the total length or an option (RFC 1812 section
    /// 5.2.2).
    BadIpHeader => "bad-ip-header",
    /// The IPv4 header checksum is wrong (RFC 1812 section 5.2.2).
    BadIpChecksum => "bad-ip-checksum",
    /// The packet carries a source-route option (RFC 7126 section 4.3).
    SourceRoute => "source-route",
    /// The TCP, UDP or ICMP header is cut short or inconsistent.
    BadTransportHeader => "bad-transport-header",
    /// The ICMP error has a wrong checksum or quotes an invalid packet (RFC 5508 REQ-3).
    BadIcmpError => "bad-icmp-error",
    /// The fragment has an impossible length or offset (RFC 1858, RFC 3128).
    BadFragment => "bad-fragment",
    /// The fragments of its datagram overlap, contradict each other or exceed the limit (RFC 1858).
    FragmentOverlap => "fragment-overlap",
    /// The same fragment arrived before.
    FragmentDuplicate => "fragment-duplicate",
    /// The fragment arrived before the first fragment of its datagram, and too many others already
    /// wait.
    FragmentTableFull => "fragment-table-full",
    /// The first fragment of its datagram did not arrive in time.
    FragmentTimeout => "fragment-timeout",
    /// Source or destination cannot be a host's address, or is one of the box's own (RFC 1812
    /// section 5.3.7).
    Martian => "martian",
    /// The packet came from inside, but its source is not in `inside.prefixes`.
    SourceNotAllowed => "source-not-allowed",
    /// The packet came from inside, and no rule of `outbound` covers its source and destination.
    NoOutboundRule => "no-outbound-rule",
    /// No forward and no mapping exists for the external address and port.
    NoMapping => "no-mapping",
    /// The packet needs a dynamic mapping, and natbox has just restarted: it does not know yet
    /// which external ports the sessions of the process before hold (`state.keep`).
    AdoptingSessions => "adopting-sessions",
    /// The mapping exists, but `nat.filtering` does not admit the remote endpoint (RFC 4787 section
    /// 5).
    Filtered => "filtered",
    /// The TCP segment belongs to no session and is not a SYN.
    TcpWithoutSession => "tcp-without-session",
    /// The server is published on several uplinks, and natbox does not know which one the request
    /// used.
    UplinkUnknown => "uplink-unknown",
    /// The ICMP reply answers no query of a known session.
    IcmpUnsolicitedReply => "icmp-unsolicited-reply",
    /// The ICMP error quotes a packet of no known session (RFC 5508 REQ-4).
    IcmpErrorNoSession => "icmp-error-no-session",
    /// The addresses of the ICMP error contradict the packet that it quotes.
    IcmpErrorMismatch => "icmp-error-mismatch",
    /// The ICMP message is neither a query nor an error, such as a redirect.
    UnsupportedIcmp => "unsupported-icmp",
    /// The protocol has no ports, and another inside host already uses it with the same remote
    /// address.
    AddressConflict => "address-conflict",
    /// The packet came from inside for an external address, and `nat.hairpin` is off.
    HairpinDisabled => "hairpin-disabled",
    /// The session table is full (`limits.sessions`).
    TableFull => "table-full",
    /// No external port is free for the inside host (`nat.ports`).
    PortsExhausted => "ports-exhausted",
    /// The inside host has reached `limits.sessions_per_host`.
    HostSessionLimit => "host-session-limit",
    /// The inside host opens sessions faster than `limits.new_sessions_per_host` allows.
    HostSessionRate => "host-session-rate",
    /// The sessions from outside over dynamic mappings have used up their share. One inside host
    /// may use half of `limits.sessions_per_host`, but at most an eighth of `limits.sessions`. All
    /// hosts together may use half of `limits.sessions`.
    InboundLimit => "inbound-limit",
    /// The packet has DF set and exceeds the MTU of the outgoing interface. natbox answers with
    /// fragmentation needed (RFC 1191).
    MtuExceeded => "mtu-exceeded",
    /// The virtio-net header contradicts the packet.
    BadVnetHeader => "bad-vnet-header",
    /// The kernel rejected the translated packet when natbox wrote it to the TUN device.
    TunWriteError => "tun-write-error",
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Truncated | Malformed::Version => Self::NotIpv4,
            Malformed::Ipv6 => Self::Ipv6,
            Malformed::HeaderLength
            | Malformed::TotalLength
            | Malformed::BeyondBuffer
            | Malformed::OptionLength => Self::BadIpHeader,
            Malformed::HeaderChecksum => Self::BadIpChecksum,
            Malformed::SourceRoute => Self::SourceRoute,
            Malformed::FragmentLength
            | Malformed::FragmentBeyondLimit
            | Malformed::FragmentTiny => Self::BadFragment,
            Malformed::TcpTruncated
            | Malformed::TcpOffset
            | Malformed::UdpTruncated
            | Malformed::UdpLength
            | Malformed::IcmpTruncated => Self::BadTransportHeader,
            Malformed::IcmpChecksum
            | Malformed::QuoteTruncated
            | Malformed::QuoteHeader
            | Malformed::QuoteLength
            | Malformed::QuoteChecksum
            | Malformed::QuoteFragment
            | Malformed::QuoteIcmpError
            | Malformed::QuoteIcmpOther => Self::BadIcmpError,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_distinct_words_and_every_reason_explains_itself() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert!(
                reason
                    .name()
                    .chars()
                    .all(|letter| letter.is_ascii_lowercase() || "-46".contains(letter))
            );
            assert!(reason.explanation().ends_with('.'));
        }
    }
}
