//! What would happen to a packet, and why.

use serde::{Deserialize, Serialize};

use super::sessions::{SessionView, TupleView};

/// What would happen to a packet, and why. Nothing has happened to any packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet as it arrives.
    pub packet: ExplainedPacket,
    /// Where it comes from. None: its headers do not show that.
    pub from: Option<PlaceView>,
    /// What happens to it.
    pub outcome: PacketOutcome,
    /// The packet that leaves: this one, or the ICMP error to its sender.
    pub sent: Option<ExplainedPacket>,
    /// Where the packet that leaves goes to.
    pub towards: Option<PlaceView>,
    /// Held fragments that leave after this packet, because it is the first one of their datagram.
    pub released_fragments: usize,
    /// Name of the uplink that the packet uses.
    pub uplink: Option<String>,
    /// Name of the forward that the packet uses, or whose port it is for.
    pub forward: Option<String>,
    /// The rule of `outbound` that covers the packet.
    pub outbound_rule: Option<String>,
    /// The rule of `no_nat` by which the packet passes unchanged.
    pub no_nat_rule: Option<String>,
    /// The mapping that the packet uses or makes.
    pub mapping: Option<ExplainedMapping>,
    /// The session that the packet belongs to.
    pub session: Option<SessionView>,
    /// The session that the packet opens.
    pub opens: Option<OpenedSession>,
    /// The session that ends to make space for the new one, because the table is full.
    pub ends: Option<SessionView>,
    /// Why the packet is dropped.
    pub drop: Option<ExplainedDrop>,
    /// What else matters, one sentence each.
    pub notes: Vec<String>,
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PacketOutcome {
    /// It leaves with other addresses or ports.
    Translated,
    /// It leaves as it is, by a rule of `no_nat`.
    Untranslated,
    /// The host itself gets it.
    ToHost,
    /// It waits for the first fragment of its datagram.
    Waits,
    /// It is dropped, and its sender gets an ICMP error.
    Rejected,
    /// It is dropped.
    Dropped,
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedPacket {
    /// `tcp`, `udp`, `icmp`, or `ip-` and a number. None: the packet is malformed.
    pub protocol: Option<String>,
    /// Source and destination, with ports where the protocol has them.
    pub addresses: Option<TupleView>,
    /// What the addresses do not show, such as the flags of TCP.
    pub detail: Option<String>,
    /// Length of the IP packet in bytes.
    pub length: usize,
}

/// A side of the box, and an interface there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceView {
    /// `inside` or `outside`.
    pub side: String,
    /// The interface. None: several are possible.
    pub interface: Option<String>,
}

/// A mapping that a packet uses or makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedMapping {
    /// Inside endpoint, as `address:port`.
    pub inside: String,
    /// External endpoint, as `address:port`.
    pub external: String,
    /// How the mapping gets its port.
    pub port: MappingPort,
}

/// How a mapping gets its external port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MappingPort {
    /// The mapping exists.
    Present,
    /// The inside endpoint had this port before, and the port has waited for it.
    Waiting,
    /// The mapping keeps its inside port.
    Kept,
    /// natbox draws a free port at random. The port shown is an example.
    Random,
    /// natbox draws a port of mappings towards other destinations. The port shown is an example.
    Shared,
}

/// A session that a packet opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedSession {
    /// State, such as `syn-sent`.
    pub state: String,
    /// Kind of the session, as in [`SessionView::origin`].
    pub origin: String,
    /// Packets of the side that opens the session, as they arrive.
    pub original: TupleView,
    /// Packets of the other side, as they arrive.
    pub reply: TupleView,
}

/// Why a packet is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedDrop {
    /// Name of the reason, as in `natbox status`.
    pub reason: String,
    /// What the reason means.
    pub meaning: String,
    /// What to do about it.
    pub advice: String,
}
