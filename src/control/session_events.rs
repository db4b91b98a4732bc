//! Changes of sessions, sent to a client of the admin socket as they happen.

use std::io;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::mpsc;

use super::answer::{refusal, to_json, write};
use super::instance::Instance;
use super::sessions::{self, Described};
use crate::api::{SessionChangeKind, SessionChanged};
use crate::engine::Handle;
use crate::filter::FilterExpression;
use crate::nat::{SessionChange, SessionEvent};

/// Answers [`crate::api::Request::SessionEvents`] until either end closes the connection.
///
/// # Errors
/// The client has closed the connection.
pub(super) async fn follow(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    instance: &Instance,
    filter: &str,
) -> io::Result<()> {
    let Some(engine) = instance.engine() else {
        return write(&mut writer, refusal(&"the instance waits for its interfaces")).await;
    };
    let filter = match sessions::read_filter(&engine, filter) {
        Ok(filter) => filter,
        Err(error) => return write(&mut writer, refusal(&error)).await,
    };
    let (lines, mut received) = mpsc::channel(MAX_LINES);
    tokio::task::spawn_blocking(move || describe_changes(&engine, &filter, &lines));
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            line = received.recv() => match line {
                Some(line) => write(&mut writer, line).await?,
                None => return Ok(()),
            },
            read = reader.read(&mut ignored) => if read? == 0 {
                return Ok(());
            },
        }
    }
}

/// Describes the changes until the reader of the lines is gone.
fn describe_changes(engine: &Handle, filter: &FilterExpression, lines: &mpsc::Sender<Vec<u8>>) {
    let changes = engine.subscribe(MAX_CHANGES);
    let mut said = 0;
    while !lines.is_closed() {
        let Some(change) = changes.next_within(LOOK_INTERVAL) else { continue };
        let lost = changes.lost();
        if lost != said {
            let change = SessionChangeKind::Lost { events: lost - said };
            let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            let _ = lines.blocking_send(to_json(&SessionChanged { at, change }));
            said = lost;
        }
        if let Some(change) = described(engine, filter, &change) {
            let _ = lines.blocking_send(to_json(&change));
        }
    }
}

/// Describes a change of a session that matches.
fn described(
    engine: &Handle,
    filter: &FilterExpression,
    event: &SessionEvent,
) -> Option<SessionChanged> {
    let listing = engine.listing();
    let described = Described::new(&listing);
    if !filter.matches(&described.subject(&event.session)) {
        return None;
    }
    let session = described.view(&event.session);
    let change = match event.change {
        SessionChange::Opened => SessionChangeKind::Opened { session },
        SessionChange::Established => SessionChangeKind::Established { session },
        SessionChange::Ended(reason) => {
            SessionChangeKind::Ended { reason: reason.name().to_owned(), session }
        }
    };
    let passed = Duration::from_millis(described.now().since(event.at).0.into());
    let at = humantime::format_rfc3339_millis(SystemTime::now() - passed).to_string();
    Some(SessionChanged { at, change })
}

/// Changes that wait to be described. A worker that finds no place loses the change and counts it.
const MAX_CHANGES: usize = 65_536;
/// Lines that wait for the client.
const MAX_LINES: usize = 1024;
/// Interval of the looks whether the client is gone.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
