//! Processes that do for a running instance what needs the privileges of its start. The instance
//! may start no programs, so it cannot start such a process again.
//!
//! So each of them is a pair. One works, the other stands by and takes over when the first one ends
//! for any reason but the end of the instance. Each starts the other one again:
//!
//! ```text
//!   natbox ── pipes ──▶ worker ── starts ──▶ stand-by
//!             the same pipes ─────────────────┘  waits for the end of the worker
//! ```
//!
//! The command lines of the two differ, so that one pattern of `pkill -f` does not match both.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, getpid, getppid, pidfd_open};

use super::exit::Failure;
use crate::dns;
use crate::host::doctor;

/// The work of a helper.
#[derive(Clone, Debug)]
pub(super) enum HelperWork {
    /// Runs the DNS hook.
    Hook(PathBuf),
    /// Lists the rules of nftables.
    Rules,
}

impl HelperWork {
    /// Returns the work that the environment names.
    ///
    /// # Errors
    /// The environment names none: a person has run the command.
    pub(super) fn from_environment() -> Result<Self, Failure> {
        match std::env::var_os(WORK) {
            Some(work) if work == doctor::LISTER_COMMAND => Ok(Self::Rules),
            Some(hook) => Ok(Self::Hook(hook.into())),
            None => Err(Failure::user(anyhow::anyhow!("natbox itself runs this command"))),
        }
    }

    fn of_environment(&self) -> OsString {
        match self {
            Self::Hook(hook) => hook.into(),
            Self::Rules => doctor::LISTER_COMMAND.into(),
        }
    }

    fn command_line(&self) -> Vec<OsString> {
        match self {
            Self::Hook(hook) => vec![dns::RUNNER_COMMAND.into(), hook.into()],
            Self::Rules => vec![doctor::LISTER_COMMAND.into()],
        }
    }

    fn run(&self, taken_over: bool) -> io::Result<()> {
        match self {
            Self::Hook(hook) => dns::run_events(hook, io::stdin(), io::stdout().lock(), taken_over),
            Self::Rules => doctor::list_rules(io::stdin(), io::stdout().lock(), taken_over),
        }
    }
}

/// The command line of a process: that of the worker or that of the stand-by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HelperName {
    /// `natbox run-hooks HOOK` or `natbox list-rules`.
    Worker,
    /// `natbox stand-by`.
    StandBy,
}

/// Works until standard input closes. A process that stands by begins when its worker has ended.
///
/// # Errors
/// A bug when the two ends of the pipes do not follow their protocol.
pub(super) fn run(work: &HelperWork, name: HelperName) -> Result<ExitCode, Failure> {
    let worker = std::env::var(WORKER).ok().and_then(|pid| pid.parse::<i32>().ok());
    if let Some(worker) = worker {
        wait_for_end(worker).context("standing by").map_err(Failure::environment)?;
        if instance_has_ended() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let other = match name {
        HelperName::Worker => HelperName::StandBy,
        HelperName::StandBy => HelperName::Worker,
    };
    let stand_by = work.clone();
    // The thread ends with the process.
    thread::spawn(move || keep_stand_by(&stand_by, other));
    match work.run(worker.is_some()) {
        // The instance has ended and waits for no answer.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        outcome => {
            outcome.context("helping an instance").map(|()| ExitCode::SUCCESS).map_err(Failure::bug)
        }
    }
}

/// Starts the process that stands by, and starts it again whenever it ends. After a long run the
/// pause is short; after each short run it grows.
fn keep_stand_by(work: &HelperWork, name: HelperName) {
    let mut pause = MIN_RESTART_INTERVAL;
    loop {
        let began = Instant::now();
        let mut command = Command::new("/proc/self/exe");
        match name {
            HelperName::Worker => command.args(work.command_line()),
            HelperName::StandBy => command.arg(STAND_BY_COMMAND),
        };
        command
            .arg0("natbox")
            .env(WORK, work.of_environment())
            .env(WORKER, getpid().as_raw_nonzero().to_string())
            .process_group(0);
        // Without a process that stands by, this one works as well.
        if let Ok(mut stand_by) = command.spawn() {
            let _ = stand_by.wait();
        }
        pause = match began.elapsed() {
            short if short < MAX_RESTART_INTERVAL => (pause * 2).min(MAX_RESTART_INTERVAL),
            _ => MIN_RESTART_INTERVAL,
        };
        thread::sleep(pause);
    }
}

/// Waits until the worker has ended, or the instance has.
fn wait_for_end(worker: i32) -> io::Result<()> {
    let parent = getppid().filter(|parent| parent.as_raw_nonzero().get() == worker);
    // Another parent: the worker has ended already.
    let Some(parent) = parent else { return Ok(()) };
    let worker = pidfd_open(parent, PidfdFlags::empty())?;
    if getppid() != Some(parent) {
        return Ok(());
    }
    let stdin = io::stdin();
    loop {
        // A pipe always reports its end. Other events on the pipe are for the worker.
        let mut ends =
            [PollFd::new(&worker, PollFlags::IN), PollFd::new(&stdin, PollFlags::empty())];
        match poll(&mut ends, None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns whether the other end of standard input is closed.
fn instance_has_ended() -> bool {
    let stdin = io::stdin();
    let mut end = [PollFd::new(&stdin, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut end, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// The command of the process that stands by.
pub(super) const STAND_BY_COMMAND: &str = "stand-by";
/// Environment variable with the work: the hook, or the command of the lister.
const WORK: &str = "NATBOX_HELPER_WORK";
/// Environment variable with the process ID of the worker that the process stands by for.
const WORKER: &str = "NATBOX_HELPER_WORKER";
/// Bounds of the pause before a process that ended is started again.
const MIN_RESTART_INTERVAL: Duration = Duration::from_millis(500);
const MAX_RESTART_INTERVAL: Duration = Duration::from_secs(60);
