//! One box with several uplinks and one private interface. The server has one address and no policy
//! routing, and every reply uses the uplink of its request.
//!
//! | file | behaviour |
//! |---|---|
//! | `replies` | TCP, UDP, ping, fragments, errors and hairpin over real kernels, whatever is offloaded |
//! | `conflicts` | one client endpoint talks to the same server port over several uplinks at once |
//! | `million` | a million requests, half of them in conflict, each packet read by a random worker |
//! | `sum` | two, three and four shaped uplinks add up |
//! | `wires` | uplinks that share an interface, have one parent interface, or have different MTUs |
//! | `packets` | the same packet by packet: errors, fragments, hairpin, MTUs, a full table |
//! | `related` | sessions that the server opens to a client: TFTP, active FTP |
//! | `own` | published addresses of the host itself: the host's own replies use the right uplink |

mod conflicts;
mod million;
mod own;
mod packets;
mod related;
mod replies;
mod sum;
mod wires;

use std::fs;
use std::net::SocketAddrV4;

use anyhow::{Context, Result, ensure};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use crate::lab::{BoxConfig, Echo, Nginx, Site, curl, datagrams, exchange, ping};

/// Published ports: nginx, and a UDP echo.
const WEB: u16 = 80;
const ECHO: u16 = 7;

/// Returns a plan with unlimited uplinks and an inside host beside the server.
const fn plan(uplinks: u8) -> ThreeLeggedPlan {
    ThreeLeggedPlan { uplinks, servers: 2, mbit: None, one_network: false }
}

/// Returns a configuration that publishes the server's services on every uplink.
fn services(site: &Site) -> BoxConfig {
    let server = site.server_address(0);
    site.three_legged_config()
        .forward("tcp", WEB, server, WEB)
        .forward("udp", ECHO, server, ECHO)
        .forward("icmp", 0, server, 0)
}

/// Serves a page by nginx.
fn serve_page(site: &Site) -> Result<(Nginx, String)> {
    let page = "x".repeat(300_000);
    fs::write(site.lab.directory().join("page"), &page)?;
    let listen = [SocketAddrV4::new(site.server_address(0), WEB)];
    Ok((Nginx::start(&site.lab, site.server(), "nginx", site.lab.directory(), &listen)?, page))
}

/// Clients use the server over every uplink, by TCP, UDP (whole and in fragments) and ping. Every
/// request gets its reply, and each uplink carries only its own replies.
fn assert_every_uplink_answers_for_itself(site: &Site, config: &BoxConfig) -> Result<()> {
    let (_nginx, page) = serve_page(site)?;
    let _echo = Echo::start(site.server(), site.server_address(0), ECHO)?;
    let _natbox = site.start(0, config)?;
    let uplinks = 0..site.topology.uplinks.len();
    let watches = uplinks
        .clone()
        .map(|uplink| site.watch_ports(uplink, &[WEB, ECHO]))
        .collect::<Result<Vec<_>>>()?;
    for client in &CLIENTS[..3] {
        for uplink in uplinks.clone() {
            let place = || format!("{client} over uplink {}", uplink + 1);
            let url = format!("http://{}/page", site.uplink(uplink).endpoint(WEB));
            let found = curl(site.client(), *client, &[&url]).with_context(place)?;
            ensure!(found == page, "{}: another page", place());
            let socket = datagrams(site.client(), *client, 0)?;
            socket.connect(site.uplink(uplink).endpoint(ECHO))?;
            for size in crate::fragments::SIZES {
                exchange(&socket, size).with_context(place)?;
            }
            ping(site.client(), *client, site.uplink(uplink).published, 2).with_context(place)?;
        }
    }
    for watch in watches {
        let counts = watch.finish();
        ensure!(counts.wrong == 0 && counts.replies >= 30, "{counts:?}");
    }
    Ok(())
}
