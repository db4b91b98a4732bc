//! New requests to the published server, at a constant rate.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::Result;
use natbox::lab::http::connect;

use super::testbed::{CLIENT, Testbed};

/// The requests of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Requests {
    pub asked: u64,
    pub answered: u64,
}

impl Requests {
    pub(crate) fn share(&self) -> f64 {
        self.answered as f64 / self.asked.max(1) as f64
    }
}

/// Opens a connection for each request until `stop` is set, and counts the right answers within
/// [`TIMEOUT`].
pub(crate) fn request(testbed: &Testbed, stop: &AtomicBool) -> Result<Requests> {
    let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let ask = || {
        while !stop.load(Relaxed) {
            let started = Instant::now();
            asked.fetch_add(1, Relaxed);
            let answer = connect(Some(CLIENT), testbed.web(), TIMEOUT)
                .and_then(|mut connection| connection.get("/"));
            let is_right = answer.is_ok_and(|answer| answer.text().trim() == CLIENT.to_string());
            answered.fetch_add(u64::from(is_right), Relaxed);
            std::thread::sleep(INTERVAL.saturating_sub(started.elapsed()));
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| testbed.client.enter(ask))).collect();
        clients.into_iter().try_for_each(|client| {
            client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })?;
    Ok(Requests { asked: asked.into_inner(), answered: answered.into_inner() })
}

/// Clients that ask at the same time.
const CLIENTS: usize = 4;
/// Time between two requests of one client.
const INTERVAL: Duration = Duration::from_millis(40);
/// Longest time for a connection, and longest time for its answer. A client's kernel repeats its
/// SYN after 1 s and after 3 s.
const TIMEOUT: Duration = Duration::from_secs(5);
