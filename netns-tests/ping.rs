//! Echo requests in both directions.

use anyhow::Result;
use natbox::lab::topology::{CLIENTS, Private};

use crate::lab::{Site, ping};

#[test]
fn clients_ping_the_server_through_an_icmp_forward() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let mut boxes = Vec::new();
    for uplink in [0, 1] {
        boxes.push(site.start(
            uplink,
            &site.config(uplink).forward("icmp", 0, site.server_address(uplink), 0),
        )?);
    }
    for uplink in [0, 1] {
        // Two clients, whose identifiers may be equal.
        ping(site.client(), CLIENTS[0], site.uplink(uplink).published, 3)?;
        ping(site.client(), CLIENTS[1], site.uplink(uplink).published, 3)?;
    }
    Ok(())
}

#[test]
fn the_server_pings_the_internet_over_each_uplink() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let _boxes = [site.start(0, &site.config(0))?, site.start(1, &site.config(1))?];
    for uplink in [0, 1] {
        ping(site.server(), site.server_address(uplink), CLIENTS[0], 3)?;
    }
    Ok(())
}
