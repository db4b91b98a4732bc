//! One box with two uplinks answers with the current addresses of the healthy uplinks.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use natbox::lab::boxes::NatBox;
use natbox::lab::topology::ThreeLeggedPlan;

use super::programs::short;
use super::start_box;
use crate::failover::{FALL, INTERVAL, SLACK, health, set_router};
use crate::lab::{BoxConfig, Site, wait_for};

const PLAN: ThreeLeggedPlan = ThreeLeggedPlan::TWO_UPLINKS;

fn start(site: &Site, config: &BoxConfig) -> Result<NatBox> {
    let servers = "name_servers: [{ name: ns1, address: 203.0.113.10 }]";
    let dns = format!(
        "dns: {{ zone: example.org, names: [{{ name: www }}], {servers}, answers_per_second: 1000 }}\n"
    );
    let text = format!("{}{dns}", config.text());
    start_box(&site.lab, &site.uplink(0).natbox, "natbox1", &text)
}

/// Returns the addresses that a name server answers with.
fn led_to(site: &Site, server: Ipv4Addr) -> Result<Vec<String>> {
    short(site.client(), server, &["www.example.org", "A"])
}

fn is(found: &[String], mut wanted: Vec<Ipv4Addr>) -> bool {
    wanted.sort_by_key(Ipv4Addr::to_string);
    found == wanted.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>()
}

#[test]
fn dns_omits_an_uplink_as_soon_as_it_has_failed() -> Result<()> {
    let site = Site::three_legged(PLAN)?;
    let (stays, dies) = (site.uplink(0), site.uplink(1));
    let config = site
        .three_legged_config()
        .uplink(0, &health(&format!("ping: {}", stays.gateway)))
        .uplink(1, &health(&format!("ping: {}", dies.gateway)));
    let _natbox = start(&site, &config)?;
    // Each uplink has the name server, which knows both uplinks.
    for uplink in [stays, dies] {
        let found = led_to(&site, uplink.published)?;
        ensure!(
            is(&found, vec![stays.published, dies.published]),
            "{} leads to {found:?}",
            uplink.name
        );
    }
    std::thread::sleep(INTERVAL * 2);
    set_router(dies, false)?;
    let died = Instant::now();
    wait_for("DNS to name only the other uplink", || {
        Ok(is(&led_to(&site, stays.published)?, vec![stays.published]).then_some(()))
    })?;
    let after = died.elapsed();
    ensure!(after < INTERVAL * FALL + Duration::from_millis(100) + SLACK, "after {after:?}");
    ensure!(after > INTERVAL, "a single loss is no failure: {after:?}");
    set_router(dies, true)?;
    wait_for("DNS to name both uplinks", || {
        Ok(is(&led_to(&site, dies.published)?, vec![stays.published, dies.published]).then_some(()))
    })
}

#[test]
fn dns_follows_a_changed_interface_address() -> Result<()> {
    let site = Site::three_legged(PLAN)?;
    let (fixed, follows) = (site.uplink(0), site.uplink(1));
    let _natbox = start(&site, &site.three_legged_config().followed(1))?;
    let found = led_to(&site, follows.outside)?;
    ensure!(is(&found, vec![fixed.published, follows.outside]), "{found:?}");
    let [a, b, c, last] = follows.outside.octets();
    let next = Ipv4Addr::new(a, b, c, last + 6);
    let address = |verb: &str, address: Ipv4Addr| {
        follows.natbox.ip(&["address", verb, &format!("{address}/24"), "dev", &follows.interface])
    };
    address("del", follows.outside)?;
    wait_for("DNS to name the uplink with an address", || {
        Ok(is(&led_to(&site, fixed.published)?, vec![fixed.published]).then_some(()))
    })?;
    address("add", next)?;
    wait_for("clients to be led to the new address", || {
        Ok(is(&led_to(&site, fixed.published)?, vec![fixed.published, next]).then_some(()))
    })?;
    let found = led_to(&site, next)?;
    ensure!(
        is(&found, vec![fixed.published, next]),
        "the name server has the new address as well: {found:?}"
    );
    Ok(())
}
