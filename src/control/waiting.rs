//! An instance that waits for its interfaces: the missing interfaces, its status and its reload.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Notify;

use super::dns;
use super::error::RunError;
use super::events::Events;
use super::reload::{ReloadError, host_warnings};
use crate::api::{
    EffectiveConfig, EventKind, InstanceState, Reloaded, SessionStatus, Status, TunStatus,
    UplinkStatus,
};
use crate::config::{self, Config, Loaded, Uplink};
use crate::host::{self, AwaitedInterface};

/// An instance that waits for its interfaces.
pub(super) struct WaitingInstance {
    path: PathBuf,
    /// Configuration as the file has it.
    config: RefCell<Config>,
    /// Interfaces that the instance waits for.
    awaited: RefCell<Vec<AwaitedInterface>>,
    since: Instant,
    events: Rc<Events>,
    reloaded: Notify,
    /// True: the instance has begun to start with the configuration, so no key can change.
    is_starting: Cell<bool>,
}

impl WaitingInstance {
    pub(super) fn new(path: &Path, config: &Config, events: Rc<Events>) -> Self {
        Self {
            path: path.to_owned(),
            config: RefCell::new(config.clone()),
            awaited: RefCell::default(),
            since: Instant::now(),
            events,
            reloaded: Notify::new(),
            is_starting: Cell::new(false),
        }
    }

    /// Checks whether the instance can start. Emits an event if the interfaces for which it waits
    /// have changed.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub(super) async fn check(&self) -> Result<bool, RunError> {
        let awaited = host::awaited_interfaces(&self.config()).await?;
        let can_start = awaited.is_empty();
        if awaited != self.awaited.replace(awaited.clone()) && !can_start {
            self.events.emit(EventKind::Waiting { missing: self.missing() });
        }
        Ok(can_start)
    }

    /// Records that the instance has begun to start with its configuration. From now on a reload
    /// changes no key, also if the instance waits again.
    pub(super) fn begin_start(&self) {
        self.is_starting.set(true);
    }

    /// Waits until a reload has changed the configuration. Cancel safe.
    pub(super) async fn reloaded(&self) {
        self.reloaded.notified().await;
    }

    /// Returns the events of the instance.
    pub(super) fn events(&self) -> &Events {
        &self.events
    }

    /// Returns the interfaces for which the instance waits, as sentences.
    pub(super) fn missing(&self) -> Vec<String> {
        self.awaited.borrow().iter().map(ToString::to_string).collect()
    }

    /// Reads the file again and waits for its interfaces. Nothing has started yet, so almost every
    /// key can change. Emits an event with the result.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub(super) async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let result = self.read_again().await;
        self.events.emit(match &result {
            Ok(Reloaded { changed, sessions_ended, .. }) => {
                EventKind::Reloaded { changed: changed.clone(), sessions_ended: *sessions_ended }
            }
            Err(error) => EventKind::ReloadFailed { error: error.to_string() },
        });
        result
    }

    async fn read_again(&self) -> Result<Reloaded, ReloadError> {
        let Loaded { config: new, warnings } = config::load(&self.path)?;
        dns::check(&new)?;
        let changes = config::changes(&self.config.borrow(), &new);
        let changed: Vec<String> = changes.into_iter().map(|change| change.path).collect();
        let is_fixed = |path: &&str| FIXED.contains(&path.split('.').next().unwrap_or_default());
        if self.is_starting.get() && !changed.is_empty() {
            let (path, keys) = (self.path.display().to_string(), changed.join(", "));
            return Err(ReloadError::FixedWhileStarting { path, keys });
        }
        let fixed: Vec<&str> = changed.iter().map(String::as_str).filter(is_fixed).collect();
        if !fixed.is_empty() {
            let (path, keys) = (self.path.display().to_string(), fixed.join(", "));
            return Err(ReloadError::FixedWhileWaiting { path, keys });
        }
        self.config.replace(new.clone());
        self.reloaded.notify_one();
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        warnings.extend(host_warnings(&new, None).await);
        Ok(Reloaded { changed, sessions_ended: 0, warnings })
    }

    /// Returns the present status.
    pub(super) fn status(&self) -> Status {
        let config = self.config.borrow();
        Status {
            name: config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state: InstanceState::Waiting,
            waiting_for: self.missing(),
            uptime_seconds: self.since.elapsed().as_secs(),
            tun: TunStatus { name: config.tun.name.clone(), ..TunStatus::default() },
            uplinks: config.uplinks.iter().map(|settings| self.uplink(settings)).collect(),
            sessions: SessionStatus {
                capacity: config.limits.sessions,
                ..SessionStatus::default()
            },
            ..Status::default()
        }
    }

    fn uplink(&self, settings: &Uplink) -> UplinkStatus {
        UplinkStatus {
            name: settings.name.clone(),
            interface: settings.interface.clone(),
            address: settings.addresses.first().copied(),
            state_seconds: self.since.elapsed().as_secs(),
            health_check: settings.health.is_some(),
            tier: settings.tier,
            ..UplinkStatus::default()
        }
    }

    /// Returns the configuration with which the instance will start.
    pub(super) fn effective_config(&self) -> EffectiveConfig {
        let configuration = config::to_yaml(&self.config.borrow());
        EffectiveConfig {
            configuration,
            routing_ids: None,
            uplink_numbers: self.config.borrow().uplink_numbers(),
        }
    }

    /// Returns the configuration in use, as the file has it.
    pub(super) fn config(&self) -> Config {
        self.config.borrow().clone()
    }
}

/// Keys in use while the instance waits: its name, its admin socket and its log.
const FIXED: [&str; 3] = ["admin", "log", "name"];
