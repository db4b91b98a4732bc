//! From the configuration to what the name server is told, and what it has to say in a status.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::api::DnsStatus;
use crate::dns::{self, DnsError, Prepared, Service, UplinkState, Uplinks};
use crate::host::HostFacts;

use super::health;
use crate::config::{Config, Dns, DnsUpdate, Uplink};

/// A name server and the lines that it follows.
pub(super) struct Running {
    lines: Uplinks,
    /// Whether there is a name server, too.
    listens: bool,
    service: RefCell<Option<Service>>,
}

/// Does what takes privileges, before they are given up; nothing if the configuration wants no DNS.
///
/// # Errors
/// See [`DnsError`].
pub(super) fn prepare(config: &Config) -> Result<Option<Prepared>, DnsError> {
    let Some(dns) = &config.dns else { return Ok(None) };
    let update = dns.update.as_ref().map(|settings| update(settings, config)).transpose()?;
    dns.hook.as_deref().map(dns::check_hook).transpose()?;
    let helper = dns.hook.as_ref().map(|hook| {
        // The running program itself, also where its file has been replaced since.
        let mut command = Command::new("/proc/self/exe");
        command.arg(dns::RUNNER_COMMAND).arg(hook);
        command
    });
    let settings = dns::Settings {
        zone: zone(dns),
        listen: listen(config, dns),
        answers_per_second: dns.answers_per_second,
        update,
        helper,
    };
    Prepared::new(settings).map(Some)
}

/// Has the name server listen at the box's own endpoints on those lines whose address is not the host's own, or may
/// become another one, or where the host's answers would leave by another way; the ports, one for each uplink.
///
/// # Errors
/// [`DnsError::Bind`].
pub(super) fn listen_at_endpoints(
    prepared: Option<&mut Prepared>,
    config: &Config,
    facts: &HostFacts,
) -> Result<Vec<Option<u16>>, DnsError> {
    let mut ports = vec![None; config.uplinks.len()];
    let (Some(prepared), Some(Dns { listen: true, .. })) = (prepared, &config.dns) else {
        return Ok(ports);
    };
    let uplinks =
        config.uplinks.iter().zip(&facts.assigned_to_host).zip(&facts.probe_addresses).enumerate();
    for (port, (line, ((uplink, owned), own))) in ports.iter_mut().zip(uplinks) {
        // There nothing needs to be translated, and no session is taken for a question.
        let is_owned = owned.first() == Some(&true)
            && !uplink.follows_interface
            && facts.host_leaves_by(config, line);
        if let Some(own) = own.filter(|_| !is_owned) {
            *port = Some(prepared.listen_also(own.into())?);
        }
    }
    Ok(ports)
}

impl Running {
    /// Starts what was prepared, for the lines as they are.
    ///
    /// # Errors
    /// [`DnsError::Thread`].
    pub(super) fn start(
        prepared: Option<Prepared>,
        config: &Config,
        facts: &HostFacts,
        health: &health::UplinkHealths,
    ) -> Result<Self, DnsError> {
        let healthy: Vec<bool> =
            health.borrow().iter().map(health::UplinkHealth::is_healthy).collect();
        let lines = lines(config, &facts.probe_addresses, &healthy);
        let service = prepared.map(|prepared| prepared.start(&lines)).transpose()?;
        if service.is_some() {
            tracing::info!("DNS follows the lines");
        }
        let listens = config.dns.as_ref().is_some_and(|dns| dns.listen);
        Ok(Self { lines, listens, service: RefCell::new(service) })
    }

    /// Leads clients to the addresses that the lines have now.
    pub(super) fn follow_addresses(&self, config: &Config) {
        for (number, uplink) in config.uplinks.iter().enumerate() {
            self.lines.set_address(number, uplink.addresses.first().copied());
        }
    }

    /// Leads nobody to a line that is not healthy.
    pub(super) fn follow(&self, lines: &health::UplinkHealths) {
        for (number, line) in lines.borrow().iter().enumerate() {
            self.lines.set_up(number, line.is_healthy());
        }
    }

    /// Answers no more, so that nobody is led to a box that stops.
    pub(super) fn stop(&self) {
        drop(self.service.take());
    }

    /// What there is to tell; none without DNS.
    pub(super) fn status(&self) -> Option<DnsStatus> {
        let service = self.service.borrow();
        let service = service.as_ref()?;
        let lines = self.lines.watch();
        let lines = &lines.borrow().lines;
        let addresses = lines.iter().filter_map(|line| line.address).filter(|_| self.listens);
        Some(DnsStatus {
            listening: addresses.map(|address| (address, Dns::PORT).into()).collect(),
            usable: lines.iter().filter(|line| line.up).map(|line| line.name.clone()).collect(),
            counters: service.counters().values(),
            update_error: service.update_error(),
            hook_error: service.hook_error(),
        })
    }
}

/// Where the name server answers if the host has the address: at each uplink's first. That of an interface is not known yet.
fn listen(config: &Config, dns: &Dns) -> Vec<SocketAddr> {
    let uplinks = config.uplinks.iter().filter(|uplink| dns.listen && !uplink.follows_interface);
    uplinks.filter_map(|uplink| Some((*uplink.addresses.first()?, Dns::PORT).into())).collect()
}

/// One line for each uplink, in the same order; `own`: the box's endpoints on them.
fn lines(config: &Config, own: &[Option<Ipv4Addr>], healthy: &[bool]) -> Uplinks {
    let line = |((uplink, own), healthy): ((&Uplink, &Option<Ipv4Addr>), &bool)| UplinkState {
        name: uplink.name.clone(),
        address: uplink.addresses.first().copied(),
        source: *own,
        weight: uplink.weight,
        up: *healthy,
    };
    Uplinks::new(config.uplinks.iter().zip(own).zip(healthy).map(line).collect())
}

fn zone(dns: &Dns) -> dns::Zone {
    let published = dns.names.iter().map(|published| dns::PublishedName {
        name: published.name.clone(),
        lines: published.uplinks.clone(),
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
        IpAddr::V4(address) => address.is_loopback() || config.inside.prefix_of(address).is_some(),
        IpAddr::V6(_) => false,
    };
    Ok(dns::Update {
        server: update.server,
        over_lines: !is_near,
        zone: update.zone.clone(),
        replace: update.replace,
        announced: Some(memory(config)),
        key: dns::Key {
            name: update.key.clone(),
            algorithm: update.algorithm,
            secret: dns::read_secret(&update.secret_file)?,
        },
    })
}

/// Where it is remembered what was told: in the directory that a service manager keeps for natbox's state, or else beside
/// the admin socket, where it lasts until the machine starts anew.
fn memory(config: &Config) -> PathBuf {
    let kept = std::env::var_os("STATE_DIRECTORY").filter(|directory| !directory.is_empty());
    let beside = || config.admin.socket.parent().map(Path::to_path_buf).unwrap_or_default();
    kept.map_or_else(beside, PathBuf::from).join(format!("{}.announced", config.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn the_zone_and_the_lines_are_those_of_the_configuration() {
        let text = "name: a\ninside: { interface: lan0, prefixes: [10.0.0.0/24] }\nuplinks:\n\
             - { name: isp1, interface: w0, addresses: [203.0.113.10-11], gateway: 203.0.113.9, weight: 3 }\n\
             - { name: isp2, interface: w1, addresses: [198.51.100.10], gateway: 198.51.100.9 }\n\
             dns: { zone: example.org, names: [{ name: www, uplinks: [isp2] }], ttl: 1m,\n\
             \x20 name_servers: [{ name: ns1, address: 203.0.113.10 }] }\n";
        let config = config::parse("f.yaml", text).unwrap().config;
        let own = [None, Some(Ipv4Addr::new(169, 254, 72, 2))];
        let lines = lines(&config, &own, &[true, false]).watch();
        let shown: Vec<String> = lines
            .borrow()
            .lines
            .iter()
            .map(|UplinkState { name, address, source, weight, up }| {
                format!("{name} {address:?} {source:?} {weight} {up}")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "isp1 Some(203.0.113.10) None 3 true",
                "isp2 Some(198.51.100.10) Some(169.254.72.2) 1 false"
            ]
        );
        assert_eq!(
            listen(&config, config.dns.as_ref().unwrap()),
            [SocketAddr::from(([203, 0, 113, 10], 53)), SocketAddr::from(([198, 51, 100, 10], 53))]
        );
        let zone = zone(config.dns.as_ref().unwrap());
        assert_eq!(
            (zone.published[0].lines.as_slice(), zone.ttl, zone.negative_ttl),
            (&[1][..], 60, 30)
        );
        assert_eq!(zone.published[0].name.to_ascii(), "www.example.org.");
    }
}
