//! The time before the start: the interfaces that natbox waits for, and a host that a dead process
//! left changed.

use std::path::Path;

use super::journal;
use super::planned::{header, lock_and_clean_up};
use crate::config::Config;
use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::model::presence::{self, AwaitedInterface};

/// Lists the interfaces that natbox waits for before it starts. Empty: natbox can start.
///
/// # Errors
/// When the kernel does not answer.
pub(crate) async fn awaited_interfaces(
    config: &Config,
) -> Result<Vec<AwaitedInterface>, HostError> {
    let links = Kernel::connect()?.links().await?;
    Ok(presence::awaited(config, &links))
}

/// Restores what killed processes left in this network namespace. A start does the same. An
/// instance that waits for its interfaces calls this before, so that no change of a killed process
/// remains during the wait.
///
/// # Errors
/// When another natbox uses an interface of the configuration, or privilege is lacking.
pub(crate) async fn restore_after_dead(config: &Config) -> Result<(), HostError> {
    if config.host.manage {
        let (kernel, header) = (Kernel::connect()?, header(config)?);
        lock_and_clean_up(&kernel, Path::new(journal::DIRECTORY), &header).await?;
    }
    Ok(())
}
