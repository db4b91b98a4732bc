//! Packets of the box's host itself on its uplinks: replies from published addresses that it owns,
//! and its errors.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use natbox::lab::http::{HttpServer, connect};
use natbox::lab::topology::CLIENTS;

use super::{ECHO, WEB, plan, serve_page, services};
use crate::failover::set_router;
use crate::lab::{Echo, Site, TIMEOUT, curl, hops, listen, ping, wait_for};

/// Port of the host's own program.
const OWN: u16 = 2222;

#[test]
fn host_replies_from_its_own_addresses_over_the_uplink_of_the_request() -> Result<()> {
    let site = Site::three_legged(plan(2))?;
    for uplink in &site.topology.uplinks {
        uplink.natbox.address(&uplink.interface, uplink.published, 32)?;
    }
    let (_nginx, page) = serve_page(&site)?;
    let own = site
        .topology
        .uplinks
        .iter()
        .map(|uplink| listen(&uplink.natbox, uplink.published, OWN))
        .collect::<Result<Vec<_>>>()?;
    let _own = HttpServer::start(own, None)?;
    let config = site.three_legged_config().forward("tcp", WEB, site.server_address(0), WEB);
    let _natbox = site.start(0, &config)?;
    let watches = [site.watch_ports(0, &[WEB, OWN])?, site.watch_ports(1, &[WEB, OWN])?];
    for uplink in &site.topology.uplinks {
        let client = CLIENTS[1];
        let url = format!("http://{}/page", uplink.endpoint(WEB));
        ensure!(curl(site.client(), client, &[&url])? == page, "another page over {}", uplink.name);
        ping(site.client(), client, uplink.published, 2).context(uplink.name)?;
        let connect =
            || connect(Some(client), uplink.endpoint(OWN), TIMEOUT)?.get("/bytes/1000000");
        ensure!(site.client().enter(connect)?.context(uplink.name)?.body.len() == 1_000_000);
        // This address is not published.
        ping(site.client(), client, uplink.outside, 2).context(uplink.name)?;
    }
    for watch in watches {
        let counts = watch.finish();
        ensure!(counts.wrong == 0 && counts.replies >= 10, "{counts:?}");
    }
    Ok(())
}

/// The main table's default route leads to the first uplink, whose router is dead.
#[test]
fn host_replies_from_every_address_of_an_interface_over_its_uplink() -> Result<()> {
    let site = Site::three_legged(plan(2))?;
    let uplink = site.uplink(1);
    let second = |host| Ipv4Addr::from(uplink.outside.to_bits() & !0xff | host);
    let other_network = Ipv4Addr::new(192, 168, 77, 1);
    uplink.natbox.address(&uplink.interface, second(2), 24)?;
    uplink.natbox.address(&uplink.interface, other_network, 24)?;
    let _natbox = site.start(0, &site.three_legged_config())?;
    set_router(site.uplink(0), false)?;
    let client = CLIENTS[1];
    ping(site.client(), client, uplink.outside, 2).context("the first address")?;
    ping(site.client(), client, second(2), 2).context("a second address")?;
    // The provider reaches the other network without a next hop.
    uplink.provider.address("box0", Ipv4Addr::new(192, 168, 77, 2), 24)?;
    let from = Ipv4Addr::new(192, 168, 77, 2);
    ping(&uplink.provider, from, other_network, 2).context("an address of another network")?;
    uplink.natbox.address(&uplink.interface, second(3), 24)?;
    wait_for("a reply from an address that came later", || {
        Ok(ping(site.client(), client, second(3), 1).ok())
    })
}

#[test]
fn icmp_errors_of_the_host_use_the_uplink_of_the_quoted_packet() -> Result<()> {
    let site = Site::three_legged(plan(2))?;
    let _echo = Echo::start(site.server(), site.server_address(0), ECHO)?;
    let _natbox = site.start(0, &services(&site))?;
    let watches = [site.watch_ports(0, &[ECHO])?, site.watch_ports(1, &[ECHO])?];
    for uplink in &site.topology.uplinks {
        let found = hops(site.client(), &["-U", "-p", "7"], uplink.published)?;
        ensure!(found[1..] == [uplink.outside, uplink.published], "{found:?} over {}", uplink.name);
    }
    for watch in watches {
        let counts = watch.finish();
        ensure!(counts.wrong == 0 && counts.replies >= 1, "{counts:?}");
    }
    Ok(())
}
