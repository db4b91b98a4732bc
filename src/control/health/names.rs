//! Host names of HTTP targets. The host resolves them, and natbox keeps the addresses in case the
//! host cannot resolve them later.
//!
//! The host resolves names over its own default route. If that route leads over a failed uplink, no
//! name resolves, and every uplink whose targets have names would fail. So the last addresses of a
//! name stay valid until the host finds others, and no probe waits long for new addresses.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::control::sandbox;

/// Resolves host names.
#[derive(Clone)]
pub(super) struct Names {
    look_up: Arc<dyn Fn(&str) -> LookUp + Send + Sync>,
    known: Arc<Mutex<HashMap<String, NameEntry>>>,
}

/// A look-up in progress.
type LookUp = Pin<Box<dyn Future<Output = io::Result<Vec<Ipv4Addr>>> + Send>>;

/// The addresses of a name, and its look-up.
#[derive(Default)]
struct NameEntry {
    addresses: Vec<Ipv4Addr>,
    /// Result of the look-up that is in progress.
    pending: Option<watch::Receiver<LookupResult>>,
}

/// None: not yet. An error is text, because several probes may wait for it.
type LookupResult = Option<Result<(), String>>;

impl Names {
    /// Makes a resolver that asks the host.
    pub(super) fn new() -> Self {
        Self::by(|name| Box::pin(ask_the_host(name.to_owned())))
    }

    fn by(look_up: impl Fn(&str) -> LookUp + Send + Sync + 'static) -> Self {
        Self { look_up: Arc::new(look_up), known: Arc::default() }
    }

    /// Returns the addresses of a name: new ones if the host resolves the name soon, otherwise the
    /// last ones. If there are no last ones, waits until the look-up ends.
    async fn addresses(&self, name: &str) -> Result<Vec<Ipv4Addr>, String> {
        let (mut outcome, is_new) = self.begin(name);
        let last = self.last(name);
        // A probe that finds a look-up in progress does not wait for it.
        let wait = if is_new { MAX_WAIT } else { Duration::ZERO };
        let ended = async {
            let outcome = outcome.wait_for(Option::is_some).await;
            outcome
                .ok()
                .and_then(|outcome| outcome.clone())
                .unwrap_or_else(|| Err("the look-up was abandoned".to_owned()))
        };
        let outcome = if last.is_empty() {
            ended.await
        } else {
            timeout(wait, ended).await.unwrap_or(Ok(()))
        };
        match self.last(name) {
            none if none.is_empty() => {
                Err(outcome.err().unwrap_or_else(|| "no address".to_owned()))
            }
            addresses => Ok(addresses),
        }
    }

    fn last(&self, name: &str) -> Vec<Ipv4Addr> {
        self.known.lock().get(name).map(|known| known.addresses.clone()).unwrap_or_default()
    }

    /// Begins a look-up unless one is in progress. Returns its result channel, and whether the
    /// look-up is new.
    fn begin(&self, name: &str) -> (watch::Receiver<LookupResult>, bool) {
        let mut all = self.known.lock();
        let known = all.entry(name.to_owned()).or_default();
        if let Some(pending) = &known.pending {
            return (pending.clone(), false);
        }
        let (ended, outcome) = watch::channel(None);
        known.pending = Some(outcome.clone());
        let (look_up, known, name) =
            ((self.look_up)(name), Arc::clone(&self.known), name.to_owned());
        tokio::spawn(async move {
            let found = look_up.await;
            let mut all = known.lock();
            let known = all.entry(name).or_default();
            known.pending = None;
            // Uplinks are IPv4, so a name without an IPv4 address counts as not found.
            let found = found.and_then(|found| match found.is_empty() {
                true => Err(io::Error::other("the name has no IPv4 address")),
                false => Ok(found),
            });
            let outcome =
                found.map(|found| known.addresses = found).map_err(|error| error.to_string());
            // Fails if every probe that waited has timed out.
            let _ = ended.send(Some(outcome));
        });
        (outcome, true)
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let found = names.addresses(name.as_str()).await;
            let found = found.map_err(Box::<dyn Error + Send + Sync>::from)?;
            // Port 0 stands for the port of the page.
            let found: Addrs =
                Box::new(found.into_iter().map(|address| SocketAddr::from((address, 0))));
            Ok(found)
        })
    }
}

/// Resolves a name on a thread of its own: a look-up may take half a minute, and a stop does not
/// wait for it.
async fn ask_the_host(name: String) -> io::Result<Vec<Ipv4Addr>> {
    let (sender, receiver) = oneshot::channel();
    sandbox::spawn("natbox-names", move || {
        let found =
            (name.as_str(), 0).to_socket_addrs().map(|found| found.filter_map(ipv4).collect());
        // Fails if natbox has stopped.
        let _ = sender.send(found);
    })?;
    receiver.await.map_err(io::Error::other)?
}

fn ipv4(address: SocketAddr) -> Option<Ipv4Addr> {
    match address {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    }
}

/// Time that a probe waits for newer addresses than the last ones. Short compared to the probe's
/// timeout.
const MAX_WAIT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    /// What the host's resolver does.
    #[derive(Clone)]
    enum HostResolver {
        Answers(Vec<Ipv4Addr>),
        Fails,
        IsSilent,
    }

    struct Fixture {
        names: Names,
        host: Arc<Mutex<HostResolver>>,
        asked: Arc<AtomicUsize>,
    }

    impl Fixture {
        fn new(host: HostResolver) -> Self {
            let host = Arc::new(Mutex::new(host));
            let asked = Arc::new(AtomicUsize::new(0));
            let (now, count) = (Arc::clone(&host), Arc::clone(&asked));
            let names = Names::by(move |name| {
                assert_eq!(name, "example.org");
                // Relaxed: one thread.
                count.fetch_add(1, Ordering::Relaxed);
                let now = now.lock().clone();
                Box::pin(async move {
                    match now {
                        HostResolver::Answers(addresses) => Ok(addresses),
                        HostResolver::Fails => Err(io::Error::other("no name server answers")),
                        HostResolver::IsSilent => std::future::pending().await,
                    }
                })
            });
            Self { names, host, asked }
        }

        fn becomes(&self, host: HostResolver) {
            *self.host.lock() = host;
        }

        /// Resolves the way the HTTP client does.
        async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
            let found = self.names.resolve("example.org".parse().unwrap()).await;
            found.map(Iterator::collect).map_err(|error| error.to_string())
        }
    }

    fn at(address: Ipv4Addr) -> Result<Vec<SocketAddr>, String> {
        Ok(vec![(address, 0).into()])
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_keeps_its_last_addresses() {
        let fixture = Fixture::new(HostResolver::Fails);
        assert_eq!(fixture.resolve().await, Err("no name server answers".to_owned()));
        fixture.becomes(HostResolver::Answers(Vec::new()));
        assert_eq!(fixture.resolve().await, Err("the name has no IPv4 address".to_owned()));
        fixture.becomes(HostResolver::Answers(vec![FIRST]));
        assert_eq!(fixture.resolve().await, at(FIRST));
        for host in [HostResolver::Fails, HostResolver::Answers(Vec::new())] {
            fixture.becomes(host);
            assert_eq!(fixture.resolve().await, at(FIRST));
        }
        fixture.becomes(HostResolver::Answers(vec![SECOND]));
        assert_eq!(fixture.resolve().await, at(SECOND), "newer addresses replace the last ones");
    }

    #[tokio::test]
    async fn no_probe_waits_long_for_a_resolver_that_is_silent() {
        let fixture = Fixture::new(HostResolver::Answers(vec![FIRST]));
        assert_eq!(fixture.resolve().await, at(FIRST));
        fixture.becomes(HostResolver::IsSilent);
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(fixture.resolve().await, at(FIRST));
        }
        let took = start.elapsed();
        assert!(took >= MAX_WAIT && took < 3 * MAX_WAIT, "only the first one waits: {took:?}");
        // Relaxed: one thread.
        assert_eq!(fixture.asked.load(Ordering::Relaxed), 2, "one look-up at a time");
    }

    #[tokio::test]
    async fn the_host_resolves_a_name_that_it_knows() {
        let names = Names::new();
        assert_eq!(names.addresses("localhost").await, Ok(vec![Ipv4Addr::LOCALHOST]));
    }
}
