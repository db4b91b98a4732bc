//! What must hold under overload, each with the figure that was found.

use super::counters::Sums;
use super::scenario::Scenario;
use super::{Pace, Phase};

/// An inequality, and whether it holds.
pub(crate) struct Check {
    pub what: &'static str,
    pub found: String,
    pub wanted: String,
    pub holds: bool,
}

impl Check {
    fn at_most(what: &'static str, found: u64, most: u64) -> Check {
        let (found_text, wanted) = (found.to_string(), format!("at most {most}"));
        Check { what, found: found_text, wanted, holds: found <= most }
    }

    fn at_least(what: &'static str, found: u64, least: u64) -> Check {
        let (found_text, wanted) = (found.to_string(), format!("at least {least}"));
        Check { what, found: found_text, wanted, holds: found >= least }
    }
}

/// Returns the checks of a phase.
pub(super) fn of(phase: &Phase) -> Vec<Check> {
    let mut checks = vec![
        loss(phase),
        Check::at_most(
            "sessions at one time",
            phase.seen.sessions.into(),
            Scenario::CAPACITY.into(),
        ),
        Check::at_most("sessions of the flood", phase.held, phase.scenario.most_sessions().into()),
        Check::at_most("growth of the resident memory, KiB", phase.growth(), MAX_GROWTH),
        other_reasons(phase),
        counters(phase),
        download(phase),
    ];
    if let Some(reason) = phase.scenario.reasons().first() {
        let found = phase.drops().find(|(name, _)| name == reason).map_or(0, |(_, count)| count);
        checks.push(Check::at_least("packets dropped for the expected reason", found, 1));
    }
    // At full pace the kernel's queues lose requests as they lose the packets of the flows.
    if phase.pace == Pace::Carried {
        let share = 100.0 * phase.seen.requests.share();
        checks.push(Check {
            what: "new requests answered",
            found: format!("{share:.2} % of {}", phase.seen.requests.asked),
            wanted: format!("at least {MIN_ANSWERED} %"),
            holds: share >= MIN_ANSWERED,
        });
    }
    let least = phase.scenario.least_opened();
    if phase.pace == Pace::Carried && least > 0 {
        checks.push(Check::at_least("half-open sessions opened", phase.opened(), least));
    }
    checks
}

fn loss(phase: &Phase) -> Check {
    let (flow, beyond) = phase.worst_beyond_machine();
    let (lost, sent, queues) = (flow.lost(), flow.sent, phase.devices.lost(flow.way));
    let beyond = 100.0 * beyond;
    Check {
        what: "loss of established flows beyond the machine's",
        found: format!("{beyond:.3} % ({lost} of {sent}; the kernel's queues lost {queues})"),
        wanted: format!("at most {MAX_LOSS} %"),
        holds: beyond <= MAX_LOSS,
    }
}

fn other_reasons(phase: &Phase) -> Check {
    let reasons = phase.scenario.reasons();
    let others = phase.drops().filter(|(reason, _)| !reasons.contains(reason));
    let text: Vec<String> = others.map(|(reason, count)| format!("{count} {reason}")).collect();
    Check {
        what: "packets dropped for other reasons",
        holds: text.is_empty(),
        found: if text.is_empty() { "0".to_owned() } else { text.join(", ") },
        wanted: "0".to_owned(),
    }
}

/// natbox's counters since its start, beside those of the kernel's device.
fn counters(phase: &Phase) -> Check {
    let Sums { read, answered, sent, dropped } = Sums::of(&phase.after.status);
    let device = phase.after.devices.tun;
    let (passed, received) = (device.sent, device.received);
    Check {
        what: "read + answered = sent + dropped",
        found: format!(
            "{read} (device: {passed}) + {answered} = {sent} (device: {received}) + {dropped}"
        ),
        wanted: "to the packet".to_owned(),
        holds: phase.after.adds_up(),
    }
}

fn download(phase: &Phase) -> Check {
    let (found, holds) = match &phase.seen.downloaded {
        Ok(bytes) => (format!("{bytes} bytes"), *bytes > 0),
        Err(error) => (error.clone(), false),
    };
    Check { what: "established download, every byte right", found, wanted: "intact".into(), holds }
}

/// Largest loss of an established flow beyond the machine's own, in percent.
const MAX_LOSS: f64 = 0.1;
/// Least share of new requests that are answered, in percent.
const MIN_ANSWERED: f64 = 95.0;
/// Largest growth of the resident memory, in KiB: that of the allocator and of the process's
/// stacks.
const MAX_GROWTH: u64 = 2048;
