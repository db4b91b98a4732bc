//! One box with uplinks of two tiers. A backup uplink carries nothing while a lower tier is
//! healthy, takes over when the lower tier fails, and gets no new session after the lower tier has
//! recovered. Its sessions without a connection leave it then.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use natbox::api::{Event, EventKind, Reloaded, Request, client};
use natbox::lab::boxes::NatBox;
use natbox::lab::capture::{Capture, ICMP};
use natbox::lab::http::{Connection, HttpServer, connect};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use crate::failover::{FALL, INTERVAL, SLACK, health, set_router};
use crate::lab::{
    BoxConfig, Echo, NATBOX, Nginx, Site, TIMEOUT, curl, datagrams, exchange, listen, output,
    wait_for,
};

/// A web server on the Internet that answers with the client's address.
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(CLIENTS[0], 8080);
/// A UDP echo on the Internet.
const ECHO: u16 = 7;
/// Published port of a web server.
const WEB: u16 = 80;
/// Connections from which the spread over the uplinks shows.
const SPREAD: usize = 40;

fn site(uplinks: u8) -> Result<(Site, HttpServer)> {
    let plan = ThreeLeggedPlan { uplinks, servers: 1, mbit: None, one_network: false };
    let site = Site::three_legged(plan)?;
    let outside =
        HttpServer::start(vec![listen(site.client(), *OUTSIDE.ip(), OUTSIDE.port())?], None)?;
    Ok((site, outside))
}

/// Gives each uplink its keys and a health check of its gateway.
fn with_tiers(site: &Site, keys: &[&str]) -> BoxConfig {
    keys.iter().enumerate().fold(site.three_legged_config(), |config, (uplink, keys)| {
        let check = health(&format!("ping: {}", site.uplink(uplink).gateway));
        config.uplink(uplink, &format!("{keys}, {check}"))
    })
}

/// Opens a connection from the server to the Internet. Returns it with the index of its uplink.
fn open(site: &Site) -> Result<(Connection, usize)> {
    let mut connection = site.server().enter(|| connect(None, OUTSIDE, TIMEOUT))??;
    let uplink = uplink_of(site, &mut connection)?;
    Ok((connection, uplink))
}

fn uplink_of(site: &Site, connection: &mut Connection) -> Result<usize> {
    let seen: Ipv4Addr = connection.get("/")?.text().trim().parse()?;
    let mut uplinks = site.topology.uplinks.iter();
    uplinks.position(|uplink| uplink.published == seen).context("no published address")
}

/// Opens connections and returns the uplinks that they use.
fn used(site: &Site) -> Result<BTreeSet<usize>> {
    (0..SPREAD).map(|_| Ok(open(site)?.1)).collect()
}

fn wait_until_in_use(natbox: &NatBox, wanted: &[bool]) -> Result<()> {
    wait_for("the tier to be in use", || {
        let status = natbox.status()?;
        let in_use: Vec<bool> = status.uplinks.iter().map(|uplink| uplink.in_use).collect();
        Ok((in_use == wanted).then_some(()))
    })
}

/// Returns the tiers that the events report, each with the tier before and the uplinks in use.
fn tier_changes(natbox: &NatBox) -> Result<Vec<(u32, u32, Vec<String>)>> {
    let mut command = Command::new(NATBOX);
    command.args(["events", "--json", "--socket"]).arg(natbox.socket());
    let mut changes = Vec::new();
    for line in output(command)?.lines() {
        let event: Event = serde_json::from_str(line)?;
        if let EventKind::TierChanged { tier, before, uplinks } = event.kind {
            changes.push((tier, before, uplinks));
        }
    }
    Ok(changes)
}

/// Counts the packets other than health checks that an uplink gets from the box.
fn watch(site: &Site, uplink: usize) -> Result<(Capture, Arc<AtomicU64>)> {
    let (packets, sender) = (Arc::new(AtomicU64::new(0)), site.uplink(uplink).sender);
    let counter = packets.clone();
    let capture = Capture::start(&site.uplink(uplink).provider, move |frame| {
        let is_session = frame.ipv4().is_some_and(|packet| packet.protocol() != ICMP);
        if frame.sender() == sender && is_session {
            // Relaxed: the capture has ended when the count is read.
            counter.fetch_add(1, Ordering::Relaxed);
        }
    })?;
    Ok((capture, packets))
}

#[test]
fn a_backup_uplink_carries_nothing_but_health_checks_until_the_lower_tier_has_failed() -> Result<()>
{
    let (site, _outside) = site(3)?;
    let config = with_tiers(&site, &["weight: 1", "weight: 3", "tier: 2, weight: 1000"]);
    let natbox = site.start(0, &config)?;
    let (capture, packets) = watch(&site, 2)?;
    let echo = Echo::start(site.client(), *OUTSIDE.ip(), ECHO)?;
    ensure!(used(&site)? == BTreeSet::from([0, 1]), "both uplinks of tier 1, and no other");
    for _ in 0..SPREAD {
        let socket = datagrams(site.server(), Ipv4Addr::UNSPECIFIED, 0)?;
        socket.connect(SocketAddrV4::new(*OUTSIDE.ip(), ECHO))?;
        exchange(&socket, 100)?;
    }
    // One uplink of tier 1 suffices.
    set_router(site.uplink(0), false)?;
    wait_until_in_use(&natbox, &[false, true, false])?;
    ensure!(used(&site)? == BTreeSet::from([1]));
    drop(capture);
    let carried = packets.load(Ordering::Relaxed);
    ensure!(carried == 0, "{carried} packets over the backup uplink");
    let backup = site.uplink(2).published;
    ensure!(echo.seen().iter().all(|(peer, _)| peer.ip() != backup), "{:?}", echo.seen());
    ensure!(tier_changes(&natbox)?.is_empty());

    set_router(site.uplink(1), false)?;
    let died = Instant::now();
    wait_until_in_use(&natbox, &[false, false, true])?;
    ensure!(used(&site)? == BTreeSet::from([2]));
    let limit = INTERVAL * FALL + Duration::from_millis(100) + SLACK;
    ensure!(died.elapsed() < limit + SLACK, "after {:?}", died.elapsed());
    ensure!(tier_changes(&natbox)? == [(2, 1, vec!["isp3".to_owned()])]);
    let status = natbox.status()?;
    let tiers: Vec<u32> = status.uplinks.iter().map(|uplink| uplink.tier).collect();
    ensure!(tiers == [1, 1, 2], "{status:?}");
    let mut command = Command::new(NATBOX);
    command.args(["status", "--socket"]).arg(natbox.socket());
    let text = output(command)?;
    ensure!(text.contains(", tier 2, in use") && text.contains(", tier 1\n"), "{text}");
    Ok(())
}

#[test]
fn new_sessions_return_with_the_lower_tier_and_the_others_stay() -> Result<()> {
    let (site, _outside) = site(2)?;
    let natbox = site.start(0, &with_tiers(&site, &["tier: 1", "tier: 2"]))?;
    set_router(site.uplink(0), false)?;
    wait_until_in_use(&natbox, &[false, true])?;
    let (mut connection, uplink) = open(&site)?;
    ensure!(uplink == 1);
    // An endpoint with a mapping on the backup uplink.
    let echo = Echo::start(site.client(), *OUTSIDE.ip(), ECHO)?;
    let other = Echo::start(site.client(), CLIENTS[1], ECHO)?;
    let socket = datagrams(site.server(), Ipv4Addr::UNSPECIFIED, 0)?;
    let to = |client: Ipv4Addr| SocketAddr::from((client, ECHO));
    socket.connect(to(CLIENTS[0]))?;
    exchange(&socket, 10)?;
    set_router(site.uplink(0), true)?;
    wait_until_in_use(&natbox, &[true, false])?;
    ensure!(used(&site)? == BTreeSet::from([0]));
    ensure!(uplink_of(&site, &mut connection)? == 1, "an existing session stays");
    socket.connect(to(CLIENTS[1]))?;
    exchange(&socket, 10).context("a new flow of the same endpoint")?;
    let seen =
        |echo: &Echo| -> BTreeSet<_> { echo.seen().iter().map(|(peer, _)| peer.ip()).collect() };
    ensure!(seen(&other) == BTreeSet::from([site.uplink(0).published.into()]));
    ensure!(seen(&echo) == BTreeSet::from([site.uplink(1).published.into()]));
    // A socket that sends all the time, like that of a VPN: no error, and no datagram is lost.
    socket.connect(to(CLIENTS[0]))?;
    wait_for("the flow to return", || {
        exchange(&socket, 10)?;
        Ok(seen(&echo).contains(&site.uplink(0).published.into()).then_some(()))
    })?;
    let (capture, packets) = watch(&site, 1)?;
    for _ in 0..10 {
        exchange(&socket, 10)?;
    }
    drop(capture);
    let carried = packets.load(Ordering::Relaxed);
    ensure!(carried == 0, "{carried} packets over the backup uplink");
    ensure!(uplink_of(&site, &mut connection)? == 1, "an existing connection stays");
    let up = |tier, before, uplink: &str| (tier, before, vec![uplink.to_owned()]);
    ensure!(tier_changes(&natbox)? == [up(2, 1, "isp2"), up(1, 2, "isp1")]);
    Ok(())
}

/// The backup uplink answers again after a failure, and its hold keeps it out. Tier 1 is dead.
#[test]
fn an_uplink_that_answers_is_the_last_resort_before_a_dead_one_of_a_lower_tier() -> Result<()> {
    let (site, _outside) = site(2)?;
    let held = health(&format!("ping: {}, hold: {{ first: 1m }}", site.uplink(1).gateway));
    let check = health(&format!("ping: {}", site.uplink(0).gateway));
    let config = site.three_legged_config().uplink(0, &check);
    let natbox = site.start(0, &config.uplink(1, &format!("tier: 2, {held}")))?;
    for uplink in [1, 0] {
        set_router(site.uplink(uplink), false)?;
        wait_for("the uplink to fail", || {
            Ok((!natbox.status()?.uplinks[uplink].healthy).then_some(()))
        })?;
    }
    wait_until_in_use(&natbox, &[false, false])?;
    set_router(site.uplink(1), true)?;
    wait_until_in_use(&natbox, &[false, true])?;
    ensure!(used(&site)? == BTreeSet::from([1]));
    let status = natbox.status()?;
    let [dead, last] = &status.uplinks[..] else { unreachable!("two uplinks") };
    ensure!(!dead.last_resort && last.last_resort && !last.healthy, "{status:?}");
    ensure!(last.hold_seconds.is_some_and(|seconds| seconds > 10), "{status:?}");
    let mut command = Command::new(NATBOX);
    command.args(["status", "--socket"]).arg(natbox.socket());
    let text = output(command)?;
    ensure!(text.contains("; used as the last resort, tier 2, in use"), "{text}");
    // It dies as well, and then the uplink of tier 1 recovers.
    set_router(site.uplink(1), false)?;
    wait_until_in_use(&natbox, &[false, false])?;
    set_router(site.uplink(0), true)?;
    wait_until_in_use(&natbox, &[true, false])?;
    ensure!(used(&site)? == BTreeSet::from([0]));
    let change = |tier, before, uplink: &str| (tier, before, vec![uplink.to_owned()]);
    ensure!(tier_changes(&natbox)? == [change(2, 1, "isp2"), change(1, 2, "isp1")]);
    Ok(())
}

#[test]
fn with_failback_reset_the_sessions_return_as_well() -> Result<()> {
    let (site, _outside) = site(2)?;
    let natbox = site.start(0, &with_tiers(&site, &["failback: reset", "tier: 2"]))?;
    set_router(site.uplink(0), false)?;
    wait_until_in_use(&natbox, &[false, true])?;
    let (mut connection, uplink) = open(&site)?;
    ensure!(uplink == 1);
    set_router(site.uplink(0), true)?;
    let error = wait_for("the session to end", || Ok(connection.get("/").err()))?;
    ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "{error}");
    ensure!(open(&site)?.1 == 0);
    Ok(())
}

#[test]
fn a_service_on_a_backup_uplink_answers_while_the_lower_tier_lives() -> Result<()> {
    let (site, _outside) = site(2)?;
    let config = with_tiers(&site, &["tier: 1", "tier: 2"]);
    let config = config.forward("tcp", WEB, site.server_address(0), WEB);
    let _natbox = site.start(0, &config)?;
    std::fs::write(site.lab.directory().join("page"), "the page")?;
    let at = [SocketAddrV4::new(site.server_address(0), WEB)];
    let _nginx = Nginx::start(&site.lab, site.server(), "nginx", site.lab.directory(), &at)?;
    for uplink in &site.topology.uplinks {
        let url = format!("http://{}/page", uplink.endpoint(WEB));
        let page = curl(site.client(), CLIENTS[1], &[&url]).context(uplink.name)?;
        ensure!(page == "the page");
    }
    Ok(())
}

#[test]
fn the_tiers_of_a_rule_are_those_of_its_uplinks() -> Result<()> {
    let (site, _outside) = site(3)?;
    let config = with_tiers(&site, &["tier: 1", "tier: 2", "tier: 3"])
        .outbound("from: 10.0.0.0/24, uplinks: [isp3, isp2]");
    let natbox = site.start(0, &config)?;
    ensure!(used(&site)? == BTreeSet::from([1]), "the lowest tier of the rule");
    set_router(site.uplink(1), false)?;
    wait_for("the uplink to fail", || Ok((!natbox.status()?.uplinks[1].healthy).then_some(())))?;
    ensure!(used(&site)? == BTreeSet::from([2]));
    Ok(())
}

#[test]
fn a_reload_changes_tiers_and_weights() -> Result<()> {
    let (site, _outside) = site(2)?;
    let keys = ["tier: 1, weight: 1", "tier: 2, weight: 2"];
    let natbox = site.start(0, &with_tiers(&site, &keys))?;
    let (mut connection, uplink) = open(&site)?;
    ensure!(uplink == 0);
    let path = site.lab.directory().join("natbox1.yaml");
    let text = std::fs::read_to_string(&path)?;
    let swapped = text
        .replace("tier: 1", "tier: one")
        .replace("tier: 2", "tier: 1")
        .replace("tier: one", "tier: 2")
        .replace("weight: 2", "weight: 7");
    std::fs::write(&path, swapped)?;
    let reloaded: Reloaded = client::request(natbox.socket(), &Request::Reload)?;
    ensure!(
        reloaded.changed == ["uplinks[0].tier", "uplinks[1].tier", "uplinks[1].weight"],
        "{reloaded:?}"
    );
    ensure!(reloaded.sessions_ended == 0, "{reloaded:?}");
    wait_until_in_use(&natbox, &[false, true])?;
    ensure!(used(&site)? == BTreeSet::from([1]));
    ensure!(uplink_of(&site, &mut connection)? == 0, "an existing session stays");
    Ok(())
}
