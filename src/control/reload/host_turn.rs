//! What a reload and the subsystem of the host exchange.

use tokio::sync::oneshot;

use crate::config::Config;
use crate::host::HostFacts;

/// A reload as the host's part of it: the settings for a configuration, then, when the rest of the
/// instance uses the new one, the end of what it does not need.
pub(in crate::control) struct HostTurn {
    /// The configuration with the uplinks that the new one has not.
    pub(in crate::control) both: Config,
    /// Takes the configuration with the present addresses, and the facts about the host; or the
    /// reason why the host is as before.
    pub(in crate::control) made: oneshot::Sender<Result<(Config, HostFacts), String>>,
    /// Gives the new configuration, when the rest of the instance uses it.
    pub(in crate::control) finish: oneshot::Receiver<Config>,
    /// Is used when the host has the settings of the new configuration alone.
    pub(in crate::control) done: oneshot::Sender<()>,
}
