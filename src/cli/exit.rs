//! The end of the program: exit codes, the failure that carries one, and the panic hook.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
use std::process::ExitCode;

use clap::ArgMatches;
use serde::Serialize;

use super::output;
use super::stderr::warn;
use crate::config::Problems;
use crate::engine::WORKER_THREAD;

/// Exit code of success.
pub(super) const DONE: u8 = 0;
/// Exit code of a user error.
pub(super) const USER: u8 = 1;
/// Exit code of an environment error.
pub(super) const ENVIRONMENT: u8 = 2;
/// Exit code of a bug (`EX_SOFTWARE` of sysexits.h).
pub(super) const BUG: u8 = 70;

/// The reason why a command failed, which decides the exit code.
#[derive(Debug)]
pub enum Failure {
    /// The arguments or the configuration must change, and time does not help: [`USER`].
    User(anyhow::Error),
    /// The host lacks or rejects something: [`ENVIRONMENT`].
    Environment(anyhow::Error),
    /// natbox has a bug: [`BUG`].
    Bug(anyhow::Error),
}

impl Failure {
    /// Makes a user error.
    pub fn user(error: impl Into<anyhow::Error>) -> Self {
        Self::User(error.into())
    }

    /// Makes an environment error.
    pub fn environment(error: impl Into<anyhow::Error>) -> Self {
        Self::Environment(error.into())
    }

    /// Makes a bug.
    pub fn bug(error: impl Into<anyhow::Error>) -> Self {
        Self::Bug(error.into())
    }

    /// Makes an environment error of any failure but a bug.
    pub(super) fn into_environment(self) -> Self {
        match self {
            Self::User(error) | Self::Environment(error) => Self::Environment(error),
            Self::Bug(error) => Self::Bug(error),
        }
    }

    /// Prints the error and its causes, and returns the exit code.
    pub(super) fn report(&self, format: ErrorFormat) -> ExitCode {
        let (error, code) = match self {
            Self::User(error) => (error, USER),
            Self::Environment(error) => (error, ENVIRONMENT),
            Self::Bug(error) => (error, BUG),
        };
        let problems = error.downcast_ref::<Problems>();
        let text = match problems {
            Some(problems) => problems.to_string(),
            None => sentence(error),
        };
        // Each problem begins with the file's name. A prefix would hide that from editors that jump
        // to it.
        let prefix = if problems.is_some() { "" } else { "natbox: " };
        format.print(prefix, &text, problems, code)
    }
}

/// The message of the error and its causes.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::User(error) | Self::Environment(error) | Self::Bug(error)) = self;
        f.write_str(&sentence(error))
    }
}

/// Form of the message of a failed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorFormat {
    /// A sentence on standard error.
    Text,
    /// An object on standard output, which is where a program expects the answer. If a part of the
    /// answer has been printed already, on standard error.
    Json,
}

/// A failed command, as JSON.
#[derive(Serialize)]
struct JsonError<'e> {
    error: &'e str,
    exit_code: u8,
    /// Problems of configuration files, one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<&'e Problems>,
}

impl ErrorFormat {
    /// Returns the form for a command: JSON if it has the option `--json`, and the user gave it.
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let mut command = matches;
        let is_set = |matches: &ArgMatches, option: &str| {
            matches.try_get_one::<bool>(option).is_ok_and(|found| found == Some(&true))
        };
        let wants = |matches: &ArgMatches| JSON_OPTIONS.iter().any(|one| is_set(matches, one));
        let mut json = wants(command);
        while let Some((_, below)) = command.subcommand() {
            command = below;
            json |= wants(command);
        }
        if json { Self::Json } else { Self::Text }
    }

    /// Returns the form for arguments that clap refused.
    pub(super) fn of_refused(arguments: &[OsString]) -> Self {
        let mut options = arguments.iter().take_while(|argument| *argument != "--");
        match options.any(|argument| argument == "--json" || argument == "--json-lines") {
            true => Self::Json,
            false => Self::Text,
        }
    }

    /// Prints an error and returns its exit code. `prefix`: the begin of the text for a person.
    pub(super) fn print(
        self,
        prefix: &str,
        error: &str,
        problems: Option<&Problems>,
        exit_code: u8,
    ) -> ExitCode {
        match self {
            Self::Text => warn(&format!("{prefix}{error}")),
            Self::Json => {
                let object = JsonError { error, exit_code, problems };
                let object = serde_json::to_string(&object).expect("texts and numbers serialise");
                // A closed or full standard output is the error itself.
                if output::has_printed() || output::offer(&object).is_err() {
                    warn(&object);
                }
            }
        }
        ExitCode::from(exit_code)
    }
}

/// Names of the options that ask for JSON.
const JSON_OPTIONS: [&str; 2] = ["json", "json_lines"];

/// Joins an error and its causes. Leaves out a cause that an earlier message already quotes.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| {
        if said.is_empty() {
            cause
        } else if said.contains(&cause) {
            said
        } else {
            format!("{said}: {cause}")
        }
    })
}

/// Makes a panic in any thread end the process with a short message and [`BUG`].
///
/// A worker of the engine unwinds and is reported to the control thread, which restores the host
/// and ends the process. A panic in another thread ends the process at once. The next `natbox run`
/// then restores the host.
pub(super) fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        warn(&format!(
            "natbox: bug, please report it: {panic} (thread {})",
            thread.name().unwrap_or("unnamed")
        ));
        // Captured only if RUST_BACKTRACE is set.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            warn(&backtrace.to_string());
        }
        if !thread.name().is_some_and(|name| name.starts_with(WORKER_THREAD)) {
            std::process::exit(i32::from(BUG));
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the child process that panics.
    const CHILD: &str = "NATBOX_TEST_PANICS";

    #[test]
    fn causes_are_printed_once() {
        let cause = || std::io::Error::other("no space");
        assert_eq!(
            sentence(&anyhow::Error::new(cause()).context("cannot write")),
            "cannot write: no space"
        );
        assert_eq!(
            sentence(&anyhow::Error::new(cause()).context("no space on /x")),
            "no space on /x"
        );
    }

    #[test]
    fn panic_in_any_thread_exits_with_the_code_of_a_bug() {
        if std::env::var_os(CHILD).is_some() {
            install_panic_hook();
            let worker =
                std::thread::Builder::new().name("worker-0".into()).spawn(|| panic!("lost count"));
            let _ = worker.unwrap().join();
            std::process::exit(i32::from(DONE));
        }
        let this_test = "cli::exit::tests::panic_in_any_thread_exits_with_the_code_of_a_bug";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", this_test, "--nocapture"])
            .env(CHILD, "1")
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap();
        let stderr = String::from_utf8(child.stderr).unwrap();
        assert_eq!(child.status.code(), Some(i32::from(BUG)), "{stderr}");
        assert!(
            stderr.starts_with("natbox: bug, please report it: ") && stderr.contains("lost count"),
            "{stderr}"
        );
        assert!(stderr.ends_with("(thread worker-0)\n"), "{stderr}");
    }
}
