//! Taking in a changed configuration file while the box runs.
//!
//! All of a change or nothing: when the file has a problem, or changes a key that only a restart can change, the box
//! goes on by its old rules and says so.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::engine;
use crate::host::{HostFacts, PlannedHost, RoutingIds};
use crate::nat::Translator;
use crate::time::Tick;

use super::events::Events;
use super::settings;
use crate::api::{EventKind, Reloaded};
use crate::config::{self, Config, DynamicAddress, Loaded, Problems};

/// Why the box goes on by its old rules.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file has problems.
    #[error("{0}")]
    Config(#[from] Problems),
    /// Something changed that a running box cannot change.
    #[error(
        "{path}: {keys} changed, which takes a restart; a running box takes in only {}; nothing was changed",
        config::reloadable_keys().join(", ")
    )]
    NeedsRestart {
        /// The file.
        path: String,
        /// What changed.
        keys: String,
    },
}

/// Keeps what the running box was told.
pub(super) struct Reloader {
    path: PathBuf,
    /// As the file has it.
    file_config: RefCell<Config>,
    host: RefCell<Host>,
    /// See [`settings::policy`].
    dns: Vec<Option<u16>>,
    routing_ids: RoutingIds,
    nat: Arc<ArcSwap<Translator>>,
    events: Rc<Events>,
}

/// What is known of the host.
#[derive(Clone)]
struct Host {
    whereabouts: Vec<Option<DynamicAddress>>,
    facts: HostFacts,
}

impl Host {
    fn new(config: &Config, facts: &HostFacts) -> Self {
        Self { whereabouts: config.dynamic_addresses(), facts: facts.clone() }
    }
}

impl Reloader {
    /// `written`: as the file has it; `prepared`: the host, and the configuration with the addresses of its interfaces.
    pub(super) fn new(
        path: &Path,
        written: &Config,
        prepared: &PlannedHost,
        dns: Vec<Option<u16>>,
        nat: Arc<ArcSwap<Translator>>,
        events: Rc<Events>,
    ) -> Self {
        let host = RefCell::new(Host::new(prepared.config(), prepared.facts()));
        let routing_ids = prepared.routing_ids();
        Self {
            path: path.to_owned(),
            file_config: RefCell::new(written.clone()),
            host,
            dns,
            routing_ids,
            nat,
            events,
        }
    }

    /// Lives by what is known of the host now. `at`: a configuration with the addresses that its interfaces have. Returns how
    /// many sessions ended.
    pub(super) fn follow(&self, at: &Config, facts: &HostFacts) -> usize {
        let host = Host::new(at, facts);
        let before = self.host.replace(host.clone());
        // Most of what changes on a host concerns no packet, and to look through all sessions takes time.
        let policy = |host: &Host| {
            settings::policy(
                &self.file_config.borrow().resolve(&host.whereabouts),
                &host.facts,
                &self.dns,
            )
        };
        match policy(&before) == policy(&host) {
            true => 0,
            false => self.apply(&self.config(), facts),
        }
    }

    fn apply(&self, config: &Config, facts: &HostFacts) -> usize {
        let policy = settings::policy(config, facts, &self.dns);
        let (now, mut transition) = self.nat.load().with_policy(policy);
        let now = Arc::new(now);
        engine::swap_policy(&self.nat, Arc::clone(&now));
        let mut ended = 0;
        while !transition.is_complete() {
            ended += now.enforce(&mut transition, Tick::now());
        }
        ended
    }

    /// What it lives by, as the file had it.
    pub(super) fn written(&self) -> Config {
        self.file_config.borrow().clone()
    }

    /// What it lives by, with the addresses that its interfaces have.
    pub(super) fn config(&self) -> Config {
        self.file_config.borrow().resolve(&self.host.borrow().whereabouts)
    }

    /// The numbers of its tables and rules.
    pub(super) fn routing_ids(&self) -> RoutingIds {
        self.routing_ids
    }

    /// Reads the file again and lives by it.
    pub(super) fn reload(&self) -> Result<Reloaded, ReloadError> {
        let outcome = self.read_again();
        self.events.emit(match &outcome {
            Ok(Reloaded { changed, sessions_ended, .. }) => {
                EventKind::Reloaded { changed: changed.clone(), sessions_ended: *sessions_ended }
            }
            Err(error) => EventKind::ReloadFailed { error: error.to_string() },
        });
        outcome
    }

    fn read_again(&self) -> Result<Reloaded, ReloadError> {
        let Loaded { config: new, warnings } = config::load(&self.path)?;
        let mut written = self.file_config.borrow_mut();
        let changes = config::changes(&written, &new);
        let stuck = changes.iter().filter(|change| !change.reloadable);
        let stuck: Vec<&str> = stuck.map(|change| change.path.as_str()).collect();
        if !stuck.is_empty() {
            let (path, keys) = (self.path.display().to_string(), stuck.join(", "));
            return Err(ReloadError::NeedsRestart { path, keys });
        }
        let changed: Vec<String> = changes.into_iter().map(|change| change.path).collect();
        let mut sessions_ended = 0;
        if !changed.is_empty() {
            let host = self.host.borrow();
            sessions_ended = self.apply(&new.resolve(&host.whereabouts), &host.facts);
            *written = new;
        }
        let warnings = warnings.iter().map(ToString::to_string).collect();
        Ok(Reloaded { changed, sessions_ended, warnings })
    }
}
