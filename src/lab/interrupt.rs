//! Turns Ctrl-C and SIGTERM into a return value, so that owners clean up in order.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The arrival of a signal that asks the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by signal {number}")]
pub struct Interrupted {
    /// Number of the signal.
    pub number: u8,
}

/// Stores the first signal that asks the program to end. A clone is a handle to the same store.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<SignalState>);

#[derive(Debug, Default)]
struct SignalState {
    first: Mutex<Option<Interrupted>>,
    arrived: Condvar,
}

impl Interrupt {
    /// Makes SIGINT, SIGTERM and SIGHUP arrive here. They no longer end the process.
    ///
    /// # Errors
    /// The handlers cannot be installed, or the thread cannot be started.
    pub fn listen() -> io::Result<Interrupt> {
        let interrupt = Interrupt::default();
        let remembered = interrupt.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut signals = {
            let _context = runtime.enter();
            (
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            )
        };
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                loop {
                    remembered.note(next(&mut signals).await);
                }
            });
        })?;
        Ok(interrupt)
    }

    fn note(&self, kind: SignalKind) {
        // The numbers of these signals are below 16.
        let number = u8::try_from(kind.as_raw_value()).unwrap_or(u8::MAX);
        self.0.first.lock().get_or_insert(Interrupted { number });
        self.0.arrived.notify_all();
    }

    /// # Errors
    /// [`Interrupted`] if a signal has arrived.
    pub fn check(&self) -> Result<(), Interrupted> {
        self.0.first.lock().map_or(Ok(()), Err)
    }

    /// Waits for `time`, or until a signal arrives.
    ///
    /// # Errors
    /// [`Interrupted`] if a signal has arrived.
    pub fn pause(&self, time: Duration) -> Result<(), Interrupted> {
        let deadline = Instant::now() + time;
        let mut first = self.0.first.lock();
        while first.is_none() && !self.0.arrived.wait_until(&mut first, deadline).timed_out() {}
        first.map_or(Ok(()), Err)
    }
}

async fn next((interrupt, terminate, hangup): &mut (Signal, Signal, Signal)) -> SignalKind {
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hangup.recv() => SignalKind::hangup(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_when_a_signal_arrives_and_the_first_one_is_kept() {
        let interrupt = Interrupt::default();
        assert_eq!(interrupt.pause(Duration::from_millis(1)), Ok(()));
        let sender = interrupt.clone();
        let thread = thread::spawn(move || {
            sender.note(SignalKind::terminate());
            sender.note(SignalKind::interrupt());
        });
        assert_eq!(interrupt.pause(Duration::from_secs(60)), Err(Interrupted { number: 15 }));
        thread.join().unwrap();
        assert_eq!(interrupt.check(), Err(Interrupted { number: 15 }));
    }
}
