//! Compares a step with what the host has, for applying and for diagnosing.

use super::journal::JournalFile;
use crate::host::error::HostError;
use crate::host::kernel::sysctl;
use crate::host::model::snapshot::Snapshot;
use crate::host::model::step::{Route, RouteKind, Rule, Step, TUN_GROUP, TUN_MTU};

/// State of a step on the host.
pub(crate) enum StepStatus {
    /// The change has to be made. Holds the sysctls to restore afterwards, with their values.
    Missing(Vec<(String, String)>),
    /// The change is in place because a natbox made it: another running instance, or a dead one
    /// without a journal. Holds the sysctls to restore afterwards.
    Shared(Vec<(String, String)>),
    /// The change is in place and needs no restoring.
    InPlace,
}

/// Compares one step with the host. `others` are the journals of running instances in this
/// namespace.
///
/// # Errors
/// When another program's route is in the step's place, or a sysctl cannot be read.
pub(crate) fn compare(
    step: &Step,
    snapshot: &Snapshot,
    others: &[JournalFile],
) -> Result<StepStatus, HostError> {
    let has_index =
        |device: &str, index: u32| snapshot.link(device).is_some_and(|link| link.index == index);
    let in_place = match step {
        Step::BringUpTun { device, queue_length } => snapshot.link(device).is_some_and(|link| {
            (link.up, link.mtu, link.queue_length, link.group)
                == (true, TUN_MTU, *queue_length, TUN_GROUP)
        }),
        Step::Address { device, address } => snapshot
            .addresses
            .iter()
            .any(|found| found.address == *address && has_index(device, found.index)),
        Step::ProxyNeighbour { address, device } => snapshot
            .proxies
            .iter()
            .any(|found| found.address == *address && has_index(device, found.index)),
        Step::Sysctl { path, value, optional } => {
            return compare_sysctl(step, path, value, *optional, others);
        }
        Step::Route(route) => return compare_route(route, snapshot),
        Step::Rule(rule) => return Ok(compare_rule(rule, snapshot)),
        Step::SetLocalRuleAside => {
            let is_aside = snapshot.rule(&Rule::local_aside()).is_some();
            if is_aside && snapshot.rule(&Rule::default_local()).is_none() {
                return Ok(shared_with(step, others));
            }
            false
        }
        Step::KeepMainRule => snapshot.has_main_rule(),
    };
    Ok(if in_place { StepStatus::InPlace } else { StepStatus::Missing(Vec::new()) })
}

fn compare_sysctl(
    step: &Step,
    path: &str,
    value: &str,
    optional: bool,
    others: &[JournalFile],
) -> Result<StepStatus, HostError> {
    Ok(match sysctl::read(path)? {
        Some(found) if found == value => shared_with(step, others),
        Some(found) if is_stricter(path, &found) => StepStatus::InPlace,
        None if optional => StepStatus::InPlace,
        found => {
            let mut restore: Vec<_> =
                found.map(|found| (path.to_owned(), found)).into_iter().collect();
            restore.extend(sysctl::side_effects(path)?);
            StepStatus::Missing(restore)
        }
    })
}

/// Returns true for a value that does what natbox wants, and more: `arp_ignore` 2 compares the
/// sender's network as well, and 8 never answers. A person has set it.
fn is_stricter(path: &str, found: &str) -> bool {
    path.ends_with("/arp_ignore") && ["2", "8"].contains(&found)
}

fn compare_route(route: &Route, snapshot: &Snapshot) -> Result<StepStatus, HostError> {
    match (snapshot.route(route), snapshot.conflicting_route(route)) {
        // Another program has put a route before this one.
        (Some(_), Some(first)) if route.kind == RouteKind::Local && !first.is_natbox() => {
            Ok(StepStatus::Missing(Vec::new()))
        }
        // A dead natbox without a journal left the route. This instance will remove it.
        (Some(found), _) if found.is_natbox() => Ok(StepStatus::Shared(Vec::new())),
        (Some(_), _) => Ok(StepStatus::InPlace),
        // The kernel's own route of the address stays, behind this one.
        (None, Some(_)) if route.kind == RouteKind::Local => Ok(StepStatus::Missing(Vec::new())),
        (None, Some(found)) => {
            Err(HostError::Conflict { found: found.route.words(), wanted: route.words() })
        }
        (None, None) => Ok(StepStatus::Missing(Vec::new())),
    }
}

fn compare_rule(rule: &Rule, snapshot: &Snapshot) -> StepStatus {
    match snapshot.rule(rule) {
        Some(found) if found.is_natbox() => StepStatus::Shared(Vec::new()),
        Some(_) => StepStatus::InPlace,
        None => StepStatus::Missing(Vec::new()),
    }
}

/// Returns the status of a step that is in place: shared if a running instance has made it.
fn shared_with(step: &Step, others: &[JournalFile]) -> StepStatus {
    match others.iter().find_map(|other| other.entry(step)) {
        Some(entry) => StepStatus::Shared(entry.restore.clone()),
        None => StepStatus::InPlace,
    }
}
