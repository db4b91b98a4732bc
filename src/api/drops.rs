//! The drops of a running instance, by reason, with the last dropped packets.

use serde::{Deserialize, Serialize};

/// Drops by reason: those reasons for which packets were dropped, and of which an example matches
/// the filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DropReport {
    /// Reasons, in the order of the reference.
    pub reasons: Vec<ReasonView>,
    /// Examples that no worker could store because they were being read.
    pub missed_examples: u64,
    /// False: the user may only read, so `bytes` end after the headers.
    pub with_payload: bool,
}

/// The drops of one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonView {
    /// Name of the reason.
    pub reason: String,
    /// Packets dropped since the start, whether they match the filter or not.
    pub packets: u64,
    /// Packets dropped in a second, over the last ten seconds.
    pub packets_per_second: f64,
    /// Time of the last drop, in UTC (RFC 3339).
    pub last: Option<String>,
    /// What the reason means.
    pub meaning: String,
    /// What to do.
    pub advice: String,
    /// The last examples that match the filter, oldest first.
    pub examples: Vec<DropExampleView>,
}

/// A dropped packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropExampleView {
    /// Time of the drop, in UTC (RFC 3339).
    pub at: String,
    /// Number of the worker.
    pub worker: usize,
    /// Number of this drop among those of its worker and its reason. A gap between two examples is
    /// the number of packets between them.
    pub number: u64,
    /// `inside` or `outside`, by the source address. None: the packet has none.
    pub from: Option<String>,
    /// Name of the uplink that has the destination, or the source.
    pub uplink: Option<String>,
    /// Name of the forward that publishes the destination.
    pub forward: Option<String>,
    /// The packet as it arrived.
    pub packet: PacketView,
}

/// A packet, or the first bytes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketView {
    /// Length of the whole packet, in bytes.
    pub length: u32,
    /// The headers in words.
    pub summary: String,
    /// The first bytes, in hexadecimal.
    pub bytes: String,
}
