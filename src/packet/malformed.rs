//! The causes for which a packet is malformed.

use std::fmt;

macro_rules! causes {
    ($($(#[$doc:meta])+ $name:ident => $label:literal,)+) => {
        /// The cause for which a packet is malformed. natbox drops such a packet silently (RFC 1812
        /// §5.2.2, §4.3.2.7).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Malformed {
            $($(#[$doc])+ $name,)+
        }

        impl Malformed {
            /// Every cause, in the order of declaration: `ALL[cause as usize] == cause`.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$name),+];

            /// Returns a short stable name in kebab-case, for counters and lists.
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
    /// An IHL below 5, or a header longer than the received bytes.
    HeaderLength => "header-length",
    /// An IP total length shorter than the IP header.
    TotalLength => "total-length",
    /// An IP total length longer than the received bytes.
    BeyondBuffer => "beyond-buffer",
    /// Wrong IP header checksum.
    HeaderChecksum => "header-checksum",
    /// An IP option of length 0 or 1, or one that extends beyond the end of the header.
    OptionLength => "option-length",
    /// A loose or strict source route option (RFC 7126 §4.3, §4.4).
    SourceRoute => "source-route",
    /// A fragment without payload, or a fragment before the last one whose payload is not a
    /// multiple of 8 bytes.
    FragmentLength => "fragment-length",
    /// A fragment that would end beyond the longest datagram, 65,535 bytes.
    FragmentBeyondLimit => "fragment-beyond-limit",
    /// A first fragment without the whole transport header, or a later one that overlaps it (RFC
    /// 1858, RFC 3128).
    FragmentTiny => "fragment-tiny",
    /// Fewer than the 20 bytes of a TCP header.
    TcpTruncated => "tcp-truncated",
    /// A TCP data offset below 5, or beyond the end of the packet.
    TcpOffset => "tcp-offset",
    /// Fewer than the 8 bytes of a UDP header.
    UdpTruncated => "udp-truncated",
    /// A UDP length below 8, or longer than the IP payload.
    UdpLength => "udp-length",
    /// Fewer than the 8 bytes of an ICMP header.
    IcmpTruncated => "icmp-truncated",
    /// Wrong checksum of an ICMP error (RFC 5508 REQ-3). The receiver checks those of queries.
    IcmpChecksum => "icmp-checksum",
    /// An ICMP error whose quote ends before the ports or the query identifier.
    QuoteTruncated => "quote-truncated",
    /// An ICMP error whose quote does not start with an IPv4 header.
    QuoteHeader => "quote-header",
    /// An ICMP error whose length field (RFC 4884 §4) puts the end of the quote beyond the end of
    /// the message.
    QuoteLength => "quote-length",
    /// Wrong header checksum of the quoted packet (RFC 5508 REQ-3).
    QuoteChecksum => "quote-checksum",
    /// An ICMP error about a fragment that is not the first.
    QuoteFragment => "quote-fragment",
    /// An ICMP error about an ICMP error.
    QuoteIcmpError => "quote-icmp-error",
    /// An ICMP error about an ICMP message that is neither a query nor an error.
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
