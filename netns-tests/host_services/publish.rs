//! Forwards to the host's own inside address.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natbox::lab::Namespace;
use natbox::lab::http::{self, HttpServer};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};
use rustix::process::Signal;

use super::{INSIDE, PrivateSources, SSH};
use crate::lab::{BoxConfig, Echo, Site, datagrams, exchange, ping, wait_for};
use crate::single_box::{RunningBox, serve};

/// Published UDP port whose program listens at any address.
const TUNNEL: u16 = 51820;
/// Published UDP port whose program listens at the inside address.
const NAMES: u16 = 53;

const PLAN: ThreeLeggedPlan =
    ThreeLeggedPlan { uplinks: 2, servers: 2, mbit: None, one_network: false };

/// Publishes services of the host over every uplink.
fn published(site: &Site) -> BoxConfig {
    site.three_legged_config()
        .forward("tcp", SSH, INSIDE, SSH)
        .forward("udp", TUNNEL, INSIDE, TUNNEL)
        .forward("udp", NAMES, INSIDE, NAMES)
        .forward("icmp", 0, INSIDE, 0)
}

fn host(site: &Site) -> &Namespace {
    &site.uplink(0).natbox
}

/// Opens a connection and returns the client's address as the service sees it.
fn client_seen(from: &Namespace, source: Option<Ipv4Addr>, to: SocketAddrV4) -> Result<Ipv4Addr> {
    let mut connection = from.enter(|| http::connect(source, to, Duration::from_secs(3)))??;
    Ok(connection.get("/")?.text().trim().parse()?)
}

/// Serves, by TCP, the client's address at every address of the host.
fn serve_everywhere(site: &Site) -> HttpServer {
    serve(host(site), Ipv4Addr::UNSPECIFIED, SSH)
}

#[test]
fn a_service_of_the_host_answers_over_every_uplink_at_once() -> Result<()> {
    let site = Site::three_legged(PLAN)?;
    let _ssh = serve_everywhere(&site);
    let _tunnel = Echo::start(host(&site), Ipv4Addr::UNSPECIFIED, TUNNEL)?;
    let _names = Echo::start(host(&site), INSIDE, NAMES)?;
    let _natbox = site.start(0, &published(&site))?;
    let private = [0, 1].map(|uplink| PrivateSources::watch(&site.uplink(uplink).provider));
    let ports = &[SSH, TUNNEL, NAMES];
    let replies = [site.watch_ports(0, ports)?, site.watch_ports(1, ports)?];
    let mut open = Vec::new();
    for client in &CLIENTS[..3] {
        for uplink in &site.topology.uplinks {
            let place = || format!("{client} over {}", uplink.name);
            let endpoint = uplink.endpoint(SSH);
            let seen = client_seen(site.client(), Some(*client), endpoint).with_context(place)?;
            ensure!(seen == *client, "{}: the service sees {seen}", place());
            let connect = || http::connect(Some(*client), endpoint, Duration::from_secs(3));
            open.push(site.client().enter(connect)??);
            for port in [TUNNEL, NAMES] {
                let socket = datagrams(site.client(), *client, 0)?;
                socket.connect(uplink.endpoint(port))?;
                for size in [1, 1400, 9000] {
                    exchange(&socket, size).with_context(|| format!("{} {port}", place()))?;
                }
            }
            ping(site.client(), *client, uplink.published, 2).with_context(place)?;
        }
    }
    // All connections are open at once, over both uplinks.
    for connection in &mut open {
        connection.get("/")?;
    }
    for watch in replies {
        let counts = watch.finish();
        ensure!(counts.wrong == 0 && counts.replies >= 30, "{counts:?}");
    }
    private.into_iter().for_each(PrivateSources::assert_none);
    Ok(())
}

/// Inside hosts reach the host's services by its own address and by every published one, and so
/// does the host from its inside address.
#[test]
fn inside_hosts_and_the_host_itself_reach_the_service_by_every_address() -> Result<()> {
    let site = Site::three_legged(PLAN)?;
    let _ssh = serve_everywhere(&site);
    let _tunnel = Echo::start(host(&site), Ipv4Addr::UNSPECIFIED, TUNNEL)?;
    let _natbox = site.start(0, &published(&site))?;
    let private = [0, 1].map(|uplink| PrivateSources::watch(&site.uplink(uplink).provider));
    let inside_host = &site.topology.servers[1];
    let own = inside_host.addresses[0];
    ensure!(client_seen(&inside_host.namespace, None, SocketAddrV4::new(INSIDE, SSH))? == own);
    for uplink in &site.topology.uplinks {
        let seen = client_seen(&inside_host.namespace, None, uplink.endpoint(SSH))?;
        ensure!(seen == uplink.published, "hairpin from {seen} over {}", uplink.name);
        let socket = datagrams(&inside_host.namespace, own, 0)?;
        socket.connect(uplink.endpoint(TUNNEL))?;
        exchange(&socket, 100).with_context(|| format!("hairpin over {}", uplink.name))?;
        let seen = client_seen(host(&site), Some(INSIDE), uplink.endpoint(SSH))?;
        ensure!(seen == uplink.published, "the host itself from {seen} over {}", uplink.name);
    }
    private.into_iter().for_each(PrivateSources::assert_none);
    Ok(())
}

/// The host keeps its routes to its own networks. If a network of another interface appears while
/// natbox runs, such as a VPN, natbox takes no packets to it.
#[test]
fn a_network_of_the_host_reaches_the_service_past_natbox() -> Result<()> {
    let site = Site::three_legged(PLAN)?;
    let _ssh = serve_everywhere(&site);
    let _natbox = site.start(0, &published(&site))?;
    let (peer, far) = (Ipv4Addr::new(172, 31, 9, 2), Ipv4Addr::new(172, 31, 200, 7));
    let vpn = site.lab.namespace("vpn")?;
    site.lab.veth(50, (host(&site), "vpn0"), (&vpn, "box0"))?;
    host(&site).address("vpn0", Ipv4Addr::new(172, 31, 9, 1), 24)?;
    vpn.address("box0", peer, 24)?;
    vpn.address("lo", far, 32)?;
    vpn.route("10.0.0.0/24", Ipv4Addr::new(172, 31, 9, 1))?;
    host(&site).route("172.31.200.0/24", peer)?;
    for source in [peer, far] {
        wait_for("the service over the host's own network", || {
            Ok(client_seen(&vpn, Some(source), SocketAddrV4::new(INSIDE, SSH)).ok())
        })
        .map(|seen| assert_eq!(seen, source))?;
    }
    // The published service still answers.
    let seen = client_seen(site.client(), Some(CLIENTS[0]), site.uplink(1).endpoint(SSH))?;
    ensure!(seen == CLIENTS[0]);
    Ok(())
}

/// Replies of a program that listens at any address carry the address of the request, as soon as a
/// reload publishes the port.
#[test]
fn a_reload_publishes_and_withdraws_a_service_of_the_host() -> Result<()> {
    let site = Site::three_legged(PLAN)?;
    let _tunnel = Echo::start(host(&site), Ipv4Addr::UNSPECIFIED, TUNNEL)?;
    let socket_path = site.lab.directory().join("box.sock");
    let path = site.lab.directory().join("box.yaml");
    let text = |config: &BoxConfig| {
        format!("{}admin: {{ socket: {} }}\n", config.text(), socket_path.display())
    };
    let without = text(&site.three_legged_config());
    std::fs::write(&path, &without)?;
    let natbox = RunningBox::launch(host(&site), "box", &path, &socket_path);
    let rules = || host(&site).ip_output(&["-4", "rule"]);
    let before = rules()?;
    std::fs::write(&path, text(&published(&site)))?;
    natbox.reload();
    for uplink in &site.topology.uplinks {
        let socket = datagrams(site.client(), CLIENTS[1], 0)?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        socket.connect(uplink.endpoint(TUNNEL))?;
        wait_for("the published service", || Ok(exchange(&socket, 50).ok()))?;
    }
    std::fs::write(&path, &without)?;
    natbox.reload();
    wait_for("the old rules", || Ok((rules()? == before).then_some(())))?;
    natbox.stop(Signal::TERM);
    Ok(())
}
