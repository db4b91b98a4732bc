//! Which running box a command is for.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::de::DeserializeOwned;

use super::Failure;
use crate::api::{Request, client};

/// A running box; with one running, nothing need be said.
#[derive(Debug, Args)]
pub struct InstanceSelector {
    /// Name of the box (its configuration's `name`)
    #[arg(long, value_name = "NAME", conflicts_with = "socket")]
    name: Option<String>,
    /// Its admin socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl InstanceSelector {
    /// Whether a box is named.
    pub fn is_named(&self) -> bool {
        self.name.is_some() || self.socket.is_some()
    }

    /// Asks the box.
    ///
    /// # Errors
    /// The environment's when no box answers; the user's when several run and none is named, or when the box refuses.
    pub fn ask<Answer: DeserializeOwned>(&self, request: &Request) -> Result<Answer, Failure> {
        client::request(&self.socket()?, request).map_err(failure)
    }

    /// Asks the box for an answer of many lines; `take` has each as it comes, until it breaks off or the box has ended.
    ///
    /// # Errors
    /// As of [`InstanceSelector::ask`].
    pub fn follow<Answer: DeserializeOwned, Break>(
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

/// Asks the box behind a socket.
///
/// # Errors
/// Why it could not be asked.
pub fn ask_at<Answer: DeserializeOwned>(
    socket: &Path,
    request: &Request,
) -> Result<Answer, client::ClientError> {
    client::request(socket, request)
}

fn failure(error: client::ClientError) -> Failure {
    match error {
        client::ClientError::Several { .. } | client::ClientError::Refused(_) => {
            Failure::user(error)
        }
        client::ClientError::NoneRunning { .. }
        | client::ClientError::Silent { .. }
        | client::ClientError::Strange { .. } => Failure::environment(error),
    }
}
