//! Running instances: which one a command means, and requests to it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::exit::Failure;
use super::output;
use super::progress::Progress;
use crate::api::{Request, client};

/// The running instance that a command means. When only one runs, the options can be left out.
#[derive(Debug, Args)]
pub(super) struct InstanceSelector {
    /// Name of the instance (`name` in its configuration)
    #[arg(long, value_name = "NAME", conflicts_with = "socket")]
    name: Option<String>,
    /// Admin socket of the instance
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl InstanceSelector {
    /// Returns whether the user named an instance.
    pub(super) fn is_named(&self) -> bool {
        self.name.is_some() || self.socket.is_some()
    }

    /// Sends a request to the instance and returns the answer.
    ///
    /// # Errors
    /// An environment error when no instance answers. A user error when several instances run and
    /// none is named, or when the instance rejects the request.
    pub(super) fn ask<Answer: DeserializeOwned>(
        &self,
        request: &Request,
    ) -> Result<Answer, Failure> {
        let socket = self.socket()?;
        let _shown = request.takes_long().then(|| Progress::of_wait("waiting for the instance"));
        client::request(&socket, request).map_err(failure)
    }

    /// Sends a request whose answer has many lines. Passes each to `take` until `take` breaks off
    /// or the instance ends.
    ///
    /// # Errors
    /// As for [`InstanceSelector::ask`].
    pub(super) fn follow<Answer: DeserializeOwned, Break>(
        &self,
        request: &Request,
        take: impl FnMut(Answer) -> ControlFlow<Break>,
    ) -> Result<ControlFlow<Break>, Failure> {
        client::follow(&self.socket()?, request, take).map_err(failure)
    }

    fn socket(&self) -> Result<PathBuf, Failure> {
        client::find(self.socket.as_deref(), self.name.as_deref()).map_err(failure)
    }
}

/// The options of a command that asks a running instance.
#[derive(Debug, Args)]
pub(super) struct InstanceQuery {
    #[command(flatten)]
    pub(super) instance: InstanceSelector,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl InstanceQuery {
    /// Sends a request to the instance and prints the answer as JSON or as `text` writes it.
    ///
    /// # Errors
    /// As for [`InstanceSelector::ask`], and an environment error when the output cannot be
    /// written.
    pub(super) fn show<Answer: DeserializeOwned + Serialize>(
        &self,
        request: &Request,
        text: impl FnOnce(&Answer) -> String,
    ) -> Result<(), Failure> {
        output::show(self.json, &self.instance.ask(request)?, text)
    }
}

/// Sends a request to the instance behind a socket and returns the answer.
///
/// # Errors
/// The reason why the instance did not answer.
pub(super) fn ask_at<Answer: DeserializeOwned>(
    socket: &Path,
    request: &Request,
) -> Result<Answer, client::ClientError> {
    client::request(socket, request)
}

/// Classifies the reason why an instance did not answer.
pub(super) fn failure(error: client::ClientError) -> Failure {
    match error {
        client::ClientError::Several { .. }
        | client::ClientError::NoName { .. }
        | client::ClientError::Refused(_) => Failure::user(error),
        client::ClientError::NoneRunning { .. }
        | client::ClientError::Silent { .. }
        | client::ClientError::Strange { .. } => Failure::environment(error),
    }
}
