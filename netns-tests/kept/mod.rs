//! Sessions and packets outlive the process (`state.keep`).

use std::ops::Range;

use anyhow::{Result, ensure};
use natbox::lab::boxes::NatBox;
use natbox::lab::topology::ThreeLeggedPlan;

use crate::lab::{BoxConfig, Site};

mod queues;
mod sessions;
mod traffic;

/// The owner of the published addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Owner {
    Nobody,
    /// The host of the box, which answers packets for ports that nothing publishes.
    Host,
}

/// Makes a site whose published addresses have this owner.
fn site(plan: ThreeLeggedPlan, owner: Owner) -> Result<Site> {
    let site = Site::three_legged(plan)?;
    if owner == Owner::Host {
        for uplink in &site.topology.uplinks {
            uplink.natbox.address(&uplink.interface, uplink.published, 32)?;
        }
    }
    Ok(site)
}

/// A configuration with these uplinks, which publishes the server on some of them.
fn configuration(site: &Site, uplinks: Range<usize>, published: &[usize]) -> BoxConfig {
    let server = site.server_address(0);
    let directory = site.lab.directory().join("state");
    let config = site.three_legged_over(uplinks).keeping(&directory);
    published.iter().fold(config, |config, uplink| {
        let number = uplink + 1;
        config.forward_as(&format!(
            "name: w{number}, uplink: isp{number}, protocol: tcp, port: 80, to: {server}"
        ))
    })
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
