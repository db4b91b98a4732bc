//! Checks the offloads of interfaces.

use crate::host::doctor::facts::link_settings::LinkSettings;
use crate::host::doctor::finding::Finding;

/// What a machine does with the packets of its interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MachineRole {
    /// A box forwards packets between its interfaces.
    Forwards,
    /// A server is the end of its connections.
    Endpoint,
}

/// Checks the offloads. Large receive offload harms forwarded packets only.
pub(crate) fn evaluate(links: &[LinkSettings], role: MachineRole) -> Vec<Finding> {
    let mut findings: Vec<Finding> = links.iter().flat_map(|link| check(link, role)).collect();
    if findings.is_empty() {
        findings.push(Finding::ok(
            "offloads",
            match role {
                MachineRole::Forwards => "LRO is off, and no network card has GRO or TSO off",
                MachineRole::Endpoint => "no network card has GRO or TSO off",
            },
        ));
    }
    findings
}

fn check(link: &LinkSettings, role: MachineRole) -> Vec<Finding> {
    let LinkSettings { interface, offloads, is_network_card, .. } = link;
    if let Some(reason) = &offloads.unreadable {
        let found = format!("{interface}: natbox could not read the offloads: {reason}");
        let why = "large receive offload spoils forwarded packets";
        let advice = format!("install ethtool, and check: ethtool -k {interface}");
        return vec![Finding::warning("offloads", found, why).advice(advice)];
    }
    let mut findings = Vec::new();
    if role == MachineRole::Forwards && offloads.lro == Some(true) {
        let found = format!("{interface}: large receive offload (LRO) is on");
        let why = "LRO joins packets irreversibly, so that forwarded packets are too long and get \
                   lost";
        findings.push(
            Finding::error("offloads", found, why).fix([format!("ethtool -K {interface} lro off")]),
        );
    }
    let slow: Vec<&str> = [("gro", offloads.gro), ("tso", offloads.tso)]
        .iter()
        .filter_map(|(name, on)| (*on == Some(false)).then_some(*name))
        .collect();
    if *is_network_card && !slow.is_empty() {
        let found = format!("{interface}: {} is off", slow.join(" and "));
        let why = "TCP passes natbox packet by packet instead of up to 64 KB at a time, at a \
                   fraction of the speed";
        let commands = slow.iter().map(|name| format!("ethtool -K {interface} {name} on"));
        findings.push(Finding::warning("offloads", found, why).fix(commands));
    }
    findings
}
