//! Makes the changes on the host, keeps them in place, and reverts them.
//!
//! ```text
//!   prepare ── lock, clean up after dead processes, read the host ──▶ PlannedHost
//!   PlannedHost::apply ── journal, change; journal, change; … ── unlock ──▶ ManagedHost
//!   ManagedHost::reconcile ── read again; make missing changes, revert obsolete ones
//!   ManagedHost::has_drifted ── compare what the kernel does not report
//!   ManagedHost::restore ── lock, revert in reverse order, remove the journal
//! ```
//!
//! All instances of a namespace share two things: sysctls, and the form of the local rule. An
//! instance that finds such a change in place because another instance made it records the change
//! as its own. An instance that stops leaves the change in place while another's journal contains
//! it. So the last instance reverts the change.

mod awaited;
mod clean_up;
pub(crate) mod compare;
mod contest;
mod intruders;
pub(crate) mod journal;
pub(crate) mod managed;
mod namespace;
pub(crate) mod planned;
mod report;
mod revert;
mod tun_name;
mod unfit;
mod wait;

pub(crate) use awaited::{
    awaited_interfaces, remove_left_filter, restore_after_dead, running_owner,
};
pub(crate) use journal::DIRECTORY as JOURNALS;
pub(crate) use managed::ManagedHost;
pub(crate) use namespace::boot_id;
pub(crate) use planned::{PlannedHost, prepare};
pub(crate) use report::{CheckCause, HostReport};
pub(crate) use unfit::warnings;
pub(crate) use wait::wait_until_gone;

use super::error::HostError;

/// Makes the directory of the journals.
///
/// # Errors
/// When the directory cannot be made.
pub(crate) fn make_journal_directory() -> Result<(), HostError> {
    journal::make_directory(JOURNALS.as_ref())
}
