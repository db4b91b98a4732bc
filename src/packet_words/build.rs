//! From a description to the bytes of the packet.

use super::DescribedPacket;
use crate::packet::{Protocol, QueryKind, builder};

impl DescribedPacket {
    /// Returns the packet, with correct checksums and a payload of zeros.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let headers = self.with_payload(0);
        let missing = usize::from(self.length.unwrap_or(0)).saturating_sub(headers.len());
        let mut packet = if missing == 0 { headers } else { self.with_payload(missing) };
        if self.dont_fragment {
            builder::set_dont_fragment(&mut packet, true);
        }
        packet
    }

    /// Returns the number of bytes of the headers.
    pub(super) fn headers(&self) -> usize {
        self.with_payload(0).len()
    }

    fn with_payload(&self, length: usize) -> Vec<u8> {
        let payload = vec![0; length];
        let (source, destination) = (self.source.0, self.destination.0);
        let tuple = builder::tuple(self.protocol, self.source, self.destination);
        match self.protocol {
            Protocol::TCP => {
                let acknowledgement = u32::from(self.flags.ack());
                builder::tcp(tuple, self.flags, self.sequence, acknowledgement, &[], &payload)
            }
            Protocol::UDP => builder::udp(tuple, &payload),
            Protocol::ICMP => {
                let kind =
                    if self.is_reply { QueryKind::EchoReply } else { QueryKind::EchoRequest };
                builder::echo(source, destination, kind, self.identifier, 1, &payload)
            }
            Protocol::UDP_LITE => builder::udp_lite(tuple, 0, &payload),
            Protocol::DCCP => builder::dccp(tuple, 0, &payload),
            protocol => builder::other(protocol, source, destination, &payload),
        }
    }
}
