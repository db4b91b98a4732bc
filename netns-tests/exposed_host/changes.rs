//! An exposed host while uplinks fail and return, and while the configuration changes.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natbox::api::{Reloaded, Request, client};
use natbox::lab::Namespace;
use natbox::lab::boxes::NatBox;
use natbox::lab::http::connect;
use natbox::lab::topology::CLIENTS;

use super::{OUTSIDE, SERVICE, Testbed, WEB, assert_probes_are_answered, other, peer_of};
use crate::failover::set_router;
use crate::lab::{BoxConfig, TIMEOUT, wait_for};

fn wait_until_healthy(natbox: &NatBox, uplink: usize, healthy: bool) -> Result<()> {
    wait_for("the uplink's state", || {
        Ok((natbox.status()?.uplinks[uplink].healthy == healthy).then_some(()))
    })
}

fn assert_moves_and_returns(on_failure: &str) -> Result<()> {
    let testbed = Testbed::new(2)?;
    let (exposed, first, second) =
        (testbed.exposed(), testbed.site.uplink(0), testbed.site.uplink(1).published);
    let exposing = format!("name: all, uplink: isp1, protocol: any, to: {exposed}");
    let keys = format!(", on_failure: {on_failure}");
    let config = testbed.config_with(&keys).forward_as(&exposing);
    let natbox = testbed.site.start(0, &config)?;
    // Health checks run, and a published session lives.
    let mut client = testbed.enter(CLIENTS[1], first.published, SERVICE)?;
    peer_of(&mut client)?;
    assert_probes_are_answered(&natbox)?;
    peer_of(&mut client).context("the published session goes on")?;
    let published = |port| SocketAddr::from((first.published, port));
    let server = testbed.site.server();
    for port in 5000..5004 {
        ensure!(testbed.external(server, exposed, port)? == published(port), "port {port}");
    }
    set_router(first, false)?;
    wait_until_healthy(&natbox, 0, false)?;
    for port in 6000..6004 {
        ensure!(testbed.external(server, exposed, port)?.ip() == second, "port {port}");
    }
    ensure!(testbed.address_outside(server, exposed)? == second);
    ensure!(testbed.address_outside(testbed.other_host(), other(&testbed.site))? == second);
    set_router(first, true)?;
    wait_until_healthy(&natbox, 0, true)?;
    for port in 7000..7004 {
        ensure!(testbed.external(server, exposed, port)? == published(port), "port {port}");
    }
    peer_of(&mut testbed.enter(CLIENTS[2], first.published, SERVICE)?)?;
    Ok(())
}

#[test]
fn the_exposed_hosts_own_sessions_move_and_return_with_reset() -> Result<()> {
    assert_moves_and_returns("reset")
}

#[test]
fn the_exposed_hosts_own_sessions_move_and_return_with_drain() -> Result<()> {
    assert_moves_and_returns("drain")
}

#[test]
fn the_exposed_hosts_own_sessions_move_and_return_with_keep() -> Result<()> {
    assert_moves_and_returns("keep")
}

/// Replaces the configuration of a running box.
fn reload(testbed: &Testbed, natbox: &NatBox, config: &BoxConfig) -> Result<Reloaded> {
    let path = testbed.site.lab.directory().join("natbox1.yaml");
    let socket = natbox.socket().display();
    std::fs::write(path, format!("{}admin: {{ socket: {socket} }}\n", config.text()))?;
    Ok(client::request(natbox.socket(), &Request::Reload)?)
}

#[test]
fn reloads_that_add_or_remove_an_exposed_host_keep_the_sessions_that_stay_allowed() -> Result<()> {
    let testbed = Testbed::new(1)?;
    let external = testbed.site.uplink(0).published;
    let exposing = format!("name: all, protocol: any, to: {}", testbed.exposed());
    let plain = testbed.config();
    let exposed = testbed.config().forward_as(&exposing);
    let beside = exposed.clone().forward("tcp", WEB, other(&testbed.site), WEB);
    let natbox = testbed.site.start(0, &plain)?;
    let open =
        |from: &Namespace| -> Result<_> { Ok(from.enter(|| connect(None, OUTSIDE, TIMEOUT))??) };
    let mut before = [open(testbed.other_host())?, open(testbed.site.server())?];
    reload(&testbed, &natbox, &exposed)?;
    let to = SocketAddrV4::new(external, SERVICE);
    let enter = || connect(Some(CLIENTS[1]), to, Duration::from_secs(5));
    let mut inbound = testbed.site.client().enter(enter)??;
    let mut during = [open(testbed.other_host())?, open(testbed.site.server())?];
    // The whole address is the exposed host's, then port 80 is the other host's.
    ensure!(testbed.server_at(external, WEB)? == testbed.exposed());
    reload(&testbed, &natbox, &beside)?;
    ensure!(testbed.server_at(external, WEB)? == other(&testbed.site));
    peer_of(&mut inbound).context("inbound to the exposed host")?;
    reload(&testbed, &natbox, &exposed)?;
    ensure!(testbed.server_at(external, WEB)? == testbed.exposed());
    peer_of(&mut inbound).context("inbound to the exposed host, still")?;
    reload(&testbed, &natbox, &plain)?;
    for connection in before.iter_mut().chain(&mut during) {
        ensure!(peer_of(connection)? == external);
    }
    ensure!(inbound.get("/").is_err(), "the session of the removed forward goes on");
    Ok(())
}
