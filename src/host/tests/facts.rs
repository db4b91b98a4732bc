//! Facts and warnings about the host.

use super::*;
use crate::host::model::presence;

#[test]
fn a_gateway_on_no_network_counts_as_on_link_with_a_warning() {
    let mut config = natbox1();
    config.uplinks[0].gateway = Some(ip("192.0.2.1"));
    let commands = commands(&config, &host());
    assert!(commands.contains("default via 192.0.2.1 dev wan0 onlink table"), "{commands}");
    let warnings = collect(&config, &host()).0.warnings;
    assert!(
        warnings[0].starts_with("uplinks[0].gateway: 192.0.2.1 is on no network of wan0"),
        "{warnings:?}"
    );
}

#[test]
fn a_missing_default_route_is_a_warning() {
    let mut config = natbox1();
    config.uplinks[0].gateway = None;
    let mut host = host();
    host.routes.retain(|found| found.route.to.prefix_len() > 0);
    let warnings = collect(&config, &host).0.warnings;
    assert!(warnings[0].contains("set uplinks[0].gateway"), "{warnings:?}");
}

#[test]
fn a_start_waits_for_the_inside_and_for_one_uplink() {
    let mut config = natbox1();
    config.uplinks[0].interface = "eth7".into();
    let awaited = |config: &Config| presence::awaited(config, &host().links);
    assert_eq!(
        awaited(&config)[0].to_string(),
        "uplinks[0].interface: interface \"eth7\" does not exist; correct the key or create the interface \
         (present: lo, lan0, wan0, wan1)"
    );
    config.uplinks[0].follows_interface = true;
    assert_eq!(awaited(&config), [], "the interface comes and goes: a modem");

    let mut config = three_legged();
    config.uplinks[1].interface = "eth7".into();
    assert_eq!(awaited(&config), [], "there is another uplink");
    let warnings = collect(&config, &host()).0.warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("uplinks[1].interface: interface eth7 does not exist;"),
        "{warnings:?}"
    );
    let commands = commands(&config, &host());
    assert!(!commands.contains("dev eth7") && !commands.contains("conf.eth7"), "{commands}");
    assert!(commands.contains("unreachable default metric 4294967295 table 7105"), "{commands}");
    config.inside.legs[0].interface = "eth8".into();
    assert_eq!(awaited(&config).len(), 1, "the inside");
    (config.uplinks[0].interface, config.uplinks[2].interface) = ("eth5".into(), "eth6".into());
    assert_eq!(awaited(&config).len(), 4, "the inside and one of the uplinks");
}

#[test]
fn an_interface_that_is_down_is_named_with_the_command_that_brings_it_up() {
    let mut host = host();
    host.links.iter_mut().for_each(|link| link.up = link.name != "wan0");
    let awaited = presence::awaited(&natbox1(), &host.links);
    assert_eq!(
        awaited[0].to_string(),
        "uplinks[0].interface: interface wan0 is down; bring the interface up: ip link set wan0 up"
    );
    assert_eq!(awaited[0].command().as_deref(), Some("ip link set wan0 up"));
    let before = awaited.clone();
    host.links.retain(|link| link.name != "wan0");
    let gone = presence::awaited(&natbox1(), &host.links);
    assert!(gone != before && gone[0].command().is_none(), "{gone:?}");
    host.links.retain(|link| link.name == "lan0");
    assert_eq!(gone, presence::awaited(&natbox1(), &host.links), "other interfaces do not count");
}
