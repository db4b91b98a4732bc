//! Checks that programs of the host listen where forwards to the host itself lead.

use super::server_services::missing_listener;
use super::transports::protocols;
use crate::host::doctor::facts::box_facts::BoxFacts;
use crate::host::doctor::finding::Finding;

/// Checks the services of the host itself.
pub(super) fn evaluate(facts: &BoxFacts) -> Vec<Finding> {
    let own = &facts.host.own_traffic;
    let mut findings: Vec<Finding> = Vec::new();
    for forward in facts.config.forwards.iter().filter(|forward| own.has_target(forward)) {
        for protocol in protocols(forward) {
            let missing = missing_listener(&facts.listeners, forward, protocol);
            // A forward without an uplink is one forward of each uplink.
            findings.extend(missing.filter(|finding| !findings.contains(finding)));
        }
    }
    findings
}
