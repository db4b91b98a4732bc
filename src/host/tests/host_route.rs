//! The steps of `host.default_route: follow`.

use super::*;

fn following() -> Config {
    let default_route = HostDefaultRoute::Follow;
    let mut config = three_legged();
    config.host = Host { default_route, ..config.host };
    config
}

#[test]
fn without_the_key_there_is_no_rule_for_the_hosts_own_packets() {
    let commands = commands(&three_legged(), &host());
    assert!(!commands.contains("22460") && !commands.contains("suppress_prefixlength"));
    assert!(!commands.contains("169.254.72.0"), "{commands}");
}

#[test]
fn the_hosts_own_packets_go_to_the_tun_after_the_known_networks() {
    let mut config = following();
    config.uplinks[0].tier = 2;
    config.uplinks[2].tier = 3;
    let mut host = host();
    host.links[3].mtu = 1492;
    let commands = commands(&config, &host);
    let at = |line: &str| commands.find(line).unwrap_or_else(|| panic!("{line} in\n{commands}"));
    at("ip address replace 169.254.72.0/32 dev nb0 scope link\n");
    at(" from 169.254.72.0/27 iif lo protocol 110 lookup 7101\n");
    at("ip route replace throw 169.254.0.0/16 table 22460 proto 110\n");
    at("ip route replace throw 224.0.0.0/3 table 22460 proto 110\n");
    let route =
        at("ip route replace default dev nb0 src 169.254.72.0 mtu 1492 table 22460 proto 110\n");
    // In the order of the tiers. The third uplink shares the interface of the first.
    at(
        "ip route replace default via 198.51.100.254 dev wan1 src 198.51.100.1 metric 1000 table 22460",
    );
    at(
        "ip route replace default via 203.0.113.254 dev wan0 src 203.0.113.1 metric 1001 table 22460",
    );
    assert!(!commands.contains("metric 1002"), "{commands}");
    let known = at("ip rule add priority 32764 from 0.0.0.0 iif lo protocol 110 lookup main \
                    suppress_prefixlength 0\n");
    let rule = at("ip rule add priority 32765 from 0.0.0.0 iif lo protocol 110 lookup 22460\n");
    assert!(route < known && known < rule, "a rule comes after the routes that it needs");
}

#[test]
fn an_interface_without_an_address_or_a_next_hop_has_no_route_of_its_own() {
    let mut host = host();
    host.addresses.retain(|address| address.index != 3);
    let mut config = following();
    config.uplinks[1].gateway = None;
    let commands = commands(&config, &host);
    assert!(commands.contains("default dev nb0 src 169.254.72.0"), "{commands}");
    assert!(!commands.contains("metric 100"), "{commands}");
}
