//! Runs a program of the user's when a line comes or goes.
//!
//! The process of a box may start no programs once it has given up its privileges, so a helper does it: a child of the
//! box that is started before and hears of events through a pipe.
//!
//! ```text
//!   box (natbox-dns thread) ── event, a JSON line ──▶ helper ── environment ──▶ hook
//!                           ◀── outcome, a JSON line ──       ◀── exit status ──
//! ```
//!
//! One hook runs at a time, and the next event is sent when it has ended; what changed and changed back meanwhile is not
//! told. The helper ends when its pipe does, however the box died, and takes a running hook with it.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::last_errors::{LastError, LastErrors};
use super::uplinks::{UplinkState, UplinkStates};

/// The command of `natbox` that makes a process the helper; its argument is the hook.
pub const RUNNER_COMMAND: &str = "run-hooks";

/// Why a program cannot be a hook.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: found {found}, wanted a program that may be run; correct the key, or: chmod +x {path}"
)]
pub struct HookError {
    path: PathBuf,
    found: String,
}

/// Looks whether a hook can be run, before a line has to fail for that to come out.
///
/// # Errors
/// What stands there instead.
pub fn check_hook(hook: &Path) -> Result<(), HookError> {
    let wrong = |found: String| HookError { path: hook.to_owned(), found };
    let metadata = hook
        .metadata()
        .map_err(|error| wrong(format!("nothing that can be looked at ({error})")))?;
    if !metadata.is_file() {
        return Err(wrong(if metadata.is_dir() { "a directory" } else { "no file" }.to_owned()));
    }
    access(hook, Access::EXEC_OK)
        .map_err(|error| wrong(format!("a file that may not be run ({error})")))
}

/// A line that came or went, and how things are now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Event {
    line: String,
    address: Option<Ipv4Addr>,
    usable: bool,
    /// Names and addresses of all lines that are usable now.
    all_usable: Vec<(String, Ipv4Addr)>,
}

/// What became of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Outcome {
    Done,
    Failed(String),
    TookTooLong,
    NotStarted(String),
}

/// The helper, seen from the box.
#[derive(Debug)]
pub(super) struct HookRunner {
    process: Child,
    events: OwnedFd,
    outcomes: OwnedFd,
}

impl HookRunner {
    /// Starts it: `command` is natbox itself, with [`RUNNER_COMMAND`] and the hook as arguments.
    pub fn start(mut command: Command) -> io::Result<Self> {
        // Signals that a terminal sends to the box's group are none of its business: it ends by the pipe.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn()?;
        let events = process.stdin.take().expect("it was asked for").into();
        let outcomes = process.stdout.take().expect("it was asked for").into();
        Ok(Self { process, events, outcomes })
    }

    /// Tells it how each line is, then every change, for ever; ends when the helper is gone. Nobody may start another one
    /// by then: the process runs no programs.
    pub async fn follow(self, mut lines: watch::Receiver<UplinkStates>, troubles: Arc<LastErrors>) {
        let Self { mut process, events, outcomes } = self;
        if let Err(error) = tell(events, outcomes, &mut lines, &troubles.hook).await {
            tracing::error!(%error, "the process that runs the hook is gone: it is run no more; restart natbox");
            troubles
                .hook
                .set("the process that runs it is gone: it is run no more; restart natbox");
        }
        // Its pipes are closed, so it ends; it is waited for, so that it does not stay a zombie.
        while matches!(process.try_wait(), Ok(None)) {
            tokio::time::sleep(LOOK_FOR_END).await;
        }
    }
}

async fn tell(
    events: OwnedFd,
    outcomes: OwnedFd,
    lines: &mut watch::Receiver<UplinkStates>,
    trouble: &LastError,
) -> io::Result<()> {
    let mut events = pipe::Sender::from_owned_fd(events)?;
    let mut outcomes = tokio::io::BufReader::new(pipe::Receiver::from_owned_fd(outcomes)?);
    let mut told: Vec<Option<Sent>> = Vec::new();
    loop {
        let news = next_event(&told, &lines.borrow_and_update());
        let Some((number, event)) = news else {
            tokio::select! {
                changed = lines.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return Ok(()),
                },
                // It says nothing unasked: this is its end.
                said = outcomes.fill_buf() => return Err(said.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
            }
        };
        let mut text = serde_json::to_string(&event)?;
        text.push('\n');
        events.write_all(text.as_bytes()).await?;
        let mut answer = String::new();
        if outcomes.read_line(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (line, state) = (&event.line, state(event.usable));
        let outcome = serde_json::from_str(&answer)?;
        trouble.clear();
        match outcome {
            Outcome::Done => tracing::info!(line, state, "hook run"),
            Outcome::Failed(status) => tracing::warn!(line, state, status, "the hook failed"),
            Outcome::TookTooLong => {
                tracing::warn!(
                    line,
                    state,
                    "the hook took longer than {} s and was ended",
                    LIMIT.as_secs()
                );
            }
            Outcome::NotStarted(error) => {
                tracing::error!(line, state, error, "the hook cannot be run");
                trouble.set(format!("it cannot be run: {error}"));
            }
        }
        told.resize(told.len().max(number + 1), None);
        told[number] = Some((event.usable, event.address));
    }
}

/// Whether a line was usable, and its address.
type Sent = (bool, Option<Ipv4Addr>);

/// The first line of which something else was told last.
fn next_event(told: &[Option<Sent>], now: &UplinkStates) -> Option<(usize, Event)> {
    let told = |number: usize| told.get(number).copied().flatten();
    let is_news =
        |(number, line): &(usize, &UplinkState)| told(*number) != Some((line.up, line.address));
    let (number, line) = now.lines.iter().enumerate().find(is_news)?;
    let usable = now.lines.iter().filter(|line| line.up);
    let usable = usable.filter_map(|line| Some((line.name.clone(), line.address?)));
    let event = Event {
        line: line.name.clone(),
        address: line.address,
        usable: line.up,
        all_usable: usable.collect(),
    };
    Some((number, event))
}

fn state(usable: bool) -> &'static str {
    if usable { "up" } else { "down" }
}

/// The helper's life: runs `hook` for each event that is read from `events`, until there are no more.
///
/// # Errors
/// When the box does not speak as it should, or does not listen.
pub fn run_events(
    hook: &Path,
    events: impl Read + AsFd,
    mut outcomes: impl Write,
) -> io::Result<()> {
    let mut events = BufReader::new(events);
    let mut text = String::new();
    loop {
        text.clear();
        if events.read_line(&mut text)? == 0 {
            return Ok(());
        }
        let event: Event = serde_json::from_str(&text)?;
        let Some(outcome) = run(hook, &event, events.get_ref())? else { return Ok(()) };
        let mut answer = serde_json::to_string(&outcome)?;
        answer.push('\n');
        outcomes.write_all(answer.as_bytes())?;
        outcomes.flush()?;
    }
}

/// Runs the hook to its end; None if the box is gone.
fn run(hook: &Path, event: &Event, events: impl AsFd) -> io::Result<Option<Outcome>> {
    let (names, addresses): (Vec<_>, Vec<_>) =
        event.all_usable.iter().map(|(name, address)| (name.as_str(), address.to_string())).unzip();
    let mut command = Command::new(hook);
    command
        .env("NATBOX_UPLINK", &event.line)
        .env("NATBOX_ADDRESS", event.address.map_or(String::new(), |address| address.to_string()))
        .env("NATBOX_STATE", state(event.usable))
        // Names may hold blanks and commas, but no line breaks.
        .env("NATBOX_UP_UPLINKS", names.join("\n"))
        .env("NATBOX_UP_ADDRESSES", addresses.join(" "))
        .stdin(Stdio::null())
        // Standard output is the pipe to the box.
        .stdout(io::stderr().as_fd().try_clone_to_owned()?)
        .process_group(0);
    let mut process = match command.spawn() {
        Ok(process) => process,
        Err(error) => return Ok(Some(Outcome::NotStarted(error.to_string()))),
    };
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(outcome(status)));
        }
        if Instant::now() >= deadline {
            end(&mut process)?;
            return Ok(Some(Outcome::TookTooLong));
        }
        // The box says nothing before it has the outcome: whatever happens here is its end.
        let mut pipe = [PollFd::new(&events, PollFlags::IN)];
        if poll(&mut pipe, Some(&LOOK)).is_ok_and(|ready| ready > 0) {
            end(&mut process)?;
            return Ok(None);
        }
    }
}

fn outcome(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Done,
        (Some(code), _) => Outcome::Failed(format!("exit code {code}")),
        (None, Some(signal)) => Outcome::Failed(format!("signal {signal}")),
        (None, None) => Outcome::Failed(status.to_string()),
    }
}

/// Ends a hook with all that it started.
fn end(process: &mut Child) -> io::Result<()> {
    if let Some(group) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
        // It leads its group, and has not been waited for: the number is still its own.
        kill_process_group(group, Signal::KILL)?;
    }
    process.wait().map(drop)
}

/// How long a hook may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked whether a hook has ended.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
/// How often it is looked whether the helper has ended, once it is to.
const LOOK_FOR_END: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
