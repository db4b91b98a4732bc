//! `natbox run`: runs one instance.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use super::config_file::ConfigFile;
use super::exit::Failure;
use crate::control::{self, RunError, SocketError, logging};
use crate::dns::{DnsError, SecretError};
use crate::io::OpenError;

/// Arguments of `natbox run`.
#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    config: ConfigFile,
}

/// Runs an instance until SIGTERM or SIGINT.
///
/// # Errors
/// A user error when the configuration is wrong. An environment error when the host lacks or
/// rejects something, or when another process has it. A bug when a worker panicked.
pub(super) fn run(arguments: &RunArguments) -> Result<ExitCode, Failure> {
    let start = control::start_config(&arguments.config.path).map_err(|problems| {
        match problems.is_unreadable() {
            // It may come with a later mount.
            true => Failure::environment(problems),
            false => Failure::user(problems),
        }
    })?;
    let _logging = logging::start(start.config.log).map_err(failure)?;
    let warnings = start.warnings.iter().map(ToString::to_string);
    for warning in warnings.chain(start.notes.iter().cloned()) {
        tracing::warn!("{warning}");
    }
    let started = Instant::now();
    let result = control::run(&arguments.config.path, start);
    if result.is_err() && std::env::var_os("NOTIFY_SOCKET").is_some() {
        // The service manager starts natbox again at once.
        std::thread::sleep(MIN_FAILED_RUN.saturating_sub(started.elapsed()));
    }
    result.map(|()| ExitCode::SUCCESS).map_err(failure)
}

/// Shortest run that ends with a failure, so that repeated starts do not keep a processor busy.
const MIN_FAILED_RUN: Duration = Duration::from_secs(1);

/// Classifies an error: a user error if only another configuration avoids it, otherwise an
/// environment error or a bug.
///
/// The unit does not try again after a user error. So an error that passes with time is none:
/// another natbox may be about to end, and the file of a hook or of a secret may come with a later
/// mount.
fn failure(error: RunError) -> Failure {
    let users = match &error {
        RunError::NoUring(_) => true,
        RunError::Socket(SocketError::NotASocket { .. }) => true,
        RunError::Tun { source, .. } => matches!(
            source,
            OpenError::NameTooLong { .. }
                | OpenError::NameInvalid { .. }
                | OpenError::TooManyQueues { .. }
        ),
        RunError::Dns(dns) => matches!(dns, DnsError::Secret(SecretError::NotBase64 { .. })),
        RunError::Panicked { .. } => return Failure::bug(error),
        RunError::Socket(SocketError::Taken { .. } | SocketError::Other { .. })
        | RunError::Socket(SocketError::NoGroup { .. })
        | RunError::Host(_)
        | RunError::State(_)
        | RunError::GoBack(_)
        | RunError::RawSocket { .. }
        | RunError::Sandbox(_)
        | RunError::Memory { .. }
        | RunError::System { .. }
        | RunError::TunGone { .. }
        | RunError::QueueFailed { .. } => false,
    };
    if users { Failure::user(error) } else { Failure::environment(error) }
}
