//! Sorted listings, in bounded memory.

use super::columns::Column;
use crate::api::SessionView;

/// The first sessions in the order of a column.
pub(super) struct FirstSessions {
    column: Column,
    reverse: bool,
    limit: usize,
    sessions: Vec<SessionView>,
    /// Sessions that were left out.
    left_out: u64,
}

impl FirstSessions {
    /// Makes an empty list of at most `limit` sessions.
    pub(super) fn new(column: Column, reverse: bool, limit: usize) -> Self {
        Self { column, reverse, limit, sessions: Vec::new(), left_out: 0 }
    }

    pub(super) fn add(&mut self, session: SessionView) {
        self.sessions.push(session);
        if self.sessions.len() >= 2 * self.limit.max(MIN_BATCH) {
            self.cut();
        }
    }

    /// Returns the sessions in their order, and the number of those beyond the limit.
    pub(super) fn finish(mut self) -> (Vec<SessionView>, u64) {
        self.cut();
        (self.sessions, self.left_out)
    }

    fn cut(&mut self) {
        let (column, reverse) = (self.column, self.reverse);
        self.sessions.sort_by(|first, second| {
            let order = column.compare(first, second);
            let order = if reverse { order.reverse() } else { order };
            order.then(first.id.cmp(&second.id))
        });
        self.left_out += self.sessions.len().saturating_sub(self.limit) as u64;
        self.sessions.truncate(self.limit);
    }
}

/// Fewest sessions that are sorted at a time.
const MIN_BATCH: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::testing::session;
    use super::*;

    #[test]
    fn the_first_sessions_are_those_of_a_full_sort() {
        let idles: Vec<u32> = (0..10_000u32).map(|number| number * 7919 % 10_007).collect();
        for (reverse, limit) in [(false, 5), (true, 5), (false, 3000), (true, 20_000)] {
            let mut first = FirstSessions::new(Column::Idle, reverse, limit);
            for idle_seconds in &idles {
                first.add(SessionView { idle_seconds: *idle_seconds, ..session() });
            }
            let (sessions, left_out) = first.finish();
            let found: Vec<u32> = sessions.iter().map(|session| session.idle_seconds).collect();
            let mut all = idles.clone();
            all.sort_unstable();
            if !reverse {
                all.reverse();
            }
            assert_eq!(left_out, idles.len().saturating_sub(limit) as u64);
            all.truncate(limit);
            assert_eq!(found, all);
        }
    }

    #[test]
    fn addresses_are_sorted_as_numbers() {
        let mut first = FirstSessions::new(Column::Client, false, 10);
        for client in ["10.0.0.10:5", "10.0.0.9:700", "10.0.0.9:80"] {
            first.add(SessionView { client: client.to_owned(), ..session() });
        }
        let (sessions, _) = first.finish();
        let clients: Vec<&str> = sessions.iter().map(|session| session.client.as_str()).collect();
        assert_eq!(clients, ["10.0.0.9:80", "10.0.0.9:700", "10.0.0.10:5"]);
    }
}
