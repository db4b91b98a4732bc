//! How the program ends: exit codes, the failure that carries one, and the panic hook.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::process::ExitCode;

use super::output::warn;
use crate::config::Problems;
use crate::engine::WORKER_THREAD;

/// Exit code of success.
pub const DONE: u8 = 0;
/// Exit code of a user's error.
pub const USER: u8 = 1;
/// Exit code of a trouble of the environment.
pub const ENVIRONMENT: u8 = 2;
/// Exit code of a bug (`EX_SOFTWARE` of sysexits.h).
pub const BUG: u8 = 70;

/// Why a command failed; decides the exit code.
#[derive(Debug)]
pub enum Failure {
    /// The user has to change arguments or configuration: [`USER`].
    User(anyhow::Error),
    /// The host lacks or refuses something: [`ENVIRONMENT`].
    Environment(anyhow::Error),
    /// natbox itself is wrong: [`BUG`].
    Bug(anyhow::Error),
}

impl Failure {
    /// A user's error.
    pub fn user(error: impl Into<anyhow::Error>) -> Self {
        Self::User(error.into())
    }

    /// A trouble of the environment.
    pub fn environment(error: impl Into<anyhow::Error>) -> Self {
        Self::Environment(error.into())
    }

    /// A bug.
    pub fn bug(error: impl Into<anyhow::Error>) -> Self {
        Self::Bug(error.into())
    }

    /// Prints the error with its causes to standard error; returns the exit code.
    pub fn report(&self) -> ExitCode {
        let (error, code) = match self {
            Self::User(error) => (error, USER),
            Self::Environment(error) => (error, ENVIRONMENT),
            Self::Bug(error) => (error, BUG),
        };
        // Problems name the file in every line; a prefix would only be in the way of editors that jump to it.
        match error.downcast_ref::<Problems>() {
            Some(problems) => warn(&problems.to_string()),
            None => warn(&format!("natbox: {}", sentence(error))),
        }
        ExitCode::from(code)
    }
}

/// An error with its causes; one that an earlier message already quotes is not said again.
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
/// A worker of the engine is unwound and reported to the control thread, which takes back what was set on the host
/// and ends the process. A panic anywhere else ends it at once: the next start of `natbox run` takes back then.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        warn(&format!(
            "natbox: a bug, please report it: {panic} (thread {})",
            thread.name().unwrap_or("unnamed")
        ));
        // Captured only if RUST_BACKTRACE asks for it.
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

    /// Set in the process that is to panic.
    const CHILD: &str = "NATBOX_TEST_PANICS";

    #[test]
    fn causes_are_said_once() {
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
    fn a_panic_in_any_thread_ends_the_process_with_the_code_of_a_bug() {
        if std::env::var_os(CHILD).is_some() {
            install_panic_hook();
            let worker =
                std::thread::Builder::new().name("worker-0".into()).spawn(|| panic!("lost count"));
            let _ = worker.unwrap().join();
            std::process::exit(i32::from(DONE));
        }
        let this_test =
            "cli::exit::tests::a_panic_in_any_thread_ends_the_process_with_the_code_of_a_bug";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", this_test, "--nocapture"])
            .env(CHILD, "1")
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap();
        let stderr = String::from_utf8(child.stderr).unwrap();
        assert_eq!(child.status.code(), Some(i32::from(BUG)), "{stderr}");
        assert!(
            stderr.starts_with("natbox: a bug, please report it: ")
                && stderr.contains("lost count"),
            "{stderr}"
        );
        assert!(stderr.ends_with("(thread worker-0)\n"), "{stderr}");
    }
}
