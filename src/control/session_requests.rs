//! Requests about sessions, answered by threads of their own, because a request may walk a large
//! part of the table.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWrite;
use tokio::task::spawn_blocking;

use super::answer::{refusal, to_json, write};
use super::instance::Instance;
use super::sessions;
use crate::api::{
    EventKind, KilledSessions, SessionCount, SessionCursor, SessionGroup, SessionPage,
};
use crate::engine::Handle;
use crate::filter::FilterExpression;
use crate::nat::EndReason;

/// Answers [`crate::api::Request::Sessions`].
///
/// # Errors
/// What is wrong with the filter, or that the instance is stopping.
pub(super) async fn page(
    instance: &Instance,
    from: SessionCursor,
    filter: &str,
) -> Result<SessionPage, String> {
    let none = SessionPage { sessions: Vec::new(), next: None };
    answer(instance, filter, none, move |engine, filter| sessions::page(engine, from, filter)).await
}

/// Answers [`crate::api::Request::CountSessions`].
///
/// # Errors
/// As for [`page`].
pub(super) async fn count(
    instance: &Instance,
    from: SessionCursor,
    filter: &str,
    group_by: Option<SessionGroup>,
) -> Result<SessionCount, String> {
    let none = SessionCount { sessions: 0, groups: std::collections::BTreeMap::new(), next: None };
    let count = move |engine: &Handle, filter: &FilterExpression| {
        sessions::count(engine, from, filter, group_by)
    };
    answer(instance, filter, none, count).await
}

async fn answer<T: Send + 'static>(
    instance: &Instance,
    filter: &str,
    none: T,
    work: impl FnOnce(&Handle, &FilterExpression) -> T + Send + 'static,
) -> Result<T, String> {
    let Some(engine) = instance.engine() else { return Ok(none) };
    let filter = sessions::read_filter(&engine, filter)?;
    spawn_blocking(move || work(&engine, &filter)).await.map_err(|_| STOPPING.to_owned())
}

/// Answers [`crate::api::Request::KillSessions`]: ends sessions, and writes a line after each part
/// of the table.
///
/// # Errors
/// The client has closed the connection. The other sessions stay.
pub(super) async fn kill(
    instance: &Instance,
    filter: &str,
    max: Option<u64>,
    reason: EndReason,
    mut writer: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let complete = KilledSessions { ended: 0, complete: true };
    let Some(engine) = instance.engine() else {
        return write(&mut writer, to_json(&complete)).await;
    };
    let parsed = match sessions::read_filter(&engine, filter) {
        Ok(parsed) => parsed,
        Err(error) => return write(&mut writer, refusal(&error)).await,
    };
    let mut killing = Killing { instance, filter, ended: 0 };
    let mut next = Some(SessionCursor::default());
    while let Some(from) = next {
        // The workers send the notifications, a few with each batch.
        while engine.pending_notifications() >= sessions::MAX_QUEUED_NOTIFICATIONS {
            tokio::time::sleep(QUEUE_RETRY_INTERVAL).await;
        }
        let (engine, parsed) = (engine.clone(), parsed.clone());
        let left = max.unwrap_or(u64::MAX) - killing.ended;
        let part = spawn_blocking(move || sessions::end(&engine, from, &parsed, left, reason));
        let Ok(part) = part.await else { return write(&mut writer, refusal(&STOPPING)).await };
        killing.ended += part.ended;
        next = part.next;
        let progress = KilledSessions { ended: killing.ended, complete: next.is_none() };
        write(&mut writer, to_json(&progress)).await?;
    }
    Ok(())
}

/// The end of sessions by request. Reports their number when dropped, also if the client has closed
/// the connection.
struct Killing<'a> {
    instance: &'a Instance,
    filter: &'a str,
    ended: u64,
}

impl Drop for Killing<'_> {
    fn drop(&mut self) {
        if self.ended != 0 {
            let (filter, sessions) = (self.filter.to_owned(), self.ended);
            self.instance.events().emit(EventKind::SessionsKilled { filter, sessions });
        }
    }
}

/// Pause while many notifications wait.
const QUEUE_RETRY_INTERVAL: Duration = Duration::from_millis(1);
const STOPPING: &str = "the instance is stopping";
