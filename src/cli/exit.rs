//! The end of the program: exit codes, the failure that carries one, and the panic hook.

use std::backtrace::{Backtrace, BacktraceStatus};

use super::stderr::warn;
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

    /// Returns the error and its exit code.
    pub(super) fn parts(&self) -> (&anyhow::Error, u8) {
        match self {
            Self::User(error) => (error, USER),
            Self::Environment(error) => (error, ENVIRONMENT),
            Self::Bug(error) => (error, BUG),
        }
    }
}

/// The message of the error and its causes.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&sentence(self.parts().0))
    }
}

/// Joins an error and its causes. Leaves out a cause that an earlier message already quotes.
pub(super) fn sentence(error: &anyhow::Error) -> String {
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
