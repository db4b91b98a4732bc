//! The admin socket as a file: bound beside its final name, which it gets when the instance is
//! ready, or when the instance begins to wait for its interfaces.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::net::UnixListener;

use super::admin_access::AdminAccess;
use super::error::SocketError;
use crate::config::Admin;

/// A bound admin socket. Removes its file when dropped.
#[derive(Debug)]
pub(super) struct AdminSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Name of the socket until [`Self::publish`].
    hidden: Option<PathBuf>,
    pub(super) access: Rc<AdminAccess>,
}

impl AdminSocket {
    /// Binds the socket beside its final name. Replaces what a dead process left under either name.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub(super) fn bind(admin: &Admin) -> Result<Self, SocketError> {
        let (path, access) = (&admin.socket, Rc::new(AdminAccess::new(admin)?));
        let other = |source| SocketError::Other { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(other)?;
        }
        check_free(path)?;
        let mut hidden = path.as_os_str().to_owned();
        hidden.push(format!(".{}", std::process::id()));
        let hidden = PathBuf::from(hidden);
        // A dead process with this process's number may have left the file.
        let _ = std::fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).map_err(other)?;
        let socket = Self { listener, path: path.to_owned(), hidden: Some(hidden.clone()), access };
        let group = socket.access.group();
        if let Some(group) = group {
            std::os::unix::fs::chown(&hidden, None, Some(group)).map_err(other)?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(mode)).map_err(other)?;
        Ok(socket)
    }

    /// Gives the socket its final name, if it has not got it yet.
    ///
    /// # Errors
    /// Another process has taken the name since, or the system reports an error.
    pub(super) fn publish(&mut self) -> Result<(), SocketError> {
        if let Some(hidden) = &self.hidden {
            check_free(&self.path)?;
            std::fs::rename(hidden, &self.path)
                .map_err(|source| SocketError::Other { path: self.path.clone(), source })?;
            self.hidden = None;
            tracing::info!(socket = %self.path.display(), "admin socket ready");
        }
        Ok(())
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.hidden.as_ref().unwrap_or(&self.path));
    }
}

/// Checks that no living process has the name. The file of a dead process is replaced later, by the
/// rename.
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
