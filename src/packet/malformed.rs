//! Why a packet was not accepted: one variant per cause.

use std::fmt;

macro_rules! causes {
    ($($(#[$doc:meta])+ $name:ident => $label:literal,)+) => {
        /// Why a packet was not accepted. It is dropped without an answer (RFC 1812 §5.2.2, §4.3.2.7).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Malformed {
            $($(#[$doc])+ $name,)+
        }

        impl Malformed {
            /// Every cause, in the order of declaration: `ALL[cause as usize] == cause`.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$name),+];

            /// A short stable name in kebab-case, for counters and listings.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }
        }
    };
}

causes! {
    /// Fewer than the 20 bytes of an IPv4 header.
    Truncated => "truncated",
    /// Version 6.
    Ipv6 => "ipv6",
    /// Neither version 4 nor 6.
    Version => "version",
    /// IHL below 5, or the header is longer than the bytes that were read.
    HeaderLength => "header-length",
    /// The IP total length is shorter than the IP header.
    TotalLength => "total-length",
    /// The IP total length is longer than the bytes that were read.
    BeyondBuffer => "beyond-buffer",
    /// Wrong IP header checksum.
    HeaderChecksum => "header-checksum",
    /// An IP option of length 0 or 1, or one that passes the end of the header.
    OptionLength => "option-length",
    /// A loose or strict source route option (RFC 7126 §4.3, §4.4).
    SourceRoute => "source-route",
    /// A fragment without payload, or one that is not the last and whose payload is not a multiple of 8 bytes.
    FragmentLength => "fragment-length",
    /// A fragment that would end past the longest datagram, 65,535 bytes.
    FragmentBeyondLimit => "fragment-beyond-limit",
    /// A first fragment without the whole transport header, or a later one that overlaps it (RFC 1858, RFC 3128).
    FragmentTiny => "fragment-tiny",
    /// Fewer than the 20 bytes of a TCP header.
    TcpTruncated => "tcp-truncated",
    /// A TCP data offset below 5, or one that passes the end of the packet.
    TcpOffset => "tcp-offset",
    /// Fewer than the 8 bytes of a UDP header.
    UdpTruncated => "udp-truncated",
    /// A UDP length below 8, or longer than the IP payload.
    UdpLength => "udp-length",
    /// Fewer than the 8 bytes of an ICMP header.
    IcmpTruncated => "icmp-truncated",
    /// Wrong checksum of an ICMP error (RFC 5508 REQ-3). Queries are not checked: the host that asked does that.
    IcmpChecksum => "icmp-checksum",
    /// An ICMP error whose quote ends before the ports or the query identifier.
    QuoteTruncated => "quote-truncated",
    /// An ICMP error whose quote does not start with an IPv4 header.
    QuoteHeader => "quote-header",
    /// An ICMP error whose length field (RFC 4884 §4) puts the end of the quote behind the end of the message.
    QuoteLength => "quote-length",
    /// Wrong header checksum of the quoted packet (RFC 5508 REQ-3).
    QuoteChecksum => "quote-checksum",
    /// An ICMP error about a fragment that is not the first.
    QuoteFragment => "quote-fragment",
    /// An ICMP error about an ICMP error.
    QuoteIcmpError => "quote-icmp-error",
    /// An ICMP error about an ICMP message that is neither query nor error.
    QuoteIcmpOther => "quote-icmp-other",
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl std::error::Error for Malformed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_listed_at_its_own_index() {
        for (index, cause) in Malformed::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
    }

    #[test]
    fn names_are_distinct() {
        let names: std::collections::HashSet<_> =
            Malformed::ALL.iter().map(|cause| cause.name()).collect();
        assert_eq!(names.len(), Malformed::ALL.len());
    }
}
