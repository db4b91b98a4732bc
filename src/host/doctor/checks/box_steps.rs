//! Checks that the settings of the host are in place.

use crate::config::counted;
use crate::host::doctor::facts::box_facts::{BoxFacts, StepState};
use crate::host::doctor::finding::Finding;
use crate::host::model::step::Step;

/// Largest number of settings that one finding names.
const MAX_SHOWN: usize = 3;
/// Value of rp_filter that requires the route back to a source to lead by the incoming interface.
pub(super) const RP_FILTER_STRICT: u8 = 1;

/// Kind of a setting; one finding covers one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepKind {
    Tun,
    Route,
    Rule,
    Sysctl,
    ProxyArp,
}

impl StepKind {
    /// The TUN comes first, because routes need it.
    const ALL: [Self; 5] = [Self::Tun, Self::Route, Self::Rule, Self::Sysctl, Self::ProxyArp];

    fn of(step: &Step) -> Self {
        match step {
            Step::BringUpTun { .. } | Step::Address { .. } => Self::Tun,
            Step::Sysctl { .. } => Self::Sysctl,
            Step::Route(_) => Self::Route,
            Step::Rule(_) | Step::SetLocalRuleAside | Step::KeepMainRule => Self::Rule,
            Step::ProxyNeighbour { .. } => Self::ProxyArp,
        }
    }

    fn id(self) -> &'static str {
        match self {
            Self::Tun => "tun",
            Self::Rule => "rules",
            Self::Route => "routes",
            Self::Sysctl => "sysctls",
            Self::ProxyArp => "proxy-arp",
        }
    }

    fn problem(self, total: usize) -> String {
        match self {
            Self::Tun => counted(
                total,
                "setting of the TUN is missing or different",
                "settings of the TUN are missing or different",
            ),
            Self::Rule => counted(total, "rule is missing", "rules are missing"),
            Self::Route => {
                counted(total, "route is missing or different", "routes are missing or different")
            }
            Self::Sysctl => {
                counted(total, "sysctl has another value", "sysctls have another value")
            }
            Self::ProxyArp => counted(
                total,
                "proxy neighbour entry is missing",
                "proxy neighbour entries are missing",
            ),
        }
    }

    fn why(self) -> &'static str {
        match self {
            Self::Tun => {
                "all packets pass the TUN unfragmented, and the kernel's ICMP errors about them \
                 carry the TUN's address"
            }
            Self::Rule => {
                "the rules lead packets to natbox and replies to their uplink, and keep outside \
                 packets from bypassing natbox"
            }
            Self::Route => {
                "the rules lead to tables with these routes; without a route, packets are lost or \
                 leave untranslated"
            }
            Self::Sysctl => {
                "with other values the kernel does not forward, or drops packets because of their \
                 source"
            }
            Self::ProxyArp => {
                "the host does not answer ARP for the published address, so the uplink's router \
                 cannot deliver packets"
            }
        }
    }
}

/// Reports missing settings, one finding per kind.
pub(super) fn evaluate(facts: &BoxFacts) -> Vec<Finding> {
    StepKind::ALL.into_iter().flat_map(|kind| of_kind(facts, kind)).collect()
}

fn of_kind(facts: &BoxFacts, kind: StepKind) -> Vec<Finding> {
    let all = facts.steps.iter().filter(|(step, _)| StepKind::of(step) == kind);
    let total = all.clone().count();
    let wrong: Vec<(&Step, &StepState)> = all
        .filter(|(step, state)| !is_good(facts, step, state))
        .map(|(step, state)| (step, state))
        .collect();
    let mut findings = Vec::new();
    let unreadable = wrong.iter().find_map(|(_, state)| match state {
        StepState::Unreadable(reason) => Some(reason),
        StepState::InPlace | StepState::Missing(_) | StepState::Conflict(_) => None,
    });
    if let Some(reason) = unreadable {
        let found = format!("natbox could not read the settings: {reason}");
        findings.push(Finding::warning(kind.id(), found, kind.why()));
    }
    let wrong: Vec<_> =
        wrong.into_iter().filter(|(_, state)| !matches!(state, StepState::Unreadable(_))).collect();
    if wrong.is_empty() {
        return findings;
    }
    let shown: Vec<String> =
        wrong.iter().take(MAX_SHOWN).map(|(step, state)| found_words(step, state)).collect();
    let more = match wrong.len().saturating_sub(MAX_SHOWN) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let found = format!("{} of {}: {}{more}", wrong.len(), kind.problem(total), shown.join("; "));
    let is_severe = wrong.iter().any(|(step, _)| is_severe(step));
    let make = if is_severe { Finding::error } else { Finding::warning };
    let commands = wrong.iter().map(|(step, _)| step.command());
    findings.push(make(kind.id(), found, kind.why().to_owned()).fix(commands));
    findings
}

/// Returns true for a setting in place, and for a source filter that is off. The kernel uses the
/// greater of an interface's source filter and that of `all`.
fn is_good(facts: &BoxFacts, step: &Step, state: &StepState) -> bool {
    match (step, state) {
        (_, StepState::InPlace) => true,
        (Step::Sysctl { path, .. }, StepState::Missing(Some(found)))
            if path.ends_with("/rp_filter") =>
        {
            let all = facts.host.settings.rp_filter_all;
            found.parse().unwrap_or(0).max(all) != RP_FILTER_STRICT
        }
        (_, StepState::Missing(_) | StepState::Conflict(_) | StepState::Unreadable(_)) => false,
    }
}

fn is_severe(step: &Step) -> bool {
    match step {
        Step::Sysctl { path, optional, .. } => !optional && !path.ends_with("/proxy_delay"),
        Step::BringUpTun { .. }
        | Step::Address { .. }
        | Step::Route(_)
        | Step::Rule(_)
        | Step::ProxyNeighbour { .. }
        | Step::SetLocalRuleAside
        | Step::KeepMainRule => true,
    }
}

fn found_words(step: &Step, state: &StepState) -> String {
    match (step, state) {
        (Step::Sysctl { path, value, .. }, StepState::Missing(Some(found))) => {
            format!("{path} is {found}, not {value}")
        }
        (Step::Sysctl { path, .. }, StepState::Missing(None)) => {
            format!("{path} does not exist")
        }
        (Step::SetLocalRuleAside, _) => {
            "the first rule delivers the external address to the host before natbox".into()
        }
        (_, StepState::Conflict(other)) => {
            format!("`{other}` has the place of `{}`", step.command())
        }
        (_, _) => format!("`{}`", step.command()),
    }
}
