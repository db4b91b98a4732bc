//! Changing the translator while packets flow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::nat::Translator;

/// Puts `new` to work and waits until no worker uses the one before, so that nothing more happens by its rules; returns
/// that one. A worker is in the middle of a batch for some microseconds.
pub fn swap_policy(nat: &ArcSwap<Translator>, new: Arc<Translator>) -> Arc<Translator> {
    let before = nat.swap(new);
    let deadline = Instant::now() + PATIENCE;
    while Arc::strong_count(&before) > 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(100));
    }
    before
}

/// A worker that does not end its batch by then is dead, and the process with it.
const PATIENCE: Duration = Duration::from_secs(1);
