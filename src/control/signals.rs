//! The subsystem that handles signals.
//!
//! TERM and INT stop the instance, HUP reloads the configuration, and USR1 logs the counters. So a
//! closing terminal, which sends HUP, does not end natbox.

use std::rc::Rc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::RunError;
use super::status::InstanceHandle;
use super::subsystem::{Outcome, Subsystem};
use crate::api::EventKind;

/// Signals that natbox handles. Signals that arrive before the subsystem starts are not lost.
pub(super) struct SignalStreams {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    report: Signal,
}

/// Action of a signal.
pub(super) enum SignalAction {
    Stop(&'static str),
    LogCounters,
    Reload,
}

impl SignalStreams {
    /// Installs the handlers.
    ///
    /// # Errors
    /// A handler cannot be installed.
    pub(super) fn new() -> Result<Self, RunError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|source| RunError::System { doing: "listening for signals", source })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
            report: listen(SignalKind::user_defined1())?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> SignalAction {
        let Self { terminate, interrupt, hang_up, report } = self;
        tokio::select! {
            _ = terminate.recv() => SignalAction::Stop("TERM"),
            _ = interrupt.recv() => SignalAction::Stop("INT"),
            _ = report.recv() => SignalAction::LogCounters,
            _ = hang_up.recv() => SignalAction::Reload,
        }
    }
}

/// Handles signals.
pub(super) struct Signals {
    streams: SignalStreams,
    instance: Rc<InstanceHandle>,
}

impl Signals {
    pub(super) fn new(streams: SignalStreams, instance: Rc<InstanceHandle>) -> Self {
        Self { streams, instance }
    }
}

impl Subsystem for Signals {
    type Event = SignalAction;
    const NAME: &'static str = "signals";

    async fn next(&mut self) -> SignalAction {
        self.streams.next().await
    }

    async fn handle(&mut self, action: SignalAction) -> Outcome {
        match action {
            SignalAction::Stop(name) => {
                self.instance.events.emit(EventKind::Stopping { signal: name.to_owned() });
                return Outcome::Break(Ok(()));
            }
            SignalAction::LogCounters => self.instance.log_counters(),
            SignalAction::Reload => {
                let instance = Rc::clone(&self.instance);
                // In a task of its own, so that a stop does not wait. The result is in the log.
                tokio::task::spawn_local(async move {
                    let reloader = &*instance.reloader;
                    let _ = reloader.confirmation().reload(reloader).await;
                });
            }
        }
        Outcome::Continue(())
    }
}
