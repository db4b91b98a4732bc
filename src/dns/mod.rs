//! DNS that follows the uplinks: an authoritative name server for the published names, updates of a
//! zone on another server, and a hook.
//!
//! ```text
//!   Uplinks ──┬─▶ Responder ◀─▶ sockets, UDP and TCP      the name server
//!             ├─▶ update::follow ─▶ RFC 2136, TSIG        a zone on another server
//!             └─▶ HookRunner ─▶ hook                      any other program
//! ```
//!
//! A *published* name has the addresses of uplinks that are up.
//!
//! A thread of its own runs all of this, so a flood of queries delays nothing else. The start has
//! two steps. [`PreparedService::new`] does what needs privileges: sockets below port 1024,
//! secrets, the process that runs the hook. [`PreparedService::start`] does the rest, after natbox
//! has dropped its privileges. A reload replaces everything but the process that runs the hook.

mod answer;
mod counters;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod hook;
mod last_errors;
mod limit;
mod responder;
mod server;
mod update;
mod zone;

#[cfg(any(test, feature = "fuzzing"))]
mod testing;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub(crate) use counters::Counters;
pub(crate) use hook::{HookError, RUNNER_COMMAND, check_hook, run_events};
pub(crate) use update::{SecretError, TsigKey, Update, read_secret};
pub(crate) use zone::{NameServer, PublishedName, Zone};

use hook::HookRunner;
use last_errors::LastErrors;
use responder::Responder;
use server::Sockets;

use crate::uplinks::{UplinkStates, Uplinks};

/// Settings of name server, updates and hook.
#[derive(Debug)]
pub(crate) struct DnsSettings {
    /// The published zone.
    pub zone: Zone,
    /// Where the name server listens, by UDP and by TCP; empty: there is no name server. An address
    /// need not exist yet.
    pub listen: Vec<SocketAddr>,
    /// Most answers by UDP to the clients of one /24, in a second; at least 1.
    pub answers_per_second: u32,
    /// Server that natbox updates.
    pub update: Option<Update>,
    /// Command that starts the process which runs the hook, see [`RUNNER_COMMAND`].
    pub hook_runner: Option<Command>,
}

/// Why DNS cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    /// The name server cannot listen at an address.
    #[error(
        "dns.listen: {address}: {source}; stop another name server on this host; port 53 needs \
         CAP_NET_BIND_SERVICE"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The secret cannot be read.
    #[error("dns.update.secret_file: {0}")]
    Secret(#[from] SecretError),
    /// The hook cannot run.
    #[error("dns.hook: {0}")]
    Hook(#[from] HookError),
    /// The process that runs the hook cannot be started.
    #[error("dns.hook: the process that runs the hook cannot be started: {0}")]
    HookRunner(io::Error),
    /// The thread cannot be started.
    #[error("dns: the thread cannot be started: {0}")]
    Thread(io::Error),
}

/// DNS after the step that needs privileges.
#[derive(Debug)]
pub(crate) struct PreparedService {
    zone: Zone,
    sockets: Vec<Sockets>,
    answers_per_second: u32,
    update: Option<Update>,
    hook_runner: Option<HookRunner>,
}

impl PreparedService {
    /// Binds the sockets and starts the process that runs the hook. Needs the privileges for both.
    ///
    /// # Errors
    /// [`DnsError::Bind`] or [`DnsError::HookRunner`].
    pub(crate) fn new(settings: DnsSettings) -> Result<Self, DnsError> {
        let DnsSettings { zone, listen, answers_per_second, update, hook_runner } = settings;
        let bind =
            |address| Sockets::bind(address).map_err(|source| DnsError::Bind { address, source });
        let sockets = listen.into_iter().map(bind).collect::<Result<_, _>>()?;
        let hook_runner =
            hook_runner.map(HookRunner::start).transpose().map_err(DnsError::HookRunner)?;
        Ok(Self { zone, sockets, answers_per_second, update, hook_runner })
    }

    /// Adds an address at which the name server listens, at any port: a probe address, to which
    /// natbox forwards port 53 of the uplink. Returns the port. Needs no privilege.
    ///
    /// # Errors
    /// [`DnsError::Bind`].
    pub(crate) fn listen_also(&mut self, address: IpAddr) -> Result<u16, DnsError> {
        let address = SocketAddr::new(address, 0);
        let error = |source| DnsError::Bind { address, source };
        let sockets = Sockets::bind(address).map_err(error)?;
        let port = sockets.address().map_err(error)?.port();
        self.sockets.push(sockets);
        Ok(port)
    }

    /// Starts the thread, which first calls `confine`. Name server, updates and hook follow
    /// `uplinks` from now on.
    ///
    /// # Errors
    /// [`DnsError::Thread`], for instance when the system has no descriptors left.
    pub(crate) fn start(self, uplinks: &Uplinks, confine: fn()) -> Result<Service, DnsError> {
        let counters = Arc::new(Counters::default());
        let last_errors = Arc::new(LastErrors::default());
        #[cfg(test)]
        let listening = self.sockets.iter().filter_map(|sockets| sockets.address().ok()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(DnsError::Thread)?;
        let (replacements, replaced) = mpsc::unbounded_channel();
        let (report, reported) = std::sync::mpsc::sync_channel(1);
        let followers =
            Followers { uplinks: uplinks.watch(), last_errors: Arc::clone(&last_errors) };
        let served = self.serve(followers, Arc::clone(&counters), report, replaced);
        let thread = std::thread::Builder::new()
            .name("natbox-dns".to_owned())
            .spawn(move || {
                confine();
                runtime.block_on(served);
            })
            .map_err(DnsError::Thread)?;
        match reported.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(DnsError::Thread(error)),
            Err(_) => unreachable!("the thread reports before anything else"),
        }
        Ok(Service {
            #[cfg(test)]
            listening,
            counters,
            last_errors,
            replacements: Some(replacements),
            thread: Some(thread),
        })
    }

    /// Serves until the other half of `replaced` is dropped. What comes from there replaces all
    /// but the hook. Sends to `report` whether the start succeeded.
    async fn serve(
        mut self,
        followers: Followers,
        counters: Arc<Counters>,
        report: std::sync::mpsc::SyncSender<io::Result<()>>,
        mut replaced: mpsc::UnboundedReceiver<Self>,
    ) {
        let (hook_runner, first) = (self.hook_runner.take(), self);
        let mut tasks = JoinSet::new();
        let started = first.serve_without_hook(&followers, &counters, &mut tasks);
        let is_serving = started.is_ok();
        if report.send(started).is_err() || !is_serving {
            return;
        }
        if let Some(hook_runner) = hook_runner {
            let states = followers.uplinks.clone();
            tokio::spawn(hook_runner.follow(states, Arc::clone(&followers.last_errors)));
        }
        while let Some(next) = replaced.recv().await {
            tasks.shutdown().await;
            followers.last_errors.update.clear();
            if let Err(error) = next.serve_without_hook(&followers, &counters, &mut tasks) {
                tracing::error!(%error, "dns: the sockets of the new configuration cannot be served");
            }
        }
    }

    /// Starts the tasks of the name server and of the updates.
    fn serve_without_hook(
        self,
        followers: &Followers,
        counters: &Arc<Counters>,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<()> {
        let Self { zone, sockets, answers_per_second, update, hook_runner: _ } = self;
        let Followers { uplinks, last_errors } = followers;
        let responder = Responder::new(zone.clone(), uplinks.clone(), Arc::clone(counters));
        server::serve(sockets, responder, answers_per_second, tasks)?;
        if let Some(update) = update {
            let follow = update::follow(zone, update, uplinks.clone(), Arc::clone(last_errors));
            tasks.spawn(follow);
        }
        Ok(())
    }
}

/// What follows the uplinks, and where the followers report their errors.
struct Followers {
    uplinks: watch::Receiver<UplinkStates>,
    last_errors: Arc<LastErrors>,
}

/// Running DNS. Stops when dropped.
#[derive(Debug)]
pub(crate) struct Service {
    #[cfg(test)]
    listening: Vec<SocketAddr>,
    counters: Arc<Counters>,
    last_errors: Arc<LastErrors>,
    /// None once it is dropped.
    replacements: Option<mpsc::UnboundedSender<PreparedService>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Returns where the name server listens.
    #[cfg(test)]
    pub(crate) fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Replaces zone, sockets, limit and updates. The process that runs the hook stays.
    pub(crate) fn replace(&self, prepared: PreparedService) {
        if let Some(replacements) = &self.replacements {
            // Fails only after a panic of the thread, which ends the process.
            let _ = replacements.send(prepared);
        }
    }

    /// Returns the counters of the name server.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns why the last update failed; None: the update succeeded, or there was none yet.
    pub(crate) fn update_error(&self) -> Option<String> {
        self.last_errors.update.text()
    }

    /// Returns why the hook cannot run; None: no error is known.
    pub(crate) fn hook_error(&self) -> Option<String> {
        self.last_errors.hook.text()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.replacements.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the process, or the test's own hook has reported it.
            let _ = thread.join();
        }
    }
}
