//! Restores the host after natbox processes that died.

use std::fs;
use std::path::Path;

use super::journal::{self, JournalEntry, JournalFile, JournalHeader};
use super::namespace;
use super::revert::revert;
use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::model::snapshot::{FoundRoute, FoundRule, Snapshot};
use crate::host::model::step::{Rule, Step};

/// Reverts the changes of dead processes in this namespace, and removes journals without an owner.
///
/// `inherits`: the changes of a dead process with the same TUN stay, because this process continues
/// its sessions. Returns their journal.
///
/// # Errors
/// When a running process uses a device of this configuration, or a journal cannot be removed.
pub(super) async fn clean_up(
    kernel: &Kernel,
    directory: &Path,
    header: &JournalHeader,
    inherits: bool,
) -> Result<Vec<JournalEntry>, HostError> {
    let mut inherited = Vec::new();
    let others = journal::of_running_instances(directory, header.netns);
    for found in journal::read_all(directory) {
        let owner = &found.header;
        let is_alive = owner.is_alive();
        if owner.netns == header.netns && is_alive {
            if let Some(what) = shared_device(header, owner) {
                return Err(HostError::Taken { what, pid: owner.pid, tun: owner.tun.clone() });
            }
            continue;
        }
        if inherits && owner.netns == header.netns && owner.tun == header.tun {
            if is_of_this_namespace(kernel, &found).await? {
                inherited = found.entries;
                // The new journal replaces the file.
                continue;
            }
        } else if owner.netns == header.netns {
            revert_dead(kernel, &found, &others).await?;
        } else if is_alive || !namespace::is_gone(owner.netns) {
            continue;
        }
        match fs::remove_file(&found.path) {
            // Another instance has just removed the journal of a namespace that is gone.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed.map_err(|error| HostError::journal(&found.path, error))?,
        }
    }
    Ok(inherited)
}

/// Checks that no running process uses a device of a header.
///
/// # Errors
/// [`HostError::Taken`].
pub(super) fn check_devices(directory: &Path, header: &JournalHeader) -> Result<(), HostError> {
    for JournalFile { header: owner, .. } in journal::of_running_instances(directory, header.netns)
    {
        if let Some(what) = shared_device(header, &owner) {
            return Err(HostError::Taken { what, pid: owner.pid, tun: owner.tun });
        }
    }
    Ok(())
}

/// Returns true if a rule or a route of the journal exists in this namespace.
async fn is_of_this_namespace(kernel: &Kernel, found: &JournalFile) -> Result<bool, HostError> {
    let snapshot = kernel.snapshot().await?;
    Ok(found.entries.iter().any(|entry| is_left(&entry.step, &snapshot)))
}

/// Reverts the changes of a dead process, if a rule or a route of the journal exists in this
/// namespace.
async fn revert_dead(
    kernel: &Kernel,
    found: &JournalFile,
    others: &[JournalFile],
) -> Result<(), HostError> {
    // Every journal needs a new snapshot, because several journals may contain the same rule.
    if !is_of_this_namespace(kernel, found).await? {
        return Ok(());
    }
    let (pid, tun) = (found.header.pid, &found.header.tun);
    tracing::info!(pid, tun, "removing the changes of a natbox that died");
    // An error here must not keep natbox from starting: a later attempt would fail as well.
    for error in revert(kernel, &found.entries, others).await {
        tracing::warn!(%error, "a change of a natbox that died stays on the host");
    }
    Ok(())
}

/// Returns true for a rule or a route that only natbox sets and that exists. Another program may
/// have removed some of a journal's rules.
fn is_left(step: &Step, snapshot: &Snapshot) -> bool {
    match step {
        Step::Rule(rule) => snapshot.rule(rule).is_some_and(FoundRule::is_natbox),
        Step::Route(route) => snapshot.route(route).is_some_and(FoundRoute::is_natbox),
        Step::SetLocalRuleAside => snapshot.rule(&Rule::local_aside()).is_some(),
        Step::BringUpTun { .. }
        | Step::Address { .. }
        | Step::Sysctl { .. }
        | Step::ProxyNeighbour { .. }
        | Step::KeepMainRule => false,
    }
}

/// Names a device that both instances of a namespace want.
///
/// Instances cannot share an interface, because the rule that sends an interface's packets to a TUN
/// can name only one TUN.
fn shared_device(ours: &JournalHeader, theirs: &JournalHeader) -> Option<String> {
    if ours.tun == theirs.tun {
        return Some(format!("tun.name: {}", ours.tun));
    }
    let shared = ours.interfaces.iter().find(|interface| theirs.interfaces.contains(interface))?;
    Some(format!("interface {shared}"))
}
