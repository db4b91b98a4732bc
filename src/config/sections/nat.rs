//! `nat`: the behaviour of the translator.

use crate::config::document::Document;
use crate::config::problem::ValueError;
use crate::config::reader::cursor::{Cursor, truth};
use crate::config::schema::{TypeInfo, TypeShape, ValueType, ValueTypeExt as _, absent, section};
use crate::config::types::{
    Format, Items, Scalar, any_of, boolean, config_enum, config_words, integer, network, number,
    some, truth_value, word, words,
};
use crate::values::nat::{EndpointDependence, MssClamp, PortRange};

section! {
    /// Behaviour of the translator.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct Nat {
        /// Part of the remote endpoint that a mapping depends on (RFC 4787 section 4.1).
        pub mapping: EndpointDependence = word().default(EndpointDependence::EndpointIndependent).needs_restart(),
        /// Part of the remote endpoint that a filter depends on (RFC 4787 section 5).
        pub filtering: EndpointDependence = word().default(EndpointDependence::AddressAndPortDependent).needs_restart(),
        /// Whether inside hosts reach one another through external addresses (RFC 4787 section 6).
        pub hairpin: bool = boolean().default(true),
        /// Dynamic external ports. If the box itself opens sessions, for example health checks, 16
        /// to 32 ports of each external address serve only these, or an eighth of fewer than 128.
        pub ports: PortRange = network::ports().default(PortRange { first: 1024, last: 65535 }),
        /// Inside TCP and UDP ports that a mapping keeps as its external port while that port is
        /// free, even outside of `ports`: every port (`true`), or those of a list. If another
        /// inside host has the port, or a forward publishes it, the mapping gets a random one of
        /// `ports`. So it does if a program of the host uses the port on an address that the host
        /// has as well. `off` makes every port random, so that remote hosts cannot predict it (RFC
        /// 6056).
        pub port_preservation: PortPreservation = PreservedPorts.default(PortPreservation::Off),
        /// Upper bound of the MSS option of TCP SYN segments. `auto` takes the smaller MTU of the
        /// two interfaces, less 40. `off` or `false` leaves the option alone.
        pub mss_clamp: MssClamp = mss_clamp().default(MssClamp::Auto),
        /// Treatment of a new session of a host whose external address has no port left (RFC 4787
        /// section 4.1, RFC 7857 section 4).
        pub address_pooling: AddressPooling = word().default(AddressPooling::Paired),
        /// Whether an even UDP port gets an even external port, and an odd one an odd one (RFC 4787
        /// REQ-4).
        pub port_parity: bool = boolean().default(true),
        /// Whether mappings towards different destinations may share an external port (RFC 7857
        /// section 3). Needs a `mapping` other than `endpoint-independent`.
        pub port_overlapping: bool = boolean().default(false).needs_restart(),
        /// Whether packets from outside keep a dynamic UDP mapping alive (RFC 4787 REQ-6).
        pub inbound_refresh: bool = boolean().default(true),
        /// The ICMP error that an inside host gets when no mapping can be made (RFC 5508 REQ-8, RFC
        /// 6888 REQ-11).
        pub reject_with: RejectWith = word().default(RejectWith::AdminProhibited),
        /// The reply to a TCP SYN from outside that no session and no forward expects (RFC 5382
        /// REQ-4).
        pub unsolicited_syn: UnsolicitedSyn = word().default(UnsolicitedSyn::Drop),
    }
}

impl Default for Nat {
    fn default() -> Self {
        absent()
    }
}

config_words! {
    EndpointDependence {
        /// No part of it.
        EndpointIndependent = "endpoint-independent",
        /// The address.
        AddressDependent = "address-dependent",
        /// The address and the port.
        AddressAndPortDependent = "address-and-port-dependent",
    }
}

config_enum! {
    /// Treatment of a new session of a host whose external address has no port left.
    pub(crate) enum AddressPooling {
        /// natbox rejects the session.
        Paired = "paired",
        /// The session uses another address of the uplink.
        PairedSoft = "paired-soft",
    }
}

config_enum! {
    /// The ICMP error that an inside host gets when no mapping can be made.
    pub(crate) enum RejectWith {
        /// ICMP type 3, code 13.
        AdminProhibited = "admin-prohibited",
        /// ICMP type 3, code 1.
        HostUnreachable = "host-unreachable",
        /// No error.
        None = "none",
    }
}

config_enum! {
    /// The reply to a TCP SYN from outside that no session and no forward expects.
    pub(crate) enum UnsolicitedSyn {
        /// No reply.
        Drop = "drop",
        /// ICMP port unreachable after 6 s, unless an inside host opens the same connection
        /// meanwhile.
        DelayedReject = "delayed-reject",
    }
}

/// Inside ports that a mapping keeps as its external port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortPreservation {
    /// None.
    Off,
    /// Every port.
    All,
    /// These ports.
    Listed(Vec<PortRange>),
}

/// The type of `port_preservation`: a word, or a list of ports.
struct PreservedPorts;

impl PreservedPorts {
    fn list() -> impl ValueType<Value = Items<PortRange>> {
        some(network::ports(), MAX_PRESERVED, "ports")
    }
}

impl ValueType for PreservedPorts {
    type Value = PortPreservation;

    fn read(&self, cursor: &Cursor<'_>) -> Option<PortPreservation> {
        match cursor.scalar() {
            Some("off") => Some(PortPreservation::Off),
            Some(text) if truth(text) == Some(true) => Some(PortPreservation::All),
            Some(text) if truth(text) == Some(false) => Some(PortPreservation::Off),
            Some(_) | None => Self::list().read(cursor)?.values().map(PortPreservation::Listed),
        }
    }

    fn emit(&self, value: &PortPreservation) -> Document {
        match value {
            PortPreservation::Off => "off".into(),
            PortPreservation::All => true.into(),
            PortPreservation::Listed(ports) => Self::list().emit(&Items::of(ports.iter().copied())),
        }
    }

    fn describe(&self) -> TypeInfo {
        let off = Document::mapping([("enum", Document::texts(["off"]))]);
        let port = Scalar::describe(&network::ports());
        let TypeShape::Scalar(port) = port.shape else {
            unreachable!("a port is a single value");
        };
        let list = Document::mapping([
            ("type", "array".into()),
            ("items", port.clone()),
            ("minItems", 1.into()),
            ("maxItems", (MAX_PRESERVED as u32).into()),
        ]);
        let name =
            format!("`true`, `off`, or list of 1 to {MAX_PRESERVED} ports or ranges of ports");
        TypeInfo::scalar(name, any_of([truth_value(), off, port, list]))
    }
}

/// Most items of `port_preservation`. Every new mapping looks through them.
const MAX_PRESERVED: usize = 64;

fn mss_clamp() -> Format<MssClamp> {
    Format {
        parse: parse_mss_clamp,
        emit: |clamp| match clamp {
            MssClamp::Auto => "auto".into(),
            MssClamp::Off => "off".into(),
            MssClamp::To(bytes) => u32::from(*bytes).into(),
        },
        name: "`auto`, `off` or number of bytes from 88 to 65495",
        constraint: || any_of([words(&["auto", "off"]), integer(&(88..=65495))]),
        free_text: false,
    }
}

fn parse_mss_clamp(text: &str) -> Result<MssClamp, ValueError> {
    match text {
        "auto" => Ok(MssClamp::Auto),
        "off" => Ok(MssClamp::Off),
        _ => match number(88..=65495).parse(text) {
            Ok(number) => Ok(MssClamp::To(number as u16)),
            Err(error) => Err(error.wanting("`auto`, `off` or a number of bytes from 88 to 65495")),
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,24}|[0-9autof]{0,24}") {
            let _ = parse_mss_clamp(&text);
        }
    }
}
