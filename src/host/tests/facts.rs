//! Facts and warnings about the host.

use super::*;

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
fn the_error_about_a_missing_interface_names_its_key_and_the_present_interfaces() {
    let mut config = natbox1();
    config.uplinks[0].interface = "eth7".into();
    let refused = |config: &Config| collect(config, &host()).0.check_interfaces(config, &host());
    assert_eq!(
        refused(&config).unwrap_err().to_string(),
        "uplinks[0].interface: interface \"eth7\" does not exist; correct the key or create the interface \
         (present: lo, lan0, wan0, wan1)"
    );
    config.uplinks[0].follows_interface = true;
    assert!(refused(&config).is_ok(), "the interface may appear later: a modem");

    let mut config = three_legged();
    config.uplinks[1].interface = "eth7".into();
    assert!(refused(&config).is_ok(), "there are other uplinks");
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
    assert!(refused(&config).is_err(), "natbox needs the inside");
}
