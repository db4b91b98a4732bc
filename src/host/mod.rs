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

mod apply;
pub mod doctor;
mod error;
mod kernel;
mod model;
pub mod render;

pub use apply::lifecycle::{ManagedHost, PlannedHost, prepare, wait_until_gone};
pub use error::HostError;
pub use kernel::watch::{HostChange, LinkChange, LinkEvent, LinkWatch};
pub use model::facts::{HostFacts, InterfaceFacts, InterfaceState};
pub use model::routing_ids::RoutingIds;

#[cfg(test)]
mod tests;
