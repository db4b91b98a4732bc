//! Checks which of the box's own addresses the outside segments reach.

use std::collections::BTreeSet;

use super::box_packets::TO_HOST;
use crate::host::doctor::facts::box_facts::FilteredBox;
use crate::host::doctor::finding::Finding;
use crate::host::doctor::nft::filters::FilterOutcome;
use crate::host::doctor::nft::packet::FilteredPacket;
use crate::host::model::exposure::{ExposedAddress, commands, exposed_addresses};

/// Reports inside addresses that hosts on an outside segment reach.
pub(super) fn evaluate(facts: FilteredBox<'_>) -> Vec<Finding> {
    let mut exposed = exposed_addresses(facts.config, facts.host);
    exposed.retain(|exposed| !is_dropped(facts, exposed));
    let why = "on Linux every address of a host is reachable through every interface: hosts on the \
               outside segment reach the services at this address";
    let finding = |exposed: &ExposedAddress| {
        let ExposedAddress { outside, address, inside } = exposed;
        let found = format!("the segment of {outside} reaches {address}, the address on {inside}");
        let finding = Finding::warning("exposure", found, why);
        match facts.config.host.manage {
            true => finding.advice("set host.block_private: true, and restart natbox"),
            false => finding.fix(commands(exposed)),
        }
    };
    exposed.iter().map(finding).collect()
}

/// Returns whether the host's own rules drop the packets from an outside segment.
fn is_dropped(facts: FilteredBox<'_>, exposed: &ExposedAddress) -> bool {
    let packet = FilteredPacket {
        iif: Some(&exposed.outside),
        to: Some(exposed.address),
        ..FilteredPacket::default()
    };
    let mut doubts = BTreeSet::new();
    TO_HOST.iter().any(|hook| {
        let obstacles = facts.filters.obstacles(hook, &packet, &mut doubts);
        obstacles.iter().any(|(_, outcome)| *outcome == FilterOutcome::Dropped)
    })
}
