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
    let text = |ranges: &[AddressRange]| {
        let text = |range: &AddressRange| format!("{} - {}", range.first, range.last);
        ranges.iter().map(text).collect::<Vec<_>>().join(", ")
    };
    let filter = |config: &Config, host: &Snapshot| {
        PrivateFilter::new(config, &collect(config, host).0).unwrap()
    };
    let others = |config: &Config, host: &Snapshot| {
        let filter = filter(config, host);
        filter.interfaces.iter().map(|one| text(&one.others)).collect::<Vec<_>>()
    };
    let (mut config, mut host) = (three_legged(), host());
    let of_wan0 = "203.0.113.10 - 203.0.113.10, 203.0.113.30 - 203.0.113.30";
    assert_eq!(others(&config, &host), ["198.51.100.8 - 198.51.100.11", of_wan0]);
    // The other uplink sends them, and those of its interface.
    let ways = filter(&config, &host).ways_out;
    let ways: Vec<_> = ways.iter().map(|way| (way.uplink, way.index, way.via)).collect();
    let gateways = ["203.0.113.254", "198.51.100.254", "203.0.113.253"].map(ip);
    assert_eq!(ways, [(0, 3, gateways[0]), (1, 4, gateways[1]), (2, 3, gateways[2])]);
    let astray = |config: &Config, host: &Snapshot| {
        let filter = filter(config, host);
        let of_all = filter.interfaces.iter().flat_map(|one| &one.astray);
        of_all.map(|(uplink, sources)| (*uplink, text(sources))).collect::<Vec<_>>()
    };
    assert_eq!(
        astray(&config, &host),
        [
            (1, "198.51.100.1 - 198.51.100.1, 198.51.100.8 - 198.51.100.11".into()),
            (0, "203.0.113.1 - 203.0.113.1, 203.0.113.10 - 203.0.113.10".into()),
            (2, "203.0.113.30 - 203.0.113.30".into()),
        ]
    );
    // wan0 has an external address of the other interface as well.
    host.addresses.push(address(3, "198.51.100.8", "198.51.100.8/32", true));
    assert_eq!(others(&config, &host), ["198.51.100.9 - 198.51.100.11", of_wan0]);
    // An address of the host passes, where its uplink has no next hop that can be asked.
    host.addresses.push(address(1, "198.51.100.9", "198.51.100.9/32", true));
    host.links[3].arp = false;
    assert_eq!(others(&config, &host), ["198.51.100.10 - 198.51.100.11", of_wan0]);
    assert_eq!(astray(&config, &host).len(), 2);
    // All uplinks share an interface.
    config.uplinks[1].interface = "wan0".into();
    assert_eq!(others(&config, &host), [""]);
    assert_eq!(astray(&config, &host), []);
}

/// wan1, lan0 and a network of containers are above wan0.
#[test]
fn interfaces_above_pass_their_packets() {
    let text = |ranges: &[AddressRange]| {
        let text = |range: &AddressRange| format!("{} - {}", range.first, range.last);
        ranges.iter().map(text).collect::<Vec<_>>()
    };
    let of_wan0 = |host: &Snapshot| {
        let config = three_legged();
        let filter = PrivateFilter::new(&config, &collect(&config, host).0).unwrap();
        filter.interfaces.into_iter().find(|one| one.name == "wan0").unwrap()
    };
    let mut host = host();
    host.links.push(Link { index: 7, name: "br0".into(), ..host.links[3].clone() });
    host.addresses.push(address(4, "192.168.9.2", "192.168.9.0/24", true));
    host.addresses.push(address(7, "172.17.0.1", "172.17.0.0/16", true));
    let apart = of_wan0(&host);
    assert_eq!((apart.hardware_above.len(), apart.networks_above.len()), (0, 0));
    assert!(text(&apart.closed).contains(&"192.168.0.0 - 192.168.255.255".into()));
    assert!(!apart.others.is_empty());

    // By hardware address.
    for above in [3, 1, 4] {
        host.links[above].lower = Some(3);
    }
    let by_hardware = of_wan0(&host);
    let hardware: Vec<u8> = by_hardware.hardware_above.iter().map(|one| one[5]).collect();
    assert_eq!((&hardware[..], by_hardware.networks_above.len()), (&[2, 4, 4][..], 0));
    assert_eq!(by_hardware.others, apart.others);

    // By address: IPVLANs of wan0.
    for above in [3, 1, 4] {
        host.links[above].hardware = host.links[2].hardware;
    }
    let by_address = of_wan0(&host);
    assert!(by_address.hardware_above.is_empty() && by_address.others.is_empty());
    assert!(by_address.astray.is_empty() && !by_hardware.astray.is_empty());
    assert_eq!(
        text(&by_address.networks_above),
        ["10.0.0.0 - 10.0.0.255", "172.17.0.0 - 172.17.255.255"]
    );
    assert_eq!(
        text(&by_address.closed),
        [
            "10.0.0.0 - 10.0.0.99",
            "10.0.0.101 - 10.0.0.254",
            "10.0.1.0 - 10.255.255.255",
            "100.64.0.0 - 100.127.255.255",
            "127.0.0.0 - 127.255.255.255",
            "169.254.0.0 - 169.254.255.255",
            "172.16.0.0 - 172.17.0.0",
            "172.17.0.2 - 172.17.255.254",
            "172.18.0.0 - 172.31.255.255",
            "192.168.0.0 - 192.168.8.255",
            "192.168.10.0 - 192.168.255.255",
        ]
    );
    // A VLAN has no lower interface here; wan0 is a port of the bridge, below it a MACVLAN.
    for above in [3, 1, 4] {
        host.links[above].lower = None;
    }
    (host.links[2].controller, host.links[3].lower) = (Some(7), Some(7));
    let of_bridge = of_wan0(&host);
    assert_eq!(text(&of_bridge.networks_above), ["172.17.0.0 - 172.17.255.255"]);
    assert!(of_bridge.others.is_empty());
}

#[test]
fn private_ipv6_networks_of_the_interface_are_open() {
    let mut host = host();
    let network = |text: &str| text.parse::<ipnet::Ipv6Net>().unwrap();
    let (own, above, other) =
        (network("fd00:3::/64"), network("fd00:4::/64"), network("fd00::/64"));
    host.private_ipv6 = vec![(3, own), (3, own), (4, above), (2, other)];
    let open = |host: &Snapshot| {
        let config = natbox1();
        let filter = PrivateFilter::new(&config, &collect(&config, host).0).unwrap();
        filter.interfaces.into_iter().find(|one| one.name == "wan0").unwrap().private_ipv6
    };
    assert_eq!(open(&host), [own]);
    host.links[3].lower = Some(3);
    assert_eq!(open(&host), [own], "by its hardware address");
    host.links[3].hardware = host.links[2].hardware;
    assert_eq!(open(&host), [own, above]);
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
