//! Lines of a trace: live packets, before and after, with what natbox has decided.

use serde::{Deserialize, Serialize};

use super::drops::PacketView;
use super::sessions::TupleView;

/// A line of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "trace", rename_all = "kebab-case")]
pub enum TraceLine {
    /// The trace is on: each matching packet from now on follows, or is counted as lost.
    Started,
    /// A packet.
    Packet(Box<TracedPacketView>),
    /// The reader was slow, and matching packets are missing about here.
    Lost {
        /// Number of the missing packets.
        packets: u64,
    },
}

/// A packet with what natbox has decided about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedPacketView {
    /// Time of the packet's batch, in UTC (RFC 3339).
    pub at: String,
    /// Number of the worker. The packets of one worker are in order.
    pub worker: usize,
    /// What has happened to the packet.
    pub verdict: TraceVerdict,
    /// Drop reason of a dropped or rejected packet.
    pub reason: Option<String>,
    /// What the drop reason means.
    pub meaning: Option<String>,
    /// The session of the packet. For an ICMP error: that of the quoted packet.
    pub session: Option<TracedSession>,
    /// Name of the uplink.
    pub uplink: Option<String>,
    /// Name of the forward.
    pub forward: Option<String>,
    /// The packet as it arrived. None: a fragment that another packet has released.
    pub before: Option<PacketView>,
    /// The packet that leaves. None: none leaves.
    pub after: Option<PacketView>,
}

/// What has happened to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceVerdict {
    /// The packet leaves: translated, or unchanged by a rule of `no_nat`.
    Translated,
    /// The host gets the packet.
    PassedToHost,
    /// The packet is dropped, and an ICMP error leaves.
    Rejected,
    /// The packet is a fragment that waits for the first one of its datagram.
    Held,
    /// The packet is a fragment that has waited, and leaves.
    Released,
    /// The packet is dropped.
    Dropped,
}

/// The session of a traced packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedSession {
    /// True: the packet has opened the session.
    pub new: bool,
    /// State after the packet.
    pub state: String,
    /// Kind of the session, as in [`super::SessionView`].
    pub origin: String,
    /// Packets of the side that opened the session, as they arrive.
    pub original: TupleView,
    /// Packets of the other side, as they arrive.
    pub reply: TupleView,
}

impl TraceVerdict {
    /// Returns the word for output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::PassedToHost => "passed-to-host",
            Self::Rejected => "rejected",
            Self::Held => "held",
            Self::Released => "released",
            Self::Dropped => "dropped",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_flat_json_objects_and_read_back() {
        let packet = TracedPacketView {
            at: "2026-11-25T15:00:00.000Z".to_owned(),
            worker: 1,
            verdict: TraceVerdict::PassedToHost,
            reason: None,
            meaning: None,
            session: None,
            uplink: None,
            forward: None,
            before: None,
            after: None,
        };
        for (line, start) in [
            (TraceLine::Started, r#"{"trace":"started"}"#),
            (TraceLine::Lost { packets: 3 }, r#"{"trace":"lost","packets":3}"#),
            (TraceLine::Packet(Box::new(packet)), r#"{"trace":"packet","at":"2026"#),
        ] {
            let text = serde_json::to_string(&line).unwrap();
            assert!(text.starts_with(start), "{text}");
            assert_eq!(serde_json::from_str::<TraceLine>(&text).unwrap(), line);
        }
        let verdict = serde_json::to_string(&TraceVerdict::PassedToHost).unwrap();
        assert_eq!(verdict, format!("\"{}\"", TraceVerdict::PassedToHost.name()));
    }
}
