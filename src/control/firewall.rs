//! The subsystem that watches whether the host's filters let natbox's packets pass.
//!
//! ```text
//!   nftables changes ─┐
//!                     ├─▶ listing: lister lists the rules ─▶ doctor evaluates them ─▶ Warnings
//!   once a minute ────┘
//! ```
//!
//! Another program may add a rule at any time: Docker sets the policy of FORWARD to drop when it
//! starts. The kernel then drops packets without a trace in natbox's counters.
//!
//! The pause after a listing is at least [`PAUSE_FACTOR`] times as long as the listing. So a host
//! whose large rules change all the time spends little time on listings.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UdpSocket;
use tokio::net::unix::pipe;

use super::reload::Reloader;
use super::subsystem::{Outcome, Subsystem};
use super::warnings::Warnings;
use crate::host::doctor::{self, LISTER_COMMAND, RuleListing};
use crate::timer::sleep_until;

/// The process that lists the rules. It has the privileges of the start.
pub(super) struct ListerProcess {
    process: Child,
    requests: OwnedFd,
    answers: OwnedFd,
}

/// The start of a [`ListerProcess`]. The first packets do not wait for it.
pub(super) struct StartingLister(io::Result<JoinHandle<io::Result<ListerProcess>>>);

impl StartingLister {
    /// Starts the process in a thread, which has the privileges of this one, and ends then.
    pub(super) fn start() -> Self {
        Self(
            std::thread::Builder::new()
                .name("natbox-lister".to_owned())
                .spawn(ListerProcess::start),
        )
    }

    /// Waits until the process runs.
    ///
    /// # Errors
    /// The system's error.
    pub(super) fn started(self) -> io::Result<ListerProcess> {
        let panicked = |_| io::Error::other("the thread that starts it has panicked");
        self.0?.join().map_err(panicked)?
    }
}

impl ListerProcess {
    /// Starts the process.
    ///
    /// # Errors
    /// The system's error.
    fn start() -> io::Result<Self> {
        // The program that runs now, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg(LISTER_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped());
        // A group of its own: a terminal's signals must not reach the process, which ends when the
        // pipe closes.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut process = command.spawn()?;
        let requests = process.stdin.take().expect("it was asked for").into();
        let answers = process.stdout.take().expect("it was asked for").into();
        Ok(Self { process, requests, answers })
    }
}

/// Watches the host's filters.
pub(super) struct FirewallWatch {
    reloader: Rc<Reloader>,
    warnings: Rc<Warnings>,
    process: Child,
    /// None while a listing is in progress.
    pipes: Option<Pipes>,
    listing: Option<Listing>,
    next_listing: Instant,
    /// Earliest time of the next listing.
    not_before: Instant,
    /// A netlink socket in a UDP wrapper, because both receive one message at a time. None: the
    /// kernel reports no changes.
    changes: Option<UdpSocket>,
}

/// A listing in progress.
type Listing = Pin<Box<dyn Future<Output = (Pipes, Result<String, String>)>>>;

/// The pipes to the lister.
pub(super) struct Pipes {
    requests: pipe::Sender,
    answers: BufReader<pipe::Receiver>,
    /// Number of the last request.
    number: u64,
}

/// An event for which the watch waits.
pub(super) enum FirewallEvent {
    /// The lister has answered.
    Listed(Pipes, Result<String, String>),
    /// A listing is due.
    Due,
    /// The rules have changed.
    Changed,
}

impl FirewallWatch {
    /// Watches with a lister. Must run on the control thread's runtime.
    ///
    /// # Errors
    /// The pipes cannot be used.
    pub(super) fn new(
        lister: ListerProcess,
        reloader: Rc<Reloader>,
        warnings: Rc<Warnings>,
    ) -> io::Result<Self> {
        let ListerProcess { process, requests, answers } = lister;
        let requests = pipe::Sender::from_owned_fd(requests)?;
        let answers = BufReader::new(pipe::Receiver::from_owned_fd(answers)?);
        let now = Instant::now();
        let changes = subscription().inspect_err(|error| {
            tracing::debug!(%error, "the kernel reports no changes of nftables");
        });
        Ok(Self {
            reloader,
            warnings,
            process,
            pipes: Some(Pipes { requests, answers, number: 0 }),
            listing: None,
            next_listing: now,
            not_before: now,
            changes: changes.ok(),
        })
    }

    /// Evaluates the rules. In a thread of its own, because forwards and rules may be many.
    async fn evaluate(&self, listing: Result<String, String>) {
        let (config, facts) = (self.reloader.config(), self.reloader.host_facts());
        let evaluation =
            tokio::task::spawn_blocking(move || doctor::examine_firewall(&config, &facts, listing));
        // Fails only when the instance is stopping.
        if let Ok(findings) = evaluation.await {
            self.warnings.set(Self::NAME, findings);
        }
    }
}

impl Subsystem for FirewallWatch {
    type Event = FirewallEvent;
    const NAME: &'static str = "firewall watch";

    async fn next(&mut self) -> FirewallEvent {
        let is_idle = self.listing.is_none() && self.pipes.is_some();
        let due = is_idle.then_some(self.next_listing);
        tokio::select! {
            (pipes, listing) = listed(&mut self.listing) => FirewallEvent::Listed(pipes, listing),
            () = sleep_until(due) => FirewallEvent::Due,
            () = changed(self.changes.as_ref()) => FirewallEvent::Changed,
        }
    }

    async fn handle(&mut self, event: FirewallEvent) -> Outcome {
        let now = Instant::now();
        match event {
            FirewallEvent::Due => {
                if let Some(pipes) = self.pipes.take() {
                    self.listing = Some(Box::pin(list(pipes)));
                    self.not_before = now;
                    self.next_listing = now + INTERVAL;
                }
            }
            FirewallEvent::Changed => {
                self.next_listing = self.next_listing.min(self.not_before.max(now + SETTLE_DELAY));
            }
            FirewallEvent::Listed(pipes, listing) => {
                self.listing = None;
                // Leaves no zombie if another process has taken over.
                let _ = self.process.try_wait();
                self.evaluate(listing).await;
                let took = now.saturating_duration_since(self.not_before);
                self.not_before = now + MIN_LISTING_INTERVAL.max(took * PAUSE_FACTOR);
                self.next_listing = self.next_listing.max(self.not_before);
                self.pipes = Some(pipes);
            }
        }
        Outcome::Continue(())
    }

    async fn stop(mut self) {
        // The lister ends because its pipe is closed. Waiting for its end leaves no zombie.
        (self.pipes, self.listing) = (None, None);
        while matches!(self.process.try_wait(), Ok(None)) {
            tokio::time::sleep(END_INTERVAL).await;
        }
    }
}

/// Waits for a listing in progress; forever if there is none. Cancel safe: the listing stays.
async fn listed(listing: &mut Option<Listing>) -> (Pipes, Result<String, String>) {
    match listing {
        Some(listing) => listing.await,
        None => std::future::pending().await,
    }
}

/// Asks the lister for the rules.
async fn list(mut pipes: Pipes) -> (Pipes, Result<String, String>) {
    let listing = async {
        pipes.request().await?;
        let mut line = String::new();
        loop {
            line.clear();
            if pipes.answers.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match serde_json::from_str(&line)? {
                RuleListing::Listed { request, rules } if request == pipes.number => {
                    return Ok(rules);
                }
                // The answer to a request that was sent twice.
                RuleListing::Listed { .. } => {}
                // The request may be lost with the process that had read it.
                RuleListing::TakenOver => pipes.request().await?,
            }
        }
    };
    let listing = listing.await.unwrap_or_else(|error: io::Error| {
        Err(format!("the process that lists them has ended ({error}); restart natbox"))
    });
    (pipes, listing)
}

impl Pipes {
    /// Asks for the rules.
    async fn request(&mut self) -> io::Result<()> {
        self.number += 1;
        self.requests.write_all(format!("{}\n", self.number).as_bytes()).await
    }
}

/// Subscribes to changes of nftables.
fn subscription() -> io::Result<UdpSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let protocol = Some(netlink::NETFILTER);
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 1 << (NFNLGRP_NFTABLES - 1)))?;
    UdpSocket::from_std(socket.into())
}

/// Waits for changes, and reads all messages about them. The rules are read as a whole, so neither
/// their content nor lost ones matter.
async fn changed(changes: Option<&UdpSocket>) {
    let Some(changes) = changes else { return std::future::pending().await };
    let mut buffer = [0; 8192];
    // An error means that messages were lost.
    let _ = changes.recv(&mut buffer).await;
    while changes.try_recv(&mut buffer).is_ok() {}
}

/// Group of netlink messages about nftables (linux/netfilter/nfnetlink.h).
const NFNLGRP_NFTABLES: u32 = 7;
/// Time between two listings without a change. The old iptables reports none.
const INTERVAL: Duration = Duration::from_secs(60);
/// Least time between the end of a listing and the next one.
const MIN_LISTING_INTERVAL: Duration = Duration::from_secs(2);
/// Least ratio of the time between two listings to the time of one.
const PAUSE_FACTOR: u32 = 50;
/// Delay after a change, since changes come in bursts.
const SETTLE_DELAY: Duration = Duration::from_millis(200);
/// How often the stop checks whether the lister has ended.
const END_INTERVAL: Duration = Duration::from_millis(10);
