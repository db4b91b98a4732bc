//! The translator as a library: packets in, translated packets out, without I/O and without a
//! clock.
//!
//! Words (RFC 2663, RFC 4787): *inside* and *outside* are the private and the public realm. An
//! *external* address is an address of natbox on the outside. A *mapping* ties an inside endpoint
//! to an external endpoint. A *session* is one flow over a mapping or a forward. A *forward* is a
//! static mapping from the configuration.
//!
//! ```
//! use natbox::nat::{Limits, Policy, Seed, Translator};
//! use natbox::packet::{ChecksumMode, Protocol, VecFrames, builder, parse};
//! use natbox::time::Tick;
//!
//! let inside = "10.0.0.0/24".parse().unwrap();
//! let policy = Policy::one_uplink(inside, [203, 0, 113, 10].into());
//! let nat = Translator::new(Limits::new(inside), policy, 1, Seed::from(1), Tick(0))?;
//! let mut context = nat.worker(0);
//!
//! let tuple = builder::tuple(Protocol::UDP, ([10, 0, 0, 5], 5353), ([192, 0, 2, 53], 53));
//! let mut frames = VecFrames::new();
//! frames.push(&builder::udp(tuple, b"question"));
//! nat.process(&mut context, &mut frames, Tick(0));
//!
//! let (translated, _) = frames.take_sent().remove(0);
//! let parsed = parse(&translated, ChecksumMode::Complete).unwrap();
//! assert_eq!(parsed.source(), std::net::Ipv4Addr::new(203, 0, 113, 10));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Public API
//!
//! | purpose | items |
//! |---|---|
//! | make a translator | [`Translator::new`], [`Limits`], [`Policy`], [`Seed`] |
//! | make the context of a thread | [`Translator::worker`], [`WorkerContext`] |
//! | translate batches | [`Translator::process`], [`Translator::poll`] |
//! | learn what would happen to a packet | [`Translator::decide`], [`Query`], [`Decision`] |
//! | swap the policy | [`Translator::with_policy`], [`Translator::enforce`] |
//! | report a changed MTU | [`Translator::set_leg_mtu`], [`Translator::set_uplink_mtu`] |
//! | report a failed or recovered uplink | [`Translator::set_admission`], [`Translator::set_last_resort`], [`AdmitNew`] |
//! | reserve ports for the host | [`Translator::exclude_ports`] |
//! | list sessions | [`Translator::sessions`], [`Filter`] |
//! | end sessions | [`Translator::end`], [`Translator::end_matching`] |
//! | follow sessions | [`Translator::subscribe`], [`SessionEvent`] |
//! | move sessions to another translator | [`Translator::export`], [`Translator::import`] |
//! | keep sessions beyond the process | [`Translator::in_files`], [`Translator::adopt`], [`import_sessions`] |
//! | log mappings | [`Translator::log_mappings`], [`MappingEvent`] |
//! | count packets and drops | [`WorkerContext::counters`], [`DropReason`] |
//! | use a session table alone | [`Table`], [`Key`], [`NewSession`], [`IdleTimeouts`] |
//!
//! # Structure
//!
//! ```text
//!   frames ─▶ batch: parse, hash, prefetch
//!               ├─ tuple        ─▶ fast_path: session found ────────────────▶ rewrite
//!               │                    └─ none ─▶ decide ─▶ commit (slow_path) ▶ rewrite, or drop
//!               ├─ ICMP error   ─▶ icmp_error: decide by the quote ─▶ rewrite error and quote
//!               └─ fragment     ─▶ fragment_path: as the first fragment, or hold until it arrives
//! ```
//!
//! | folder      | content                                                                       |
//! |-------------|-------------------------------------------------------------------------------|
//! | `policy`    | limits and rules as values; the index of the forwards                         |
//! | `tracking`  | states of sessions; TCP state and windows as pure functions                   |
//! | `table`     | keys, keyed hash, index, 64-byte records, timing wheel, listing               |
//! | `mapping`   | mappings, external ports, filtering, limits per host, the mapping log         |
//! | `fragments` | datagrams in fragments, IP identifications                                    |
//! | `state`     | other shared state: uplinks, ICMP limits, delayed rejects, notifications      |
//! | `translate` | the paths of a packet: decide, commit, rewrite; sessions by request           |
//!
//! Each folder imports only folders of earlier rows. `now` is a parameter, and all randomness comes
//! from the [`Seed`].

mod context;
mod counters;
mod drop_advice;
mod dropped;
mod event_channel;
mod fragments;
mod mapping;
mod policy;
mod seed;
mod shared;
mod table;
mod tracking;
mod translate;
mod translator;
mod verdict;

pub use crate::values::nat::{EndpointDependence, ForwardProtocol, HashBy, MssClamp, PortRange};
pub use context::WorkerContext;
pub use counters::{Counters, Drops};
pub(crate) use dropped::DroppedPackets;
pub use event_channel::EventReceiver;
pub(crate) use mapping::allocator::PortOrigin;
pub use mapping::events::{MappingChange, MappingEvent, MappingEvents};
pub use policy::limits::{Limits, Timeouts};
pub use policy::rules::{ExternalAddress, Forward, Leg, NoNatRule, OutboundRule, Policy, Uplink};
pub use seed::Seed;
pub use shared::traffic::UplinkTraffic;
pub use shared::uplink_states::AdmitNew;
pub use table::hash::KeyHash;
pub use table::key::Key;
pub use table::session::{EndpointKind, NewSession, SessionKind};
pub use table::{
    Accounting, Adopted, EndReason, EndedSession, EndpointFilter, Family, FileFormat, Filter,
    FirstPacket, InsertError, Lookup, Match, OldSessions, Page, PolicyCondition, SessionChange,
    SessionEvent, SessionEvents, SessionFileSizes, SessionFiles, SessionId, SessionInfo, Table,
    TableCursor, V4, layout,
};
pub use tracking::direction::Direction;
pub use tracking::state::{IdleTimeouts, State};
pub use tracking::tcp_state::{SequenceCheck, TcpState};
pub use tracking::tcp_window::{Segment, TcpSequences, TcpSnapshot};
pub use translate::adoption::Contents;
pub use translate::decide::{
    Content, Decision, ErrorRewrite, ExternalEndpoint, FragmentRewrite, Opening, Path, Query,
    Rewrite, Server,
};
pub(crate) use translate::explain::{Explained, tuple_of};
pub use translate::import_files::{Imported, import_sessions};
pub(crate) use translate::observed::{Decided, Observer};
pub use translate::observed::{PacketEnds, PacketOrigin};
pub use translate::policy_change::{PolicyPreview, Transition};
pub(crate) use translate::rehearsal::Doubt;
pub use translate::sessions::{EndedSlice, NoSuchSession};
pub use translate::snapshot::{
    AccountingSnapshot, ImportError, MappingSnapshot, SNAPSHOT_VERSION, SessionSnapshot,
};
pub use translator::Translator;
pub use verdict::DropReason;
pub(crate) use verdict::Verdict;
