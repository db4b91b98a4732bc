//! DNS that follows the lines: an authoritative name server for the published names, updates of a zone that lives
//! elsewhere, and a hook.
//!
//! ```text
//!   control ── set_usable ─▶ Lines ──┬─▶ Responder ◀─▶ sockets, UDP and TCP      the name server
//!                                    ├─▶ update::follow ─▶ RFC 2136, TSIG        a zone elsewhere
//!                                    └─▶ Helper ─▶ hook                          anything else
//! ```
//!
//! * *line*: what a client reaches the box by; *usable*: it carries traffic, as far as anybody knows.
//! * *published*: a name that leads to lines.
//!
//! All of it runs on one thread of its own, so that a flood of questions keeps no one else waiting. Its life has two
//! steps: [`Prepared`] does what takes privileges (sockets below port 1024, secrets, the hook's helper), and
//! [`Prepared::start`] the rest, when the box has given them up.

mod answer;
mod counters;
mod hook;
mod last_errors;
mod limit;
mod responder;
mod server;
mod update;
mod uplinks;
mod zone;

#[cfg(test)]
mod testing;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use answer::{Answer, MAX_ADDRESSES, answer};
pub use counters::Counters;
pub use hickory_proto::rr::Name;
pub use hook::{HookError, RUNNER_COMMAND, check_hook, run_events};
pub use update::{Algorithm, Key, Replace, SecretError, Update, read_secret};
pub use uplinks::{UplinkState, UplinkStates, Uplinks};
pub use zone::{NameServer, PublishedName, Zone};

use hook::HookRunner;
use last_errors::LastErrors;
use responder::Responder;
use server::Sockets;

/// What is wanted.
#[derive(Debug)]
pub struct Settings {
    /// The zone.
    pub zone: Zone,
    /// Where the name server answers, by UDP and by TCP; nowhere: there is none. An address need not be there yet.
    pub listen: Vec<SocketAddr>,
    /// Answers by UDP that the clients of one /24 get in a second, at least 1.
    pub answers_per_second: u32,
    /// Who is told of changes.
    pub update: Option<Update>,
    /// The command that starts the hook's helper, see [`RUNNER_COMMAND`].
    pub helper: Option<Command>,
}

/// Why there is no DNS.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// An address cannot be listened at.
    #[error(
        "dns.listen: {address}: {source}; is another name server running on this host? Port 53 takes CAP_NET_BIND_SERVICE"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The secret cannot be had.
    #[error("dns.update.secret_file: {0}")]
    Secret(#[from] SecretError),
    /// The hook cannot be run.
    #[error("dns.hook: {0}")]
    Hook(#[from] HookError),
    /// The hook's helper cannot be started.
    #[error("dns.hook: the process that runs it cannot be started: {0}")]
    Helper(io::Error),
    /// The thread cannot be started.
    #[error("starting the name server's thread: {0}")]
    Thread(io::Error),
}

/// Everything that takes privileges, done.
#[derive(Debug)]
pub struct Prepared {
    zone: Zone,
    sockets: Vec<Sockets>,
    answers_per_second: u32,
    update: Option<Update>,
    helper: Option<HookRunner>,
}

impl Prepared {
    /// Binds the sockets and starts the helper. Call it while the process may do that.
    ///
    /// # Errors
    /// [`DnsError::Bind`] or [`DnsError::Helper`].
    pub fn new(settings: Settings) -> Result<Self, DnsError> {
        let Settings { zone, listen, answers_per_second, update, helper } = settings;
        let bind =
            |address| Sockets::bind(address).map_err(|source| DnsError::Bind { address, source });
        let sockets = listen.into_iter().map(bind).collect::<Result<_, _>>()?;
        let helper = helper.map(HookRunner::start).transpose().map_err(DnsError::Helper)?;
        Ok(Self { zone, sockets, answers_per_second, update, helper })
    }

    /// Answers at one more address, at any port: the box's own endpoint on a line, to which what comes for port 53 there is
    /// led. Returns the port; takes no privilege.
    ///
    /// # Errors
    /// [`DnsError::Bind`].
    pub fn listen_also(&mut self, address: IpAddr) -> Result<u16, DnsError> {
        let address = SocketAddr::new(address, 0);
        let error = |source| DnsError::Bind { address, source };
        let sockets = Sockets::bind(address).map_err(error)?;
        let port = sockets.address().map_err(error)?.port();
        self.sockets.push(sockets);
        Ok(port)
    }

    /// Starts answering and telling; `lines` says what.
    ///
    /// # Errors
    /// [`DnsError::Thread`], also when the system has no descriptors left for it.
    pub fn start(self, lines: &Uplinks) -> Result<Service, DnsError> {
        let counters = Arc::new(Counters::default());
        let listening = self.sockets.iter().filter_map(|sockets| sockets.address().ok()).collect();
        let responder = Responder::new(self.zone.clone(), lines.watch(), Arc::clone(&counters));
        let (update_lines, helper_lines) = (lines.watch(), lines.watch());
        let troubles = Arc::new(LastErrors::default());
        let (update_troubles, helper_troubles) = (Arc::clone(&troubles), Arc::clone(&troubles));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(DnsError::Thread)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (begun, beginning) = std::sync::mpsc::sync_channel(1);
        let run = async move {
            let outcome = server::serve(self.sockets, responder, self.answers_per_second);
            let served = outcome.is_ok();
            if begun.send(outcome).is_err() || !served {
                return;
            }
            if let Some(update) = self.update {
                tokio::spawn(update::follow(self.zone, update, update_lines, update_troubles));
            }
            if let Some(helper) = self.helper {
                tokio::spawn(helper.follow(helper_lines, helper_troubles));
            }
            // Ends also when the other half is dropped.
            let _ = stopped.await;
        };
        let thread = std::thread::Builder::new()
            .name("natbox-dns".to_owned())
            .spawn(move || runtime.block_on(run))
            .map_err(DnsError::Thread)?;
        match beginning.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(DnsError::Thread(error)),
            Err(_) => unreachable!("the thread says how it went before anything else"),
        }
        Ok(Service { listening, counters, troubles, stop: Some(stop), thread: Some(thread) })
    }
}

/// A running name server; it ends when this is dropped.
#[derive(Debug)]
pub struct Service {
    listening: Vec<SocketAddr>,
    counters: Arc<Counters>,
    troubles: Arc<LastErrors>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Where it answers.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// What it has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Why the last update did not succeed; none: it did, or there was none yet.
    pub fn update_error(&self) -> Option<String> {
        self.troubles.update.text()
    }

    /// Why the hook cannot be run; none: nothing is known that speaks against it.
    pub fn hook_error(&self) -> Option<String> {
        self.troubles.hook.text()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has ended the process, or was told by the test's own hook.
            let _ = thread.join();
        }
    }
}
