//! How a step compares with what the host has: the same look for setting it and for diagnosing it.

use super::error::HostError;
use super::journal::Found;
use super::netlink::first_local_rule;
use super::snapshot::Snapshot;
use super::steps::{PROTOCOL, RuleAction, Step, TABLE_LOCAL, TUN_MTU, TUN_QUEUE_LENGTH};
use super::sysctl;

/// What a step finds when it is about to be made.
pub(super) enum Look {
    /// To be done, with the sysctls to restore afterwards.
    Missing(Vec<(String, String)>),
    /// It is there because another box that runs has put it there.
    Shared(Vec<(String, String)>),
    /// It is there and does not concern us, or it was done before.
    Equal,
}

/// Compares one step with what is there. `others`: journals of boxes that share the namespace.
///
/// # Errors
/// Something foreign is where the step has to go, or a setting cannot be read.
pub(super) fn look(step: &Step, snapshot: &Snapshot, others: &[Found]) -> Result<Look, HostError> {
    let shared =
        || match others.iter().flat_map(|other| &other.entries).find(|entry| entry.step == *step) {
            Some(entry) => Look::Shared(entry.restore.clone()),
            None => Look::Equal,
        };
    let there = match step {
        Step::TunUp { device } => snapshot.link(device).is_some_and(|link| {
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
                None if *optional => Look::Equal,
                found => {
                    let mut restore: Vec<_> =
                        found.map(|found| (path.clone(), found)).into_iter().collect();
                    restore.extend(sysctl::dragged_along(path)?);
                    Look::Missing(restore)
                }
            });
        }
        Step::Route(route) => match snapshot.route(route) {
            // A dead process without a journal left it: ours to take back.
            Some(found) if found.protocol == PROTOCOL => return Ok(Look::Shared(Vec::new())),
            Some(_) => true,
            None => match snapshot.route_in_the_way(route) {
                Some(found) => {
                    return Err(HostError::Conflict {
                        found: super::plan::route_words(&found.route),
                        wanted: super::plan::route_words(route),
                    });
                }
                None => false,
            },
        },
        Step::Rule(rule) => match snapshot.rule(rule) {
            Some(found) if found.protocol == PROTOCOL && is_shared(step) => return Ok(shared()),
            Some(found) if found.protocol == PROTOCOL => return Ok(Look::Shared(Vec::new())),
            Some(_) => true,
            None => false,
        },
        Step::ProxyNeighbour { address, device } => {
            let index = snapshot.link(device).map(|link| link.index);
            snapshot.proxies.iter().any(|(found, on)| found == address && Some(*on) == index)
        }
        Step::DropFirstLocalRule => match snapshot.rule(&first_local_rule()) {
            Some(_) => false,
            None => return Ok(shared()),
        },
    };
    Ok(if there { Look::Equal } else { Look::Missing(Vec::new()) })
}

/// Whether boxes of one namespace have the step in common.
pub(super) fn is_shared(step: &Step) -> bool {
    match step {
        Step::Sysctl { .. } | Step::DropFirstLocalRule => true,
        Step::Rule(rule) => rule.action == RuleAction::Lookup(TABLE_LOCAL) && rule.to.is_none(),
        Step::TunUp { .. }
        | Step::Address { .. }
        | Step::Route(_)
        | Step::ProxyNeighbour { .. } => false,
    }
}
