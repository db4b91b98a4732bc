//! The admin socket of a running instance: serves the requests of [`crate::api`].
//!
//! The socket gets its name when the instance is ready. Only root and its group may connect.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::status::InstanceHandle;
use crate::api::{MAX_REQUEST, Refusal, Request};

/// Why the socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers on it.
    #[error(
        "admin.socket: {path} is in use by another natbox; stop that one, or give this box a name or an \
         admin.socket of its own"
    )]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket has the name.
    #[error("admin.socket: {path} exists and is not a socket; remove it, or choose another path")]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error(
        "admin.socket: cannot make {path}: {source}; its directory must be writable for natbox's user, \
         who has no privilege over the files of others (run it as root)"
    )]
    Other {
        /// The socket or its directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A bound admin socket, not yet under its final name.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    hidden: Option<PathBuf>,
}

impl AdminSocket {
    /// Binds the socket beside its final name. What a dead process left under either name is replaced.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let other = |source| SocketError::Other { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(other)?;
        }
        check_free(path)?;
        let mut hidden = path.as_os_str().to_owned();
        hidden.push(format!(".{}", std::process::id()));
        let hidden = PathBuf::from(hidden);
        // A process with our number died here once.
        let _ = std::fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).map_err(other)?;
        let server = Self { listener, path: path.to_owned(), hidden: Some(hidden.clone()) };
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o660)).map_err(other)?;
        Ok(server)
    }

    /// Gives the socket its name: the box is ready.
    ///
    /// # Errors
    /// When somebody took the name in the meantime, or the system refuses.
    pub fn publish(&mut self) -> Result<(), SocketError> {
        check_free(&self.path)?;
        if let Some(hidden) = &self.hidden {
            std::fs::rename(hidden, &self.path)
                .map_err(|source| SocketError::Other { path: self.path.clone(), source })?;
            self.hidden = None;
        }
        Ok(())
    }

    /// Serves one connection after the other, each in a task of its own. Never returns; must run in a `LocalSet`.
    pub(super) async fn serve(&self, source: Rc<InstanceHandle>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let source = Rc::clone(&source);
                    tokio::task::spawn_local(async move {
                        if let Err(error) = converse(stream, &source).await {
                            tracing::debug!(%error, "admin connection ended");
                        }
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: waiting helps, spinning does not.
                    tracing::warn!(%error, "admin socket cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.hidden.as_ref().unwrap_or(&self.path));
    }
}

/// A socket file that nobody answers on is a dead process's; it is replaced by the rename later.
fn check_free(path: &Path) -> Result<(), SocketError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SocketError::Other { path: path.to_owned(), source }),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(SocketError::NotASocket { path: path.to_owned() })
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Ok(_) => Err(SocketError::Taken { path: path.to_owned() }),
            Err(source) => Err(SocketError::Other { path: path.to_owned(), source }),
        },
    }
}

async fn converse(stream: UnixStream, source: &InstanceHandle) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_REQUEST).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        if read as u64 == MAX_REQUEST && line.last() != Some(&b'\n') {
            return write(&mut writer, refusal(&"the request is too long")).await;
        }
        let answer = match Request::from_json(&line) {
            Ok(Request::Status) => to_json(&source.status()),
            Ok(Request::Sessions { from }) => to_json(&source.sessions(from)),
            Ok(Request::EffectiveConfig) => to_json(&source.effective_config()),
            Ok(Request::Events { follow }) => {
                return tell_events(reader, writer, source, follow).await;
            }
            Ok(Request::Reload) => match source.reloader.reload() {
                Ok(reloaded) => to_json(&reloaded),
                Err(error) => refusal(&error),
            },
            Err(error) => refusal(&error),
        };
        write(&mut writer, answer).await?;
    }
}

/// Writes what happened, and then what happens until either end has enough.
async fn tell_events(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    source: &InstanceHandle,
    follow: bool,
) -> io::Result<()> {
    let (past, mut follower) = source.events.follow();
    for event in &past {
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

async fn write(writer: &mut (impl AsyncWrite + Unpin), mut answer: Vec<u8>) -> io::Result<()> {
    answer.push(b'\n');
    writer.write_all(&answer).await
}

fn refusal(error: &dyn std::fmt::Display) -> Vec<u8> {
    to_json(&Refusal { error: error.to_string() })
}

fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain structs with string keys always serialise")
}
