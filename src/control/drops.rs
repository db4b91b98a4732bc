//! The drops as the admin socket sends them and `natbox drops` shows them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use super::packet_view::{Headers, Visible, subject_without_session};
use crate::api::{DropExampleView, DropReport, ReasonView};
use crate::engine::{DropExample, DropRecord, Handle};
use crate::filter::FilterExpression;
use crate::nat::{DropReason, Drops};

/// The counters of the last seconds.
#[derive(Default)]
pub(super) struct DropRates(RefCell<VecDeque<(Instant, Drops)>>);

impl DropRates {
    /// Records the counters, as of now.
    pub(super) fn record(&self, now: Instant, drops: Drops) {
        let mut samples = self.0.borrow_mut();
        samples.push_back((now, drops));
        while samples.front().is_some_and(|(at, _)| now.duration_since(*at) > PERIOD) {
            samples.pop_front();
        }
    }

    /// Returns the packets a second of a reason since the oldest sample. `packets`: the count now.
    fn of(&self, reason: DropReason, packets: u64, now: Instant) -> f64 {
        let samples = self.0.borrow();
        let Some((at, before)) = samples.front() else { return 0.0 };
        let seconds = now.duration_since(*at).as_secs_f64();
        if seconds == 0.0 {
            return 0.0;
        }
        let rate = packets.saturating_sub(before.of(reason)) as f64 / seconds;
        (rate * 10.0).round() / 10.0
    }
}

/// Returns the drops that match a filter.
pub(super) fn report(
    engine: &Handle,
    rates: &DropRates,
    filter: &FilterExpression,
    visible: Visible,
) -> DropReport {
    let now = Instant::now();
    let occurred = engine.drops().into_iter().filter(|record| record.packets != 0);
    let views = occurred.map(|record| {
        let DropRecord { reason, packets, last, examples } = record;
        let examples = examples.iter();
        let examples = examples.filter_map(|example| view(engine, example, filter, visible));
        ReasonView {
            reason: reason.name().to_owned(),
            packets,
            packets_per_second: rates.of(reason, packets, now),
            last: last.map(rfc3339),
            meaning: reason.explanation().trim().to_owned(),
            advice: reason.advice().to_owned(),
            examples: examples.collect(),
        }
    });
    DropReport {
        reasons: views.filter(|view| filter.is_empty() || !view.examples.is_empty()).collect(),
        missed_examples: engine.missed_examples(),
        with_payload: visible == Visible::Everything,
    }
}

/// Returns the view of an example that matches a filter. A packet without addresses matches the
/// empty filter only.
fn view(
    engine: &Handle,
    example: &DropExample,
    filter: &FilterExpression,
    visible: Visible,
) -> Option<DropExampleView> {
    let headers = Headers::of(&example.head);
    let ends = headers.tuple.map(|tuple| engine.ends_of(tuple));
    let matches = headers
        .tuple
        .zip(ends.as_ref())
        .map(|(tuple, ends)| filter.matches(&subject_without_session(tuple, ends)));
    if !matches.unwrap_or(filter.is_empty()) {
        return None;
    }
    let side = |inside| if inside { "inside" } else { "outside" };
    Some(DropExampleView {
        at: rfc3339(example.at),
        worker: example.worker,
        number: example.number,
        from: ends.as_ref().map(|ends| side(ends.from_inside).to_owned()),
        uplink: ends.as_ref().and_then(|ends| ends.uplink.clone()),
        forward: ends.and_then(|ends| ends.forward),
        packet: headers.view(&example.head, visible),
    })
}

pub(super) fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// Length of the time over which a rate is measured.
const PERIOD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_ten_seconds() {
        const REASON: DropReason = DropReason::NoMapping;
        let (rates, start) = (DropRates::default(), Instant::now());
        let second = |second: u64| start + Duration::from_secs(second);
        let mut drops = Drops::default();
        assert_eq!(rates.of(REASON, 9, start), 0.0);
        rates.record(start, drops);
        assert_eq!(rates.of(REASON, 9, start), 0.0, "no time has passed");
        for at in 1..=20 {
            drops.count(REASON, if at <= 10 { 1000 } else { 3 });
            rates.record(second(at), drops);
        }
        assert_eq!(rates.of(REASON, drops.of(REASON), second(20)), 3.0);
        assert_eq!(rates.of(REASON, drops.of(REASON) + 10, second(20)), 4.0);
        assert_eq!(rates.of(DropReason::Martian, 0, second(20)), 0.0);
    }
}
