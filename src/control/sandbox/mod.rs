//! Drops privileges before the first packet, and shows which ones are left.
//!
//! | thread | capabilities | system calls | files |
//! |---|---|---|---|
//! | control | CAP_NET_ADMIN; none after the start with `host.manage: false` | all but a deny-list | an allow-list (Landlock) |
//! | workers | none | an allow-list: no file, no socket, no program, no thread | as above |
//! | log writer | none | all but a deny-list | none |
//! | all others | none | all but a deny-list | as the control thread |
//!
//! The kernel keeps all three for each thread. A new thread inherits those of the thread that
//! starts it. natbox drops privileges for good: not even a program that an attacker could make the
//! process run would have them again (`no_new_privs`).
//!
//! | file | content |
//! |---|---|
//! | `capabilities` | drops capabilities |
//! | `system_calls` | the two filters of system calls (seccomp) |
//! | `files` | the rules about files (Landlock) |
//! | `kernel_view` | what the kernel says about the threads of this process |

mod capabilities;
mod files;
mod kernel_view;
mod system_calls;
#[cfg(test)]
mod tests;

use std::io;
use std::thread::JoinHandle;

use crate::api::SandboxStatus;
use crate::engine::WORKER_THREAD;
use files::EnforcedRules;
pub(super) use files::{FileAccess, FileRules};

/// The privileges of a running instance.
#[derive(Debug)]
pub(super) struct Sandbox {
    files: EnforcedRules,
}

impl Sandbox {
    /// Drops the privileges that an instance does not need for its start: those of this thread, and
    /// of all threads that it starts from now on. `files`: the files that it still needs.
    ///
    /// # Errors
    /// A sentence about the step that failed.
    pub(super) fn enter(files: FileRules) -> Result<Self, String> {
        capabilities::keep_net_admin()?;
        let files = files.enforce()?;
        system_calls::refuse_denied()?;
        Ok(Self { files })
    }

    /// Returns the privileges of the process, as the kernel reports them.
    pub(super) fn status(&self) -> SandboxStatus {
        kernel_view::status(WORKER_THREAD, self.files.version())
    }
}

/// Drops all privileges of this thread, for work on what is open already. The thread may start
/// other threads, which inherit that.
///
/// # Errors
/// A sentence about the step that failed.
pub(super) fn enter_without_files() -> Result<(), String> {
    capabilities::keep_none()?;
    FileRules::default().enforce()?;
    system_calls::refuse_denied()
}

/// Drops all privileges of a worker's thread. From now on, the thread can only do its work: it
/// opens no file and no socket, starts no program and no thread.
///
/// # Errors
/// A sentence about the step that failed.
pub(super) fn enter_as_worker() -> io::Result<()> {
    capabilities::keep_none().map_err(io::Error::other)?;
    system_calls::refuse_all_but_a_workers().map_err(io::Error::other)
}

/// Drops the capabilities of this thread.
pub(super) fn drop_capabilities() {
    capabilities::keep_none().expect("the same system calls have succeeded at the start");
}

/// Starts a thread without capabilities.
///
/// # Errors
/// The system's error.
pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        drop_capabilities();
        work()
    })
}
