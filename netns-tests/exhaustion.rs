//! Inside hosts take all sessions or all ports, and the box's own probes still work.

use std::net::{SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use natbox::api::Status;
use natbox::lab::boxes::NatBox;
use natbox::lab::http::{HttpAnswer, HttpHandler, HttpServer};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use crate::lab::{Site, datagrams, listen, wait_for};

/// A web server on the Internet: the target of the probes, and of the inside host.
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(CLIENTS[0], 8080);
/// Sessions of the table, or ports of the uplink.
const CAPACITY: u16 = 1000;
/// Time for which the uplinks must stay healthy: 50 rounds of probes, more than the ports that are
/// kept for them.
const LONG: Duration = Duration::from_secs(5);

fn site(uplinks: u8) -> Result<(Site, HttpServer)> {
    let site = Site::three_legged(ThreeLeggedPlan { uplinks, ..ThreeLeggedPlan::TWO_UPLINKS })?;
    let listener = listen(site.client(), *OUTSIDE.ip(), OUTSIDE.port())?;
    // A probe by HTTP requests the page with HEAD.
    let handler: HttpHandler = Arc::new(|_| Some(HttpAnswer::text(200, "")));
    Ok((site, HttpServer::start(vec![listener], Some(handler))?))
}

fn health(target: &str) -> String {
    format!("health: {{ {target}, interval: 100ms, fall: 3 }}")
}

/// Returns the status after a while in which every uplink was healthy.
fn stays_healthy(natbox: &NatBox) -> Result<Status> {
    for _ in 0..50 {
        thread::sleep(LONG / 50);
        let status = natbox.status()?;
        let failed = status.uplinks.iter().find(|uplink| !uplink.healthy);
        ensure!(failed.is_none(), "{failed:?}, drops: {:?}", status.drops);
    }
    Ok(natbox.status()?)
}

#[test]
fn full_session_table_fails_no_uplink() -> Result<()> {
    let (site, _outside) = site(2)?;
    let config = site
        .three_legged_config()
        .uplink(0, &health(&format!("tcp: \"{OUTSIDE}\"")))
        .uplink(1, &health(&format!("http: \"http://{OUTSIDE}/\"")))
        .extra(&format!("limits: {{ sessions: {CAPACITY} }}"));
    let natbox = site.start(0, &config)?;
    let socket = datagrams(site.server(), site.server_address(0), 0)?;
    wait_for("a full table", || {
        for port in 10_000..10_000 + CAPACITY + CAPACITY / 10 {
            socket.send_to(b"one more session", (CLIENTS[1], port))?;
        }
        Ok(natbox.status()?.drops.contains_key("table-full").then_some(()))
    })?;
    let status = stays_healthy(&natbox)?;
    ensure!(status.sessions.now >= CAPACITY.into(), "{:?}", status.sessions);
    Ok(())
}

#[test]
fn range_without_a_free_port_fails_no_uplink() -> Result<()> {
    let (site, _outside) = site(1)?;
    let config = site
        .three_legged_config()
        .uplink(0, &health(&format!("tcp: \"{OUTSIDE}\"")))
        .extra(&format!("nat: {{ ports: 40000-{} }}", 40_000 + CAPACITY - 1));
    let natbox = site.start(0, &config)?;
    wait_for("a used-up range", || {
        // A closed connection has its port for some minutes more.
        let connect = || TcpStream::connect_timeout(&OUTSIDE.into(), Duration::from_millis(300));
        let connected = site.server().enter(connect)?.is_ok();
        let drops = natbox.status()?.drops;
        Ok((!connected && drops.contains_key("ports-exhausted")).then_some(()))
    })?;
    let status = stays_healthy(&natbox)?;
    ensure!(status.mappings >= usize::from(CAPACITY) * 9 / 10, "{}", status.mappings);
    Ok(())
}
