//! The time before the start: the interfaces that natbox waits for, and a host that a dead process
//! left changed.

use std::path::Path;

use super::journal::{self, JournalFile, JournalHeader};
use super::planned::lock_and_clean_up;
use crate::config::Config;
use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::nftables::FilterTable;
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
/// `inherits`: the changes of a process with the same TUN stay. Returns false if no process has
/// left a change.
///
/// # Errors
/// When another natbox uses an interface of the configuration, or privilege is lacking.
pub(crate) async fn restore_after_dead(config: &Config, inherits: bool) -> Result<bool, HostError> {
    let directory = Path::new(journal::DIRECTORY);
    let header = JournalHeader::of(config)?;
    let is_ours =
        |found: &JournalFile| found.header.netns == header.netns && found.header.tun == header.tun;
    let found = journal::read_all(directory).iter().any(is_ours);
    if config.host.manage {
        let kernel = Kernel::connect()?;
        lock_and_clean_up(&kernel, directory, &header, inherits).await?;
    }
    Ok(found)
}

/// Removes the filter of private addresses that a dead process of the instance has left. Returns
/// false if there is none.
///
/// # Errors
/// When the filter belongs to a running process, or privilege is lacking.
pub(crate) fn remove_left_filter(config: &Config) -> Result<bool, HostError> {
    FilterTable::new(&config.tun.name, false).remove()
}

/// Returns the process of a running instance that has the TUN of a configuration.
///
/// # Errors
/// When `/proc` is not readable.
pub(crate) fn running_owner(config: &Config) -> Result<Option<u32>, HostError> {
    let header = JournalHeader::of(config)?;
    let running = journal::of_running_instances(Path::new(journal::DIRECTORY), header.netns);
    Ok(running.iter().find(|found| found.header.tun == header.tun).map(|found| found.header.pid))
}
