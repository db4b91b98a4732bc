//! `natbox run`: runs one box.

use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, Failure};
use crate::config::{self, Loaded};
use crate::control::{self, RunError, SocketError, logging};
use crate::dns::DnsError;
use crate::host::HostError;
use crate::io::OpenError;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
}

/// Runs a box until TERM or INT.
///
/// # Errors
/// The user's when the configuration or what it names is wrong; the environment's when the host lacks or refuses
/// something; a bug when a worker panicked.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Loaded { config, warnings } =
        config::load(&arguments.config.path).map_err(Failure::user)?;
    let _logging = logging::start(config.log);
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    control::run(&arguments.config.path, &config).map(|()| ExitCode::SUCCESS).map_err(failure)
}

/// What another configuration would mend is the user's; what the host lacks or refuses is the environment's.
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
        RunError::Host(host) => {
            matches!(host, HostError::MissingInterface { .. } | HostError::Taken { .. })
        }
        RunError::Dns(dns) => matches!(dns, DnsError::Secret(_) | DnsError::Hook(_)),
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
