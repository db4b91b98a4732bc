//! How a step compares with what the host has: the same look for setting it and for diagnosing it.

use crate::host::apply::journal::JournalFile;
use crate::host::error::HostError;
use crate::host::kernel::netlink::default_local_rule;
use crate::host::kernel::sysctl;
use crate::host::model::snapshot::Snapshot;
use crate::host::model::steps::{
    RTPROT_NATBOX, RuleAction, Step, TABLE_LOCAL, TUN_MTU, TUN_QUEUE_LENGTH,
};

/// What a step finds when it is about to be made.
pub(crate) enum StepStatus {
    /// To be done, with the sysctls to restore afterwards.
    Missing(Vec<(String, String)>),
    /// It is there because another box that runs has put it there.
    Shared(Vec<(String, String)>),
    /// It is there and does not concern us, or it was done before.
    InPlace,
}

/// Compares one step with what is there. `others`: journals of boxes that share the namespace.
///
/// # Errors
/// Something foreign is where the step has to go, or a setting cannot be read.
pub(crate) fn compare(
    step: &Step,
    snapshot: &Snapshot,
    others: &[JournalFile],
) -> Result<StepStatus, HostError> {
    let shared =
        || match others.iter().flat_map(|other| &other.entries).find(|entry| entry.step == *step) {
            Some(entry) => StepStatus::Shared(entry.restore.clone()),
            None => StepStatus::InPlace,
        };
    let there = match step {
        Step::BringUpTun { device } => snapshot.link(device).is_some_and(|link| {
            (link.up, link.mtu, link.queue_length) == (true, TUN_MTU, TUN_QUEUE_LENGTH)
        }),
        Step::Address { device, address } => {
            let index = snapshot.link(device).map(|link| link.index);
            snapshot
                .addresses
                .iter()
                .any(|found| found.address == *address && Some(found.index) == index)
        }
        Step::Sysctl { path, value, optional } => {
            return Ok(match sysctl::read(path)? {
                Some(found) if found == *value => shared(),
                None if *optional => StepStatus::InPlace,
                found => {
                    let mut restore: Vec<_> =
                        found.map(|found| (path.clone(), found)).into_iter().collect();
                    restore.extend(sysctl::side_effects(path)?);
                    StepStatus::Missing(restore)
                }
            });
        }
        Step::Route(route) => match snapshot.route(route) {
            // A dead process without a journal left it: ours to take back.
            Some(found) if found.protocol == RTPROT_NATBOX => {
                return Ok(StepStatus::Shared(Vec::new()));
            }
            Some(_) => true,
            None => match snapshot.route_in_the_way(route) {
                Some(found) => {
                    return Err(HostError::Conflict {
                        found: crate::host::render::plan::route_words(&found.route),
                        wanted: crate::host::render::plan::route_words(route),
                    });
                }
                None => false,
            },
        },
        Step::Rule(rule) => match snapshot.rule(rule) {
            Some(found) if found.protocol == RTPROT_NATBOX && is_shared(step) => {
                return Ok(shared());
            }
            Some(found) if found.protocol == RTPROT_NATBOX => {
                return Ok(StepStatus::Shared(Vec::new()));
            }
            Some(_) => true,
            None => false,
        },
        Step::ProxyNeighbour { address, device } => {
            let index = snapshot.link(device).map(|link| link.index);
            snapshot.proxies.iter().any(|(found, on)| found == address && Some(*on) == index)
        }
        Step::RemoveDefaultLocalRule => match snapshot.rule(&default_local_rule()) {
            Some(_) => false,
            None => return Ok(shared()),
        },
    };
    Ok(if there { StepStatus::InPlace } else { StepStatus::Missing(Vec::new()) })
}

/// Whether boxes of one namespace have the step in common.
pub(crate) fn is_shared(step: &Step) -> bool {
    match step {
        Step::Sysctl { .. } | Step::RemoveDefaultLocalRule => true,
        Step::Rule(rule) => rule.action == RuleAction::Lookup(TABLE_LOCAL) && rule.to.is_none(),
        Step::BringUpTun { .. }
        | Step::Address { .. }
        | Step::Route(_)
        | Step::ProxyNeighbour { .. } => false,
    }
}
