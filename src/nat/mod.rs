//! The translator: sessions, mappings, forwards, and what becomes of each packet.
//!
//! Words (RFC 2663, RFC 4787): *inside* and *outside* are the private and the public realm; an *external* address is
//! one of the box's own on the outside; a *mapping* ties an inside endpoint to an external endpoint; a *session* is
//! one flow over a mapping or forward; a *forward* is a static mapping from the configuration.
//!
//! ```text
//!   parsed packet ─▶ fast_path: table hit ─────────────────▶ rewrite ─▶ Verdict
//!                      │ miss                                   ▲
//!                      └▶ slow_path: forward / outbound / hairpin: new session, or stateless, or Drop(reason)
//!   ICMP error    ─▶ icmp_error: session of the quote ─▶ rewrite outside and in
//!   fragment      ─▶ fragment_path: as its datagram's first piece, or held until that comes
//! ```
//!
//! | file                        | idea                                                            |
//! |-----------------------------|-----------------------------------------------------------------|
//! | `key`, `index`              | packed tuples, keyed hash, buckets under sharded locks          |
//! | `session`, `region`         | the 64-byte record, the memory it lives in                      |
//! | `pool`, `table`             | free records and timing wheel; all of it as one table           |
//! | `tcp_state`, `tcp_window`   | TCP tracking as a pure function                                 |
//! | `ports`, `resting`          | external ports: free ones, and those kept for their last holders |
//! | `mappings`, `hosts`         | what else a session from inside needs: mapping, account         |
//! | `mapping_log`               | beginnings and ends of mappings, for a log                      |
//! | `lease`                     | taking these together, and giving them back                     |
//! | `lines`                     | which line something new takes                                  |
//! | `notifications_for`                  | ending sessions of a failed line, and telling the inside        |
//! | `answers`, `delayed_rejects`      | errors of the box's own: how many, and those that wait          |
//! | `fragments`                 | datagrams in pieces: overlaps, what waits for a first piece     |
//! | `exempt`                    | what passes untranslated                                        |
//! | `disguise`                  | what else in a header tells of the inside                       |
//! | `identification`, `originals`| new IP identifications, and which ones they stand for          |
//! | `forwards`, `settings`      | what the configuration says                                     |
//!
//! No clock and no input or output here: `now` is a parameter, and randomness comes with the [`WorkerContext`].

mod context;
mod counters;
mod event_channel;
mod fragments;
mod mapping;
mod policy;
mod seed;
mod state;
mod table;
mod tracking;
mod translate;
mod translator;
mod verdict;

pub use context::WorkerContext;
pub use counters::{Counters, Drops};
pub use event_channel::EventReceiver;
pub use mapping::events::{MappingChange, MappingEvent, MappingEvents};
pub use policy::limits::{EndpointDependence, Limits, Timeouts};
pub use policy::port_range::PortRange;
pub use policy::rules::{
    ExternalAddress, Forward, ForwardProtocol, HashBy, MssClamp, NoNatRule, OutboundRule, Policy,
    Uplink,
};
pub use seed::Seed;
pub use state::uplink_states::AdmitNew;
pub use table::hash::KeyHash;
pub use table::key::Key;
pub use table::session::{EndpointKind, NewSession, SessionKind};
pub use table::{
    Accounting, EndReason, EndedSession, EndpointFilter, Family, Filter, FirstPacket, InsertError,
    Lookup, Match, Page, PolicyCondition, SessionChange, SessionEvent, SessionEvents, SessionId,
    SessionInfo, Table, TableCursor, V4,
};
pub use tracking::direction::Direction;
pub use tracking::state::{IdleTimeouts, State};
pub use tracking::tcp_state::{SequenceCheck, TcpState};
pub use tracking::tcp_window::{Segment, TcpSequences, TcpSnapshot};
pub use translate::decide::{
    Content, Decision, ErrorRewrite, ExternalEndpoint, FragmentRewrite, Opening, Path, Query,
    Rewrite,
};
pub use translate::policy_change::Transition;
pub use translate::sessions::{EndedSlice, NoSuchSession};
pub use translate::snapshot::{
    AccountingSnapshot, ImportError, MappingSnapshot, SNAPSHOT_VERSION, SessionSnapshot,
};
pub use translator::Translator;
pub use verdict::{DropReason, Verdict};
