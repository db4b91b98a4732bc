//! Many concurrent connections.

use std::fs;
use std::net::SocketAddrV4;

use anyhow::{Context, Result, ensure};
use natbox::lab::http::{Pattern, connect};
use natbox::lab::topology::{CLIENTS, Private};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::lab::{Nginx, Site, TIMEOUT};

/// Connections on each of the two uplinks.
const EACH: usize = 500;

/// Size of the file that every connection fetches, in bytes: several super-packets.
const SIZE: usize = 200_000;

#[test]
fn a_thousand_connections_at_one_time_all_get_their_data() -> Result<()> {
    // This process needs a descriptor per connection.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("raise the limit of open files")?;
    let site = Site::new(Private::Shared, 1)?;
    let mut pattern = Pattern::new();
    let mut page = Vec::new();
    while page.len() < SIZE {
        page.extend_from_slice(pattern.next(SIZE - page.len()));
    }
    fs::write(site.lab.directory().join("page"), &page)?;
    let listen = [0, 1].map(|uplink| SocketAddrV4::new(site.server_address(uplink), 80));
    let _nginx = Nginx::start(&site.lab, site.server(), "nginx", site.lab.directory(), &listen)?;
    let boxes = site.start_web_boxes()?;

    let mut connections = site.client().enter(|| {
        let clients = CLIENTS.iter().cycle();
        let uplinks = [0, 1].iter().cycle();
        clients
            .zip(uplinks)
            .take(2 * EACH)
            .map(|(client, uplink)| {
                connect(Some(*client), site.uplink(*uplink).endpoint(80), TIMEOUT)
            })
            .collect::<std::io::Result<Vec<_>>>()
    })??;
    for natbox in &boxes {
        let sessions = natbox.status()?.sessions;
        ensure!(sessions.now as usize == EACH, "{sessions:?} with {EACH} connections open");
    }

    // Every connection is served while all others are open.
    std::thread::scope(|scope| {
        let shares: Vec<_> = connections
            .chunks_mut(EACH / 10)
            .map(|share| {
                let page = &page;
                scope.spawn(move || {
                    for connection in share {
                        let response = connection.get("/page")?;
                        ensure!(
                            response.status == 200 && response.body == *page,
                            "damaged in transit"
                        );
                    }
                    Ok(())
                })
            })
            .collect();
        shares.into_iter().try_for_each(|share| {
            share.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}
