//! What the translator knows of a packet that is shown to an operator. Nothing here changes any
//! state.

use crate::nat::translator::Translator;
use crate::packet::Tuple;

/// What is known of a packet without a session, by its addresses and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketEnds {
    /// True: the source is inside.
    pub from_inside: bool,
    /// True: the destination is an external address.
    pub to_external: bool,
    /// Index of the uplink that has the destination, or the source.
    pub uplink: Option<u8>,
    /// Name of the forward that publishes the destination.
    pub forward: Option<String>,
}

impl Translator {
    /// Returns what is known of a packet without a session.
    pub(crate) fn ends_of(&self, tuple: Tuple) -> PacketEnds {
        let (source, destination) = (tuple.source, tuple.destination);
        let external = self.external(destination.address);
        let forward = self.forwards.forward_at(tuple.protocol, destination);
        PacketEnds {
            from_inside: self.is_inside(source.address),
            to_external: external.is_some(),
            uplink: external.or(self.external(source.address)).map(|external| external.uplink),
            forward: forward.map(|forward| forward.name.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::nat::policy::limits::Limits;
    use crate::nat::policy::rules::{Forward, Policy};
    use crate::nat::seed::Seed;
    use crate::packet::{Protocol, builder};
    use crate::time::Tick;
    use crate::values::nat::ForwardProtocol;

    #[test]
    fn the_ends_of_a_packet_are_known_by_its_addresses() {
        let inside = "10.0.0.0/24".parse().expect("a prefix");
        let [host, external] = [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(203, 0, 113, 10)];
        let remote = Ipv4Addr::new(192, 0, 2, 1);
        let forward = Forward {
            name: "web".into(),
            uplink: 0,
            protocol: ForwardProtocol::Tcp,
            address: external,
            ports: (80..=80).into(),
            to_address: host,
            to_port: 80,
        };
        let policy = Policy { forwards: vec![forward], ..Policy::one_uplink(inside, external) };
        let nat = Translator::new(Limits::new(inside), policy, 1, Seed::from(1), Tick(0));
        let nat = nat.expect("memory");
        let ends =
            |from, to, port| nat.ends_of(builder::tuple(Protocol::TCP, (from, 1), (to, port)));
        let published = PacketEnds {
            from_inside: false,
            to_external: true,
            uplink: Some(0),
            forward: Some("web".into()),
        };
        assert_eq!(ends(remote, external, 80), published);
        assert_eq!(ends(remote, external, 81), PacketEnds { forward: None, ..published });
        let outbound = PacketEnds { from_inside: true, ..PacketEnds::default() };
        assert_eq!(ends(host, remote, 80), outbound);
    }
}
