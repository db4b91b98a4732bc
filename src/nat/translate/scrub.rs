//! Removes inside information that survives a rewrite: the IP identification (see
//! [`crate::nat::fragments::identification`]) and recorded routes.

use std::net::Ipv4Addr;

use crate::nat::fragments::datagram::DatagramId;
use crate::nat::translate::effects::Effects;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translator::Translator;
use crate::packet::{Endpoint, IcmpError, Parsed, Payload, Protocol, Tuple};

impl Translator {
    /// Finishes a packet that is not atomic or has options. The packet was parsed before the
    /// rewrite to the addresses of `to`.
    ///
    /// From inside, every packet that is not atomic gets a new identification. From outside only
    /// fragments do: fragments of one client may reach one server through several external
    /// addresses. The client numbers these apart, and only the rewrite gives them the same source
    /// and destination.
    #[inline(never)]
    pub(crate) fn scrub_packet(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        to: Tuple,
        inside: bool,
    ) {
        let parsed = packet.parsed;
        let own_name = to.source.address == parsed.source();
        if parsed.is_fragment() || !(own_name || parsed.is_atomic()) {
            let (source, destination) = (to.source.address, to.destination.address);
            let number = context.identification(
                self,
                source,
                destination,
                parsed.protocol(),
                packet.segments(),
            );
            parsed.set_identification(packet.buffer, number);
        }
        if !(own_name || inside) {
            self.strip_recorded_addresses(parsed, packet.buffer, to.source.address);
        }
    }

    /// Finishes an ICMP error that was translated to these addresses.
    pub(crate) fn scrub_error(
        &self,
        context: &mut impl Effects,
        packet: &mut Packet<'_>,
        error: IcmpError,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        inside: bool,
    ) {
        let (source, destination) = (Endpoint::new(source, 0), Endpoint::new(destination, 0));
        let to = Tuple { protocol: Protocol::ICMP, source, destination };
        self.scrub_packet(context, packet, to, inside);
        let Packet { parsed, buffer, .. } = packet;
        let Some(identification) = parsed.quoted_identification(buffer) else { return };
        let quoted = DatagramId {
            source: error.quoted.source.address,
            destination: error.quoted.destination.address,
            protocol: error.quoted.protocol,
            identification,
        };
        if let Some(original) = self.fragments.original(quoted) {
            parsed.set_quoted_identification(buffer, original);
        }
    }

    /// Replaces recorded addresses that only the inside and this host know, in a packet for the
    /// outside.
    pub(crate) fn strip_recorded_addresses(
        &self,
        parsed: &Parsed,
        buffer: &mut [u8],
        instead: Ipv4Addr,
    ) {
        let is_private = |address: Ipv4Addr| {
            self.is_inside(address)
                || address.is_link_local()
                || self.policy.tun_address == Some(address)
        };
        parsed.strip_recorded_addresses(buffer, is_private, instead);
    }
}

impl Packet<'_> {
    /// Number of packets on the wire: 1, or the segments of a super-packet.
    fn segments(&self) -> u16 {
        let length = self.parsed.length();
        if self.wire_length >= length {
            return 1;
        }
        let headers = match self.parsed.payload() {
            Payload::Tcp(tcp) => length - usize::from(tcp.payload_length),
            Payload::Udp => self.parsed.header_length() + UDP_HEADER,
            Payload::IcmpQuery(_)
            | Payload::IcmpError(_)
            | Payload::IcmpOther { .. }
            | Payload::Fragment { .. }
            | Payload::Other => return 1,
        };
        (length - headers).div_ceil(self.wire_length.saturating_sub(headers).max(1)) as u16
    }
}

const UDP_HEADER: usize = 8;
