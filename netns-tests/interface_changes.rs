//! Interfaces and addresses come and go while the box runs. The box checks each uplink by itself,
//! and each uplink recovers by itself.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use natbox::api::Reloaded;
use natbox::api::{Request, client};
use natbox::lab::boxes::NatBox;
use natbox::lab::http::{HttpServer, connect};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan, TopologyUplink};

use crate::lab::{BoxConfig, Site, TIMEOUT, listen, wait_for};

/// Published port of the web server.
const WEB: u16 = 80;

/// Builds two uplinks, with the web server published on both.
fn site() -> Result<(Site, HttpServer, BoxConfig)> {
    let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
    let server =
        HttpServer::start(vec![listen(site.server(), site.server_address(0), WEB)?], None)?;
    let config = site.three_legged_config().forward("tcp", WEB, site.server_address(0), WEB);
    Ok((site, server, config))
}

fn fetch(site: &Site, address: Ipv4Addr, port: u16) -> Result<()> {
    let to = SocketAddrV4::new(address, port);
    let timeout = TIMEOUT / 10;
    let answer = site.client().enter(|| connect(Some(CLIENTS[1]), to, timeout)?.get("/"))??;
    ensure!(answer.text().trim() == CLIENTS[1].to_string(), "{}", answer.text());
    Ok(())
}

fn wait_to_fetch(site: &Site, address: Ipv4Addr) -> Result<()> {
    wait_for(&format!("the page at {address}"), || Ok(fetch(site, address, WEB).ok()))
}

fn ip(uplink: &TopologyUplink, arguments: &str) -> Result<()> {
    Ok(uplink.natbox.ip(&arguments.split(' ').collect::<Vec<_>>())?)
}

/// Sets the state of the box's interface of an uplink. Restores routes and addresses unless the
/// state is a deletion.
fn set(uplink: &TopologyUplink, state: &str) -> Result<()> {
    ip(uplink, &format!("link set {} {state}", uplink.interface))
}

fn is_healthy(natbox: &NatBox, uplink: usize) -> Result<bool> {
    Ok(natbox.status()?.uplinks[uplink].healthy)
}

/// Returns the kernel's route for a packet from the uplink's address that leaves the TUN.
fn way_out(uplink: &TopologyUplink) -> Result<String> {
    let (client, from) = (CLIENTS[0].to_string(), uplink.published.to_string());
    let way = uplink.natbox.ip_output(&["route", "get", &client, "from", &from, "iif", "nb1"]);
    Ok(way.unwrap_or_else(|error| error.to_string()))
}

#[test]
fn uplink_recovers_while_another_is_down() -> Result<()> {
    let (site, _web, config) = site()?;
    let natbox = site.start(0, &config)?;
    let (first, second) = (site.uplink(0), site.uplink(1));
    set(first, "down")?;
    set(second, "down")?;
    wait_for("both uplinks to fail", || {
        Ok((!is_healthy(&natbox, 0)? && !is_healthy(&natbox, 1)?).then_some(()))
    })?;
    set(second, "up")?;
    wait_to_fetch(&site, second.published)?;
    ensure!(!is_healthy(&natbox, 0)? && is_healthy(&natbox, 1)?);
    set(first, "up")?;
    wait_to_fetch(&site, first.published)
}

/// The packets must not leave over the uplink of the main table, whose provider does not know their
/// source address.
#[test]
fn traffic_of_an_uplink_without_routes_uses_no_other_uplink() -> Result<()> {
    let (site, _web, config) = site()?;
    let (first, second) = (site.uplink(0), site.uplink(1));
    let gateway = first.gateway.to_string();
    let _ =
        first.natbox.ip(&["route", "replace", "default", "via", &gateway, "dev", &first.interface]);
    let natbox = site.start(0, &config)?;
    ensure!(
        way_out(second)?.contains(&format!("dev {}", second.interface)),
        "{}",
        way_out(second)?
    );
    set(second, "down")?;
    wait_for("the uplink to fail", || Ok((!is_healthy(&natbox, 1)?).then_some(())))?;
    let way = way_out(second)?;
    ensure!(!way.contains(" dev "), "{way}");
    Ok(())
}

#[test]
fn box_starts_without_an_uplinks_interface_and_uses_it_when_it_comes() -> Result<()> {
    let (site, _web, config) = site()?;
    let second = site.uplink(1);
    set(second, "down")?;
    let natbox = site.start(0, &config).context("with the interface down")?;
    wait_to_fetch(&site, site.uplink(0).published)?;
    ensure!(!is_healthy(&natbox, 1)?);
    set(second, "up")?;
    wait_to_fetch(&site, second.published)?;
    drop(natbox);

    ip(second, &format!("link set {} down name elsewhere", second.interface))?;
    let natbox = site.start(0, &config).context("without the interface")?;
    wait_to_fetch(&site, site.uplink(0).published)?;
    ensure!(!is_healthy(&natbox, 1)?);
    ip(second, &format!("link set elsewhere name {} up", second.interface))?;
    wait_to_fetch(&site, second.published)
}

/// The kernel drops routes and proxy entries together with an interface's last address, even if the
/// published address is not the interface's own.
#[test]
fn removed_and_restored_address_restores_the_uplink() -> Result<()> {
    let (site, _web, config) = site()?;
    let natbox = site.start(0, &config)?;
    let second = site.uplink(1);
    let own = format!("{}/24 dev {}", second.outside, second.interface);
    wait_to_fetch(&site, second.published)?;
    for pause in [0, 300] {
        ip(second, &format!("address del {own}"))?;
        std::thread::sleep(std::time::Duration::from_millis(pause));
        ip(second, &format!("address add {own}"))?;
        wait_to_fetch(&site, second.published).with_context(|| format!("after {pause} ms"))?;
    }
    // The published address becomes the host's own, and is removed again.
    let published = format!("{}/24 dev {}", second.published, second.interface);
    ip(second, &format!("address add {published}"))?;
    wait_for("the rules for an address of the host's own", || {
        let rules = second.natbox.ip_output(&["rule", "show", "lookup", "local"])?;
        Ok(rules.contains("suppress_ifgroup").then_some(()))
    })?;
    wait_to_fetch(&site, second.published)?;
    wait_to_fetch(&site, site.uplink(0).published)?;
    ip(second, &format!("address del {published}"))?;
    wait_to_fetch(&site, second.published)?;
    ensure!(is_healthy(&natbox, 1)?);
    drop(natbox);
    let rules = second.natbox.ip_output(&["rule", "show"])?;
    ensure!(rules.lines().count() == 3, "what is left: {rules}");
    Ok(())
}

#[test]
fn interface_address_is_followed_while_another_uplink_is_down_and_after_a_reload() -> Result<()> {
    let (site, _web, config) = site()?;
    let config = config.followed(1);
    let natbox = site.start(0, &config)?;
    let (first, second) = (site.uplink(0), site.uplink(1));
    fetch(&site, second.outside, WEB)?;

    let file = site.lab.directory().join("natbox1.yaml");
    let text = std::fs::read_to_string(&file)?;
    ensure!(text.contains("port: 80"), "{text}");
    std::fs::write(&file, text.replace("port: 80", "port: 8000"))?;
    let reloaded: Reloaded = client::request(natbox.socket(), &Request::Reload)?;
    ensure!(reloaded.changed == ["forwards"], "{reloaded:?}");
    fetch(&site, second.outside, 8000)?;

    set(first, "down")?;
    let [a, b, c, last] = second.outside.octets();
    let next = Ipv4Addr::new(a, b, c, last + 6);
    // First, addresses that an uplink cannot have.
    for address in [site.server_address(0), Ipv4Addr::new(169, 254, 9, 9), next] {
        ip(second, &format!("address flush dev {}", second.interface))?;
        ip(second, &format!("address add {address}/24 dev {}", second.interface))?;
        let usable = address == next;
        wait_for(&format!("the uplink with {address}"), || {
            Ok((is_healthy(&natbox, 1)? == usable).then_some(()))
        })?;
    }
    wait_for("the page at the new address", || Ok(fetch(&site, next, 8000).ok()))?;
    ensure!(fetch(&site, next, WEB).is_err(), "the port was withdrawn");
    set(first, "up")?;
    wait_for("the page of the other uplink", || Ok(fetch(&site, first.published, 8000).ok()))?;
    ensure!(fetch(&site, first.published, WEB).is_err(), "the port was withdrawn");
    Ok(())
}

/// A setup as PPP leaves it: the peer's address, and a default route without a next hop.
#[test]
fn uplink_without_a_next_hop_uses_its_interface() -> Result<()> {
    let (site, _web, config) = site()?;
    let (first, second) = (site.uplink(0), site.uplink(1));
    ip(second, "route flush table main type unicast default").ok();
    ip(
        second,
        &format!("route replace default via {} dev {} metric 100", first.gateway, first.interface),
    )?;
    ip(second, &format!("address flush dev {}", second.interface))?;
    ip(
        second,
        &format!(
            "address add {} peer {}/32 dev {}",
            second.outside, second.gateway, second.interface
        ),
    )?;
    ip(second, &format!("route add default dev {} metric 200", second.interface))?;
    // The provider of such an uplink answers ARP for every address.
    second.provider.sysctl("net/ipv4/conf/box0/proxy_arp", "1")?;
    let natbox = site.start(0, &config.without_gateway(1).followed(1))?;
    ensure!(is_healthy(&natbox, 1)?);
    wait_to_fetch(&site, second.outside)?;
    let way = second.natbox.ip_output(&[
        "route",
        "get",
        &CLIENTS[0].to_string(),
        "from",
        &second.outside.to_string(),
        "iif",
        "nb1",
    ])?;
    ensure!(way.contains(&format!("dev {}", second.interface)), "{way}");
    Ok(())
}

/// Two modems of one kind assign the same address. Only one of the uplinks can be used.
#[test]
fn of_two_uplinks_with_one_address_one_is_used() -> Result<()> {
    let (site, _web, config) = site()?;
    let (first, second) = (site.uplink(0), site.uplink(1));
    ip(second, &format!("address flush dev {}", second.interface))?;
    ip(second, &format!("address add {}/24 dev {}", first.outside, second.interface))?;
    let before = second.natbox.ip_output(&["rule", "show"])?;
    let natbox = site.start(0, &config.followed(0).followed(1))?;
    wait_to_fetch(&site, first.outside)?;
    ensure!(is_healthy(&natbox, 0)? && !is_healthy(&natbox, 1)?);
    drop(natbox);
    let after = second.natbox.ip_output(&["rule", "show"])?;
    ensure!(before == after, "what is left: {after}");
    Ok(())
}
