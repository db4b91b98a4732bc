//! Child processes in a namespace.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::error::LabError;
use super::owner::LabOwner;
use super::registry::GRACE;
use super::tool::command_line;

/// Interval between two checks whether a child has ended.
const POLL: Duration = Duration::from_millis(10);

/// A process that this lab started. A drop ends it (SIGTERM, after a grace period SIGKILL) and
/// waits for its end.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    command: String,
    log: PathBuf,
    /// Keeps the namespaces until the process has ended.
    _owner: Arc<LabOwner>,
}

impl Child {
    pub(super) fn spawn(
        owner: Arc<LabOwner>,
        label: &str,
        mut command: Command,
    ) -> Result<Child, LabError> {
        let log = owner.directory.join(format!("{label}.log"));
        // Appends: an instance that starts again under the same label keeps its history.
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(LabError::file("make", &log))?;
        let errors = output.try_clone().map_err(LabError::file("open", &log))?;
        command.stdout(output).stderr(errors);
        let process = command.spawn().map_err(|source| LabError::NoProgram {
            program: command.get_program().to_string_lossy().into_owned(),
            package: "iproute2",
            source,
        })?;
        let child = Child { process, command: command_line(&command), log, _owner: owner.clone() };
        owner.journal.lock().child(child.pid())?;
        Ok(child)
    }

    /// Returns the process id. `ip netns exec` replaces itself by the program, so the id is that of
    /// the program.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns the command line.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Returns the path of the file that holds the output.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Returns the whole output so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Returns the last lines of the output.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<_> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // Until the process has been waited for, no other process can get its pid.
        if self.ended()?.is_some() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let pid = i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(pid, signal)?)
    }

    /// Returns the exit status if the process has ended.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.try_wait()
    }

    /// Waits for the end of the process. Returns `None` if the process still runs after `limit`.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            match self.ended()? {
                None if Instant::now() < deadline => std::thread::sleep(POLL),
                answer => return Ok(answer),
            }
        }
    }

    /// Sends SIGTERM, and SIGKILL if the process runs on after a grace period. Waits for the end.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn terminate(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        match self.wait(GRACE)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.process.kill()?;
        self.process.wait()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.terminate();
    }
}
