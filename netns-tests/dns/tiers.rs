//! One box with a backup uplink: clients are led to it only while the lower tier is down.

use anyhow::{Result, ensure};
use natbox::lab::topology::ThreeLeggedPlan;

use super::programs::short;
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
    // The name server of the backup uplink answers, and leads to the others.
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
    ensure!(natbox.status()?.dns.is_some_and(|dns| dns.usable == ["isp1", "isp2"]));
    set_router(site.uplink(0), false)?;
    wait_until_led_to(&[1])?;
    set_router(site.uplink(1), false)?;
    wait_until_led_to(&[2])?;
    ensure!(natbox.status()?.dns.is_some_and(|dns| dns.usable == ["isp3"]));
    set_router(site.uplink(1), true)?;
    wait_until_led_to(&[1])
}
