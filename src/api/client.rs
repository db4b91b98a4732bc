//! A client of the admin socket.

use std::io::{self, BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::request::{Refusal, Request};
use crate::config::{Admin, wanted_instance_name};

/// Reason why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No instance answers on a socket of the default directory.
    #[error(
        "no natbox is running: no socket in {directory} answers; name the socket with --socket PATH"
    )]
    NoneRunning {
        /// The default directory.
        directory: PathBuf,
    },
    /// Several instances run.
    #[error(
        "several instances are running ({names}); choose one with --name NAME or --socket PATH"
    )]
    Several {
        /// Names of the instances.
        names: String,
    },
    /// No instance can have the name.
    #[error("--name: found `{name}`, wanted {wanted}; natbox status names the running instance")]
    NoName {
        /// The name.
        name: String,
        /// Description of the names that instances can have.
        wanted: String,
    },
    /// No instance answers on the socket.
    #[error(
        "{path}: no natbox answers ({source}); start the instance, or run this command as root \
         or as a member of its admin.group"
    )]
    Silent {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The answer does not have the form that this version expects.
    #[error("{path}: unexpected answer ({detail}); use the natbox command of the running version")]
    Strange {
        /// The socket.
        path: PathBuf,
        /// Description of the mismatch.
        detail: String,
    },
    /// The instance rejected the request.
    #[error("the instance rejected the request: {0}")]
    Refused(String),
}

/// Finds the socket of an instance: by path, by name, or as the only instance that runs.
///
/// # Errors
/// [`ClientError::NoneRunning`] or [`ClientError::Several`] when neither path nor name is given;
/// [`ClientError::NoName`] when no instance can have the name.
pub fn find(socket: Option<&Path>, name: Option<&str>) -> Result<PathBuf, ClientError> {
    if let Some(socket) = socket {
        return Ok(socket.to_owned());
    }
    if let Some(name) = name {
        // A name with a slash would lead to a socket of another directory.
        return match wanted_instance_name(name) {
            Some(wanted) => {
                Err(ClientError::NoName { name: name.escape_debug().to_string(), wanted })
            }
            None => Ok(Admin::default_socket(name)),
        };
    }
    let any = Admin::default_socket("any");
    let directory = any.parent().unwrap_or(Path::new("/")).to_owned();
    let entries =
        std::fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut running: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .filter(|path| UnixStream::connect(path).is_ok())
        .collect();
    running.sort();
    match running.len() {
        0 => Err(ClientError::NoneRunning { directory }),
        1 => Ok(running.remove(0)),
        _ => {
            let names = running.iter().filter_map(|path| path.file_stem()?.to_str());
            Err(ClientError::Several { names: names.collect::<Vec<_>>().join(", ") })
        }
    }
}

/// Sends a request to the instance behind a socket and reads its answer.
///
/// # Errors
/// See [`ClientError`].
pub fn request<Answer: DeserializeOwned>(
    socket: &Path,
    request: &Request,
) -> Result<Answer, ClientError> {
    let line = exchange(socket, request)
        .map_err(|source| ClientError::Silent { path: socket.to_owned(), source })?;
    read(socket, &line)
}

/// Sends a request whose answer has many lines. Calls `take` for each line until `take` breaks or
/// the instance ends.
///
/// # Errors
/// See [`ClientError`].
pub fn follow<Answer: DeserializeOwned, Break>(
    socket: &Path,
    request: &Request,
    mut take: impl FnMut(Answer) -> ControlFlow<Break>,
) -> Result<ControlFlow<Break>, ClientError> {
    let silent = |source| ClientError::Silent { path: socket.to_owned(), source };
    let mut reader = send(socket, request).map_err(silent)?;
    // No timeout: the next event can be days away.
    reader.get_ref().set_read_timeout(None).map_err(silent)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).map_err(silent)? == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        if let broken @ ControlFlow::Break(_) = take(read(socket, &line)?) {
            return Ok(broken);
        }
    }
}

fn send(socket: &Path, request: &Request) -> io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket)?;
    let patience = if request.takes_long() { LONG_TIMEOUT } else { TIMEOUT };
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut line = request.to_json();
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    Ok(BufReader::new(stream))
}

fn exchange(socket: &Path, request: &Request) -> io::Result<String> {
    let mut answer = String::new();
    send(socket, request)?.read_line(&mut answer)?;
    Ok(answer)
}

fn read<Answer: DeserializeOwned>(socket: &Path, line: &str) -> Result<Answer, ClientError> {
    if let Ok(Refusal { error }) = serde_json::from_str(line) {
        return Err(ClientError::Refused(error));
    }
    serde_json::from_str(line).map_err(|error| ClientError::Strange {
        path: socket.to_owned(),
        detail: error.to_string(),
    })
}

const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer after a walk through all sessions.
const LONG_TIMEOUT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Event, EventKind};

    #[test]
    fn a_failed_reload_is_an_event_and_no_refusal() {
        let socket = Path::new("natbox.sock");
        let line = r#"{"at":"2026-01-01T00:00:00Z","event":"reload-failed","error":"no such key"}"#;
        let event: Event = read(socket, line).expect("an event");
        assert!(matches!(event.kind, EventKind::ReloadFailed { error } if error == "no such key"));
        let refused = read::<Event>(socket, r#"{"error":"not a request"}"#);
        assert!(matches!(refused, Err(ClientError::Refused(error)) if error == "not a request"));
    }
}
