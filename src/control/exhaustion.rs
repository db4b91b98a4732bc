//! Tells when something ran out, once in a while and not for every packet (RFC 6888 REQ-11).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::nat::{DropReason, Drops};

use super::events::Events;
use crate::api::EventKind;

/// What was told, and when.
#[derive(Default)]
pub(super) struct ExhaustionWatch {
    told: HashMap<DropReason, Reported>,
}

struct Reported {
    count: u64,
    at: Instant,
}

impl ExhaustionWatch {
    /// Looks at the drops so far. What has grown since it was told last is told, at most once in [`PAUSE`] for each reason.
    pub(super) fn check(&mut self, drops: &Drops, now: Instant, events: &Events) {
        for (reason, packets) in self.news(drops, now) {
            let (reason, why) = (reason.name().to_owned(), reason.explanation().trim().to_owned());
            events.emit(EventKind::ResourceExhausted { reason, packets, why });
        }
    }

    /// The reasons to tell, with the packets dropped since they were told last.
    fn news(&mut self, drops: &Drops, now: Instant) -> Vec<(DropReason, u64)> {
        let mut news = Vec::new();
        for (reason, count) in
            drops.iter().filter(|(reason, count)| reason.is_shortage() && *count != 0)
        {
            let before = self.told.get(&reason);
            let new = count - before.map_or(0, |told| told.count);
            if new != 0 && before.is_none_or(|told| now - told.at >= PAUSE) {
                news.push((reason, new));
                self.told.insert(reason, Reported { count, at: now });
            }
        }
        news
    }
}

/// How often to look.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two lines about the same reason.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_told_at_once_and_then_once_a_minute_while_it_lasts() {
        let (mut exhaustion, mut drops, start) =
            (ExhaustionWatch::default(), Drops::default(), Instant::now());
        assert_eq!(exhaustion.news(&drops, start), []);
        drops.count(DropReason::TableFull, 7);
        drops.count(DropReason::NoMapping, 7);
        assert_eq!(exhaustion.news(&drops, start), [(DropReason::TableFull, 7)]);
        drops.count(DropReason::TableFull, 5);
        assert_eq!(exhaustion.news(&drops, start + Duration::from_secs(59)), []);
        drops.count(DropReason::PortsExhausted, 1);
        let at_once = exhaustion.news(&drops, start + Duration::from_secs(59));
        assert_eq!(at_once, [(DropReason::PortsExhausted, 1)], "each reason for itself");
        assert_eq!(exhaustion.news(&drops, start + PAUSE), [(DropReason::TableFull, 5)]);
        assert_eq!(exhaustion.news(&drops, start + 3 * PAUSE), [], "nothing new");
    }
}
