//! The path of an update to its server while the box's own default route leads over a failed
//! uplink.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use super::programs::{SECRET_256, key, served, short};
use super::start_box;
use crate::failover::{health, set_router};
use crate::lab::{Site, wait_for};

#[test]
fn update_uses_a_healthy_uplink_when_the_hosts_own_uplink_has_failed() -> Result<()> {
    let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
    let (dies, stays) = (site.uplink(0), site.uplink(1));
    let secret = site.lab.directory().join("secret");
    fs::write(&secret, format!("{SECRET_256}\n"))?;
    let named =
        served(&site.lab, site.client(), &key("k256", "hmac-sha256", SECRET_256), "key k256")?;
    let config = site
        .three_legged_config()
        .uplink(0, &health(&format!("ping: {}", dies.gateway)))
        .uplink(1, &health(&format!("ping: {}", stays.gateway)));
    let text = format!(
        "{}dns: {{ zone: example.org, names: [{{ name: www }}], listen: false, \
         update: {{ server: {}, key: k256, secret_file: \"{}\" }} }}\n",
        config.text(),
        CLIENTS[3],
        secret.display()
    );
    let natbox = start_box(&site.lab, &dies.natbox, "natbox1", &text)?;
    let wait_for_addresses = |wanted: &[String]| {
        let mut last = Vec::new();
        wait_for("the zone to follow", || {
            last = short(site.client(), CLIENTS[3], &["www.example.org", "A"])?;
            Ok((last == wanted).then_some(()))
        })
        .with_context(|| format!("last seen: {last:?}\n{}", named.log()))
    };
    let mut both = [dies.published.to_string(), stays.published.to_string()];
    both.sort();
    wait_for_addresses(&both)?;
    set_router(dies, false)?;
    wait_for_addresses(&[stays.published.to_string()])?;
    set_router(dies, true)?;
    wait_for_addresses(&both)?;
    let dns = natbox.status()?.dns.context("no DNS in the status")?;
    ensure!(dns.update_error.is_none(), "{dns:?}");
    Ok(())
}
