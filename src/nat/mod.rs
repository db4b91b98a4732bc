//! The translator as a library: packets in, translated packets out, without input, output or a clock.
//!
//! Words (RFC 2663, RFC 4787): *inside* and *outside* are the private and the public realm. An *external* address is
//! an address of natbox on the outside. A *mapping* ties an inside endpoint to an external endpoint. A *session* is one
//! flow over a mapping or a forward. A *forward* is a static mapping from the configuration.
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
//! # The face
//!
//! | to                                   | use                                                              |
//! |--------------------------------------|------------------------------------------------------------------|
//! | make a translator                    | [`Translator::new`], [`Limits`], [`Policy`], [`Seed`]            |
//! | translate batches                    | [`Translator::worker`], [`Translator::process`], [`Translator::poll`] |
//! | ask what would happen                | [`Translator::decide`], [`Query`], [`Decision`]                  |
//! | swap the policy                      | [`Translator::with_policy`], [`Translator::enforce`]             |
//! | report changes of the host           | [`Translator::set_mtu`], [`Translator::set_admission`], [`Translator::exclude_ports`] |
//! | list and end sessions                | [`Translator::sessions`], [`Translator::end`], [`Translator::end_matching`], [`Filter`] |
//! | count                                | [`WorkerContext::counters`], [`Counters`], [`DropReason`]        |
//! | follow mappings                      | [`Translator::log_mappings`], [`MappingEvent`]                   |
//! | keep a session table of its own      | [`Table`], [`Key`], [`NewSession`], [`IdleTimeouts`]             |
//!
//! # The inside
//!
//! ```text
//!   frames ─▶ batch: parse, hash, prefetch
//!               ├─ tuple        ─▶ fast_path: session found ─────────────────▶ rewrite
//!               │                    └─ none ─▶ decide ─▶ commit (slow_path) ─▶ rewrite, or drop
//!               ├─ ICMP error   ─▶ icmp_error: decide by the quote ──────────▶ rewrite outside and in
//!               └─ fragment     ─▶ fragment_path: as the first fragment, or held until that comes
//! ```
//!
//! | folder      | idea                                                                            |
//! |-------------|---------------------------------------------------------------------------------|
//! | `policy`    | limits and rules as values; forwards by either end                              |
//! | `tracking`  | states of sessions, TCP as a pure function                                      |
//! | `table`     | keys, keyed hash, index, records of 64 bytes, timing wheel, listing             |
//! | `mapping`   | external ports, mappings, filtering, limits of hosts, log of mappings           |
//! | `fragments` | datagrams in fragments, IP identifications                                      |
//! | `state`     | what else workers share: uplinks, ICMP limits, delayed rejects, notifications   |
//! | `translate` | what happens to a packet: decide, commit, rewrite; sessions by request          |
//!
//! Imports between the folders point to earlier rows. `now` is a parameter, and all randomness comes from the [`Seed`].

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
pub use verdict::DropReason;
