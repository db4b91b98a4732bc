//! `natbox run`: runs one instance.

use std::process::ExitCode;

use clap::Args;

use super::config_file::ConfigFile;
use super::exit::Failure;
use crate::config::{self, Loaded};
use crate::control::{self, RunError, SocketError, logging};
use crate::dns::DnsError;
use crate::host::HostError;
use crate::io::OpenError;
use crate::state::StateError;

/// Arguments of `natbox run`.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    config: ConfigFile,
}

/// Runs an instance until SIGTERM or SIGINT.
///
/// # Errors
/// A user error when the configuration or an object that it names is wrong. An environment error
/// when the host lacks or rejects something. A bug when a worker panicked.
pub(super) fn run(arguments: &RunArguments) -> Result<ExitCode, Failure> {
    let Loaded { config, warnings } =
        config::load(&arguments.config.path).map_err(Failure::user)?;
    let _logging = logging::start(config.log);
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    control::run(&arguments.config.path, &config).map(|()| ExitCode::SUCCESS).map_err(failure)
}

/// Classifies an error: a user error if another configuration would avoid it, otherwise an
/// environment error or a bug.
fn failure(error: RunError) -> Failure {
    let users = match &error {
        RunError::NoUring(_) => true,
        RunError::Socket(SocketError::Taken { .. } | SocketError::NotASocket { .. }) => true,
        RunError::Tun { source, .. } => matches!(
            source,
            OpenError::Taken { .. }
                | OpenError::NameTooLong { .. }
                | OpenError::NameInvalid { .. }
                | OpenError::TooManyQueues { .. }
        ),
        RunError::Host(host) => matches!(host, HostError::Taken { .. }),
        RunError::Dns(dns) => matches!(dns, DnsError::Secret(_) | DnsError::Hook(_)),
        RunError::State(state) => matches!(state, StateError::InUse { .. }),
        RunError::Panicked { .. } => return Failure::bug(error),
        RunError::Socket(SocketError::Other { .. })
        | RunError::RawSocket { .. }
        | RunError::Sandbox(_)
        | RunError::Memory { .. }
        | RunError::System { .. }
        | RunError::QueueFailed { .. } => false,
    };
    if users { Failure::user(error) } else { Failure::environment(error) }
}
