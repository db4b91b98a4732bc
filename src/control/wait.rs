//! The time before the start: the instance waits until packets can pass from the inside to at least
//! one uplink.
//!
//! At boot, natbox may start before its interfaces exist. It then changes nothing on the host. The
//! admin socket answers, signals end the wait, and a reload can name other interfaces. The process
//! still has the privileges for the rest of the start.

use super::admin::AdminServer;
use super::error::RunError;
use super::signals::{SignalAction, SignalStreams};
use super::subsystem::Subsystem;
use super::waiting::WaitingInstance;
use crate::api::EventKind;
use crate::config::Config;
use crate::host::{self, LinkWatch};

/// Waits until the interfaces exist and are up. Returns the configuration to start with, or None
/// after a signal that ends the instance. If there is nothing to wait for, returns at once and
/// without an event.
///
/// # Errors
/// The kernel does not answer, another natbox uses an interface, or the admin socket cannot get its
/// name.
pub(super) async fn until_interfaces_are_up(
    waiting: &WaitingInstance,
    signals: &mut SignalStreams,
    admin: &mut AdminServer,
) -> Result<Option<Config>, RunError> {
    if waiting.check().await? {
        return Ok(Some(waiting.config()));
    }
    let config = waiting.config();
    host::restore_after_dead(&config, config.state.keep).await?;
    admin.publish()?;
    // The watch begins before the next look, so that no change is lost.
    let mut links = LinkWatch::start(&waiting.config()).await?;
    while !waiting.check().await? {
        match next(waiting, signals, admin, &mut links).await {
            WaitEvent::Signal(SignalAction::Stop(name)) => {
                waiting.events().emit(EventKind::Stopping { signal: name.to_owned() });
                return Ok(None);
            }
            WaitEvent::Signal(SignalAction::Reload) => {
                // The result is in the log.
                let _ = waiting.confirmation().reload(waiting).await;
            }
            WaitEvent::Signal(SignalAction::LogCounters) => {
                let missing = waiting.missing().join("; ");
                tracing::info!(missing, "status: waiting");
            }
            WaitEvent::Due => {
                let expired = waiting.confirmation().expire(waiting).await;
                expired.map_err(|error| RunError::GoBack(error.to_string()))?;
            }
            WaitEvent::Interfaces => {}
            WaitEvent::Reloaded => links = LinkWatch::start(&waiting.config()).await?,
        }
    }
    Ok(Some(waiting.config()))
}

/// Reason to look at the interfaces again, or to stop.
enum WaitEvent {
    Signal(SignalAction),
    Interfaces,
    Reloaded,
    /// The time for the confirmation of a reload has passed.
    Due,
}

/// Waits for a change, and serves the admin socket meanwhile.
async fn next(
    waiting: &WaitingInstance,
    signals: &mut SignalStreams,
    admin: &mut AdminServer,
    links: &mut LinkWatch,
) -> WaitEvent {
    loop {
        let connection = tokio::select! {
            action = signals.next() => return WaitEvent::Signal(action),
            _ = links.next() => return WaitEvent::Interfaces,
            () = waiting.reloaded() => return WaitEvent::Reloaded,
            event = due_or_connection(waiting, admin) => match event {
                Some(connection) => connection,
                None => return WaitEvent::Due,
            },
        };
        // A connection does not end the wait.
        let _ = admin.handle(connection).await;
    }
}

/// Waits for a client; None: the time for the confirmation of a reload has passed.
async fn due_or_connection(
    waiting: &WaitingInstance,
    admin: &mut AdminServer,
) -> Option<<AdminServer as Subsystem>::Event> {
    tokio::select! {
        connection = admin.next() => Some(connection),
        () = waiting.confirmation().due() => None,
    }
}
