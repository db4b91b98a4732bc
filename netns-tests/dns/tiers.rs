//! One box with a backup uplink: answers name its address only while the lower tier is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use natbox::lab::capture::{Capture, ICMP};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan, TopologyUplink};

use super::programs::{SECRET_256, key, served, short};
use super::start_box;
use crate::failover::{health, set_router};
use crate::lab::{Site, wait_for};

const PLAN: ThreeLeggedPlan =
    ThreeLeggedPlan { uplinks: 3, servers: 1, mbit: None, one_network: false };

#[test]
fn dns_names_a_backup_uplink_only_while_the_lower_tier_is_down() -> Result<()> {
    let site = Site::three_legged(PLAN)?;
    let config = (0..3).fold(site.three_legged_config(), |config, uplink| {
        let tier = if uplink == 2 { "tier: 2, " } else { "" };
        let check = health(&format!("ping: {}", site.uplink(uplink).gateway));
        config.uplink(uplink, &format!("{tier}{check}"))
    });
    let dns = "dns: { zone: example.org, \
               names: [{ name: www }, { name: backup, uplinks: [isp3] }], \
               name_servers: [{ name: ns1, address: 198.18.3.10 }], answers_per_second: 1000 }\n";
    let text = format!("{}{dns}", config.text());
    let natbox = start_box(&site.lab, &site.uplink(0).natbox, "natbox1", &text)?;
    // The name server of the backup uplink answers with the addresses of the other uplinks.
    let led_to = |name: &str| {
        let name = format!("{name}.example.org");
        short(site.client(), site.uplink(2).published, &[&name, "A"])
    };
    let published = |uplinks: &[usize]| -> Vec<String> {
        let address = |uplink: &usize| site.uplink(*uplink).published.to_string();
        let mut addresses: Vec<String> = uplinks.iter().map(address).collect();
        addresses.sort();
        addresses
    };
    let wait_until_led_to = |uplinks: &[usize]| {
        wait_for("DNS to follow the tiers", || {
            Ok((led_to("www")? == published(uplinks)).then_some(()))
        })
    };
    ensure!(led_to("www")? == published(&[0, 1]), "{:?}", led_to("www"));
    ensure!(led_to("backup")? == published(&[2]), "tiers count among the uplinks of a name");
    ensure!(natbox.status()?.dns.is_some_and(|dns| dns.in_use == ["isp1", "isp2"]));
    set_router(site.uplink(0), false)?;
    wait_until_led_to(&[1])?;
    set_router(site.uplink(1), false)?;
    wait_until_led_to(&[2])?;
    ensure!(natbox.status()?.dns.is_some_and(|dns| dns.in_use == ["isp3"]));
    set_router(site.uplink(1), true)?;
    wait_until_led_to(&[1])
}

/// Every uplink leads to the server of the zone. While the lower tier is healthy, no update uses
/// the backup uplink, and no update has its address.
#[test]
fn an_update_leaves_by_the_tier_in_use_and_has_its_addresses() -> Result<()> {
    let site = Site::three_legged(ThreeLeggedPlan { uplinks: 2, ..PLAN })?;
    let secret = site.lab.directory().join("secret");
    std::fs::write(&secret, format!("{SECRET_256}\n"))?;
    let keys = key("k256", "hmac-sha256", SECRET_256);
    let _named = served(&site.lab, site.client(), &keys, "key k256")?;
    // The host's own default route uses the backup.
    let (backup, first) = (site.uplink(0), site.uplink(1));
    let config = site
        .three_legged_config()
        .uplink(0, &format!("tier: 2, {}", health(&format!("ping: {}", backup.gateway))))
        .uplink(1, &health(&format!("ping: {}", first.gateway)));
    let text = format!(
        "{}dns: {{ zone: example.org, names: [{{ name: www }}], listen: false, \
         update: {{ server: {}, key: k256, secret_file: \"{}\" }} }}\n",
        config.text(),
        CLIENTS[3],
        secret.display()
    );
    let sessions = Arc::new(AtomicU64::new(0));
    let (counter, sender) = (sessions.clone(), backup.sender);
    let capture = Capture::start(&backup.provider, move |frame| {
        let is_session = frame.ipv4().is_some_and(|packet| packet.protocol() != ICMP);
        if frame.sender() == sender && is_session {
            // Relaxed: the capture has ended when the count is read.
            counter.fetch_add(1, Ordering::Relaxed);
        }
    })?;
    let mut natbox = start_box(&site.lab, &first.natbox, "natbox1", &text)?;
    let mut wait_until_zone_has = |uplink: &TopologyUplink| {
        let wanted = [uplink.published.to_string()];
        wait_for("the zone to follow", || {
            let found = short(site.client(), CLIENTS[3], &["www.example.org", "A"])?;
            Ok((found == wanted).then_some(()))
        })
        .with_context(|| natbox.process().log())
    };
    wait_until_zone_has(first)?;
    drop(capture);
    let carried = sessions.load(Ordering::Relaxed);
    ensure!(carried == 0, "{carried} packets over the backup uplink");
    set_router(first, false)?;
    wait_until_zone_has(backup)?;
    set_router(first, true)?;
    wait_until_zone_has(first)
}
