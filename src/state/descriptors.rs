//! The store that holds descriptors open while no process of the instance runs: the TUN's queues,
//! and sockets whose end would cost the kernel milliseconds.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use sd_notify::NotifyState;

use super::keeper::Keeper;

/// Name of the descriptors in the store of the service manager.
pub(crate) const DESCRIPTORS: &str = "natbox";

/// Where the descriptors are.
#[derive(Debug)]
pub(crate) enum DescriptorStore {
    /// The service manager's store (`FileDescriptorStoreMax=` of the unit).
    ServiceManager,
    /// A keeper.
    Keeper(Keeper),
}

impl DescriptorStore {
    /// Opens the store of the directory of an instance, and returns the descriptors in it.
    /// `inherited`: descriptors from the service manager. Call this with the privileges of the
    /// start.
    ///
    /// # Errors
    /// No keeper can be started.
    pub(crate) fn open(
        directory: &Path,
        inherited: Vec<OwnedFd>,
    ) -> io::Result<(Self, Vec<OwnedFd>)> {
        if std::env::var_os(FDSTORE).is_some_and(|size| size != "0") {
            return Ok((Self::ServiceManager, inherited));
        }
        if let Ok(keeper) = Keeper::connect(directory)
            && let Ok(descriptors) = keeper.give()
        {
            return Ok((Self::Keeper(keeper), descriptors));
        }
        Ok((Self::Keeper(Keeper::start(directory)?), Vec::new()))
    }

    /// Stores descriptors. Those that were in the store leave it.
    ///
    /// # Errors
    /// The store does not take them.
    pub(crate) fn keep(&self, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        match self {
            Self::Keeper(keeper) => keeper.keep(descriptors),
            Self::ServiceManager => {
                let name = NotifyState::FdName(DESCRIPTORS);
                sd_notify::notify(&[NotifyState::FdStoreRemove, name])?;
                descriptors.chunks(DESCRIPTORS_PER_MESSAGE).try_for_each(|some| {
                    // A queue without a process reports no error that the manager must know.
                    let poll = NotifyState::Custom("FDPOLL=0");
                    let name = NotifyState::FdName(DESCRIPTORS);
                    sd_notify::notify_with_fds(&[NotifyState::FdStore, name, poll], some)
                })
            }
        }
    }
}

/// Ends the keeper of a directory, if one runs.
pub(super) fn end_keeper(directory: &Path) {
    if let Ok(keeper) = Keeper::connect(directory)
        && let Err(error) = keeper.end()
    {
        tracing::warn!(%error, "the process that holds the descriptors does not end");
    }
}

/// Size of the service manager's store, in its environment (systemd 254). The unit sets it for
/// older versions.
const FDSTORE: &str = "FDSTORE";
/// The kernel passes at most 253 descriptors in one message (`SCM_MAX_FD`).
const DESCRIPTORS_PER_MESSAGE: usize = 128;
