//! The subsystem that runs the name server, the DNS updates and the hook of [`crate::dns`] as
//! configured.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use super::sandbox;
use super::settings::DnsPorts;
use super::subsystem::{Outcome, Subsystem};
use crate::api::DnsStatus;
use crate::config::{Config, Dns, DnsUpdate};
use crate::dns::{self, DnsError, PreparedService, Service};
use crate::host::{HostFacts, RoutingIds};
use crate::uplinks::Uplinks;

/// The name server, updates and hook, if the configuration has them.
pub(super) struct NameService {
    uplinks: Rc<Uplinks>,
    running: RefCell<Option<RunningService>>,
}

struct RunningService {
    service: Service,
    /// True: the instance has a name server, not only updates or a hook.
    listens: bool,
}

/// Checks the files that the configuration names: the secret of the updates and the hook.
///
/// # Errors
/// [`DnsError::Secret`] or [`DnsError::Hook`].
pub(super) fn check(config: &Config) -> Result<(), DnsError> {
    let Some(dns) = &config.dns else { return Ok(()) };
    dns.update.as_ref().map(|settings| update(settings, config)).transpose()?;
    dns.hook.as_deref().map(dns::check_hook).transpose()?;
    Ok(())
}

/// Does the part of the start that needs privileges. Returns None if the configuration has no
/// `dns`.
///
/// # Errors
/// See [`DnsError`].
pub(super) fn prepare(config: &Config) -> Result<Option<PreparedService>, DnsError> {
    let Some(dns) = &config.dns else { return Ok(None) };
    let update = dns.update.as_ref().map(|settings| update(settings, config)).transpose()?;
    dns.hook.as_deref().map(dns::check_hook).transpose()?;
    let hook_runner = dns.hook.as_ref().map(|hook| {
        // The program that runs now, even if its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg(dns::RUNNER_COMMAND).arg(hook);
        command
    });
    let settings = dns::DnsSettings {
        zone: zone(dns, config),
        listen: listen(config, dns),
        answers_per_second: dns.answers_per_second,
        update,
        hook_runner,
    };
    PreparedService::new(settings).map(Some)
}

/// Does the work of [`prepare`] and [`listen_at_probe_addresses`] for a reload, which has no
/// privileges: the name server listens at the probe addresses alone, and the hook stays.
///
/// # Errors
/// See [`DnsError`].
pub(super) fn prepare_again(
    config: &Config,
    ids: RoutingIds,
) -> Result<(Option<PreparedService>, DnsPorts), DnsError> {
    let mut ports = DnsPorts::new();
    let Some(dns) = &config.dns else { return Ok((None, ports)) };
    let update = dns.update.as_ref().map(|settings| update(settings, config)).transpose()?;
    let mut prepared = PreparedService::new(dns::DnsSettings {
        zone: zone(dns, config),
        listen: Vec::new(),
        answers_per_second: dns.answers_per_second,
        update,
        hook_runner: None,
    })?;
    for uplink in config.uplinks.iter().filter(|_| dns.listen) {
        let number = uplink.numbers.uplink;
        ports.insert(number, prepared.listen_also(ids.probe_address(number).into())?);
    }
    Ok((Some(prepared), ports))
}

/// Makes the name server listen at the probe addresses of some uplinks: those whose address is not
/// assigned to the host, or may change, or where the host's own answers would leave by another
/// uplink. Returns the ports.
///
/// # Errors
/// [`DnsError::Bind`].
pub(super) fn listen_at_probe_addresses(
    prepared: Option<&mut PreparedService>,
    config: &Config,
    facts: &HostFacts,
) -> Result<DnsPorts, DnsError> {
    let mut ports = DnsPorts::new();
    let (Some(prepared), Some(Dns { listen: true, .. })) = (prepared, &config.dns) else {
        return Ok(ports);
    };
    let uplinks =
        config.uplinks.iter().zip(&facts.assigned_to_host).zip(&facts.probe_addresses).enumerate();
    for (index, ((uplink, assigned), probe_address)) in uplinks {
        // At such an address nothing needs to be translated, and no query needs a session.
        let answers_directly = assigned.first() == Some(&true)
            && !uplink.follows_interface
            && facts.host_leaves_by(config, index);
        if let Some(address) = probe_address.filter(|_| !answers_directly) {
            ports.insert(uplink.numbers.uplink, prepared.listen_also(address.into())?);
        }
    }
    Ok(ports)
}

impl NameService {
    /// Makes a service that does nothing yet.
    pub(super) fn new(uplinks: Rc<Uplinks>) -> Self {
        Self { uplinks, running: RefCell::default() }
    }

    /// Starts the prepared name server, updates and hook, or replaces those that run. None: stops
    /// them.
    ///
    /// # Errors
    /// [`DnsError::Thread`].
    pub(super) fn set(
        &self,
        prepared: Option<PreparedService>,
        config: &Config,
    ) -> Result<(), DnsError> {
        let mut running = self.running.borrow_mut();
        let Some(prepared) = prepared else {
            drop(running.take());
            return Ok(());
        };
        let listens = config.dns.as_ref().is_some_and(|dns| dns.listen);
        match running.as_mut() {
            Some(present) => {
                present.service.replace(prepared);
                present.listens = listens;
            }
            None => {
                let service = prepared.start(&self.uplinks, sandbox::drop_capabilities)?;
                *running = Some(RunningService { service, listens });
                tracing::info!("DNS follows the uplinks");
            }
        }
        Ok(())
    }

    /// Returns the status; None: the configuration has no `dns`, or the service has stopped.
    pub(super) fn status(&self) -> Option<DnsStatus> {
        let running = self.running.borrow();
        let RunningService { service, listens } = running.as_ref()?;
        let states = self.uplinks.watch();
        let states = states.borrow();
        let addresses = states.uplinks.iter().filter_map(|uplink| uplink.address);
        let addresses = addresses.filter(|_| *listens);
        Some(DnsStatus {
            listening: addresses.map(|address| (address, Dns::PORT).into()).collect(),
            in_use: states.in_use().map(|uplink| uplink.name.clone()).collect(),
            counters: service.counters().values(),
            update_error: service.update_error(),
            hook_error: service.hook_error(),
        })
    }
}

/// Stops the name server with the instance. [`crate::dns`] follows the uplinks by itself, on its
/// own thread.
pub(super) struct DnsFollower(Rc<NameService>);

impl DnsFollower {
    pub(super) fn new(service: Rc<NameService>) -> Self {
        Self(service)
    }
}

impl Subsystem for DnsFollower {
    /// Nothing happens on the control thread.
    type Event = std::convert::Infallible;
    const NAME: &'static str = "dns";

    async fn next(&mut self) -> Self::Event {
        std::future::pending().await
    }

    async fn handle(&mut self, event: Self::Event) -> Outcome {
        match event {}
    }

    /// From now on the name server answers no query, so no client learns the address of an instance
    /// that stops.
    async fn stop(self) {
        drop(self.0.running.take());
    }
}

/// Returns where the name server listens if the host has the address: at the first address of each
/// uplink. An address that follows an interface is not known yet.
fn listen(config: &Config, dns: &Dns) -> Vec<SocketAddr> {
    let uplinks = config.uplinks.iter().filter(|uplink| dns.listen && !uplink.follows_interface);
    uplinks.filter_map(|uplink| Some((*uplink.addresses.first()?, Dns::PORT).into())).collect()
}

fn zone(dns: &Dns, config: &Config) -> dns::Zone {
    let number = |place: &usize| config.uplinks[*place].numbers.uplink;
    let published = dns.names.iter().map(|published| dns::PublishedName {
        name: published.name.clone(),
        uplinks: published.uplinks.iter().map(number).collect(),
    });
    let name_servers = dns
        .name_servers
        .iter()
        .map(|server| dns::NameServer { name: server.name.clone(), address: server.address });
    dns::Zone {
        origin: dns.zone.clone(),
        published: published.collect(),
        name_servers: name_servers.collect(),
        mailbox: dns.mailbox.clone(),
        ttl: dns.ttl.as_secs() as u32,
        negative_ttl: dns.negative_ttl.as_secs() as u32,
    }
}

fn update(update: &DnsUpdate, config: &Config) -> Result<dns::Update, DnsError> {
    let is_near = match update.server.ip() {
        IpAddr::V4(address) => address.is_loopback() || config.inside.contains(address),
        IpAddr::V6(_) => false,
    };
    Ok(dns::Update {
        server: update.server,
        over_uplinks: !is_near,
        zone: update.zone.clone(),
        replace: update.replace,
        announced: Some(announced_path(config)),
        key: dns::TsigKey {
            name: update.key.clone(),
            algorithm: update.algorithm,
            secret: dns::read_secret(&update.secret_file)?,
        },
    })
}

/// Returns the file that holds the announced records: in the directory that a service manager keeps
/// for natbox's state, or beside the admin socket, where the file lasts until the host reboots.
pub(super) fn announced_path(config: &Config) -> PathBuf {
    let state = std::env::var_os("STATE_DIRECTORY").filter(|directory| !directory.is_empty());
    let beside = || config.admin.socket.parent().map(Path::to_path_buf).unwrap_or_default();
    state.map_or_else(beside, PathBuf::from).join(format!("{}.announced", config.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn zone_and_addresses_are_those_of_the_configuration() {
        let text = "name: a\ninside: { interface: lan0, prefixes: [10.0.0.0/24] }\nuplinks:\n\
             - { name: isp1, interface: w0, addresses: [203.0.113.10-11], gateway: 203.0.113.9, weight: 3 }\n\
             - { name: isp2, interface: w1, addresses: [198.51.100.10], gateway: 198.51.100.9 }\n\
             dns: { zone: example.org, names: [{ name: www, uplinks: [isp2] }], ttl: 1m,\n\
             \x20 name_servers: [{ name: ns1, address: 203.0.113.10 }] }\n";
        let config = config::parse("f.yaml", text).unwrap().config;
        assert_eq!(
            listen(&config, config.dns.as_ref().unwrap()),
            [SocketAddr::from(([203, 0, 113, 10], 53)), SocketAddr::from(([198, 51, 100, 10], 53))]
        );
        let zone = zone(config.dns.as_ref().unwrap(), &config);
        assert_eq!(
            (zone.published[0].uplinks.as_slice(), zone.ttl, zone.negative_ttl),
            (&[1][..], 60, 30)
        );
        assert_eq!(zone.published[0].name.to_ascii(), "www.example.org.");
    }
}
