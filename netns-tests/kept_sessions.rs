//! Sessions outlive the process (`state.keep`): a kill, a restart, a stop with a later start.

use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natbox::lab::boxes::NatBox;
use natbox::lab::http::{Connection, HttpServer, connect};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use crate::lab::{
    BoxConfig, Echo, NATBOX, Site, TIMEOUT, datagrams, exchange, listen, output, wait_for,
};

/// A web server on the Internet that answers with the client's address.
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(CLIENTS[0], 8080);
const WEB: u16 = 80;

/// The owner of the published addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Owner {
    Nobody,
    /// The host of the box, which answers packets for ports that nothing publishes.
    Host,
}

/// A box with two uplinks, a published server, and connections in both directions.
struct Scene {
    site: Site,
    _outside: HttpServer,
    _published: HttpServer,
    config: BoxConfig,
}

/// A connection and the address of its client as the server sees it.
struct Talk {
    connection: Connection,
    seen: String,
}

impl Talk {
    fn new(mut connection: Connection) -> Result<Talk> {
        let seen = connection.get("/")?.text().trim().to_owned();
        Ok(Talk { connection, seen })
    }

    fn goes_on(&mut self) -> Result<()> {
        let seen = self.connection.get("/").context("the connection has ended")?;
        ensure!(seen.text().trim() == self.seen, "{} has become {}", self.seen, seen.text());
        Ok(())
    }
}

impl Scene {
    fn new(owner: Owner) -> Result<Scene> {
        let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
        let listener = listen(site.client(), *OUTSIDE.ip(), OUTSIDE.port())?;
        let outside = HttpServer::start(vec![listener], None)?;
        let listener = listen(site.server(), site.server_address(0), WEB)?;
        let published = HttpServer::start(vec![listener], None)?;
        if owner == Owner::Host {
            for uplink in &site.topology.uplinks {
                uplink.natbox.address(&uplink.interface, uplink.published, 32)?;
            }
        }
        let directory = site.lab.directory().join("state");
        let server = site.server_address(0);
        let config = site
            .three_legged_config()
            .keeping(&directory)
            .forward_as(&format!("name: w1, uplink: isp1, protocol: tcp, port: 80, to: {server}"))
            .forward_as(&format!("name: w2, uplink: isp2, protocol: tcp, port: 80, to: {server}"));
        Ok(Scene { site, _outside: outside, _published: published, config })
    }

    fn start(&self) -> Result<NatBox> {
        self.site.start(0, &self.config)
    }

    /// Opens connections: from inside over both uplinks, and to both published addresses.
    fn talks(&self) -> Result<Vec<Talk>> {
        let mut talks = Vec::new();
        for number in 0..10 {
            let inside = self.site.server().enter(|| connect(None, OUTSIDE, TIMEOUT))??;
            talks.push(Talk::new(inside)?);
            let published = self.site.uplink(number % 2).published;
            let to = SocketAddrV4::new(published, WEB);
            let outside = self.site.client().enter(|| connect(None, to, TIMEOUT))??;
            talks.push(Talk::new(outside)?);
        }
        Ok(talks)
    }
}

fn go_on(talks: &mut [Talk], when: &str) -> Result<()> {
    talks.iter_mut().try_for_each(Talk::goes_on).with_context(|| when.to_owned())
}

/// Kills a box, as the kernel does when memory runs out.
fn kill(mut natbox: NatBox) -> Result<()> {
    natbox.process().kill()?;
    Ok(())
}

/// Stops a box in order.
fn stop(mut natbox: NatBox) -> Result<()> {
    let status = natbox.process().terminate()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn connections_outlive_kills_and_restarts(owner: Owner) -> Result<()> {
    let scene = Scene::new(owner)?;
    let mut natbox = scene.start()?;
    let mut talks = scene.talks()?;
    for round in 0..10 {
        kill(natbox)?;
        natbox = scene.start()?;
        go_on(&mut talks, &format!("kill {round}"))?;
    }
    for round in 0..10 {
        stop(natbox)?;
        natbox = scene.start()?;
        go_on(&mut talks, &format!("restart {round}"))?;
    }
    stop(natbox)?;
    // What is sent meanwhile is lost, and nothing answers for the box.
    thread::sleep(Duration::from_secs(3));
    let natbox = scene.start()?;
    go_on(&mut talks, "a stop and a later start")?;
    let status = natbox.status()?;
    ensure!(status.sessions.now as usize >= talks.len(), "{:?}", status.sessions);
    // New connections work as well.
    go_on(&mut scene.talks()?, "new ones")
}

#[test]
fn connections_outlive_kills_and_restarts_of_a_box_with_its_own_addresses() -> Result<()> {
    connections_outlive_kills_and_restarts(Owner::Nobody)
}

#[test]
fn connections_outlive_kills_and_restarts_of_a_box_with_the_hosts_addresses() -> Result<()> {
    connections_outlive_kills_and_restarts(Owner::Host)
}

/// A mapping keeps its external port, also towards a remote host that is new after the kill.
#[test]
fn udp_mappings_keep_their_external_port() -> Result<()> {
    const PORT: u16 = 7;
    let scene = Scene::new(Owner::Nobody)?;
    let echoes = [
        Echo::start(scene.site.client(), CLIENTS[1], PORT)?,
        Echo::start(scene.site.client(), CLIENTS[2], PORT)?,
    ];
    let natbox = scene.start()?;
    let socket = datagrams(scene.site.server(), scene.site.server_address(0), 5000)?;
    socket.connect((CLIENTS[1], PORT))?;
    exchange(&socket, 100)?;
    kill(natbox)?;
    let _natbox = scene.start()?;
    exchange(&socket, 100)?;
    socket.connect((CLIENTS[2], PORT))?;
    // A new mapping could wait for the adoption; this one exists.
    wait_for("the second remote host", || Ok(exchange(&socket, 100).ok()))?;
    let senders = |echo: &Echo| -> Vec<SocketAddr> {
        echo.seen().into_iter().map(|(sender, _)| sender).collect()
    };
    let (first, second) = (senders(&echoes[0]), senders(&echoes[1]));
    ensure!(first.len() == 1 && first == second, "{first:?}, {second:?}");
    Ok(())
}

/// `natbox down` removes what a stopped box has left.
#[test]
fn down_removes_what_a_box_has_left_for_its_next_start() -> Result<()> {
    let scene = Scene::new(Owner::Nobody)?;
    let host = &scene.site.uplink(0).natbox;
    let state = |what: &[&str]| -> Result<String> {
        let arguments: Vec<&str> = what.to_vec();
        host.enter(|| {
            output({
                let mut ip = Command::new("ip");
                ip.args(&arguments);
                ip
            })
        })?
    };
    let before = (state(&["rule"])?, state(&["route", "show", "table", "all"])?);
    let natbox = scene.start()?;
    stop(natbox)?;
    ensure!(state(&["link"])?.contains("nb1"), "the TUN stays");
    ensure!(state(&["rule"])? != before.0, "the rules stay");
    let file = scene.site.lab.directory().join("down.yaml");
    std::fs::write(&file, scene.config.text())?;
    let down = |path: &Path| {
        host.enter(|| {
            output({
                let mut down = Command::new(NATBOX);
                down.args(["down", "-c"]).arg(path);
                down
            })
        })
    };
    let text = down(&file)??;
    ensure!(text.contains("removed the TUN device nb1"), "{text}");
    ensure!(!state(&["link"])?.contains("nb1"), "the TUN is gone");
    let after = (state(&["rule"])?, state(&["route", "show", "table", "all"])?);
    ensure!(before == after, "{before:?} has become {after:?}");
    ensure!(!scene.site.lab.directory().join("state/natbox1").exists());
    ensure!(down(&file)??.contains("nothing to remove"));
    Ok(())
}
