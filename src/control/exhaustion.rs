//! The subsystem that reports exhausted resources, at intervals and not for every packet (RFC 6888
//! REQ-11).

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::Interval;

use super::drops::DropRates;
use super::events::Events;
use super::subsystem::{Outcome, Subsystem};
use crate::api::EventKind;
use crate::engine::Handle;
use crate::nat::{DropReason, Drops};

/// Reads the drop counters at intervals. Records them for the rates, and emits an event for each
/// reason that means exhaustion.
pub(super) struct ExhaustionWatch {
    engine: Handle,
    events: Rc<Events>,
    readings: Interval,
    reported: Reported,
    rates: Rc<DropRates>,
}

/// The last report of each reason.
#[derive(Default)]
struct Reported(HashMap<DropReason, LastReport>);

struct LastReport {
    /// Packets dropped since the start.
    count: u64,
    at: Instant,
}

impl ExhaustionWatch {
    pub(super) fn new(engine: Handle, events: Rc<Events>) -> Self {
        let readings = tokio::time::interval(INTERVAL);
        Self { engine, events, readings, reported: Reported::default(), rates: Rc::default() }
    }

    /// Returns the rates, which each reading updates.
    pub(super) fn rates(&self) -> Rc<DropRates> {
        Rc::clone(&self.rates)
    }
}

impl Subsystem for ExhaustionWatch {
    /// Time of a reading.
    type Event = Instant;
    const NAME: &'static str = "exhaustion watch";

    async fn next(&mut self) -> Instant {
        self.readings.tick().await.into_std()
    }

    async fn handle(&mut self, now: Instant) -> Outcome {
        let drops = self.engine.totals().drops;
        self.rates.record(now, drops);
        for (reason, packets) in self.reported.news(&drops, now) {
            let (reason, why) = (reason.name().to_owned(), reason.explanation().trim().to_owned());
            self.events.emit(EventKind::ResourceExhausted { reason, packets, why });
        }
        Outcome::Continue(())
    }
}

impl Reported {
    /// Returns the reasons to report, with the packets dropped since the last report. A reason is
    /// reported at most once in [`REPORT_INTERVAL`].
    fn news(&mut self, drops: &Drops, now: Instant) -> Vec<(DropReason, u64)> {
        let mut news = Vec::new();
        for (reason, count) in
            drops.iter().filter(|(reason, count)| reason.is_shortage() && *count != 0)
        {
            let before = self.0.get(&reason);
            let new = count - before.map_or(0, |report| report.count);
            if new != 0 && before.is_none_or(|report| now - report.at >= REPORT_INTERVAL) {
                news.push((reason, new));
                self.0.insert(reason, LastReport { count, at: now });
            }
        }
        news
    }
}

/// Time between two readings.
const INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two events with the same reason.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exhaustion_is_reported_at_once_and_then_once_a_minute_while_it_lasts() {
        let (mut reported, mut drops, start) =
            (Reported::default(), Drops::default(), Instant::now());
        assert_eq!(reported.news(&drops, start), []);
        drops.count(DropReason::TableFull, 7);
        drops.count(DropReason::NoMapping, 7);
        assert_eq!(reported.news(&drops, start), [(DropReason::TableFull, 7)]);
        drops.count(DropReason::TableFull, 5);
        assert_eq!(reported.news(&drops, start + Duration::from_secs(59)), []);
        drops.count(DropReason::PortsExhausted, 1);
        let at_once = reported.news(&drops, start + Duration::from_secs(59));
        assert_eq!(at_once, [(DropReason::PortsExhausted, 1)], "each reason has its own pause");
        assert_eq!(reported.news(&drops, start + REPORT_INTERVAL), [(DropReason::TableFull, 5)]);
        assert_eq!(reported.news(&drops, start + 3 * REPORT_INTERVAL), [], "nothing new");
    }
}
