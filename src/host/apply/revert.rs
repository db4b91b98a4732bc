//! Removes changes from the host.

use super::journal::{JournalEntry, JournalFile};
use crate::host::error::HostError;
use crate::host::kernel::indices::Indices;
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::sysctl;
use crate::host::model::step::Step;

/// Removes the changes of these entries, the last one first, and returns every failure.
///
/// A shared change stays while the journal of another running instance (`others`) contains it.
pub(super) async fn revert(
    kernel: &Kernel,
    entries: &[JournalEntry],
    others: &[JournalFile],
) -> Vec<HostError> {
    let mut errors = Vec::new();
    // Some devices may be gone by now. Without any indices, only rules and sysctls are reverted.
    let links = kernel.links().await.unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    let indices = Indices::new(&links);
    for JournalEntry { step, restore } in entries.iter().rev() {
        if step.is_shared() && others.iter().any(|other| other.entry(step).is_some()) {
            continue;
        }
        let result = match step {
            Step::Sysctl { path, value, .. } => restore_sysctls(path, value, restore),
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Route(_)
            | Step::Rule(_)
            | Step::ProxyNeighbour { .. }
            | Step::SetLocalRuleAside
            | Step::KeepMainRule => kernel.remove(step, &indices).await,
        };
        errors.extend(result.err());
    }
    errors
}

/// Restores the old values of a sysctl and of its side effects, unless another program has changed
/// the sysctl since.
fn restore_sysctls(
    path: &str,
    set_value: &str,
    restore: &[(String, String)],
) -> Result<(), HostError> {
    if sysctl::read(path)?.as_deref() != Some(set_value) {
        return Ok(());
    }
    for (path, value) in restore {
        if sysctl::read(path)?.is_some_and(|found| found != *value) {
            sysctl::write(path, value)?;
        }
    }
    Ok(())
}
