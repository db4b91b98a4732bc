//! Checks whether natbox could read the rules, and reports rules without an effect for certain.

use std::collections::BTreeSet;

use crate::host::doctor::finding::Finding;
use crate::host::doctor::nft::filters::Filters;

/// Reports rules that natbox could not read.
pub(crate) fn unreadable(filters: &Filters) -> Vec<Finding> {
    let mut findings = Vec::new();
    let why = "a rule may drop or rewrite packets";
    if let Some(reason) = &filters.unreadable {
        let found = format!("nftables: natbox could not read the rules: {reason}");
        findings.push(
            Finding::warning("firewall", found, why)
                .advice("run natbox doctor as root, with nftables installed"),
        );
    }
    if filters.legacy {
        let found = "iptables-legacy: natbox does not read its rules, and it has tables here";
        findings
            .push(Finding::warning("firewall", found, why).advice("check: iptables-legacy-save"));
    }
    findings
}

/// Reports that no rule is an obstacle. `doubts` holds the numbers of the rules that drop packets
/// under conditions that the evaluation cannot check.
pub(crate) fn no_obstacle(filters: &Filters, doubts: &BTreeSet<usize>) -> Option<Finding> {
    if filters.unreadable.is_some() {
        return None;
    }
    let found = match doubts.len() {
        0 => "no rule of nftables drops or rewrites natbox's packets".to_owned(),
        count => format!(
            "no rule of nftables drops or rewrites all of natbox's packets; {count} may drop some \
             of them, depending on senders, rates or marks"
        ),
    };
    Some(Finding::ok("firewall", found))
}
