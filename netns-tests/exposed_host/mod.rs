//! Exposed hosts and very wide forwards, on the real process: the rest of the box works beside
//! them.
//!
//! | file | behaviour |
//! |---|---|
//! | `mod` | other hosts, probes, single forwards, hairpin and the host itself beside an exposed host |
//! | `changes` | uplinks that fail and return, and reloads |
//! | `floods` | forged sources to an exposed host and to a mapping |

mod changes;
mod floods;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use natbox::lab::Namespace;
use natbox::lab::boxes::NatBox;
use natbox::lab::http::{Connection, HttpAnswer, HttpRequest, HttpServer, connect, connect_from};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use crate::failover::{FALL, INTERVAL, health};
use crate::lab::{BoxConfig, Site, TIMEOUT, datagrams, listen, ping, wait_for};

/// A web server on the Internet that answers with the client's address.
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(CLIENTS[0], 8080);
/// A peer on the Internet for datagrams.
const PEER: SocketAddrV4 = SocketAddrV4::new(CLIENTS[0], 5353);
/// A port that only the exposed host serves.
const SERVICE: u16 = 9999;
/// Port of a single forward.
const WEB: u16 = 80;

/// Uplinks, an exposed host, another inside host, and programs outside.
struct Testbed {
    site: Site,
    peer: UdpSocket,
    _programs: Vec<HttpServer>,
}

impl Testbed {
    fn new(uplinks: u8) -> Result<Testbed> {
        let plan = ThreeLeggedPlan { uplinks, servers: 2, mbit: None, one_network: false };
        let site = Site::three_legged(plan)?;
        let mut programs = Vec::new();
        for (namespace, address, port) in [
            (site.client(), *OUTSIDE.ip(), OUTSIDE.port()),
            (site.server(), site.server_address(0), SERVICE),
            (site.server(), site.server_address(0), WEB),
            (&site.topology.servers[1].namespace, other(&site), WEB),
        ] {
            let says_who = move |request: &HttpRequest| {
                (request.path == "/who").then(|| HttpAnswer::text(200, address.to_string()))
            };
            let listener = listen(namespace, address, port)?;
            programs.push(HttpServer::start(vec![listener], Some(Arc::new(says_who)))?);
        }
        let peer = datagrams(site.client(), *PEER.ip(), PEER.port())?;
        Ok(Testbed { site, peer, _programs: programs })
    }

    fn exposed(&self) -> Ipv4Addr {
        self.site.server_address(0)
    }

    fn other_host(&self) -> &Namespace {
        &self.site.topology.servers[1].namespace
    }

    /// Returns a configuration with a strict health check of every uplink.
    fn config(&self) -> BoxConfig {
        self.config_with("")
    }

    /// Returns the same with more keys of every uplink.
    fn config_with(&self, keys: &str) -> BoxConfig {
        let mut config = self.site.three_legged_config();
        for (number, uplink) in self.site.topology.uplinks.iter().enumerate() {
            let targets = format!("ping: {}, tcp: \"{OUTSIDE}\", quorum: 2", uplink.gateway);
            config = config.uplink(number, &format!("{}{keys}", health(&targets)));
        }
        config
    }

    /// Exchanges a datagram with the peer outside from a port of a namespace. Returns the external
    /// endpoint.
    fn external(&self, from: &Namespace, address: Ipv4Addr, port: u16) -> Result<SocketAddr> {
        let socket = datagrams(from, address, port)?;
        socket.send_to(b"who am I", PEER)?;
        let (_, external) = self.peer.recv_from(&mut [0; 64]).context("a datagram outside")?;
        self.peer.send_to(b"you are this", external)?;
        socket.recv_from(&mut [0; 64]).with_context(|| format!("the answer to {external}"))?;
        Ok(external)
    }

    /// Returns the address as which a host reaches the web server outside.
    fn address_outside(&self, from: &Namespace, address: Ipv4Addr) -> Result<Ipv4Addr> {
        let connect = || connect(Some(address), OUTSIDE, TIMEOUT);
        peer_of(&mut from.enter(connect)??)
    }

    /// Connects from the Internet to a port of an external address.
    fn enter(&self, client: Ipv4Addr, external: Ipv4Addr, port: u16) -> Result<Connection> {
        let to = SocketAddrV4::new(external, port);
        let connect = || connect(Some(client), to, TIMEOUT);
        self.site.client().enter(connect)?.with_context(|| format!("{client} to {to}"))
    }

    /// Returns the inside host that serves a published port.
    fn server_at(&self, external: Ipv4Addr, port: u16) -> Result<Ipv4Addr> {
        let mut connection = self.enter(CLIENTS[3], external, port)?;
        Ok(connection.get("/who")?.text().parse()?)
    }
}

/// Returns the address of the inside host that is not exposed.
fn other(site: &Site) -> Ipv4Addr {
    site.topology.servers[1].addresses[0]
}

/// Returns the client's address as the server at the other end sees it.
fn peer_of(connection: &mut Connection) -> Result<Ipv4Addr> {
    Ok(connection.get("/")?.text().trim().parse()?)
}

/// Lets health checks run for longer than it takes to fail, and asserts that all were answered.
fn assert_probes_are_answered(natbox: &NatBox) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < INTERVAL * (FALL + 2) {
        let status = natbox.status()?;
        for uplink in &status.uplinks {
            ensure!(uplink.healthy && uplink.loss_percent.unwrap_or(0.0) == 0.0, "{uplink:?}");
        }
        thread::sleep(Duration::from_millis(50));
    }
    let status = natbox.status()?;
    for uplink in &status.uplinks {
        ensure!(uplink.loss_percent == Some(0.0), "no answer yet: {uplink:?}");
    }
    Ok(())
}

fn assert_never_dropped(natbox: &NatBox, reasons: &[&str]) -> Result<()> {
    let drops = natbox.status()?.drops;
    ensure!(reasons.iter().all(|reason| !drops.contains_key(*reason)), "{drops:?}");
    Ok(())
}

#[test]
fn others_probes_and_single_forwards_work_beside_an_exposed_host_on_the_only_address() -> Result<()>
{
    assert_all_work("protocol: any", 1)
}

#[test]
fn others_and_probes_work_beside_a_forward_of_all_ports_on_the_only_address() -> Result<()> {
    assert_all_work("protocol: tcp+udp, port: 1-65535", 1)
}

#[test]
fn a_host_is_exposed_on_two_uplinks() -> Result<()> {
    assert_all_work("protocol: any", 2)
}

fn assert_all_work(exposing: &str, uplinks: u8) -> Result<()> {
    let testbed = Testbed::new(uplinks)?;
    let exposed = testbed.exposed();
    let config = testbed
        .config()
        .forward_as(&format!("name: exposed, {exposing}, to: {exposed}"))
        .forward("tcp", WEB, other(&testbed.site), WEB);
    let natbox = testbed.site.start(0, &config)?;
    let published: Vec<Ipv4Addr> =
        testbed.site.topology.uplinks.iter().map(|uplink| uplink.published).collect();

    for external in &published {
        // From outside: the exposed host, and before it the single forward.
        let mut connection = testbed.enter(CLIENTS[1], *external, SERVICE)?;
        ensure!(peer_of(&mut connection)? == CLIENTS[1], "the client's address is kept");
        ensure!(connection.get("/bytes/1000000")?.body.len() == 1_000_000);
        ensure!(testbed.server_at(*external, WEB)? == other(&testbed.site));
        if exposing.contains("any") {
            ping(testbed.site.client(), CLIENTS[1], *external, 2)?;
        }
        // From inside: hairpin from the other host and from the exposed host itself.
        for (namespace, from) in
            [(testbed.other_host(), other(&testbed.site)), (testbed.site.server(), exposed)]
        {
            let to = SocketAddrV4::new(*external, SERVICE);
            let mut connection = namespace.enter(|| connect(Some(from), to, TIMEOUT))??;
            ensure!(peer_of(&mut connection)? == *external, "from {from} to {to}");
        }
    }
    // To outside: the other host, and the exposed host from the same ports.
    ensure!(
        published.contains(&testbed.address_outside(testbed.other_host(), other(&testbed.site))?)
    );
    ensure!(published.contains(&testbed.address_outside(testbed.site.server(), exposed)?));
    ping(testbed.other_host(), other(&testbed.site), CLIENTS[0], 2)?;
    ping(testbed.site.server(), exposed, CLIENTS[0], 2)?;
    for port in [500, 5000, 40_000] {
        let external = testbed.external(testbed.site.server(), exposed, port)?;
        let is_published = published.iter().any(|address| external.ip() == *address);
        ensure!(is_published && external.port() == port, "{external} for port {port}");
    }
    // A mapping of the other host is its own as long as it lives.
    let mapped = testbed.external(testbed.other_host(), other(&testbed.site), 5000)?;
    let stranger = datagrams(testbed.site.client(), CLIENTS[2], 0)?;
    stranger.send_to(b"not for the exposed host", mapped)?;
    wait_for("the filter of the mapping", || {
        Ok((natbox.status()?.drops.get("filtered") == Some(&1)).then_some(()))
    })?;
    assert_probes_are_answered(&natbox)?;
    assert_never_dropped(&natbox, &["ports-exhausted", "no-outbound-rule", "address-conflict"])
}

/// The published address is the host's own: its services, its own connections and its pings work
/// although another host is exposed there.
#[test]
fn the_host_keeps_its_services_and_connections_on_an_exposed_address_of_its_own() -> Result<()> {
    const SSH: u16 = 2222;
    let testbed = Testbed::new(1)?;
    let uplink = testbed.site.uplink(0);
    uplink.natbox.address(&uplink.interface, uplink.published, 32)?;
    let _ssh = HttpServer::start(vec![listen(&uplink.natbox, uplink.published, SSH)?], None)?;
    let config = testbed
        .config()
        .forward_as(&format!("name: all, protocol: any, to: {}", testbed.exposed()));
    let natbox = testbed.site.start(0, &config)?;
    peer_of(&mut testbed.enter(CLIENTS[1], uplink.published, SERVICE)?)?;
    ping(testbed.site.client(), CLIENTS[1], uplink.published, 2)?;
    let mut connection = testbed.enter(CLIENTS[1], uplink.published, SSH)?;
    ensure!(connection.get("/bytes/1000000")?.body.len() == 1_000_000, "the host's service");
    // The host's own connections, datagrams and pings.
    let address = testbed.address_outside(&uplink.natbox, uplink.published)?;
    ensure!(address == uplink.published);
    let external = testbed.external(&uplink.natbox, uplink.published, 0)?;
    ensure!(external.ip() == uplink.published);
    ping(&uplink.natbox, uplink.published, CLIENTS[0], 2)?;
    // Inside hosts: the other one, and the exposed one from its own ports.
    let address = testbed.address_outside(testbed.other_host(), other(&testbed.site))?;
    ensure!(address == uplink.published);
    let external = testbed.external(testbed.site.server(), testbed.exposed(), 5000)?;
    ensure!(external == SocketAddrV4::new(uplink.published, 5000).into(), "{external}");
    assert_probes_are_answered(&natbox)?;
    assert_never_dropped(&natbox, &["ports-exhausted", "no-outbound-rule"])
}

/// Two published ports lead to one server, one of them by a single forward, the other by the
/// exposed host or by another single forward. One client endpoint inside uses both at once.
#[test]
fn one_inside_endpoint_talks_to_one_server_through_two_published_ports() -> Result<()> {
    for second in ["protocol: any", "protocol: tcp, port: 80"] {
        let testbed = Testbed::new(1)?;
        let config = testbed
            .config()
            .forward_as(&format!("name: second, {second}, to: {}", testbed.exposed()))
            .forward("tcp", 81, testbed.exposed(), WEB)
            .forward("tcp", 82, testbed.exposed(), WEB);
        let natbox = testbed.site.start(0, &config)?;
        let external = testbed.site.uplink(0).published;
        let from = SocketAddrV4::new(other(&testbed.site), 40_000);
        let mut connections = Vec::new();
        for port in [80, 81, 82] {
            let to = SocketAddrV4::new(external, port);
            let connect = || connect_from(Some(from), to, TIMEOUT);
            connections
                .push(testbed.other_host().enter(connect)?.with_context(|| format!("{to}"))?);
        }
        for connection in &mut connections {
            ensure!(peer_of(connection)? == external);
            ensure!(connection.get("/bytes/100000")?.body.len() == 100_000);
        }
        assert_never_dropped(&natbox, &["address-conflict"])?;
    }
    Ok(())
}
