//! What the kernel must be told so that packets come to the TUN, and go on from it, as the design says.
//!
//! There is one description, the list that [`steps::steps`] makes from the configuration, what was found on the
//! host ([`HostFacts`]) and which numbers are free ([`routing_ids::RoutingIds`]). Everything else works on that list:
//!
//! ```text
//!   Config + HostFacts + RoutingIds ──▶ steps() ──▶ Vec<Step> ──┬──▶ apply   in order, through netlink and /proc/sys
//!                                                         ├──▶ undo    in reverse, from the journal
//!                                                         └──▶ plan    as ip and sysctl commands
//! ```
//!
//! A packet's way through it (`G` an external address, `S` a server, `C` a client; rule and table names as in
//! [`steps`]):
//!
//! ```text
//!   C→G  in by wan0 ─ rule iif wan0 ─ table outside: G → TUN, all else blackhole ─▶ natbox
//!   C→S  out of TUN ─ main: connected route ─▶ lan0
//!   S→C  in by lan0 ─ rule iif lan0 ─ table inside: inside prefixes thrown back, all else → TUN ─▶ natbox
//!   G→C  out of TUN ─ rule iif TUN from G ─ table uplink: default via its gateway ─▶ wan0
//!   kernel's own ICMP error about C→S or G→C, source = address of the TUN ─ rule from it ─ TUN ─▶ natbox
//! ```
//!
//! Every change is written to a [`journal`] before it is made, so that the next start can take back what a killed
//! process left.

mod compare;
pub mod doctor;
mod error;
mod facts;
mod journal;
mod lifecycle;
mod listeners;
mod netlink;
pub mod plan;
mod plan_server;
mod route_lookup;
mod routing_ids;
mod snapshot;
pub mod steps;
mod sysctl;
mod watch;

pub use error::HostError;
pub use facts::{HostFacts, InterfaceFacts, InterfaceState};
pub use lifecycle::{ManagedHost, PlannedHost, prepare, wait_until_gone};
pub use routing_ids::RoutingIds;
pub use watch::{HostChange, LinkChange, LinkEvent, LinkWatch};

#[cfg(test)]
mod tests;
