//! Replies, and errors about them, use the uplink of their request.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use natbox::lab::topology::CLIENTS;

use super::{ECHO, WEB, assert_every_uplink_answers_for_itself, plan, serve_page, services};
use crate::lab::{Echo, Site, curl, datagrams, exchange, ping};
use crate::single_box::ErrorWatch;

#[test]
fn replies_use_the_uplink_of_their_request_with_offloads() -> Result<()> {
    let site = Site::three_legged(plan(3))?;
    assert_every_uplink_answers_for_itself(&site, &services(&site))
}

#[test]
fn replies_use_the_uplink_of_their_request_without_offloads() -> Result<()> {
    let site = Site::three_legged(plan(2))?;
    let mut config = services(&site);
    (config.offload, config.io) = ("none", "poll");
    assert_every_uplink_answers_for_itself(&site, &config)
}

/// Fragmentation needed, by a router behind each uplink; port unreachable, by the server itself.
#[test]
fn icmp_errors_use_the_uplink_of_the_request_and_its_address() -> Result<()> {
    let site = Site::three_legged(plan(2))?;
    let (_nginx, page) = serve_page(&site)?;
    let _natbox = site.start(0, &services(&site))?;
    let server = site.server_address(0);
    let inside = ErrorWatch::start(site.server());
    let outside = ErrorWatch::start(site.client());
    for (uplink, mtu) in [(0, 1400), (1, 1300)] {
        let (uplink, client) = (site.uplink(uplink), CLIENTS[uplink]);
        uplink.provider.ip(&["link", "set", "net0", "mtu", &mtu.to_string()])?;
        let url = format!("http://{}/page", uplink.endpoint(WEB));
        ensure!(curl(site.client(), client, &[&url])? == page, "another page over {}", uplink.name);
        let seen =
            inside.wait_for("fragmentation needed", |error| error.code == 4 && error.mtu == mtu);
        ensure!((seen.source, seen.quoted) == (uplink.gateway, (server, client)), "{seen:?}");

        let socket = datagrams(site.client(), client, 0)?;
        socket.connect(uplink.endpoint(ECHO))?;
        socket.send(b"anybody there")?;
        // The kernel passes an error to the socket only if the quoted packet is one that the socket
        // has sent.
        let error = socket.recv(&mut [0; 64]).err().context("a reply from a closed port")?;
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error} over {}", uplink.name);
        let seen = outside.wait_for("port unreachable", |error| error.source == uplink.published);
        ensure!(
            (seen.kind, seen.code, seen.quoted) == (3, 3, (client, uplink.published)),
            "{seen:?}"
        );
    }
    outside.assert_nothing_private();
    Ok(())
}

#[test]
fn inside_hosts_and_the_server_itself_reach_every_published_address() -> Result<()> {
    let site = Site::three_legged(plan(2))?;
    let (nginx, page) = serve_page(&site)?;
    let _echo = Echo::start(site.server(), site.server_address(0), ECHO)?;
    let _natbox = site.start(0, &services(&site))?;
    let watches = [site.watch(0)?, site.watch(1)?];
    for (number, host) in site.topology.servers.iter().enumerate() {
        let from = host.addresses[0];
        for uplink in &site.topology.uplinks {
            let place = || format!("from inside host {number} to {}", uplink.published);
            let url = format!("http://{}/page", uplink.endpoint(WEB));
            ensure!(
                curl(&host.namespace, from, &[&url]).with_context(place)? == page,
                "{}",
                place()
            );
            let socket = datagrams(&host.namespace, from, 0)?;
            socket.connect(uplink.endpoint(ECHO))?;
            for size in [100, 4000] {
                exchange(&socket, size).with_context(place)?;
            }
            ping(&host.namespace, from, uplink.published, 2).with_context(place)?;
        }
    }
    let seen: Vec<Ipv4Addr> = nginx.requests()?.into_iter().map(|(client, _)| client).collect();
    let wanted: Vec<Ipv4Addr> = [0, 1, 0, 1].map(|uplink| site.uplink(uplink).published).into();
    ensure!(seen == wanted, "nginx saw {seen:?}");
    for watch in watches {
        let counts = watch.finish();
        ensure!(counts.wrong == 0 && counts.replies == 0, "{counts:?}");
    }
    Ok(())
}
