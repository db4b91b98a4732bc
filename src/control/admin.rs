//! The subsystem that serves the admin socket: one JSON line in, one JSON line out (see
//! [`crate::api`]).
//!
//! `admin_socket` makes the socket, and `admin_access` decides who may do what.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::admin_access::{AdminAccess, Peer};
use super::admin_socket::AdminSocket;
use super::answer::{answer, refusal, to_json, write};
use super::error::SocketError;
use super::instance::Instance;
use super::packet_view::Visible;
use super::subsystem::{Outcome, Subsystem};
use super::{session_events, session_requests, sessions, trace};
use crate::api::{Access, MAX_REQUEST, Request};
use crate::engine::Trace;
use crate::filter::FilterExpression;
use crate::nat::EndReason;

/// Serves the admin socket, each connection in a task of its own.
pub(super) struct AdminServer {
    socket: AdminSocket,
    instance: Rc<Instance>,
    /// The sockets of reloads.
    replacements: mpsc::UnboundedReceiver<AdminSocket>,
    replacer: mpsc::UnboundedSender<AdminSocket>,
}

/// Event that the admin server waits for.
pub(super) enum AdminEvent {
    /// A client has connected.
    Connected(io::Result<UnixStream>),
    /// A reload has changed the path.
    Replaced(AdminSocket),
}

impl AdminServer {
    pub(super) fn new(socket: AdminSocket, instance: Rc<Instance>) -> Self {
        let (replacer, replacements) = mpsc::unbounded_channel();
        Self { socket, instance, replacements, replacer }
    }

    /// Returns what replaces the socket by another one. Connections go on.
    pub(super) fn replacer(&self) -> mpsc::UnboundedSender<AdminSocket> {
        self.replacer.clone()
    }

    /// Gives the socket its final name: the instance is ready, or waits.
    ///
    /// # Errors
    /// See [`AdminSocket::publish`].
    pub(super) fn publish(&mut self) -> Result<(), SocketError> {
        self.socket.publish()
    }
}

impl Subsystem for AdminServer {
    type Event = AdminEvent;
    const NAME: &'static str = "admin socket";

    async fn next(&mut self) -> Self::Event {
        tokio::select! {
            accepted = self.socket.listener.accept() => {
                AdminEvent::Connected(accepted.map(|(stream, _)| stream))
            }
            Some(socket) = self.replacements.recv() => AdminEvent::Replaced(socket),
        }
    }

    async fn handle(&mut self, event: Self::Event) -> Outcome {
        match event {
            AdminEvent::Replaced(mut socket) => match socket.publish() {
                Ok(()) => self.socket = socket,
                Err(error) => {
                    tracing::error!(%error, "admin socket: the old path stays");
                }
            },
            AdminEvent::Connected(Ok(stream)) => {
                let (instance, access) =
                    (Rc::clone(&self.instance), Rc::clone(&self.socket.access));
                tokio::task::spawn_local(async move {
                    if let Err(error) = converse(stream, &instance, &access).await {
                        tracing::debug!(%error, "admin connection ended");
                    }
                });
            }
            AdminEvent::Connected(Err(error)) => {
                // Most likely the process has no descriptors left. Some are free again after a
                // pause.
                tracing::warn!(%error, "admin socket: a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
        Outcome::Continue(())
    }
}

async fn converse(stream: UnixStream, instance: &Instance, access: &AdminAccess) -> io::Result<()> {
    let peer = Peer::of(&stream)?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let answer = match next_line(&mut reader).await? {
            RequestLine::End => return Ok(()),
            RequestLine::TooLong => {
                return write(&mut writer, refusal(&"the request is too long")).await;
            }
            RequestLine::Whole(line) => match permitted(&line, access, &peer) {
                Ok(Request::Status) => to_json(&instance.status()),
                Ok(Request::Sessions { from, filter }) => {
                    answer(session_requests::page(instance, from, &filter).await)
                }
                Ok(Request::CountSessions { from, filter, group_by }) => {
                    answer(session_requests::count(instance, from, &filter, group_by).await)
                }
                Ok(Request::SessionEvents { filter }) => {
                    return session_events::follow(reader, writer, instance, &filter).await;
                }
                Ok(Request::KillSessions { filter, max, silent }) => {
                    let reason =
                        if silent { EndReason::RequestedSilently } else { EndReason::Requested };
                    return session_requests::kill(instance, &filter, max, reason, writer).await;
                }
                Ok(Request::EffectiveConfig) => to_json(&instance.effective_config()),
                Ok(Request::Events { follow }) => {
                    return write_events(reader, writer, instance, follow).await;
                }
                Ok(Request::Drops { filter }) => answer(
                    read_filter(instance, &filter)
                        .map(|filter| instance.drops(&filter, visible(access, &peer))),
                ),
                Ok(Request::Explain { packet, length }) => {
                    answer(instance.explain(&packet, length))
                }
                Ok(Request::Trace { filter }) => match begin_trace(instance, &filter) {
                    Ok(trace) => return trace::stream(reader, writer, trace).await,
                    Err(error) => refusal(&error),
                },
                Ok(Request::Reload) => answer(instance.reload(None).await),
                Ok(Request::ReloadUnconfirmed { confirm_seconds }) => {
                    answer(instance.reload(Some(confirm_seconds)).await)
                }
                Ok(Request::Confirm) => answer(instance.confirm().await),
                Ok(Request::RevertReload) => answer(instance.cancel_reload().await),
                Ok(Request::Difference) => answer(instance.difference().await),
                Err(error) => refusal(&error),
            },
        };
        write(&mut writer, answer).await?;
    }
}

/// Reads a filter. What it names must exist, as far as the instance knows names already.
fn read_filter(instance: &Instance, text: &str) -> Result<FilterExpression, String> {
    match instance.engine() {
        Some(engine) => sessions::read_filter(&engine, text),
        None => text.parse().map_err(|error| format!("{error}")),
    }
}

fn begin_trace(instance: &Instance, filter: &str) -> Result<Trace, String> {
    let filter = read_filter(instance, filter)?;
    instance.trace(filter).map_err(|error| error.to_string())
}

/// Returns how much of a packet a user may see.
fn visible(access: &AdminAccess, peer: &Peer) -> Visible {
    match access.check(peer, Access::Change) {
        Ok(()) => Visible::Everything,
        Err(_) => Visible::Headers,
    }
}

/// Reads a request, and checks that the user may make it.
fn permitted(line: &[u8], access: &AdminAccess, peer: &Peer) -> Result<Request, String> {
    // Other users learn nothing, not even what a request is.
    access.check(peer, Access::Read).map_err(|error| error.to_string())?;
    let request = Request::from_json(line).map_err(|error| error.to_string())?;
    access.check(peer, request.access()).map_err(|error| error.to_string())?;
    Ok(request)
}

/// The next line of a connection.
#[derive(Debug)]
pub(super) enum RequestLine {
    /// The client has closed the connection.
    End,
    /// The line is longer than a request can be.
    TooLong,
    /// The bytes of the line. The last line of a connection may lack its line end.
    Whole(Vec<u8>),
}

/// Reads the next line, but no more than [`MAX_REQUEST`] bytes.
pub(super) async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<RequestLine> {
    let mut line = Vec::new();
    let read = reader.take(MAX_REQUEST).read_until(b'\n', &mut line).await?;
    Ok(match line.last() {
        None => RequestLine::End,
        Some(last) if read as u64 == MAX_REQUEST && *last != b'\n' => RequestLine::TooLong,
        Some(_) => RequestLine::Whole(line),
    })
}

/// Writes the recent events. With `follow`, writes new events until either end closes the
/// connection.
async fn write_events(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    instance: &Instance,
    follow: bool,
) -> io::Result<()> {
    let (recent, mut follower) = instance.events().follow();
    for event in &recent {
        write(&mut writer, to_json(event)).await?;
    }
    if !follow {
        return Ok(());
    }
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            event = follower.next() => match event {
                Some(event) => write(&mut writer, to_json(&event)).await?,
                None => return Ok(()),
            },
            read = reader.read(&mut ignored) => if read? == 0 {
                return Ok(());
            },
        }
    }
}

/// Pause after a failed accept.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
