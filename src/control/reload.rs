//! The configuration file and the host as the running instance uses them, and how both change.
//!
//! A reload is all or nothing. If the file has a problem, changes a key that needs a restart, or
//! the host refuses a setting, the instance keeps the old configuration and reports the reason.
//!
//! | file        | content                                           |
//! |-------------|---------------------------------------------------|
//! | `apply`     | the steps from one configuration to another       |
//! | `host_turn` | the host's part of them                           |
//! | `preview`   | the sessions that another configuration would end |

mod apply;
mod host_turn;
mod preview;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::sync::{mpsc, oneshot};

use super::admin_socket::AdminSocket;
use super::confirmation::{Confirmation, Reload};
use super::dns::NameService;
use super::events::Events;
use super::failover::FailoverSettings;
use super::health::{NewChecks, RawSockets, UplinkMonitor};
use super::kept_sessions::KeptNames;
use super::needed_files::configuration_directories;
use super::reload_error::ReloadError;
use super::sandbox::FileRules;
use super::settings::{self, DnsPorts};
use crate::api::{LegStatus, Reloaded};
use crate::config::{self, Change, Config, DynamicAddress, Loaded, Problems};
use crate::engine::Handle;
use crate::host::{self, HostFacts, PlannedHost, RoutingIds};
use crate::nat::Policy;
use crate::uplinks::Uplinks;

pub(super) use host_turn::HostTurn;

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
    /// Ports of the name server.
    dns_ports: RefCell<DnsPorts>,
    routing_ids: Cell<RoutingIds>,
    parts: ReloadParts,
}

/// The parts of the instance that a reload changes.
pub(super) struct ReloadParts {
    pub(super) engine: Handle,
    pub(super) uplinks: Rc<Uplinks>,
    pub(super) confirmation: Rc<Confirmation>,
    pub(super) events: Rc<Events>,
    pub(super) monitor: Rc<UplinkMonitor>,
    pub(super) raw: RawSockets,
    pub(super) checks: mpsc::UnboundedSender<NewChecks>,
    pub(super) failover: Rc<FailoverSettings>,
    pub(super) dns: Rc<NameService>,
    pub(super) host: mpsc::UnboundedSender<HostTurn>,
    pub(super) admin: mpsc::UnboundedSender<AdminSocket>,
    /// None: sessions end with the process.
    pub(super) kept: Option<KeptNames>,
    /// The files that the process may open.
    pub(super) files: FileRules,
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
    pub(super) fn new(
        path: &Path,
        file_config: &Config,
        host: &PlannedHost,
        dns_ports: DnsPorts,
        parts: ReloadParts,
    ) -> Self {
        Self {
            path: path.to_owned(),
            directories: configuration_directories(path),
            file_config: RefCell::new(file_config.clone()),
            host: RefCell::new(HostState::new(host.config(), host.facts())),
            dns_ports: RefCell::new(dns_ports),
            routing_ids: Cell::new(host.routing_ids()),
            parts,
        }
    }

    /// Returns the parts of the instance that a reload changes.
    pub(super) fn parts(&self) -> &ReloadParts {
        &self.parts
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

    /// Returns the configuration in use, as the file has it.
    pub(super) fn file_config(&self) -> Config {
        self.file_config.borrow().clone()
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

    /// Returns the reloads of the instance.
    pub(super) fn confirmation(&self) -> &Rc<Confirmation> {
        &self.parts.confirmation
    }

    fn load_error(&self, problems: Problems) -> ReloadError {
        if !problems.is_unreadable() {
            return ReloadError::Config(problems);
        }
        let directories = self.directories.iter().map(|path| path.display().to_string());
        let directories = directories.collect::<Vec<_>>().join(" and ");
        ReloadError::Unreadable { problems, directories }
    }

    /// Returns the policy that follows from the configuration and the host in use.
    fn policy(&self) -> Policy {
        settings::policy(&self.config(), &self.host.borrow().facts, &self.dns_ports.borrow())
    }

    /// Applies a policy. Waits, without blocking the control thread, until the sessions that the
    /// policy does not allow have ended. Returns their number.
    async fn change_policy(&self, policy: Policy) -> usize {
        let (sender, ended) = oneshot::channel();
        self.parts.engine.change_policy(policy, move |sessions| {
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
        let sessions_ended = if changed.is_empty() { 0 } else { self.apply(new).await? };
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let ids = Some(self.routing_ids());
        warnings.extend(host_warnings(&self.file_config(), ids).await);
        Ok(Reloaded { changed, sessions_ended, warnings, confirm_seconds: None })
    }
}
