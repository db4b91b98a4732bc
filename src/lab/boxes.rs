//! Starts `natbox run` in a namespace and asks the instance for its status.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::interrupt::{Interrupt, Interrupted};
use super::{Child, LabError, Namespace};
use crate::api::client::{self, ClientError};
use crate::api::{InstanceState, Request, Status};

/// Longest time from the start of an instance to its first answer.
const READY_TIMEOUT: Duration = Duration::from_secs(15);

/// Interval between two attempts to reach an instance that is starting.
const READY_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Log lines of an instance that an error message shows.
const LOG_LINES: usize = 12;

/// The reason why an instance does not run or does not answer.
#[derive(Debug, thiserror::Error)]
pub enum BoxError {
    /// The process or its files could not be set up.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The configuration could not be rewritten.
    #[error("cannot rewrite the configuration of {name}: {reason}")]
    Configuration {
        /// Name of the instance.
        name: String,
        /// Reason.
        reason: String,
    },
    /// The process ended before the instance was ready.
    #[error("{name} ended ({status}) before it was ready; `{command}` said:\n{log}")]
    Ended {
        /// Name of the instance.
        name: String,
        /// Exit status.
        status: String,
        /// Command line of the process.
        command: String,
        /// Last lines of its log.
        log: String,
    },
    /// The instance did not answer in time.
    #[error("{name} did not answer on its admin socket within {} s ({last}); `{command}` said:\n{log}", READY_TIMEOUT.as_secs())]
    Silent {
        /// Name of the instance.
        name: String,
        /// Error of the last attempt.
        last: String,
        /// Command line of the process.
        command: String,
        /// Last lines of its log.
        log: String,
    },
    /// The admin socket failed, or its answer was invalid.
    #[error(transparent)]
    Admin(#[from] ClientError),
    /// A signal arrived first.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// A running instance.
#[derive(Debug)]
pub struct NatBox {
    name: String,
    socket: PathBuf,
    process: Child,
}

impl NatBox {
    /// Starts `PROGRAM run` in a namespace, with a copy of `configuration` whose `admin.socket`
    /// lies in `directory`. The instance may not be ready yet: see [`NatBox::wait_ready`].
    ///
    /// # Errors
    /// The files cannot be written, or the process cannot be started.
    pub fn start(
        program: &Path,
        namespace: &Namespace,
        directory: &Path,
        name: &str,
        configuration: &str,
    ) -> Result<NatBox, BoxError> {
        let socket = directory.join(format!("{name}.sock"));
        let text = with_socket(configuration, &socket)
            .map_err(|reason| BoxError::Configuration { name: name.to_owned(), reason })?;
        let path = directory.join(format!("{name}.yaml"));
        fs::write(&path, text).map_err(LabError::file("write", &path))?;
        let mut command = namespace.command(program);
        command.arg("run").arg("--config").arg(&path);
        let process = namespace.spawn(name, command)?;
        Ok(NatBox { name: name.to_owned(), socket, process })
    }

    /// Returns the command line of the process.
    pub fn command(&self) -> &str {
        self.process.command()
    }

    /// Returns the process.
    pub fn process(&mut self) -> &mut Child {
        &mut self.process
    }

    /// Returns the path of the admin socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until the instance says on its admin socket that it runs.
    ///
    /// # Errors
    /// [`BoxError::Ended`] or [`BoxError::Silent`], with the last lines of the log.
    pub fn wait_ready(&mut self, interrupt: &Interrupt) -> Result<(), BoxError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let (name, command) = (self.name.clone(), self.process.command().to_owned());
            let ended =
                self.process.ended().map_err(LabError::system(format!("wait for {name}")))?;
            if let Some(status) = ended {
                let log = self.process.log_tail(LOG_LINES);
                return Err(BoxError::Ended { name, status: status.to_string(), command, log });
            }
            let last = match self.status() {
                Ok(status) if status.state == InstanceState::Running => return Ok(()),
                Ok(status) => format!("it waits: {}", status.waiting_for.join("; ")),
                Err(error) => error.to_string(),
            };
            if Instant::now() >= deadline {
                return Err(BoxError::Silent {
                    name,
                    last,
                    command,
                    log: self.process.log_tail(LOG_LINES),
                });
            }
            interrupt.pause(READY_POLL_INTERVAL)?;
        }
    }

    /// Asks the instance for its status.
    ///
    /// # Errors
    /// No process answers on the admin socket.
    pub fn status(&self) -> Result<Status, ClientError> {
        client::request(&self.socket, &Request::Status)
    }
}

/// Returns the configuration with another admin socket. Keeps everything else except comments.
fn with_socket(configuration: &str, socket: &Path) -> Result<String, String> {
    use serde_yaml_ng::{Mapping, Value as Yaml};
    let mut tree: Mapping =
        serde_yaml_ng::from_str(configuration).map_err(|error| error.to_string())?;
    let admin = tree.entry("admin".into()).or_insert_with(|| Yaml::Mapping(Mapping::new()));
    let admin = admin.as_mapping_mut().ok_or("`admin` is not a mapping")?;
    admin.insert("socket".into(), socket.to_string_lossy().into());
    serde_yaml_ng::to_string(&tree).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn only_the_admin_socket_changes() {
        let before = "name: b\nadmin: { http: 127.0.0.1:9640, socket: /run/x.sock }\nforwards:\n  - { port: 80 }\n";
        let after = with_socket(before, Path::new("/tmp/y.sock")).unwrap();
        let [mut old, new] =
            [before, &after].map(|text| serde_yaml_ng::from_str::<Value>(text).unwrap());
        assert_ne!(old, new);
        old["admin"]["socket"] = "/tmp/y.sock".into();
        assert_eq!(old, new);
    }

    #[test]
    fn a_configuration_without_admin_section_gets_one() {
        let after = with_socket("name: b\n", Path::new("/tmp/y.sock")).unwrap();
        assert_eq!(after, "name: b\nadmin:\n  socket: /tmp/y.sock\n");
    }
}
