//! What became of a packet, and why: the one list of drop reasons for counters, logs and the admin socket.

use crate::packet::Malformed;

/// What the engine does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it; it was rewritten in place.
    Translated,
    /// Send it as it came: it belongs to the host itself.
    PassToHost,
    /// Send what now stands in its buffer, this many bytes: an ICMP answer to its sender. The packet itself is
    /// dropped for the reason given.
    Answer(usize, DropReason),
    /// Nothing for now: a piece of a datagram that waits for its first piece.
    Held,
    /// Drop it.
    Drop(DropReason),
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Why a packet was dropped. Names are stable: counters and listings show them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// Every reason, in order of its number.
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
    /// Whether something ran out that the operator can give more of: a person should know (RFC 6888 REQ-11).
    pub const fn is_shortage(self) -> bool {
        matches!(
            self,
            Self::TableFull | Self::PortsExhausted | Self::HostSessionLimit | Self::HostSessionRate
        )
    }
}

drop_reasons! {
    /// Not an IPv4 packet at all: empty, too short, or of another version.
    NotIpv4 => "not-ipv4",
    /// An IPv6 packet; this box translates IPv4.
    Ipv6 => "ipv6",
    /// The IPv4 header is inconsistent: its length, the total length or an option (RFC 1812 section 5.2.2).
    BadIpHeader => "bad-ip-header",
    /// The IPv4 header checksum is wrong (RFC 1812 section 5.2.2).
    BadIpChecksum => "bad-ip-checksum",
    /// The packet asks for source routing (RFC 7126 section 4.3).
    SourceRoute => "source-route",
    /// The TCP, UDP or ICMP header is cut short or inconsistent.
    BadTransportHeader => "bad-transport-header",
    /// An ICMP error whose checksum, quoted header or quote is bad (RFC 5508 REQ-3).
    BadIcmpError => "bad-icmp-error",
    /// A fragment of impossible length or place (RFC 1858, RFC 3128).
    BadFragment => "bad-fragment",
    /// A fragment of a datagram whose pieces overlap, contradict each other or are too many (RFC 1858).
    FragmentOverlap => "fragment-overlap",
    /// A fragment that came before.
    FragmentDuplicate => "fragment-duplicate",
    /// A fragment that came before its first piece while too many others wait for theirs.
    FragmentTableFull => "fragment-table-full",
    /// A fragment whose datagram's first piece never came.
    FragmentTimeout => "fragment-timeout",
    /// Source or destination is no host's address, or the box's own (RFC 1812 section 5.3.7).
    Martian => "martian",
    /// From inside, but its source is not in the inside prefixes.
    SourceNotAllowed => "source-not-allowed",
    /// From inside to outside, and no outbound rule covers its source.
    NoOutboundRule => "no-outbound-rule",
    /// To an external address, and neither a forward nor a mapping is there.
    NoMapping => "no-mapping",
    /// To a mapping, from a remote endpoint that its filtering does not let in (RFC 4787 section 5).
    Filtered => "filtered",
    /// TCP without a session and not a SYN.
    TcpWithoutSession => "tcp-without-session",
    /// From a server that is published more than once, and the box does not know where it was asked.
    UplinkUnknown => "uplink-unknown",
    /// An ICMP answer that nobody asked for.
    IcmpUnsolicitedReply => "icmp-unsolicited-reply",
    /// An ICMP error about a packet of no known session (RFC 5508 REQ-4).
    IcmpErrorNoSession => "icmp-error-no-session",
    /// An ICMP error whose addresses do not fit the packet it quotes.
    IcmpErrorMismatch => "icmp-error-mismatch",
    /// An ICMP message that is neither query nor error, such as a redirect.
    UnsupportedIcmp => "unsupported-icmp",
    /// A protocol without ports, to a remote address that another inside host talks to with it.
    AddressConflict => "address-conflict",
    /// From inside to an external address, and hairpin is off.
    HairpinDisabled => "hairpin-disabled",
    /// No session record is free.
    TableFull => "table-full",
    /// No port is free on the external address.
    PortsExhausted => "ports-exhausted",
    /// The inside host has as many sessions as `limits.sessions_per_host` allows.
    HostSessionLimit => "host-session-limit",
    /// The inside host opens sessions faster than `limits.new_sessions_per_host` allows.
    HostSessionRate => "host-session-rate",
    /// Longer than the next leg's MTU, with DF set; answered with fragmentation needed (RFC 1191).
    MtuExceeded => "mtu-exceeded",
    /// The virtio header that came with the packet contradicts the packet.
    BadVnetHeader => "bad-vnet-header",
    /// The kernel refused the translated packet.
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
