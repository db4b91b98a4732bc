//! From one configuration to another while packets flow.
//!
//! ```text
//!   prepare     numbers of the uplinks, sockets of name server and health checks
//!   host        the settings of the new configuration, beside those of removed uplinks
//!   translator  limits and policy; sessions that these do not allow end
//!   control     uplinks, health checks, failover, DNS, log
//!   host        the settings of removed uplinks go
//! ```
//!
//! Only the first two steps can fail. What they have made is removed then.

use tokio::sync::oneshot;

use super::{HostState, HostTurn, ReloadError, Reloader};
use crate::config::{Config, Log};
use crate::control::admin_socket::AdminSocket;
use crate::control::dns;
use crate::control::failover;
use crate::control::health::NewChecks;
use crate::control::needed_files::needed_files;
use crate::control::settings::{self, DnsPorts};
use crate::control::uplink_states::states_after_reload;
use crate::control::{logging, mapping_log};
use crate::dns::PreparedService;
use crate::host::HostFacts;

/// Everything of a new configuration that may fail, before anything is changed.
struct Prepared {
    /// The configuration, with the numbers of its uplinks.
    config: Config,
    checks: NewChecks,
    /// None: the path stays.
    admin: Option<AdminSocket>,
    /// None: DNS goes on as it is.
    dns: Option<(Option<PreparedService>, DnsPorts)>,
}

impl Reloader {
    /// Uses another configuration. No key that needs a restart may differ. Returns the number of
    /// ended sessions.
    ///
    /// # Errors
    /// See [`ReloadError`]. The instance uses the old configuration then.
    pub(super) async fn apply(&self, new: Config) -> Result<usize, ReloadError> {
        let before = self.file_config();
        let Prepared { config, checks, admin, dns } = self.prepare(&before, new)?;
        let both = config.with_removed_uplinks(&before);
        let (made, result) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let turn = HostTurn { both, made, finish: finished, done };
        self.parts.host.send(turn).map_err(|_| ReloadError::Stopping)?;
        let made = result.await.map_err(|_| ReloadError::Stopping)?;
        let (resolved, facts) = made.map_err(ReloadError::Host)?;
        let (dns, ports) = dns.map_or((None, None), |(dns, ports)| (Some(dns), Some(ports)));
        let sessions_ended =
            self.change_translator(&before, &config, (&resolved, &facts), ports).await;
        self.change_control(&before, &config, &facts, checks);
        if let Some(dns) = dns
            && let Err(error) = self.parts.dns.set(dns, &config)
        {
            tracing::error!(%error, "dns: the name server and the updates have ended");
        }
        if let Some(socket) = admin {
            // Fails only when the instance is stopping.
            let _ = self.parts.admin.send(socket);
        }
        // Fails only when the instance is stopping.
        let _ = finish.send(config);
        let _ = is_done.await;
        Ok(sessions_ended)
    }

    /// Does everything that may fail.
    fn prepare(&self, before: &Config, mut config: Config) -> Result<Prepared, ReloadError> {
        config.keep_uplink_numbers(before).map_err(|_| ReloadError::TooManyUplinks)?;
        let missing = self.parts.files.missing(&needed_files(&self.path, &config));
        if !missing.is_empty() {
            let files: Vec<String> =
                missing.iter().map(|path| path.display().to_string()).collect();
            let (path, files) = (self.path.display().to_string(), files.join(", "));
            return Err(ReloadError::NeedsFiles { path, files });
        }
        let ids = self.routing_ids();
        let source = |uplink: &crate::config::Uplink| ids.probe_address(uplink.numbers.uplink);
        let checks = NewChecks::prepare(before, &config, source, &self.parts.raw);
        let checks = checks.map_err(ReloadError::Checks)?;
        let follows = |config: &Config| {
            let of = |uplink: &crate::config::Uplink| {
                (uplink.name.clone(), uplink.numbers, uplink.addresses.clone())
            };
            (config.dns.clone(), config.uplinks.iter().map(of).collect::<Vec<_>>())
        };
        let is_same =
            config.dns.is_none() && before.dns.is_none() || follows(before) == follows(&config);
        let dns = (!is_same).then(|| dns::prepare_again(&config, ids)).transpose()?;
        let moves = before.admin.socket != config.admin.socket;
        let admin = moves.then(|| AdminSocket::bind(&config.admin)).transpose()?;
        Ok(Prepared { config, checks, admin, dns })
    }

    /// Changes limits and policy. Returns the number of ended sessions.
    async fn change_translator(
        &self,
        before: &Config,
        config: &Config,
        (resolved, facts): (&Config, &HostFacts),
        ports: Option<DnsPorts>,
    ) -> usize {
        if let Some(kept) = &self.parts.kept {
            let both = config.with_removed_uplinks(before);
            kept.set(both.uplink_names_by_number());
        }
        self.file_config.replace(config.clone());
        self.host.replace(HostState::new(resolved, facts));
        if let Some(ports) = ports {
            self.dns_ports.replace(ports);
        }
        let config = self.config();
        // No new session may begin on a new uplink that is not ready.
        let present = self.parts.uplinks.watch().borrow().clone();
        let states = states_after_reload(&config, facts, &present);
        failover::set_admissions(&self.parts.engine, &config.uplinks, &states);
        let (sender, ended) = oneshot::channel();
        let limits = settings::limits(&config);
        self.parts.engine.change_rules(limits, self.policy(), move |sessions| {
            // Fails only when the instance has stopped.
            let _ = sender.send(sessions);
        });
        let sessions_ended = ended.await.unwrap_or(0);
        if let Some(kept) = &self.parts.kept {
            kept.set(config.uplink_names_by_number());
        }
        sessions_ended
    }

    /// Changes everything that runs beside the packets, except DNS.
    fn change_control(
        &self,
        before: &Config,
        config: &Config,
        facts: &HostFacts,
        checks: NewChecks,
    ) {
        let present = self.parts.uplinks.watch().borrow().clone();
        let resolved = self.config();
        let states = states_after_reload(&resolved, facts, &present);
        self.parts.failover.set(&resolved, facts.host_address);
        if before.uplinks != config.uplinks || states != present.uplinks {
            self.parts.monitor.replace(&resolved, states);
        }
        // Fails only when the instance is stopping.
        let _ = self.parts.checks.send(checks);
        self.change_log(before.log, config.log, &config.name);
    }

    fn change_log(&self, before: Log, log: Log, name: &str) {
        if (before.level, before.format) != (log.level, log.format) {
            logging::change(log);
        }
        match (before.mappings, log.mappings) {
            (false, true) => {
                let events = self.parts.engine.log_mappings(mapping_log::CAPACITY);
                if let Err(error) = mapping_log::start(name, events) {
                    tracing::error!(%error, "log.mappings: the mapping log cannot start");
                }
            }
            (true, false) => self.parts.engine.end_mapping_log(),
            (false, false) | (true, true) => {}
        }
    }
}
