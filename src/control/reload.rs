//! The configuration file and the host as the running instance uses them, and how both change.
//!
//! A reload is all or nothing. If the file has a problem, or changes a key that needs a restart,
//! the instance keeps the old configuration and reports the reason.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::sync::{Notify, oneshot};

use super::confirmation::{Confirmation, Reload};
use super::needed_files::configuration_directories;
use super::reload_error::ReloadError;
use super::settings;
use crate::api::{LegStatus, Reloaded};
use crate::config::{self, Change, Config, DynamicAddress, Loaded, Problems};
use crate::engine::Handle;
use crate::host::{self, HostFacts, PlannedHost, RoutingIds};
use crate::nat::{Policy, PolicyPreview};
use crate::uplinks::Uplinks;

/// Returns whether an instance does not make a change by a reload. `is_waiting`: it waits for its
/// interfaces, so nothing has started yet.
pub(crate) fn needs_restart(change: &Change, is_waiting: bool) -> bool {
    let section = change.path.split('.').next().unwrap_or_default();
    if is_waiting { FIXED_WHILE_WAITING.contains(&section) } else { !change.reloadable }
}

/// Keys in use while an instance waits: its name, its admin socket and its log.
const FIXED_WHILE_WAITING: [&str; 3] = ["admin", "log", "name"];

/// Lists what on the host does not fit a new configuration, as messages. `ids`: those of a running
/// instance.
pub(super) async fn host_warnings(config: &Config, ids: Option<RoutingIds>) -> Vec<String> {
    host::warnings(config, ids).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "host: settings cannot be compared with the new configuration");
        Vec::new()
    })
}

/// The configuration and the host in use.
pub(super) struct Reloader {
    path: PathBuf,
    /// Directories in which the file may be.
    directories: Vec<PathBuf>,
    /// Configuration as the file has it.
    file_config: RefCell<Config>,
    host: RefCell<HostState>,
    /// Wakes the reconciler after a reload.
    reloaded: Notify,
    /// See [`settings::policy`].
    dns: Vec<Option<u16>>,
    routing_ids: Cell<RoutingIds>,
    engine: Handle,
    uplinks: Rc<Uplinks>,
    confirmation: Rc<Confirmation>,
}

/// The host as the policy needs it.
#[derive(Clone)]
struct HostState {
    addresses: Vec<Option<DynamicAddress>>,
    facts: HostFacts,
}

impl HostState {
    fn new(config: &Config, facts: &HostFacts) -> Self {
        Self { addresses: config.dynamic_addresses(), facts: facts.clone() }
    }
}

impl Reloader {
    /// `dns`: see [`settings::policy`].
    pub(super) fn new(
        path: &Path,
        file_config: &Config,
        host: &PlannedHost,
        dns: Vec<Option<u16>>,
        engine: Handle,
        uplinks: Rc<Uplinks>,
        confirmation: Rc<Confirmation>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            directories: configuration_directories(path),
            file_config: RefCell::new(file_config.clone()),
            host: RefCell::new(HostState::new(host.config(), host.facts())),
            reloaded: Notify::new(),
            dns,
            routing_ids: Cell::new(host.routing_ids()),
            engine,
            uplinks,
            confirmation,
        }
    }

    /// Applies the host's present addresses and interfaces. `config`: the configuration with the
    /// addresses that its interfaces have now. Returns the number of ended sessions.
    pub(super) async fn adopt_host(&self, config: &Config, facts: &HostFacts) -> usize {
        let before = self.policy();
        self.host.replace(HostState::new(config, facts));
        let now = self.policy();
        // Most changes of a host concern no packet, and a walk through all sessions takes time.
        if before == now { 0 } else { self.change_policy(now).await }
    }

    /// Waits for the next reload that has changed the configuration. The settings of the host
    /// depend on it.
    pub(super) async fn reloaded(&self) {
        self.reloaded.notified().await;
    }

    /// Returns the configuration in use, with the addresses that its interfaces have.
    pub(super) fn config(&self) -> Config {
        self.file_config.borrow().resolve(&self.host.borrow().addresses)
    }

    /// Returns the facts about the host in use.
    pub(super) fn host_facts(&self) -> HostFacts {
        self.host.borrow().facts.clone()
    }

    /// Returns the inside legs, as of the last reading of the host.
    pub(super) fn legs(&self) -> Vec<LegStatus> {
        let host = self.host.borrow();
        let legs = host.facts.legs.iter().map(|found| LegStatus {
            interface: found.interface.clone(),
            address: found.address,
            up: found.is_up(),
        });
        legs.collect()
    }

    /// Returns the identifiers of the instance's routing tables and rules.
    pub(super) fn routing_ids(&self) -> RoutingIds {
        self.routing_ids.get()
    }

    /// Adopts the present place of the instance's rules.
    pub(super) fn adopt_routing_ids(&self, ids: RoutingIds) {
        self.routing_ids.set(ids);
    }

    /// Returns the configuration in use, as the file has it.
    pub(super) fn file_config(&self) -> Config {
        self.file_config.borrow().clone()
    }

    /// Returns the reloads of the instance.
    pub(super) fn confirmation(&self) -> &Rc<Confirmation> {
        &self.confirmation
    }

    /// Prepares to count the sessions that a configuration would end.
    pub(super) fn preview(&self, new: &Config) -> PolicyPreview {
        let host = self.host.borrow();
        let policy = settings::policy(&new.resolve(&host.addresses), &host.facts, &self.dns);
        self.engine.preview(policy)
    }

    fn load_error(&self, problems: Problems) -> ReloadError {
        if !problems.is_unreadable() {
            return ReloadError::Config(problems);
        }
        let directories = self.directories.iter().map(|path| path.display().to_string());
        let directories = directories.collect::<Vec<_>>().join(" and ");
        ReloadError::Unreadable { problems, directories }
    }

    /// Publishes the weights and tiers of the configuration, after the translator has them.
    fn update_uplinks(&self) {
        for (index, uplink) in self.file_config.borrow().uplinks.iter().enumerate() {
            self.uplinks.update(index, |state| {
                (state.weight, state.tier) = (uplink.weight, uplink.tier);
            });
        }
    }

    /// Returns the policy that follows from the configuration and the host in use.
    fn policy(&self) -> Policy {
        settings::policy(&self.config(), &self.host.borrow().facts, &self.dns)
    }

    /// Applies a policy. Waits, without blocking the control thread, until the sessions that the
    /// policy does not allow have ended. Returns their number.
    async fn change_policy(&self, policy: Policy) -> usize {
        let (sender, ended) = oneshot::channel();
        self.engine.change_policy(policy, move |sessions| {
            // Fails only when the instance has stopped.
            let _ = sender.send(sessions);
        });
        ended.await.unwrap_or(0)
    }
}

impl Reload for Reloader {
    fn file_config(&self) -> Config {
        Self::file_config(self)
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn read(&self) -> Result<(Loaded, String), ReloadError> {
        config::load_with_text(&self.path).map_err(|problems| self.load_error(problems))
    }

    fn needs_restart(&self, change: &Change) -> bool {
        needs_restart(change, false)
    }

    fn refusal(&self, keys: String) -> ReloadError {
        ReloadError::NeedsRestart { path: self.path.display().to_string(), keys }
    }

    async fn adopt(&self, new: Loaded) -> Result<Reloaded, ReloadError> {
        let Loaded { config: new, warnings } = new;
        let changes = self.changes(&new)?;
        let changed: Vec<String> = changes.into_iter().map(|change| change.path).collect();
        let mut sessions_ended = 0;
        if !changed.is_empty() {
            self.file_config.replace(new);
            self.reloaded.notify_one();
            sessions_ended = self.change_policy(self.policy()).await;
            self.update_uplinks();
        }
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let ids = Some(self.routing_ids());
        warnings.extend(host_warnings(&self.file_config(), ids).await);
        Ok(Reloaded { changed, sessions_ended, warnings, confirm_seconds: None })
    }
}
