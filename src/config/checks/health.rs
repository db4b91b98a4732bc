//! `uplinks[].health`: targets, and limits that depend on one another.

use std::time::Duration;

use crate::config::problem::Location;
use crate::config::reader::cursor::Located;
use crate::config::schema::Unresolved;
use crate::config::sections::{Expectation, FileHealth, FileLatencyLimits, Health, LatencyLimits};
use crate::config::types::{DurationText, Items};

use super::checker::Checker;

/// Checks the health check of an uplink; None if it is not complete.
pub(super) fn whole(file: &Located<FileHealth>, checker: &Checker<'_>) -> Option<Health> {
    fn targets<T: Clone>(targets: &Unresolved<Items<T>>) -> Option<Vec<T>> {
        match targets {
            Unresolved::Absent => Some(Vec::new()),
            Unresolved::Unreadable => None,
            Unresolved::Given(targets) => targets.value.values(),
        }
    }
    check_loss(file, checker);
    check_hold(file, checker);
    let latency = match &file.latency {
        Unresolved::Absent => Some(None),
        Unresolved::Unreadable => None,
        Unresolved::Given(limits) => whole_latency(limits, checker).map(Some),
    };
    let expect = match &file.expect {
        Unresolved::Absent => Some(Expectation::usual()),
        Unresolved::Unreadable => None,
        Unresolved::Given(expect) => expect.whole(),
    };
    let (http, expect) = (targets(&file.http)?, expect?);
    let health = Health {
        ping: targets(&file.ping)?,
        tcp: targets(&file.tcp)?,
        expect: if http.is_empty() { Expectation::usual() } else { expect },
        http,
        quorum: file.quorum,
        interval: file.interval,
        fall: file.fall,
        rise: file.rise,
        window: file.window,
        loss: file.loss,
        latency: latency?,
        hold: file.hold,
    };
    check_targets(file, &health, checker).then_some(health)
}

/// Reports a health check without targets, or with fewer than the answers that it wants. Warns of
/// expectations without a page.
fn check_targets(file: &Located<FileHealth>, health: &Health, checker: &Checker<'_>) -> bool {
    if let Some(expect) = file.expect.given().filter(|_| health.http.is_empty()) {
        let (wanted, advice) = ("`http` beside it", "add `http`, or remove `expect`");
        checker.diagnostics.warn(&expect.location, "`expect` without pages", wanted, advice);
    }
    match health.targets() as u32 {
        0 => {
            let wanted = "at least one target: `ping`, `tcp` or `http`";
            let advice = "add `ping: [203.0.113.254]` with an address beyond the uplink";
            checker.diagnostics.report(&file.location, "a mapping", wanted, advice);
            false
        }
        number if number < health.quorum => {
            let wanted = format!("a number of answers from 1 to {number}, the number of targets");
            let found = format!("`{}`", health.quorum);
            let advice = "lower it, or add targets";
            checker.diagnostics.report(&below(file, "quorum", checker), found, wanted, advice);
            false
        }
        _ => true,
    }
}

fn check_loss(file: &Located<FileHealth>, checker: &Checker<'_>) {
    let (fail, back) = (file.loss.fail, file.loss.r#return);
    if back >= fail {
        let location = below(file, "loss.return", checker);
        let wanted = format!("a smaller share than {fail}%, which is `loss.fail`");
        checker.diagnostics.report(&location, format!("`{back}%`"), wanted, "lower it");
    }
}

fn check_hold(file: &Located<FileHealth>, checker: &Checker<'_>) {
    let hold = file.hold;
    if hold.first > hold.max {
        let location = below(file, "hold.first", checker);
        let wanted = "a duration of at most `hold.max`";
        let found = format!("`{}`", DurationText(hold.first));
        checker.diagnostics.report(&location, found, wanted, "shorten it, or raise `hold.max`");
    }
}

fn whole_latency(
    file: &Located<FileLatencyLimits>,
    checker: &Checker<'_>,
) -> Option<LatencyLimits> {
    let fail = file.fail.as_ref()?;
    let back = match &file.r#return {
        // In whole microseconds, as the file writes it.
        Unresolved::Absent => Duration::from_micros(fail.value.as_micros() as u64 / 2),
        Unresolved::Unreadable => return None,
        Unresolved::Given(back) if back.value >= fail.value => {
            let (fail, found) = (DurationText(fail.value), DurationText(back.value));
            let wanted = format!("a shorter latency than {fail}, which is `latency.fail`");
            let found = format!("`{found}`");
            checker.diagnostics.report(&back.location, found, wanted, "shorten it");
            return None;
        }
        Unresolved::Given(back) => back.value,
    };
    Some(LatencyLimits { fail: fail.value, back })
}

/// Returns the location of a key below the health check.
fn below(file: &Located<FileHealth>, key: &str, checker: &Checker<'_>) -> Location {
    checker.location_of(&format!("{}.{key}", file.location.key))
}
