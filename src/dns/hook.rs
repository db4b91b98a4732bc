//! Runs a program of the user, the hook, when an uplink changes.
//!
//! natbox may start no programs after it has dropped its privileges. So a child process runs the
//! hook: the runner. natbox starts the runner before it drops privileges, and sends events to the
//! runner through a pipe.
//!
//! ```text
//!   natbox (thread natbox-dns) ── event, a JSON line ──▶ runner ── environment ──▶ hook
//!                              ◀── answer, a JSON line ──        ◀── exit status ──
//! ```
//!
//! One hook runs at a time. natbox sends the next event when the hook has ended. If an uplink
//! changes and changes back meanwhile, no hook runs for it. The runner ends when the pipe closes,
//! for whatever reason natbox ended, and kills a running hook.
//!
//! If the runner is killed, another process takes over and says so ([`RunnerAnswer::TakenOver`]).
//! natbox then sends the event again to which it has no answer.

use std::collections::HashMap;
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
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::last_errors::{LastError, LastErrors};
use crate::uplinks::{UplinkState, UplinkStates};

/// The command of `natbox` that makes a process the runner. Its argument is the hook.
pub(crate) const RUNNER_COMMAND: &str = "run-hooks";

/// Why a file cannot be a hook.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: found {found}, wanted an executable program; correct the key, or run: chmod +x {path}"
)]
pub(crate) struct HookError {
    path: PathBuf,
    found: String,
}

/// Checks that a hook can run, so that a wrong path is reported at the start and not when an uplink
/// fails.
///
/// # Errors
/// What the path leads to instead.
pub(crate) fn check_hook(hook: &Path) -> Result<(), HookError> {
    let wrong = |found: String| HookError { path: hook.to_owned(), found };
    let metadata = hook
        .metadata()
        .map_err(|error| wrong(format!("nothing that can be examined ({error})")))?;
    if !metadata.is_file() {
        return Err(wrong(if metadata.is_dir() { "a directory" } else { "no file" }.to_owned()));
    }
    access(hook, Access::EXEC_OK)
        .map_err(|error| wrong(format!("a file that is not executable ({error})")))
}

/// A change of an uplink, and the state of all uplinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HookEvent {
    /// Number of the event, from 1.
    number: u64,
    uplink: String,
    address: Option<Ipv4Addr>,
    up: bool,
    /// Tier of the uplink.
    tier: u32,
    /// Names and addresses of the healthy uplinks of the lowest tier that has one.
    all_up: Vec<(String, Ipv4Addr)>,
}

/// A line of the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum RunnerAnswer {
    /// The hook for this event has ended.
    Ended { number: u64, outcome: HookOutcome },
    /// This process has replaced one that ended, and knows no earlier event.
    TakenOver,
}

/// How a hook ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum HookOutcome {
    Done,
    Failed(String),
    TookTooLong,
    NotStarted(String),
}

/// The runner, as natbox sees it.
#[derive(Debug)]
pub(super) struct HookRunner {
    process: Child,
    events: OwnedFd,
    outcomes: OwnedFd,
}

impl HookRunner {
    /// Starts the runner. `command` is natbox itself, with [`RUNNER_COMMAND`] and the hook as
    /// arguments.
    pub(super) fn start(mut command: Command) -> io::Result<Self> {
        // A group of its own: a terminal's signals must not reach the runner, which ends when the
        // pipe closes.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn()?;
        let events = process.stdin.take().expect("it was asked for").into();
        let outcomes = process.stdout.take().expect("it was asked for").into();
        Ok(Self { process, events, outcomes })
    }

    /// Sends the state of each uplink, then every change, for ever. Ends when the runner and the
    /// process that takes over have ended: natbox cannot start another one, because it may start no
    /// programs by then.
    pub(super) async fn follow(
        self,
        mut uplinks: watch::Receiver<UplinkStates>,
        last_errors: Arc<LastErrors>,
    ) {
        let Self { mut process, events, outcomes } = self;
        // A thread of its own waits for the end of the first runner, so that no zombie is left. The
        // system waits for those that take over.
        let waiting = std::thread::Builder::new()
            .name("natbox-hook".to_owned())
            .spawn(move || process.wait().map(drop));
        if let Err(error) = send_events(events, outcomes, &mut uplinks, &last_errors.hook).await {
            tracing::error!(
                %error, "dns.hook: the process that runs the hook has ended; restart natbox"
            );
            last_errors.hook.set("the process that runs the hook has ended; restart natbox");
        }
        // The runner ends because its pipes are closed.
        while waiting.as_ref().is_ok_and(|waiting| !waiting.is_finished()) {
            tokio::time::sleep(END_INTERVAL).await;
        }
    }
}

async fn send_events(
    events: OwnedFd,
    outcomes: OwnedFd,
    uplinks: &mut watch::Receiver<UplinkStates>,
    last_error: &LastError,
) -> io::Result<()> {
    let mut events = pipe::Sender::from_owned_fd(events)?;
    let mut outcomes = tokio::io::BufReader::new(pipe::Receiver::from_owned_fd(outcomes)?);
    let mut sent = SentEvents::new();
    for number in 1.. {
        let event = next_event(&sent, &uplinks.borrow_and_update(), number);
        let Some(event) = event else {
            tokio::select! {
                changed = uplinks.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return Ok(()),
                },
                // No answer is due, so the line says that another process has taken over.
                read = outcomes.fill_buf() => match read?.len() {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => {
                        tracing::warn!("dns.hook: the process that runs the hook was replaced");
                        outcomes.consume(length);
                        continue;
                    }
                },
            }
        };
        let mut text = serde_json::to_string(&event)?;
        text.push('\n');
        events.write_all(text.as_bytes()).await?;
        // None: the event is not sent yet, so it comes again with the next number.
        let Some(outcome) = outcome_of(number, &mut outcomes).await? else { continue };
        report(&event, outcome, last_error);
        sent.insert(
            event.uplink.clone(),
            Sent { up: event.up, tier: event.tier, address: event.address },
        );
    }
    unreachable!("the numbers do not end")
}

/// Waits for the answer to an event. None: another process has taken over, which may not know the
/// event.
async fn outcome_of(
    event: u64,
    answers: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<HookOutcome>> {
    let mut line = String::new();
    loop {
        line.clear();
        if answers.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match serde_json::from_str(&line)? {
            RunnerAnswer::Ended { number, outcome } if number == event => return Ok(Some(outcome)),
            // The answer to an event that was sent twice.
            RunnerAnswer::Ended { .. } => {}
            RunnerAnswer::TakenOver => {
                tracing::warn!("dns.hook: the process that runs the hook was replaced");
                return Ok(None);
            }
        }
    }
}

/// Logs how a hook ended.
fn report(event: &HookEvent, outcome: HookOutcome, last_error: &LastError) {
    let (uplink, state) = (&event.uplink, state(event.up));
    last_error.clear();
    match outcome {
        HookOutcome::Done => tracing::info!(uplink, state, "dns.hook: done"),
        HookOutcome::Failed(status) => tracing::warn!(uplink, state, status, "dns.hook: failed"),
        HookOutcome::TookTooLong => {
            let seconds = TIMEOUT.as_secs();
            tracing::warn!(uplink, state, "dns.hook: killed after {seconds} s");
        }
        HookOutcome::NotStarted(error) => {
            tracing::error!(uplink, state, error, "dns.hook: cannot run");
            last_error.set(format!("the hook cannot run: {error}"));
        }
    }
}

/// What the last event about an uplink said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    up: bool,
    tier: u32,
    address: Option<Ipv4Addr>,
}

impl Sent {
    fn of(uplink: &UplinkState) -> Self {
        Self { up: uplink.up, tier: uplink.tier, address: uplink.address }
    }
}

/// The last event about each uplink, by its name.
type SentEvents = HashMap<String, Sent>;

/// Returns the event of the first uplink whose state differs from the last event about it.
fn next_event(sent: &SentEvents, states: &UplinkStates, number: u64) -> Option<HookEvent> {
    let is_news = |uplink: &&UplinkState| sent.get(&uplink.name) != Some(&Sent::of(uplink));
    let uplink = states.uplinks.iter().find(is_news)?;
    let all_up = states.in_use().filter(|uplink| uplink.up);
    let all_up = all_up.filter_map(|uplink| Some((uplink.name.clone(), uplink.address?)));
    Some(HookEvent {
        number,
        uplink: uplink.name.clone(),
        address: uplink.address,
        up: uplink.up,
        tier: uplink.tier,
        all_up: all_up.collect(),
    })
}

fn state(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

/// Does the runner's work: runs `hook` for each event that it reads from `events`, until the pipe
/// closes. `taken_over`: whether another process did this work before.
///
/// # Errors
/// An event cannot be read, or an outcome cannot be written.
pub(crate) fn run_events(
    hook: &Path,
    events: impl Read + AsFd,
    mut outcomes: impl Write,
    taken_over: bool,
) -> io::Result<()> {
    if taken_over {
        write_line(&mut outcomes, &RunnerAnswer::TakenOver)?;
    }
    let mut events = BufReader::new(events);
    let mut text = String::new();
    loop {
        text.clear();
        if events.read_line(&mut text)? == 0 {
            return Ok(());
        }
        let event: HookEvent = serde_json::from_str(&text)?;
        let Some(outcome) = run(hook, &event, events.get_ref())? else { return Ok(()) };
        write_line(&mut outcomes, &RunnerAnswer::Ended { number: event.number, outcome })?;
    }
}

fn write_line(outcomes: &mut impl Write, answer: &RunnerAnswer) -> io::Result<()> {
    let mut line = serde_json::to_string(answer)?;
    line.push('\n');
    outcomes.write_all(line.as_bytes())?;
    outcomes.flush()
}

/// Runs the hook to its end. None: natbox has ended.
fn run(hook: &Path, event: &HookEvent, events: impl AsFd) -> io::Result<Option<HookOutcome>> {
    let (names, addresses): (Vec<_>, Vec<_>) =
        event.all_up.iter().map(|(name, address)| (name.as_str(), address.to_string())).unzip();
    let mut command = Command::new(hook);
    command
        .env("NATBOX_UPLINK", &event.uplink)
        .env("NATBOX_ADDRESS", event.address.map_or(String::new(), |address| address.to_string()))
        .env("NATBOX_STATE", state(event.up))
        .env("NATBOX_TIER", event.tier.to_string())
        // Names may contain blanks and commas, but no line breaks.
        .env("NATBOX_UP_UPLINKS", names.join("\n"))
        .env("NATBOX_UP_ADDRESSES", addresses.join(" "))
        .stdin(Stdio::null())
        // Standard output of the runner is the pipe to natbox.
        .stdout(io::stderr().as_fd().try_clone_to_owned()?)
        .process_group(0);
    let mut process = match command.spawn() {
        Ok(process) => process,
        Err(error) => return Ok(Some(HookOutcome::NotStarted(error.to_string()))),
    };
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = process.try_wait()? {
            return Ok(Some(outcome(status)));
        }
        if Instant::now() >= deadline {
            end(&mut process)?;
            return Ok(Some(HookOutcome::TookTooLong));
        }
        // natbox writes nothing until it has the outcome, so any event on the pipe is the end of
        // natbox.
        let mut pipe = [PollFd::new(&events, PollFlags::IN)];
        if poll(&mut pipe, Some(&POLL_INTERVAL)).is_ok_and(|ready| ready > 0) {
            end(&mut process)?;
            return Ok(None);
        }
    }
}

fn outcome(status: ExitStatus) -> HookOutcome {
    match (status.code(), status.signal()) {
        (Some(0), _) => HookOutcome::Done,
        (Some(code), _) => HookOutcome::Failed(format!("exit code {code}")),
        (None, Some(signal)) => HookOutcome::Failed(format!("signal {signal}")),
        (None, None) => HookOutcome::Failed(status.to_string()),
    }
}

/// Kills a hook with all processes that it started.
fn end(process: &mut Child) -> io::Result<()> {
    if let Some(group) = i32::try_from(process.id()).ok().and_then(Pid::from_raw) {
        // The process leads its group, and nothing has waited for it: the number is still its own.
        kill_process_group(group, Signal::KILL)?;
    }
    process.wait().map(drop)
}

/// How long a hook may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the runner checks whether the hook has ended.
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
/// How often natbox checks whether the runner has ended.
const END_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
