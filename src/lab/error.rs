//! The errors of a lab.

use std::io;
use std::path::{Path, PathBuf};

/// An error while a lab is built.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The process is not root.
    #[error("network namespaces need root: run this as root (found user id {uid})")]
    NotRoot {
        /// Effective user id.
        uid: u32,
    },
    /// The TUN device is missing.
    #[error(
        "/dev/net/tun cannot be opened: load the `tun` module (modprobe tun), or give the container the device"
    )]
    NoTun {
        /// Cause.
        source: io::Error,
    },
    /// A program is missing.
    #[error("`{program}` cannot be started: install {package}")]
    NoProgram {
        /// Name of the program.
        program: String,
        /// Debian package of the program.
        package: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed ({status}): {message}")]
    Command {
        /// Command line.
        command: String,
        /// Exit status.
        status: String,
        /// Text on standard error.
        message: String,
    },
    /// A file could not be read, written or made.
    #[error("cannot {action} {}", path.display())]
    File {
        /// Verb: read, write, make.
        action: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A system call failed for which no file or command can be named.
    #[error("cannot {action}")]
    System {
        /// Verb and object.
        action: String,
        /// Cause.
        source: io::Error,
    },
}

impl LabError {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LabError {
        move |source| LabError::File { action, path: path.to_owned(), source }
    }

    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        move |source| LabError::System { action: action.into(), source }
    }
}
