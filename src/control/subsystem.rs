//! The contract of everything that runs beside the packets, and the one loop that runs it.
//!
//! ```text
//!   start ─▶ supervise: next ─▶ handle ─▶ next ─▶ ... ─▶ stop, within its deadline
//!                       changed, after each change of the uplinks
//! ```
//!
//! Each subsystem has a task of its own on the control thread. Subsystems stop in the reverse order
//! of their start, one after the other. A new subsystem needs one call of [`Subsystems::start`].

use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::error::RunError;
use crate::uplinks::{UplinkStates, Uplinks};

/// Consequence of an event: the instance continues, or ends with a result.
pub(super) type Outcome = ControlFlow<Result<(), RunError>>;

/// A part of the instance that runs beside the packets. Its methods run one at a time.
pub(super) trait Subsystem: 'static {
    /// Event that the subsystem waits for.
    type Event;

    /// Name in messages.
    const NAME: &'static str;
    /// Time that [`Subsystem::stop`] may take, including the event that is being handled.
    const STOP_DEADLINE: Duration = Duration::from_secs(2);
    /// Consequence if [`Subsystem::stop`] does not finish in time, as text for the log.
    const IF_LATE: &'static str = "the process ends without it";

    /// Waits for the next event. Must be cancel safe.
    async fn next(&mut self) -> Self::Event;

    /// Handles an event completely.
    async fn handle(&mut self, event: Self::Event) -> Outcome;

    /// Adapts to changed uplinks.
    fn changed(&mut self, _states: &UplinkStates) {}

    /// Ends the subsystem and undoes what it did.
    async fn stop(self)
    where
        Self: Sized,
    {
    }
}

/// The running subsystems.
pub(super) struct Subsystems {
    uplinks: Rc<Uplinks>,
    running: Vec<Running>,
    end: mpsc::UnboundedSender<Result<(), RunError>>,
    ends: mpsc::UnboundedReceiver<Result<(), RunError>>,
}

struct Running {
    name: &'static str,
    deadline: Duration,
    if_late: &'static str,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Subsystems {
    /// Makes an empty set whose members follow `uplinks`.
    pub(super) fn new(uplinks: Rc<Uplinks>) -> Self {
        let (end, ends) = mpsc::unbounded_channel();
        Self { uplinks, running: Vec::new(), end, ends }
    }

    /// Starts a subsystem. Must run in a `LocalSet`.
    pub(super) fn start<S: Subsystem>(&mut self, subsystem: S) {
        let (stop, stopped) = oneshot::channel();
        let (states, end) = (self.uplinks.watch(), self.end.clone());
        let task = tokio::task::spawn_local(supervise(subsystem, states, end, stopped));
        let (name, deadline, if_late) = (S::NAME, S::STOP_DEADLINE, S::IF_LATE);
        self.running.push(Running { name, deadline, if_late, stop, task });
    }

    /// Waits until a subsystem ends the instance. Returns the result of the instance.
    pub(super) async fn ended(&mut self) -> Result<(), RunError> {
        self.ends.recv().await.expect("the set holds a sender")
    }

    /// Stops all subsystems, the last one first.
    pub(super) async fn stop(self) {
        for Running { name, deadline, if_late, stop, mut task } in self.running.into_iter().rev() {
            // Fails only when the task has panicked, which the await reports.
            let _ = stop.send(());
            match tokio::time::timeout(deadline, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "{name}: failed while stopping"),
                Err(_) => {
                    tracing::error!("{name}: not stopped within {deadline:?}; {if_late}");
                    task.abort();
                }
            }
        }
    }
}

async fn supervise<S: Subsystem>(
    mut subsystem: S,
    mut states: watch::Receiver<UplinkStates>,
    end: mpsc::UnboundedSender<Result<(), RunError>>,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            event = subsystem.next() => {
                if let ControlFlow::Break(result) = subsystem.handle(event).await {
                    // Fails only when the instance ends already.
                    let _ = end.send(result);
                    // The subsystem handles no further event.
                    let _ = (&mut stopped).await;
                    break;
                }
            }
            Ok(()) = states.changed() => {
                let now = states.borrow_and_update().clone();
                subsystem.changed(&now);
            }
            _ = &mut stopped => break,
        }
    }
    subsystem.stop().await;
}

#[cfg(test)]
mod tests;
