//! The addresses that are closed on the interfaces of the uplinks.

use super::*;
use crate::host::model::private_filter::{AddressRange, PrivateFilter};

fn closed(config: &Config, host: &Snapshot) -> Vec<String> {
    let (facts, _) = collect(config, host);
    let filter = PrivateFilter::new(config, &facts).unwrap();
    let wan0 = filter.interfaces.iter().find(|interface| interface.name == "wan0").unwrap();
    let text = |range: &AddressRange| format!("{} - {}", range.first, range.last);
    wan0.closed.iter().map(text).collect()
}

#[test]
fn private_addresses_and_the_inside_are_closed() {
    let mut config = natbox1();
    config.inside.legs[0].prefixes.push(net("192.0.2.0/24"));
    assert_eq!(
        closed(&config, &host()),
        [
            "10.0.0.0 - 10.255.255.255",
            "100.64.0.0 - 100.127.255.255",
            "127.0.0.0 - 127.255.255.255",
            "169.254.0.0 - 169.254.255.255",
            "172.16.0.0 - 172.31.255.255",
            "192.0.2.0 - 192.0.2.255",
            "192.168.0.0 - 192.168.255.255",
        ]
    );
}

/// The provider's router translates as well. Its network may even be around the inside.
#[test]
fn the_networks_of_the_interface_and_external_addresses_are_open() {
    let mut config = natbox1();
    config.uplinks[0].addresses = vec![ip("100.64.0.0"), ip("10.0.0.77")];
    let mut host = host();
    host.addresses.push(address(3, "192.168.1.2", "192.168.1.0/24", true));
    host.addresses.push(address(3, "10.9.9.9", "10.0.0.0/8", true));
    host.addresses.push(address(3, "169.254.255.255", "169.254.255.255/32", true));
    // The network of another uplink is closed.
    host.addresses.push(address(4, "172.16.0.2", "172.16.0.0/24", true));
    assert_eq!(
        closed(&config, &host),
        [
            "10.0.0.0 - 10.0.0.76",
            "10.0.0.78 - 10.0.0.255",
            "100.64.0.1 - 100.127.255.255",
            "127.0.0.0 - 127.255.255.255",
            "169.254.0.0 - 169.254.255.254",
            "172.16.0.0 - 172.31.255.255",
            "192.168.0.0 - 192.168.0.255",
            "192.168.2.0 - 192.168.255.255",
        ]
    );
}

#[test]
fn external_addresses_leave_by_their_own_interface() {
    let others = |config: &Config, host: &Snapshot| -> Vec<String> {
        let filter = PrivateFilter::new(config, &collect(config, host).0).unwrap();
        let text = |range: &AddressRange| format!("{} - {}", range.first, range.last);
        filter.interfaces.iter().flat_map(|one| &one.others).map(text).collect()
    };
    let (mut config, mut host) = (three_legged(), host());
    let of_wan1 = ["203.0.113.10 - 203.0.113.10", "203.0.113.30 - 203.0.113.30"];
    assert_eq!(others(&config, &host), [&["198.51.100.8 - 198.51.100.11"], &of_wan1[..]].concat());
    // wan0 has an external address of the other interface as well.
    host.addresses.push(address(3, "198.51.100.8", "198.51.100.8/32", true));
    assert_eq!(others(&config, &host), [&["198.51.100.9 - 198.51.100.11"], &of_wan1[..]].concat());
    // All uplinks share an interface.
    config.uplinks[1].interface = "wan0".into();
    assert!(others(&config, &host).is_empty());
}

#[test]
fn each_interface_has_the_filter_once_and_a_box_may_have_none() {
    let filter = |config: &Config| PrivateFilter::new(config, &collect(config, &host()).0);
    let of_several = filter(&three_legged()).unwrap();
    let names: Vec<&str> = of_several.interfaces.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["wan0", "wan1"]);
    let external = of_several.interfaces.iter().map(|one| one.external.len());
    assert_eq!(external.collect::<Vec<_>>(), [2, 4]);
    for change in
        [|host: &mut Host| host.manage = false, |host: &mut Host| host.block_private = false]
    {
        let mut config = natbox1();
        change(&mut config.host);
        assert_eq!(filter(&config), None);
    }
}
