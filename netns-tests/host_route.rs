//! `host.default_route: follow`: the host's own packets leave over a healthy uplink, by tier and
//! weight, and the host gets its own default route back.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use natbox::lab::Namespace;
use natbox::lab::boxes::NatBox;
use natbox::lab::http::{HttpServer, connect};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};
use rustix::process::Signal;

use crate::failover::{FALL, INTERVAL, SLACK, health, set_router};
use crate::lab::{BoxConfig, Echo, NATBOX, Site, datagrams, exchange, listen, output, wait_for};

/// A web server on the Internet that answers with the client's address.
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(CLIENTS[0], 8080);
/// A UDP echo on the Internet.
const ECHO: u16 = 7;
/// Longest wait of one connection over an uplink that may be dead.
const ATTEMPT: Duration = Duration::from_millis(500);

fn site() -> Result<(Site, HttpServer)> {
    let plan = ThreeLeggedPlan::TWO_UPLINKS;
    let site = Site::three_legged(plan)?;
    let outside =
        HttpServer::start(vec![listen(site.client(), *OUTSIDE.ip(), OUTSIDE.port())?], None)?;
    Ok((site, outside))
}

fn host(site: &Site) -> &Namespace {
    &site.uplink(0).natbox
}

/// Starts the box. The uplinks have these keys and a health check of their gateways.
fn start(site: &Site, keys: [&str; 2]) -> Result<NatBox> {
    let check = |uplink: usize| health(&format!("ping: {}", site.uplink(uplink).gateway));
    let config =
        keys.iter().enumerate().fold(site.three_legged_config(), |config, (uplink, keys)| {
            config.uplink(uplink, &format!("{keys}, {}", check(uplink)))
        });
    start_with(site, &config)
}

fn start_with(site: &Site, config: &BoxConfig) -> Result<NatBox> {
    let text = config.text().replace("host: { ", "host: { default_route: follow, ");
    crate::dns::start_box(&site.lab, host(site), "natbox1", &text)
}

/// Opens a connection from the host to the Internet. Returns the index of its uplink.
fn open(site: &Site) -> Result<usize> {
    let mut connection = host(site).enter(|| connect(None, OUTSIDE, ATTEMPT))??;
    let seen: Ipv4Addr = connection.get("/")?.text().trim().parse()?;
    let mut uplinks = site.topology.uplinks.iter();
    uplinks
        .position(|uplink| uplink.published == seen)
        .with_context(|| format!("{seen} is no published address"))
}

fn wait_until_over(site: &Site, uplink: usize) -> Result<()> {
    wait_for("the host to use the uplink", || {
        Ok(open(site).is_ok_and(|used| used == uplink).then_some(()))
    })
}

/// Returns the rules and routes of the host.
fn routing(site: &Site) -> Result<String> {
    let rules = host(site).ip_output(&["-4", "rule"])?;
    Ok(rules + &host(site).ip_output(&["-4", "route", "show", "table", "all"])?)
}

/// Makes the rules of wg-quick, and a device for them.
fn start_vpn(site: &Site) -> Result<()> {
    for command in [
        "link add wg0 type veth peer name wg1",
        "address add 10.99.0.1/32 dev wg0",
        "link set wg1 up",
        "link set wg0 up",
        "route add default dev wg0 table 51820",
        "rule add not fwmark 51820 table 51820",
        "rule add table main suppress_prefixlength 0",
    ] {
        host(site).ip(&command.split(' ').collect::<Vec<_>>())?;
    }
    Ok(())
}

fn end(mut natbox: NatBox) -> Result<()> {
    let process = natbox.process();
    process.signal(Signal::TERM)?;
    let status = process.wait(Duration::from_secs(10))?.context("natbox ends")?;
    ensure!(status.success(), "{}", process.log());
    Ok(())
}

/// The host's own default route, as DHCP sets it, leads to the first uplink all the time.
#[test]
fn the_hosts_own_connections_move_when_an_uplink_fails_and_return() -> Result<()> {
    let (site, _outside) = site()?;
    let before = routing(&site)?;
    let natbox = start(&site, ["tier: 1", "tier: 2"])?;
    let echo = Echo::start(site.client(), *OUTSIDE.ip(), ECHO)?;
    // A socket that stays open, like that of a VPN.
    let socket = datagrams(host(&site), Ipv4Addr::UNSPECIFIED, 0)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let to = SocketAddr::from((*OUTSIDE.ip(), ECHO));
    let exchanged = |number: u8| {
        wait_for("the echo", || {
            socket.send_to(&[number], to)?;
            let mut buffer = [0; 2];
            let answered = socket.recv(&mut buffer).is_ok_and(|length| length == 1);
            Ok((answered && buffer[0] == number).then_some(()))
        })
    };
    let seen = |number: u8| -> BTreeSet<_> {
        let seen = echo.seen().into_iter().filter(|(_, byte)| *byte == number);
        seen.map(|(peer, _)| peer.ip()).collect()
    };
    ensure!(open(&site)? == 0);
    exchanged(1)?;
    ensure!(seen(1) == BTreeSet::from([site.uplink(0).published.into()]));

    std::thread::sleep(INTERVAL * 2);
    set_router(site.uplink(0), false)?;
    let died = Instant::now();
    exchanged(2)?;
    wait_until_over(&site, 1)?;
    let limit = INTERVAL * FALL + Duration::from_millis(100) + SLACK + ATTEMPT;
    ensure!(died.elapsed() < limit, "after {:?}", died.elapsed());
    ensure!(seen(2).contains(&site.uplink(1).published.into()), "{:?}", seen(2));

    set_router(site.uplink(0), true)?;
    wait_until_over(&site, 0)?;
    wait_for("the flow to return", || {
        exchanged(3)?;
        Ok(seen(3).contains(&site.uplink(0).published.into()).then_some(()))
    })?;
    end(natbox)?;
    let after = routing(&site)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

/// Tier 1 is dead, and the hold keeps the backup uplink out, which answers.
#[test]
fn the_hosts_own_connections_use_the_last_resort() -> Result<()> {
    let (site, _outside) = site()?;
    let check =
        |uplink: usize, hold: &str| health(&format!("ping: {}{hold}", site.uplink(uplink).gateway));
    let config = site.three_legged_config().uplink(0, &check(0, ""));
    let held = format!("tier: 2, {}", check(1, ", hold: { first: 1m }"));
    let natbox = start_with(&site, &config.uplink(1, &held))?;
    for uplink in [1, 0] {
        set_router(site.uplink(uplink), false)?;
        wait_for("the uplink to fail", || {
            Ok((!natbox.status()?.uplinks[uplink].healthy).then_some(()))
        })?;
    }
    set_router(site.uplink(1), true)?;
    wait_until_over(&site, 1)?;
    for _ in 0..20 {
        ensure!(open(&site)? == 1);
    }
    Ok(())
}

#[test]
fn the_hosts_own_connections_are_spread_by_weight_within_a_tier() -> Result<()> {
    let (site, _outside) = site()?;
    let _natbox = start(&site, ["weight: 1", "weight: 2"])?;
    let used = (0..40).map(|_| open(&site)).collect::<Result<BTreeSet<usize>>>()?;
    ensure!(used == BTreeSet::from([0, 1]), "{used:?}");
    Ok(())
}

/// No interface of an uplink has an address, and the host has no default route.
#[test]
fn a_host_without_an_outside_address_and_without_a_default_route_reaches_the_internet() -> Result<()>
{
    let (site, _outside) = site()?;
    host(&site).ip(&["route", "del", "default"])?;
    for uplink in &site.topology.uplinks {
        host(&site).ip(&["address", "flush", "dev", &uplink.interface])?;
        let [a, b, c, _] = uplink.published.octets();
        host(&site).ip(&[
            "route",
            "add",
            &format!("{a}.{b}.{c}.0/24"),
            "dev",
            &uplink.interface,
        ])?;
    }
    let before = routing(&site)?;
    let unreachable = host(&site).enter(|| connect(None, OUTSIDE, ATTEMPT))?;
    ensure!(unreachable.is_err());
    let natbox = start(&site, ["tier: 1", "tier: 2"])?;
    ensure!(open(&site)? == 0);
    set_router(site.uplink(0), false)?;
    wait_until_over(&site, 1)?;
    end(natbox)?;
    ensure!(before == routing(&site)?);
    Ok(())
}

#[test]
fn a_killed_natbox_leaves_the_host_a_default_route_and_the_next_stop_removes_it() -> Result<()> {
    let (site, _outside) = site()?;
    host(&site).ip(&["route", "del", "default"])?;
    let before = routing(&site)?;
    let mut natbox = start(&site, ["tier: 2", "tier: 1"])?;
    ensure!(open(&site)? == 1);
    natbox.process().kill()?;
    wait_for("the TUN to vanish", || {
        Ok(host(&site).ip_output(&["link", "show", "nb1"]).is_err().then_some(()))
    })?;
    // From the address of the interface, as without natbox.
    let mut connection = host(&site).enter(|| connect(None, OUTSIDE, ATTEMPT))??;
    let seen: Ipv4Addr = connection.get("/")?.text().trim().parse()?;
    ensure!(seen == site.uplink(1).outside, "{seen}");
    let natbox = start(&site, ["tier: 1", "tier: 2"])?;
    ensure!(open(&site)? == 0);
    end(natbox)?;
    let after = routing(&site)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

/// Known networks, the host's replies, sockets that are bound to an interface, and a VPN for all
/// traffic keep their routes.
#[test]
fn only_packets_without_another_route_and_without_a_source_follow_the_uplinks() -> Result<()> {
    let (site, _outside) = site()?;
    let _natbox = start(&site, ["tier: 1", "tier: 2"])?;
    let route = |words: &[&str]| host(&site).ip_output(&[&["route", "get"], words].concat());
    let is_by = |words: &[&str], device: &str| -> Result<()> {
        let found = route(words)?;
        ensure!(found.contains(&format!("dev {device} ")), "{words:?}: {found}");
        Ok(())
    };
    is_by(&["192.0.2.11"], "nb1")?;
    ensure!(route(&["192.0.2.11"])?.contains("mtu 1500"), "a tunnel takes its MTU from the route");
    is_by(&["10.0.0.101"], "lan0")?;
    is_by(&["198.51.100.77"], "wan1")?;
    is_by(&["192.0.2.11", "from", "198.51.100.1"], "wan1")?;
    is_by(&["192.0.2.11", "oif", "wan1"], "wan1")?;
    is_by(&["224.0.0.251"], "wan0")?;
    // A program of the host answers at the address of the interface, over each uplink.
    let _server = HttpServer::start(vec![listen(host(&site), Ipv4Addr::UNSPECIFIED, 8022)?], None)?;
    for uplink in &site.topology.uplinks {
        let to = SocketAddrV4::new(uplink.outside, 8022);
        let client = site.client();
        let answered = client.enter(|| connect(Some(CLIENTS[1]), to, ATTEMPT))?;
        answered.with_context(|| uplink.name.to_owned())?.get("/")?;
    }
    start_vpn(&site)?;
    is_by(&["192.0.2.11"], "wg0")?;
    is_by(&["192.0.2.11", "mark", "51820"], "nb1")?;
    is_by(&["10.0.0.101"], "lan0")
}

#[test]
fn a_vpn_that_started_before_keeps_all_traffic_of_the_host() -> Result<()> {
    let (site, _outside) = site()?;
    start_vpn(&site)?;
    let _natbox = start(&site, ["tier: 1", "tier: 2"])?;
    let found = host(&site).ip_output(&["route", "get", "192.0.2.11"])?;
    ensure!(found.contains("dev wg0 "), "{found}");
    let marked = host(&site).ip_output(&["route", "get", "192.0.2.11", "mark", "51820"])?;
    ensure!(marked.contains("dev nb1 "), "{marked}");
    Ok(())
}

#[test]
fn the_commands_of_plan_make_the_same_route_and_doctor_finds_no_fault() -> Result<()> {
    let (site, _outside) = site()?;
    let config = site.three_legged_config().uplink(1, "tier: 2").unmanaged();
    let natbox = start_with(&site, &config)?;
    let file = site.lab.directory().join("natbox1.yaml");
    let program = |arguments: &[&str]| {
        let mut command = host(&site).command(NATBOX);
        command.args(arguments);
        command
    };
    let plan = output(program(&["plan", "--config", file.to_str().context("a path")?]))?;
    let (of_box, _) = plan.split_once("# ==== server").unwrap_or((&plan, ""));
    let mut shell = host(&site).command("sh");
    output({
        shell.args(["-c", of_box]);
        shell
    })?;
    ensure!(open(&site)? == 0);
    drop(natbox);
    let _natbox = start(&site, ["tier: 1", "tier: 2"])?;
    let socket = site.lab.directory().join("natbox1.sock");
    let mut doctor = program(&["doctor", "--socket"]);
    doctor.arg(&socket);
    output(doctor).map(drop)
}

#[test]
fn the_default_leaves_the_hosts_own_route_alone() -> Result<()> {
    let (site, _outside) = site()?;
    let _natbox = site.start(0, &site.three_legged_config())?;
    let found = host(&site).ip_output(&["route", "get", "192.0.2.11"])?;
    ensure!(found.contains("via 203.0.113.254 dev wan0"), "{found}");
    let echo = Echo::start(site.client(), *OUTSIDE.ip(), ECHO)?;
    let socket = datagrams(host(&site), Ipv4Addr::UNSPECIFIED, 0)?;
    socket.connect(SocketAddrV4::new(*OUTSIDE.ip(), ECHO))?;
    exchange(&socket, 10)?;
    let seen: BTreeSet<_> = echo.seen().iter().map(|(peer, _)| peer.ip()).collect();
    ensure!(seen == BTreeSet::from([site.uplink(0).outside.into()]), "{seen:?}");
    Ok(())
}
