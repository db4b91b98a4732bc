//! The main setup with real programs: nginx behind two boxes, curl in front of them.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddrV4;

use anyhow::{Result, ensure};
use natbox::lab::topology::{CLIENTS, Private};

use crate::lab::{Nginx, Site, curl, wait_for};

#[test]
fn two_uplinks_on_one_shared_private_network() -> Result<()> {
    both_uplinks_serve_every_client(Private::Shared, "auto")
}

#[test]
fn two_uplinks_on_separate_private_networks() -> Result<()> {
    both_uplinks_serve_every_client(Private::Separate, "auto")
}

#[test]
fn boxes_with_one_worker() -> Result<()> {
    both_uplinks_serve_every_client(Private::Shared, "1")
}

#[test]
fn boxes_with_two_workers() -> Result<()> {
    both_uplinks_serve_every_client(Private::Shared, "2")
}

/// Every client fetches a page over each uplink. Every reply uses the uplink of its request, and
/// nginx sees the clients by their own addresses.
fn both_uplinks_serve_every_client(private: Private, workers: &str) -> Result<()> {
    let site = Site::new(private, 1)?;
    let page = "x".repeat(300_000);
    fs::write(site.lab.directory().join("page"), &page)?;
    let listen = [0, 1].map(|uplink| SocketAddrV4::new(site.server_address(uplink), 80));
    let nginx = Nginx::start(&site.lab, site.server(), "nginx", site.lab.directory(), &listen)?;
    let mut boxes = Vec::new();
    for uplink in [0, 1] {
        let mut config = site.web_config(uplink);
        config.workers = workers.to_owned();
        boxes.push(site.start(uplink, &config)?);
    }
    if let Ok(wanted) = workers.parse::<usize>() {
        ensure!(boxes[0].status()?.workers.len() == wanted, "{:?}", boxes[0].status()?);
    }
    let watches = [site.watch(0)?, site.watch(1)?];

    let mut wanted = BTreeSet::new();
    for client in CLIENTS {
        for uplink in [0, 1] {
            let url = format!("http://{}/page", site.uplink(uplink).endpoint(80));
            ensure!(
                curl(site.client(), client, &[&url])? == page,
                "{client} got another page from {url}"
            );
            wanted.insert((client, site.server_address(uplink)));
        }
    }

    // nginx writes its log after the response.
    let seen = wait_for("nginx to log all requests", || {
        let seen = nginx.requests()?;
        Ok((seen.len() >= wanted.len()).then_some(seen))
    })?;
    ensure!(BTreeSet::from_iter(seen.clone()) == wanted, "nginx saw {seen:?}, wanted {wanted:?}");
    for watch in watches {
        let counts = watch.finish();
        ensure!(counts.wrong == 0 && counts.replies >= CLIENTS.len() as u64, "{counts:?}");
    }
    for natbox in &boxes {
        let status = natbox.status()?;
        ensure!(status.sessions.created == CLIENTS.len() as u64, "{status:?}");
    }
    Ok(())
}
