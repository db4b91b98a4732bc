//! Names of pages that are asked: looked up by the host, and remembered for when it cannot.
//!
//! The host looks names up by its own default route. When that leads over a line that has died, no name would be found, and
//! with the names every line would fail that asks by them. So the addresses that a name had last are good until there
//! are others, and nobody waits long for those.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

/// Looks names up.
#[derive(Clone)]
pub(super) struct Names {
    look_up: Arc<dyn Fn(&str) -> LookUp + Send + Sync>,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

/// The addresses of a name; it may take its time.
type LookUp = Pin<Box<dyn Future<Output = io::Result<Vec<Ipv4Addr>>> + Send>>;

/// What is known of a name.
#[derive(Default)]
struct Known {
    addresses: Vec<Ipv4Addr>,
    /// Its end is heard here, while it is looked up.
    under_way: Option<watch::Receiver<Outcome>>,
}

/// None: not yet. A failure as text, since several may wait for it.
type Outcome = Option<Result<(), String>>;

impl Names {
    /// By the host's own means.
    pub(super) fn new() -> Self {
        Self::by(|name| Box::pin(ask_the_host(name.to_owned())))
    }

    fn by(look_up: impl Fn(&str) -> LookUp + Send + Sync + 'static) -> Self {
        Self { look_up: Arc::new(look_up), known: Arc::default() }
    }

    /// The addresses of a name: those that it has, if that is found out soon; or those that it had last. Only if there never
    /// were any, the caller waits as long as it takes.
    async fn addresses(&self, name: &str) -> Result<Vec<Ipv4Addr>, String> {
        let (mut outcome, is_new) = self.begin(name);
        let last = self.last(name);
        // Whoever comes while it is being asked in vain does not wait again.
        let patience = if is_new { PATIENCE } else { Duration::ZERO };
        let ended = async {
            let outcome = outcome.wait_for(Option::is_some).await;
            outcome
                .ok()
                .and_then(|outcome| outcome.clone())
                .unwrap_or_else(|| Err("given up".to_owned()))
        };
        let outcome = if last.is_empty() {
            ended.await
        } else {
            timeout(patience, ended).await.unwrap_or(Ok(()))
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

    /// Has a name looked up if that is not under way; and whether it was not.
    fn begin(&self, name: &str) -> (watch::Receiver<Outcome>, bool) {
        let mut all = self.known.lock();
        let known = all.entry(name.to_owned()).or_default();
        if let Some(under_way) = &known.under_way {
            return (under_way.clone(), false);
        }
        let (ended, outcome) = watch::channel(None);
        known.under_way = Some(outcome.clone());
        let (look_up, known, name) =
            ((self.look_up)(name), Arc::clone(&self.known), name.to_owned());
        tokio::spawn(async move {
            let found = look_up.await;
            let mut all = known.lock();
            let known = all.entry(name).or_default();
            known.under_way = None;
            // What has no address of the lines' kind counts as not found.
            let found = found.and_then(|found| match found.is_empty() {
                true => Err(io::Error::other("the name has no IPv4 address")),
                false => Ok(found),
            });
            let outcome =
                found.map(|found| known.addresses = found).map_err(|error| error.to_string());
            // Nobody may be waiting any more.
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
            // Port 0: that of the page.
            let found: Addrs =
                Box::new(found.into_iter().map(|address| SocketAddr::from((address, 0))));
            Ok(found)
        })
    }
}

/// On a thread of its own, since it may take half a minute, and nobody who stops waits for it.
async fn ask_the_host(name: String) -> io::Result<Vec<Ipv4Addr>> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().name("natbox-names".to_owned()).spawn(move || {
        let found =
            (name.as_str(), 0).to_socket_addrs().map(|found| found.filter_map(ipv4).collect());
        // The box may have stopped.
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

/// How long it is waited for other addresses than the known ones: little beside what a probe may take.
const PATIENCE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

    /// What the host does with a question.
    #[derive(Clone)]
    enum Host {
        Says(Vec<Ipv4Addr>),
        Fails,
        IsSilent,
    }

    struct Scene {
        names: Names,
        host: Arc<Mutex<Host>>,
        asked: Arc<AtomicUsize>,
    }

    impl Scene {
        fn new(host: Host) -> Self {
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
                        Host::Says(addresses) => Ok(addresses),
                        Host::Fails => Err(io::Error::other("no name server answers")),
                        Host::IsSilent => std::future::pending().await,
                    }
                })
            });
            Self { names, host, asked }
        }

        fn becomes(&self, host: Host) {
            *self.host.lock() = host;
        }

        /// As the client for pages asks.
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
        let scene = Scene::new(Host::Fails);
        assert_eq!(scene.resolve().await, Err("no name server answers".to_owned()));
        scene.becomes(Host::Says(Vec::new()));
        assert_eq!(scene.resolve().await, Err("the name has no IPv4 address".to_owned()));
        scene.becomes(Host::Says(vec![FIRST]));
        assert_eq!(scene.resolve().await, at(FIRST));
        for host in [Host::Fails, Host::Says(Vec::new())] {
            scene.becomes(host);
            assert_eq!(scene.resolve().await, at(FIRST));
        }
        scene.becomes(Host::Says(vec![SECOND]));
        assert_eq!(
            scene.resolve().await,
            at(SECOND),
            "other addresses take the place of the last ones"
        );
    }

    #[tokio::test]
    async fn nobody_waits_long_for_a_host_that_is_silent() {
        let scene = Scene::new(Host::Says(vec![FIRST]));
        assert_eq!(scene.resolve().await, at(FIRST));
        scene.becomes(Host::IsSilent);
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(scene.resolve().await, at(FIRST));
        }
        let took = start.elapsed();
        assert!(took >= PATIENCE && took < 3 * PATIENCE, "only the first one waits: {took:?}");
        // Relaxed: one thread.
        assert_eq!(scene.asked.load(Ordering::Relaxed), 2, "one question at a time");
    }

    #[tokio::test]
    async fn the_host_looks_up_what_it_knows() {
        let names = Names::new();
        assert_eq!(names.addresses("localhost").await, Ok(vec![Ipv4Addr::LOCALHOST]));
    }
}
