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
//! | `sessions` | pages of sessions                              |
//! | `events`   | events, as JSON and as sentences               |
//! | `explain`  | what would happen to a packet                  |
//! | `client`   | finding an instance and asking it              |

pub mod client;
mod events;
mod explain;
mod request;
mod sessions;
mod status;

pub use events::{Event, EventKind};
pub use explain::{
    ExplainedDrop, ExplainedMapping, ExplainedPacket, Explanation, MappingPort, OpenedSession,
    PacketOutcome, PlaceView,
};
pub use request::{Access, MAX_EXPLAINED, MAX_REQUEST, Refusal, Request, RequestError, VERSION};
pub use sessions::{SessionCursor, SessionPage, SessionView, TupleView};
pub use status::{
    DnsStatus, EffectiveConfig, HostStatus, InstanceState, LegStatus, Reloaded, SandboxStatus,
    SessionStatus, Status, SystemCallFilter, ThreadPrivileges, TunStatus, UplinkStatus,
    WorkerStatus,
};
