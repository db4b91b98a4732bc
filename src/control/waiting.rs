//! An instance that waits for its interfaces: the missing interfaces, its status and its reload.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::Notify;

use super::confirmation::{Confirmation, Reload};
use super::dns;
use super::error::RunError;
use super::events::Events;
use super::reload::{host_warnings, needs_restart};
use super::reload_error::ReloadError;
use crate::api::{
    EffectiveConfig, EventKind, InstanceState, Reloaded, SessionStatus, Status, TunStatus,
    UplinkStatus,
};
use crate::config::{self, Change, Config, Loaded, Uplink};
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
    confirmation: Rc<Confirmation>,
    reloaded: Notify,
    /// True: the instance has begun to start with the configuration, so no key can change.
    is_starting: Cell<bool>,
}

impl WaitingInstance {
    pub(super) fn new(
        path: &Path,
        config: &Config,
        events: Rc<Events>,
        confirmation: Rc<Confirmation>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            config: RefCell::new(config.clone()),
            awaited: RefCell::default(),
            since: Instant::now(),
            events,
            confirmation,
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

    /// Returns the reloads of the instance.
    pub(super) fn confirmation(&self) -> &Rc<Confirmation> {
        &self.confirmation
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
            pending_reload: self.confirmation.status(),
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
        EffectiveConfig { configuration, routing_ids: None }
    }

    /// Returns the configuration in use, as the file has it.
    pub(super) fn config(&self) -> Config {
        self.config.borrow().clone()
    }
}

/// Nothing has started yet, so almost every key can change.
impl Reload for WaitingInstance {
    fn file_config(&self) -> Config {
        self.config()
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> Result<(Loaded, String), ReloadError> {
        let (loaded, text) = config::load_with_text(&self.path)?;
        dns::check(&loaded.config)?;
        Ok((loaded, text))
    }

    fn needs_restart(&self, change: &Change) -> bool {
        self.is_starting.get() || needs_restart(change, true)
    }

    fn refusal(&self, keys: String) -> ReloadError {
        let path = self.path.display().to_string();
        match self.is_starting.get() {
            true => ReloadError::FixedWhileStarting { path, keys },
            false => ReloadError::FixedWhileWaiting { path, keys },
        }
    }

    async fn adopt(&self, new: Loaded) -> Result<Reloaded, ReloadError> {
        let Loaded { config: new, warnings } = new;
        let changed = self.changes(&new)?.into_iter().map(|change| change.path).collect();
        self.config.replace(new.clone());
        self.reloaded.notify_one();
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        warnings.extend(host_warnings(&new, None).await);
        Ok(Reloaded { changed, sessions_ended: 0, warnings, confirm_seconds: None })
    }
}
