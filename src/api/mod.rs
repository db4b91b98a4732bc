//! The admin protocol: the requests that a running instance serves, and the form of each answer.
//!
//! A client sends one JSON object a line over the admin socket, and the instance answers each with
//! one JSON object a line:
//!
//! ```text
//!   {"api_version":1,"command":"status"}      ──▶   a Status, or {"error":"..."}
//! ```
//!
//! | file       | content                                        |
//! |------------|------------------------------------------------|
//! | `request`  | requests, the version, the answer to a bad one |
//! | `status`   | [`Status`], [`EffectiveConfig`], [`Reloaded`]  |
//! | `reload`   | reloads that wait for their confirmation, [`Difference`] |
//! | `sessions` | pages of sessions                              |
//! | `drops`    | drops by reason, with examples                 |
//! | `trace`    | lines of a trace                               |
//! | `events`   | events, as JSON and as sentences               |
//! | `explain`  | what would happen to a packet                  |
//! | `client`   | finding an instance and asking it              |

pub mod client;
mod drops;
mod events;
mod explain;
mod reload;
mod request;
mod sessions;
mod status;
mod trace;

pub use drops::{DropExampleView, DropReport, PacketView, ReasonView};
pub use events::{Event, EventKind};
pub use explain::{
    ExplainedDrop, ExplainedMapping, ExplainedPacket, Explanation, MappingPort, OpenedSession,
    PacketOutcome, PlaceView,
};
pub use reload::{
    ChangedKey, Confirmed, Difference, EndingSessions, PendingReload, PendingState, RevertReason,
};
pub use request::{Access, MAX_EXPLAINED, MAX_REQUEST, Refusal, Request, RequestError, VERSION};
pub use sessions::{
    GroupTotals, KilledSessions, SessionChangeKind, SessionChanged, SessionCount, SessionCursor,
    SessionGroup, SessionPage, SessionTraffic, SessionView, TupleView,
};
pub use status::{
    BatchTimesBucket, BatchTimesStatus, DnsStatus, EffectiveConfig, HostStatus, InstanceState,
    LegStatus, Reloaded, SandboxStatus, SessionStatus, Status, SystemCallFilter, ThreadPrivileges,
    TunStatus, UplinkStatus, UplinkTrafficStatus, WorkerStatus,
};
pub use trace::{TraceLine, TraceVerdict, TracedPacketView, TracedSession};
