//! Configures the host, so that the kernel routes packets into the TUN and onwards from it.
//!
//! One list describes everything: [`model::steps::steps`] makes it from the configuration, from the
//! facts about the host ([`HostFacts`]) and from free table and rule numbers ([`RoutingIds`]). All
//! other code works on that list:
//!
//! ```text
//!                                                      ┌──▶ apply    makes the changes in order
//!   Config + HostFacts + RoutingIds ──▶ steps() ───────┼──▶ restore  reverts them, from the journal
//!                                                      ├──▶ plan     prints them as ip and sysctl commands
//!                                                      └──▶ doctor   compares them with the host
//! ```
//!
//! The path of a packet (`G` an external address, `S` a server, `C` a client; rules and tables as
//! in [`model::steps`]):
//!
//! ```text
//!   C→G  in by wan0 ─ rule iif wan0 ─ table outside: G → TUN, all else blackhole ─▶ natbox
//!   R→O  in by wan0, a reply to a container O ─ rule iif wan0 ─ table outside: the host's route ─▶ docker0
//!   C→S  out of TUN ─ main table: connected route ─▶ lan0
//!   S→C  in by lan0 ─ rule iif lan0 ─ table inside: throw for inside prefixes, all else → TUN ─▶ natbox
//!   G→C  out of TUN ─ rule iif TUN from G ─ table uplink: default via its gateway ─▶ wan0
//!   S→C  from a service of the host ─ rule iif lo from the inside ─ table host: → TUN ─▶ natbox
//!   the kernel's ICMP error about C→S or G→C, from the TUN's address ─ rule from it ─ TUN ─▶ natbox
//! ```
//!
//! A packet from one inside leg to another takes the connected route of the main table, because the
//! inside table throws it. natbox does not see it, nor packets to networks behind other interfaces
//! of the host ([`model::other_networks`]).
//!
//! natbox records every change in a journal before it makes the change. The next start reverts what
//! a killed process left.
//!
//! Imports between the folders point downwards:
//!
//! | folder   | responsibility                                                        |
//! |----------|-----------------------------------------------------------------------|
//! | `doctor` | explains what is wrong with a box's host or with a server             |
//! | `render` | prints what to set by hand                                            |
//! | `apply`  | makes, keeps and reverts the changes                                  |
//! | `kernel` | netlink, `/proc/sys`, `/proc/net`                                     |
//! | `model`  | plain values: steps, facts, numbers; no system calls                  |

mod apply;
pub(crate) mod doctor;
mod error;
mod kernel;
mod model;
pub(crate) mod render;

pub(crate) use apply::{CheckCause, HostReport, ManagedHost, PlannedHost};
pub(crate) use apply::{JOURNALS, make_journal_directory};
pub(crate) use apply::{
    awaited_interfaces, boot_id, prepare, remove_left_filter, restore_after_dead, running_owner,
    wait_until_gone, warnings,
};
pub(crate) use error::HostError;
pub(crate) use kernel::listeners::{UsedPorts, used_ports};
pub(crate) use kernel::watch::{HostChange, LinkChange, LinkEvent, LinkWatch};
pub(crate) use model::announcements::Announcement;
pub(crate) use model::collect::probe_addresses;
pub(crate) use model::facts::HostFacts;
pub(crate) use model::presence::AwaitedInterface;
pub(crate) use model::private_filter::FINDING as PRIVATE_FILTER;
pub(crate) use model::routing_ids::RoutingIds;

#[cfg(test)]
mod tests;
