//! UDP through a forward, in both directions.

use anyhow::{Context, Result};
use natbox::lab::topology::{CLIENTS, Private};

use crate::lab::{Echo, Site, datagrams, exchange};

/// UDP payload that fills an Ethernet packet.
const LARGEST: usize = 1500 - 20 - 8;

#[test]
fn udp_is_echoed_over_both_uplinks_at_every_size() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let mut kept = Vec::new();
    for uplink in [0, 1] {
        let address = site.server_address(uplink);
        let natbox = site.start(uplink, &site.config(uplink).forward("udp", 7, address, 7007))?;
        kept.push((natbox, Echo::start(site.server(), address, 7007)?));
    }
    for (uplink, client) in [0, 1].into_iter().zip(CLIENTS) {
        let socket = datagrams(site.client(), client, 0)?;
        socket.connect(site.uplink(uplink).endpoint(7))?;
        for size in (0..LARGEST).step_by(97).chain([LARGEST]) {
            exchange(&socket, size).with_context(|| format!("over uplink {}", uplink + 1))?;
        }
    }
    Ok(())
}
