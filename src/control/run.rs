//! An instance from start to stop: everything that needs privileges, then the control thread.

use std::path::Path;

use super::dns;
use super::error::RunError;
use super::firewall::ListerProcess;
use super::health::RawSockets;
use super::sandbox;
use super::start::{self, Privileged};
use crate::config::Config;

/// Runs an instance until a signal ends it. `path`: the file that a reload reads again.
///
/// # Errors
/// See [`RunError`]. The host has been restored by then.
pub(crate) fn run(path: &Path, config: &Config) -> Result<(), RunError> {
    // Before privileges are dropped: raw sockets, port 53, the file of the secret, the process that
    // runs the hook, the process that lists the rules of the firewall.
    let raw =
        RawSockets::open(config).map_err(|(key, source)| RunError::RawSocket { key, source })?;
    let lister = ListerProcess::start()
        .inspect_err(|error| tracing::warn!(%error, "the firewall is not watched"));
    let privileged = Privileged { raw, dns: dns::prepare(config)?, lister: lister.ok() };
    // While the process has one thread.
    sandbox::enter().map_err(RunError::Sandbox)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| RunError::System { doing: "starting the control thread", source })?;
    let instance = start::run_instance(path, config, privileged);
    tokio::task::LocalSet::new().block_on(&runtime, instance)
}
