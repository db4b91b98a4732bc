//! Containers, VPN clients and routed networks: the host forwards their packets while natbox runs.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use natbox::lab::Namespace;
use natbox::lab::http;
use rustix::process::Signal;

use super::refused::Report;
use super::{INSIDE, PrivateSources};
use crate::other_programs::shell;
use crate::single_box::{CLIENT, Published, RunningBox, SERVER, SingleBox, WEB, eventually, serve};

/// Address of the container.
const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);
/// Port of the host that leads to the container.
const CONTAINER_PORT: u16 = 8088;
/// What Docker sets for a container with a published port.
const DOCKER_RULES: &str = "nft -f - <<'END'
table ip docker {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 172.17.0.0/16 oifname != \"docker0\" masquerade
    }
    chain prerouting {
        type nat hook prerouting priority dstnat;
        fib daddr type local tcp dport 8088 dnat to 172.17.0.2:80
    }
}
END";

/// Adds a host behind an interface of the box. The box is its next hop.
fn add_host(
    testbed: &SingleBox,
    place: u8,
    interface: &str,
    own: Ipv4Addr,
    next: Ipv4Addr,
) -> Namespace {
    let host = testbed.lab.namespace(interface).unwrap();
    testbed.lab.veth(place, (&testbed.natbox, interface), (&host, "eth0")).unwrap();
    host.address("eth0", own, 24).unwrap();
    host.route("default", next).unwrap();
    host
}

/// Adds a bridge with a container, as Docker does.
fn add_container(testbed: &SingleBox) -> Namespace {
    let bridge = Ipv4Addr::new(172, 17, 0, 1);
    let container = add_host(testbed, 5, "cont0", CONTAINER, bridge);
    testbed.natbox.bridge("docker0", &["cont0"]).unwrap();
    testbed.natbox.address("docker0", bridge, 16).unwrap();
    shell(&testbed.natbox, DOCKER_RULES);
    container
}

/// Returns the client's address as a web server sees it.
fn seen(from: &Namespace, to: Ipv4Addr, port: u16) -> Option<String> {
    seen_from(from, None, to, port)
}

fn seen_from(
    from: &Namespace,
    source: Option<Ipv4Addr>,
    to: Ipv4Addr,
    port: u16,
) -> Option<String> {
    let to = SocketAddrV4::new(to, port);
    let connect = || http::connect(source, to, Duration::from_millis(700));
    let page = from.enter(connect).unwrap().ok()?.get("/").ok()?;
    Some(page.text().trim().to_owned())
}

/// Asserts that the container reaches everything, and that everything reaches its published port.
fn assert_container_works(testbed: &SingleBox, container: &Namespace) {
    let (_outside, _web) = (serve(&testbed.net, CLIENT, 8080), serve(container, CONTAINER, 80));
    eventually("natbox knows the container's network", || seen(container, CLIENT, 8080));
    assert_eq!(seen(container, CLIENT, 8080), Some(testbed.outside.to_string()));
    assert_eq!(seen(container, SERVER, WEB), Some(INSIDE.to_string()));
    let from_client = seen_from(&testbed.net, Some(CLIENT), testbed.outside, CONTAINER_PORT);
    assert_eq!(from_client, Some(CLIENT.to_string()), "the port that leads to the container");
    for (to, port) in [(INSIDE, CONTAINER_PORT), (CONTAINER, 80)] {
        assert_eq!(seen(&testbed.server, to, port), Some(SERVER.to_string()), "{to}:{port}");
    }
}

#[test]
fn containers_reach_the_outside_and_are_reached_at_the_boxs_own_addresses() {
    for published in [Published::OnLink, Published::Routed, Published::Owned] {
        let testbed = SingleBox::new(published);
        let _server = testbed.serve();
        // The container appears while natbox runs.
        let natbox = testbed.start(&testbed.config());
        let container = add_container(&testbed);
        assert_container_works(&testbed, &container);
        testbed.assert_traffic();
        natbox.stop(Signal::TERM);

        let before = testbed.host_state();
        let natbox = testbed.start(&testbed.config());
        assert_container_works(&testbed, &container);
        testbed.assert_traffic();
        assert_eq!(Report::new(&testbed, &natbox).errors(), [""; 0]);
        natbox.stop(Signal::TERM);
        before.assert_same(&testbed.host_state(), "after the stop");
    }
}

/// A packet to a network that has gone must not take the host's default route.
#[test]
fn nothing_to_a_container_leaves_by_an_uplink_when_its_network_has_gone() {
    let testbed = SingleBox::new(Published::OnLink);
    let container = add_container(&testbed);
    let _web = serve(&container, CONTAINER, 80);
    let natbox = testbed.start(&testbed.config());
    assert_eq!(seen(&testbed.server, CONTAINER, 80), Some(SERVER.to_string()));
    let private = PrivateSources::watch(&testbed.net);
    let attempt = || assert_eq!(seen(&testbed.server, CONTAINER, 80), None);
    testbed.natbox.ip(&["link", "set", "docker0", "down"]).unwrap();
    attempt();
    testbed.natbox.ip(&["link", "set", "docker0", "up"]).unwrap();
    eventually("the network returns", || seen(&testbed.server, CONTAINER, 80));
    testbed.natbox.ip(&["link", "del", "docker0"]).unwrap();
    attempt();
    private.assert_none();
    testbed.assert_outbound();
    let missing = natbox.status().host.unwrap().missing;
    assert!(missing.is_empty(), "{missing:?}");
    natbox.stop(Signal::TERM);
}

/// The routes of the VPN are in a table of its own, as Tailscale has them.
#[test]
fn clients_of_a_vpn_on_the_box_reach_the_outside_and_the_inside() {
    let testbed = SingleBox::new(Published::OnLink);
    let (_server, outside) = (testbed.serve(), serve(&testbed.net, CLIENT, 8080));
    let natbox = testbed.start(&testbed.config());
    let [own, next] = [2, 1].map(|last| Ipv4Addr::new(172, 31, 9, last));
    let client = add_host(&testbed, 6, "vpn0", own, next);
    testbed.natbox.address("vpn0", next, 32).unwrap();
    shell(
        &testbed.natbox,
        "ip route add 172.31.9.0/24 dev vpn0 table 52; ip rule add priority 5270 lookup 52; \
         nft add table ip vpn; \
         nft 'add chain ip vpn post { type nat hook postrouting priority srcnat; }'; \
         nft add rule ip vpn post ip saddr 172.31.9.0/24 oifname wan0 masquerade",
    );
    let _web = serve(&client, own, 80);
    eventually("natbox knows the network of the VPN", || seen(&testbed.server, own, 80));
    assert_eq!(seen(&client, CLIENT, 8080), Some(testbed.outside.to_string()));
    assert_eq!(seen(&client, SERVER, WEB), Some(own.to_string()));
    assert_eq!(seen(&testbed.server, own, 80), Some(SERVER.to_string()));
    // A service of the box at its inside address.
    let _own = serve(&testbed.natbox, INSIDE, 8022);
    assert_eq!(seen(&client, INSIDE, 8022), Some(own.to_string()));
    drop(outside);
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
}

/// No natbox setting names the network.
#[test]
fn a_public_network_behind_the_box_is_routed() {
    let testbed = SingleBox::new(Published::OnLink);
    let (_server, outside) = (testbed.serve(), serve(&testbed.net, CLIENT, 8080));
    let [own, next] = [2, 1].map(|last| Ipv4Addr::new(198, 51, 100, last));
    let host = add_host(&testbed, 7, "dmz0", own, next);
    testbed.natbox.address("dmz0", next, 24).unwrap();
    testbed.net.route("198.51.100.0/24", testbed.outside).unwrap();
    let _web = serve(&host, own, 80);
    let natbox = testbed.start(&testbed.config());
    assert_eq!(seen(&host, CLIENT, 8080), Some(own.to_string()));
    assert_eq!(seen_from(&testbed.net, Some(CLIENT), own, 80), Some(CLIENT.to_string()));
    assert_eq!(seen(&testbed.server, own, 80), Some(SERVER.to_string()));
    drop(outside);
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
}

/// The inside prefix is part of a network of the VPN, and the VPN has a part of the inside prefix.
#[test]
fn other_networks_do_not_open_the_inside() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let [own, next] = [2, 1].map(|last| Ipv4Addr::new(172, 31, 9, last));
    let vpn = add_host(&testbed, 6, "vpn0", own, next);
    testbed.natbox.address("vpn0", next, 24).unwrap();
    let in_vpn = Ipv4Addr::new(10, 0, 0, 201);
    vpn.address("lo", in_vpn, 32).unwrap();
    let _hidden = serve(&vpn, in_vpn, 80);
    for to in ["10.0.0.0/8", "10.0.0.200/30"] {
        testbed.natbox.route(to, own).unwrap();
    }
    testbed.net.route("10.0.0.0/8", testbed.outside).unwrap();
    let natbox = testbed.start(&testbed.config());
    for to in [SERVER, in_vpn] {
        assert_eq!(seen_from(&testbed.net, Some(CLIENT), to, 80), None, "{to} from outside");
    }
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
}

/// The host's own connections follow the uplinks, and the container's keep the host's route.
#[test]
fn a_container_keeps_the_hosts_default_route_while_the_hosts_packets_follow_the_uplinks() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let container = add_container(&testbed);
    let config = testbed.config();
    let text = config.to_string().replace("host: { ", "host: { default_route: follow, ");
    let path = testbed.write("follow", &text);
    let natbox = RunningBox::launch(&testbed.natbox, "follow", &path, &config.socket);
    let outside = serve(&testbed.net, CLIENT, 8080);
    assert_eq!(seen(&testbed.natbox, CLIENT, 8080), Some(testbed.published.to_string()));
    drop(outside);
    assert_container_works(&testbed, &container);
    natbox.stop(Signal::TERM);
}
