//! An exposed host while uplinks fail and return, and while the configuration changes.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natbox::api::{Reloaded, Request, client};
use natbox::lab::Namespace;
use natbox::lab::boxes::NatBox;
use natbox::lab::http::connect;
use natbox::lab::topology::CLIENTS;

use super::{OUTSIDE, SERVICE, Scene, WEB, assert_probes_are_answered, other, peer_of};
use crate::failover::set_router;
use crate::lab::{BoxConfig, TIMEOUT, wait_for};

fn wait_until_healthy(natbox: &NatBox, uplink: usize, healthy: bool) -> Result<()> {
    wait_for("the uplink's state", || {
        Ok((natbox.status()?.uplinks[uplink].healthy == healthy).then_some(()))
    })
}

fn assert_moves_and_returns(on_failure: &str) -> Result<()> {
    let scene = Scene::new(2)?;
    let (exposed, first, second) =
        (scene.exposed(), scene.site.uplink(0), scene.site.uplink(1).published);
    let exposing = format!("name: all, uplink: isp1, protocol: any, to: {exposed}");
    let keys = format!(", on_failure: {on_failure}");
    let config = scene.config_with(&keys).forward_as(&exposing);
    let natbox = scene.site.start(0, &config)?;
    // Health checks run, and a published session lives.
    let mut client = scene.enter(CLIENTS[1], first.published, SERVICE)?;
    peer_of(&mut client)?;
    assert_probes_are_answered(&natbox)?;
    peer_of(&mut client).context("the published session goes on")?;
    let published = |port| SocketAddr::from((first.published, port));
    let server = scene.site.server();
    for port in 5000..5004 {
        ensure!(scene.external(server, exposed, port)? == published(port), "port {port}");
    }
    set_router(first, false)?;
    wait_until_healthy(&natbox, 0, false)?;
    for port in 6000..6004 {
        ensure!(scene.external(server, exposed, port)?.ip() == second, "port {port}");
    }
    ensure!(scene.address_outside(server, exposed)? == second);
    ensure!(scene.address_outside(scene.other_host(), other(&scene.site))? == second);
    set_router(first, true)?;
    wait_until_healthy(&natbox, 0, true)?;
    for port in 7000..7004 {
        ensure!(scene.external(server, exposed, port)? == published(port), "port {port}");
    }
    peer_of(&mut scene.enter(CLIENTS[2], first.published, SERVICE)?)?;
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
fn reload(scene: &Scene, natbox: &NatBox, config: &BoxConfig) -> Result<Reloaded> {
    let path = scene.site.lab.directory().join("natbox1.yaml");
    let socket = natbox.socket().display();
    std::fs::write(path, format!("{}admin: {{ socket: {socket} }}\n", config.text()))?;
    Ok(client::request(natbox.socket(), &Request::Reload)?)
}

#[test]
fn reloads_that_add_or_remove_an_exposed_host_keep_the_sessions_that_stay_allowed() -> Result<()> {
    let scene = Scene::new(1)?;
    let external = scene.site.uplink(0).published;
    let exposing = format!("name: all, protocol: any, to: {}", scene.exposed());
    let plain = scene.config();
    let exposed = scene.config().forward_as(&exposing);
    let beside = exposed.clone().forward("tcp", WEB, other(&scene.site), WEB);
    let natbox = scene.site.start(0, &plain)?;
    let open =
        |from: &Namespace| -> Result<_> { Ok(from.enter(|| connect(None, OUTSIDE, TIMEOUT))??) };
    let mut before = [open(scene.other_host())?, open(scene.site.server())?];
    reload(&scene, &natbox, &exposed)?;
    let to = SocketAddrV4::new(external, SERVICE);
    let enter = || connect(Some(CLIENTS[1]), to, Duration::from_secs(5));
    let mut inbound = scene.site.client().enter(enter)??;
    let mut during = [open(scene.other_host())?, open(scene.site.server())?];
    // The whole address is the exposed host's, then port 80 is the other host's.
    ensure!(scene.server_at(external, WEB)? == scene.exposed());
    reload(&scene, &natbox, &beside)?;
    ensure!(scene.server_at(external, WEB)? == other(&scene.site));
    peer_of(&mut inbound).context("inbound to the exposed host")?;
    reload(&scene, &natbox, &exposed)?;
    ensure!(scene.server_at(external, WEB)? == scene.exposed());
    peer_of(&mut inbound).context("inbound to the exposed host, still")?;
    reload(&scene, &natbox, &plain)?;
    for connection in before.iter_mut().chain(&mut during) {
        ensure!(peer_of(connection)? == external);
    }
    ensure!(inbound.get("/").is_err(), "the session of the removed forward goes on");
    Ok(())
}
