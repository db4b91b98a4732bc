//! The bandwidths of the uplinks add up.

use std::time::Duration;

use anyhow::{Result, ensure};
use natbox::lab::http::HttpServer;
use natbox::lab::interrupt::Interrupt;
use natbox::lab::load;
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use super::{WEB, services};
use crate::lab::{Site, listen};

/// Rate of each uplink, in Mbit/s, link-layer headers included.
const MBIT: u32 = 40;

/// Payload share of a full segment, as the shaper counts: Ethernet, IP and TCP header with
/// timestamps around 1,448 bytes.
const PAYLOAD: f64 = 1448.0 / 1514.0;

/// Least share of its rate that each uplink reaches while all are busy.
const WANTED: f64 = 0.97;

/// Attempts, because a busy machine may spoil a measurement.
const ATTEMPTS: usize = 3;

#[test]
fn bandwidths_of_two_three_and_four_uplinks_add_up() -> Result<()> {
    for uplinks in 2..=4 {
        let site = Site::three_legged(ThreeLeggedPlan {
            uplinks,
            servers: 1,
            mbit: Some(MBIT),
            one_network: false,
        })?;
        let _server =
            HttpServer::start(vec![listen(site.server(), site.server_address(0), WEB)?], None)?;
        let _natbox = site.start(0, &services(&site))?;
        let targets: Vec<_> =
            site.topology.uplinks.iter().map(|uplink| uplink.endpoint(WEB)).collect();
        let (mut attempts, mut add_up) = (Vec::new(), false);
        while !add_up && attempts.len() < ATTEMPTS {
            let window = Duration::from_secs(1);
            let rates =
                load::measure(site.client(), &CLIENTS, &targets, window, &Interrupt::default())?;
            let shares: Vec<f64> =
                rates.iter().map(|rate| rate / PAYLOAD / f64::from(MBIT)).collect();
            // No uplink can exceed its rate: a share far above one would reveal a shaper without
            // effect.
            ensure!(
                shares.iter().all(|share| *share < 1.1),
                "{uplinks} uplinks, shares of their rates {shares:?}"
            );
            // Each uplink reaches its share, and so does the sum.
            add_up = shares.iter().all(|share| *share >= WANTED);
            attempts.push(shares);
        }
        ensure!(add_up, "{uplinks} uplinks, shares of their rates {attempts:?}");
    }
    Ok(())
}
