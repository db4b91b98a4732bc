//! `host.block_private`: no packet with a private source leaves by an uplink, and none to a private
//! destination comes in.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use natbox::lab::Namespace;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};
use rustix::process::Signal;

use super::refused::Report;
use super::{INSIDE, PrivateSources, leaks::ping};
use crate::other_programs::shell;
use crate::probe::{at, udp};
use crate::single_box::{
    CLIENT, Config, Injector, PROVIDER, Published, RunningBox, SERVER, SingleBox, eventually, serve,
};

/// Address of the box on a network that natbox does not know.
const DMZ: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);

/// Adds a network behind the box whose hosts natbox does not translate.
fn add_dmz(testbed: &SingleBox) -> Namespace {
    let host = testbed.lab.namespace("dmz").unwrap();
    testbed.lab.veth(8, (&testbed.natbox, "dmz0"), (&host, "eth0")).unwrap();
    testbed.natbox.address("dmz0", DMZ, 24).unwrap();
    host.address("eth0", Ipv4Addr::new(192, 168, 77, 2), 24).unwrap();
    host.route("default", DMZ).unwrap();
    host
}

/// Sends a packet whose header the program writes itself (`IP_HDRINCL`).
fn send_raw(from: &Namespace, source: Ipv4Addr, to: Ipv4Addr) {
    let packet = udp(at(source, 5000), at(to, 9), b"raw");
    from.enter(|| {
        let (family, kind) = (AddressFamily::INET, SocketType::RAW);
        let protocol = Some(ipproto::RAW);
        let socket =
            rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol).unwrap();
        let to = SocketAddrV4::new(to, 0);
        // The call fails if the filter drops the packet.
        let _ = rustix::net::sendto(&socket, &packet, SendFlags::empty(), &to);
    })
    .unwrap();
}

/// Returns natbox's table as nft prints it, or an empty text if there is none.
fn table(testbed: &SingleBox) -> String {
    let mut nft = testbed.natbox.command("nft");
    let output = nft.args(["list", "table", "netdev", "natbox-nb0"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the number of packets that a chain of the filter has dropped.
fn dropped(testbed: &SingleBox, chain: &str) -> u64 {
    let table = table(testbed);
    let (_, rules) = table.split_once(&format!("chain {chain} {{")).unwrap();
    let (_, count) = rules.split_once("counter packets ").unwrap();
    count.split(' ').next().unwrap().parse().unwrap()
}

fn warnings(natbox: &RunningBox) -> Vec<String> {
    let of_filter = natbox.status().warnings.into_iter();
    let of_filter = of_filter.filter(|finding| finding.id == "private-filter");
    of_filter.map(|finding| finding.found).collect()
}

#[test]
fn no_private_source_leaves_whatever_the_host_sends() {
    let testbed = SingleBox::new(Published::OnLink);
    let (_server, host) = (testbed.serve(), add_dmz(&testbed));
    let natbox = testbed.start(&testbed.config());
    let (dmz, inside, client) = (DMZ.to_string(), INSIDE.to_string(), CLIENT.to_string());
    let private = PrivateSources::watch(&testbed.net);
    for source in [&dmz, &inside] {
        for target in [&client, "203.0.113.254", "224.0.0.251", "255.255.255.255"] {
            ping(&testbed.natbox, &["-b", "-I", "wan0", "-I", source, target]);
            ping(&testbed.natbox, &["-b", "-I", source, target]);
        }
    }
    for source in [
        INSIDE,
        DMZ,
        SERVER,
        Ipv4Addr::new(172, 31, 255, 255),
        Ipv4Addr::new(100, 127, 0, 9),
        Ipv4Addr::new(169, 254, 71, 1),
        Ipv4Addr::LOCALHOST,
    ] {
        for target in [CLIENT, PROVIDER] {
            send_raw(&testbed.natbox, source, target);
        }
    }
    // A host behind the box that natbox does not translate.
    ping(&host, &[&client]);
    private.assert_none();
    assert!(dropped(&testbed, "closed-out") > 10, "{}", table(&testbed));
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
}

/// The same packets leave without the filter, so the test above can fail.
#[test]
fn the_filter_can_be_switched_off() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let _host = add_dmz(&testbed);
    add_ipv6(&testbed);
    let config = testbed.config();
    let text = config.to_string().replace("host: { ", "host: { block_private: false, ");
    let path = testbed.write("open", &text);
    let natbox = RunningBox::launch(&testbed.natbox, "open", &path, &config.socket);
    assert_eq!(table(&testbed), "");
    let private = PrivateSources::watch(&testbed.net);
    send_raw(&testbed.natbox, DMZ, CLIENT);
    private.wait();
    assert!(private_ipv6_leaves(&testbed, "fd00:77::1"));
    let report = Report::new(&testbed, &natbox);
    let found = "the segment of wan0 reaches 10.0.0.1, the address on lan0";
    assert!(report.warnings().contains(&found), "{:?}", report.warnings());
    natbox.stop(Signal::TERM);
}

/// Without natbox's filter the segment reaches the box's inside address, until the commands of
/// doctor close it.
#[test]
fn doctor_and_plan_close_the_inside_address_of_an_unmanaged_host() {
    let testbed = SingleBox::new(Published::OnLink);
    let config = Config { manage: false, ..testbed.config() };
    let natbox = testbed.start(&config);
    testbed.net.route("10.0.0.0/24", testbed.outside).unwrap();
    let own = testbed.natbox.enter(|| UdpSocket::bind("0.0.0.0:8022")).unwrap().unwrap();
    own.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let arrives = || {
        let sender = testbed.net.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        sender.send_to(b"request", (INSIDE, 8022)).unwrap();
        own.recv(&mut [0; 16]).is_ok()
    };
    assert!(arrives());
    let path = natbox.path.to_str().unwrap();
    let plan = testbed.natbox(&[], &["plan", "--config", path]).stdout;
    let finding = Report::new(&testbed, &natbox).finding("exposure").unwrap();
    for command in &finding.fix {
        assert!(plan.contains(command), "{command} is missing in {plan}");
        shell(&testbed.natbox, command);
    }
    assert!(!arrives());
    assert_eq!(Report::new(&testbed, &natbox).finding("exposure"), None);
    natbox.stop(Signal::TERM);
}

/// Packets that the interface itself needs, and those of other protocols.
#[test]
fn dhcp_arp_and_the_interfaces_own_private_network_pass() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    // A router of the provider that translates as well. The network appears while natbox runs.
    let [router, own] = [1, 2].map(|last| Ipv4Addr::new(192, 168, 1, last));
    testbed.net.address("eth0", router, 24).unwrap();
    testbed.natbox.address("wan0", own, 24).unwrap();
    let _own = serve(&testbed.natbox, own, 8022);
    eventually("the network of the interface", || {
        ping(&testbed.natbox, &["-I", &own.to_string(), &router.to_string()]).then_some(())
    });
    assert!(ping(&testbed.net, &["-I", &router.to_string(), &own.to_string()]));
    // A DHCP client has no address yet.
    let requests = PrivateSources::watch_for(&testbed.net, |source| source.is_unspecified());
    shell(
        &testbed.natbox,
        "ip route add 255.255.255.255 dev wan0; nft add table ip dhcp; \
         nft 'add chain ip dhcp post { type filter hook postrouting priority 0; }'; \
         nft add rule ip dhcp post udp dport 67 ip saddr set 0.0.0.0",
    );
    let client = testbed.natbox.enter(|| UdpSocket::bind((testbed.outside, 68))).unwrap().unwrap();
    client.set_broadcast(true).unwrap();
    client.send_to(b"discover", (Ipv4Addr::BROADCAST, 67)).unwrap();
    requests.wait();
    for (namespace, interface) in [(&testbed.natbox, "wan0"), (&testbed.net, "eth0")] {
        let path = format!("net/ipv6/conf/{interface}/disable_ipv6");
        namespace.sysctl(&path, "0").unwrap();
    }
    eventually("IPv6", || ping(&testbed.natbox, &["-6", "-I", "wan0", "ff02::1"]).then_some(()));
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
}

/// Returns true when a packet with a private source reaches the provider.
fn private_ipv6_leaves(testbed: &SingleBox, source: &str) -> bool {
    let host = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let receiver = testbed.net.enter(|| UdpSocket::bind((host, 9))).unwrap().unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let source: Ipv6Addr = source.parse().unwrap();
    let sender = testbed.natbox.enter(|| UdpSocket::bind((source, 0))).unwrap().unwrap();
    let _ = sender.send_to(b"private", (host, 9));
    receiver.recv(&mut [0; 16]).is_ok()
}

/// Gives the box and the provider IPv6, and the box private addresses on its other network.
fn add_ipv6(testbed: &SingleBox) {
    for (namespace, interface) in
        [(&testbed.natbox, "wan0"), (&testbed.natbox, "dmz0"), (&testbed.net, "eth0")]
    {
        namespace.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "0").unwrap();
    }
    shell(
        &testbed.natbox,
        "ip addr add 2001:db8::2/64 dev wan0 nodad; ip addr add fd00:77::1/64 dev dmz0 nodad; \
         ip addr add fec0:77::1/64 dev dmz0 nodad",
    );
    shell(
        &testbed.net,
        "ip addr add 2001:db8::1/64 dev eth0 nodad; ip addr add fd00:88::1/64 dev eth0 nodad; \
         ip route add fd00:77::/64 via 2001:db8::2",
    );
    eventually("IPv6", || ping(&testbed.natbox, &["-6", "2001:db8::1"]).then_some(()));
}

#[test]
fn no_private_ipv6_source_leaves_except_those_of_the_interfaces_network() {
    let testbed = SingleBox::new(Published::OnLink);
    let (_server, _host) = (testbed.serve(), add_dmz(&testbed));
    let natbox = testbed.start(&testbed.config());
    add_ipv6(&testbed);
    for source in ["fd00:77::1", "fec0:77::1"] {
        let before = dropped(&testbed, "closed-out-ipv6");
        assert!(!private_ipv6_leaves(&testbed, source), "{source}");
        assert!(dropped(&testbed, "closed-out-ipv6") > before, "{source}: {}", table(&testbed));
    }
    // Neighbour discovery, multicast and a new address.
    shell(&testbed.natbox, "ip neigh flush dev wan0; ip addr add 2001:db8::3/64 dev wan0");
    for target in [&["2001:db8::1"][..], &["-I", "wan0", "ff02::1"]] {
        assert!(ping(&testbed.natbox, &[&["-6"], target].concat()), "{target:?}");
    }
    eventually("an address after its check for duplicates", || {
        ping(&testbed.natbox, &["-6", "-I", "2001:db8::3", "2001:db8::1"]).then_some(())
    });
    // The provider's router has a private network, and translates.
    shell(&testbed.natbox, "ip addr add fd00:88::2/64 dev wan0 nodad");
    eventually("the private network of the interface", || {
        let of_router = || ping(&testbed.net, &["-6", "-I", "fd00:88::1", "fd00:88::2"]);
        (private_ipv6_leaves(&testbed, "fd00:88::2") && of_router()).then_some(())
    });
    assert!(!private_ipv6_leaves(&testbed, "fd00:77::1"));
    // Another program translates.
    shell(
        &testbed.natbox,
        "nft add table ip6 other; \
         nft 'add chain ip6 other post { type nat hook postrouting priority 100; }'; \
         nft add rule ip6 other post oifname wan0 ip6 saddr fd00:77::/64 masquerade",
    );
    assert!(private_ipv6_leaves(&testbed, "fd00:77::1"), "translated");
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
}

/// The inside leg is a MACVLAN of the uplink's interface, so its packets pass that interface.
#[test]
fn an_inside_leg_above_the_uplinks_interface_keeps_its_packets() {
    let testbed = SingleBox::new(Published::OnLink);
    let switch = testbed.lab.namespace("switch").unwrap();
    let ends = [(&testbed.natbox, "wan0"), (&testbed.net, "eth0"), (&testbed.server, "eth0")];
    for interface in ["wan0", "lan0"] {
        testbed.natbox.ip(&["link", "del", interface]).unwrap();
    }
    let ports = ["port0", "port1", "port2"];
    for (number, (end, port)) in ends.iter().zip(ports).enumerate() {
        testbed.lab.veth(50 + number as u8, *end, (&switch, port)).unwrap();
    }
    switch.bridge("br0", &ports).unwrap();
    testbed.natbox.ip(&["link", "add", "link", "wan0", "name", "lan0", "type", "macvlan"]).unwrap();
    testbed.natbox.ip(&["link", "set", "lan0", "up"]).unwrap();
    testbed.natbox.address("wan0", testbed.outside, 24).unwrap();
    testbed.natbox.route("default", PROVIDER).unwrap();
    testbed.natbox.address("lan0", INSIDE, 24).unwrap();
    testbed.net.address("eth0", PROVIDER, 24).unwrap();
    testbed.server.address("eth0", SERVER, 24).unwrap();
    testbed.server.route("default", INSIDE).unwrap();
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    assert_inside_and_uplink(&testbed);
    // A new hardware address of the leg.
    testbed.natbox.ip(&["link", "set", "lan0", "address", "02:00:00:00:77:01"]).unwrap();
    testbed.server.ip(&["neigh", "flush", "all"]).unwrap();
    eventually("the new hardware address", || {
        ping(&testbed.server, &[&INSIDE.to_string()]).then_some(())
    });
    assert_inside_and_uplink(&testbed);
    natbox.stop(Signal::TERM);
}

/// An uplink's interface is a port of the bridge of the inside. Packets of both have one hardware
/// address.
#[test]
fn an_inside_bridge_with_the_interface_of_an_uplink_keeps_its_packets() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    shell(
        &testbed.natbox,
        "ip link set lan0 name port0; ip link add lan0 type bridge; \
         ip link set lan0 address $(cat /sys/class/net/port0/address); \
         ip address flush dev port0; ip link set port0 master lan0; \
         ip link set port0 up; ip link set lan0 up; ip address add 10.0.0.1/24 dev lan0",
    );
    let config = testbed.config();
    let second = "  - { name: port, interface: port0, addresses: [198.51.100.7], \
                  gateway: 198.51.100.1 }\nforwards:\n";
    let text = config.to_string().replacen("forwards:\n", second, 1);
    let text = text.replacen("from: 10.0.0.0/24", "from: 10.0.0.0/24, uplinks: [isp]", 1);
    let path = testbed.write("bridge", &text);
    let natbox = RunningBox::launch(&testbed.natbox, "bridge", &path, &config.socket);
    eventually("the inside bridge", || ping(&testbed.server, &[&INSIDE.to_string()]).then_some(()));
    assert_inside_and_uplink(&testbed);
    let before = dropped(&testbed, "closed-out");
    shell(
        &testbed.natbox,
        "ip route add 198.51.100.1 dev port0; \
         ip neigh add 198.51.100.1 lladdr 02:00:00:00:77:02 dev port0",
    );
    send_raw(&testbed.natbox, DMZ, Ipv4Addr::new(198, 51, 100, 1));
    assert!(dropped(&testbed, "closed-out") > before, "{}", table(&testbed));
    natbox.stop(Signal::TERM);
}

/// Asserts that the inside reaches the box, that forwards work, and that no private source leaves
/// by the uplink.
fn assert_inside_and_uplink(testbed: &SingleBox) {
    testbed.assert_traffic();
    for (from, to) in [(&testbed.server, INSIDE), (&testbed.natbox, SERVER)] {
        assert!(ping(from, &[&to.to_string()]), "{to}: {}", table(testbed));
    }
    let before = dropped(testbed, "closed-out");
    send_raw(&testbed.natbox, DMZ, PROVIDER);
    assert!(dropped(testbed, "closed-out") > before, "{}", table(testbed));
}

/// On Linux every address of a host is reachable through every interface.
#[test]
fn the_outside_segment_does_not_reach_the_boxs_inside_addresses() {
    let testbed = SingleBox::new(Published::OnLink);
    let (_server, _host) = (testbed.serve(), add_dmz(&testbed));
    let natbox = testbed.start(&testbed.config());
    for prefix in ["10.0.0.0/24", "192.168.77.0/24"] {
        testbed.net.route(prefix, testbed.outside).unwrap();
    }
    let own = testbed.natbox.enter(|| UdpSocket::bind("0.0.0.0:8022")).unwrap().unwrap();
    own.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let arrives = |from: &Namespace, to: Ipv4Addr| {
        let sender = from.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        sender.send_to(b"request", (to, 8022)).unwrap();
        own.recv(&mut [0; 16]).is_ok()
    };
    assert!(!arrives(&testbed.net, INSIDE));
    assert!(!arrives(&testbed.net, DMZ));
    assert!(!ping(&testbed.net, &["192.168.77.2"]), "a host of the other network");
    assert!(arrives(&testbed.net, testbed.outside), "its address on the segment");
    assert!(arrives(&testbed.server, INSIDE), "from inside");
    assert!(dropped(&testbed, "closed-in") >= 3, "{}", table(&testbed));

    // A tag of VLAN 0 means the interface itself. Other tags mean other interfaces.
    let injector = Injector::new(&testbed);
    let request = udp(at(CLIENT, 5000), at(INSIDE, 8022), b"tagged");
    let before = dropped(&testbed, "closed-in");
    injector.send_tagged(0, &request);
    eventually("the filter drops it", || (dropped(&testbed, "closed-in") > before).then_some(()));
    injector.send_tagged(7, &request);
    assert!(own.recv(&mut [0; 16]).is_err());
    assert_eq!(dropped(&testbed, "closed-in"), before + 1);
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
}

#[test]
fn packets_without_translation_pass_with_private_addresses() {
    let testbed = SingleBox::new(Published::OnLink);
    let (_server, host) = (testbed.serve(), add_dmz(&testbed));
    testbed.net.route("10.0.0.0/24", testbed.outside).unwrap();
    testbed.net.route("192.168.77.0/24", testbed.outside).unwrap();
    let far = Ipv4Addr::new(172, 20, 0, 7);
    testbed.net.address("lo", far, 32).unwrap();
    let mut config = testbed.config();
    config.extra = "no_nat: [{ to: 172.20.0.0/16 }]\n".into();
    let natbox = testbed.start(&config);
    let (far, server) = (far.to_string(), SERVER.to_string());
    assert!(ping(&testbed.server, &[&far]), "from inside");
    assert!(ping(&testbed.net, &["-I", &far, &server]), "to the inside");
    assert!(!ping(&host, &[&far]), "from another network");
    assert!(!ping(&testbed.net, &["-I", &CLIENT.to_string(), &server]), "from another host");
    natbox.stop(Signal::TERM);
}

/// No journal has the filter: it belongs to the process.
#[test]
fn the_filter_lives_as_long_as_the_process() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    assert_eq!(table(&testbed), "");
    for _ in 0..2 {
        let natbox = testbed.start(&testbed.config());
        assert!(table(&testbed).contains("flags owner"), "{}", table(&testbed));
        // Debian's nftables.service and many firewall scripts begin with this command.
        shell(&testbed.natbox, "nft flush ruleset");
        let delete = ["delete", "table", "netdev", "natbox-nb0"];
        assert!(!testbed.natbox.command("nft").args(delete).status().unwrap().success());
        assert!(table(&testbed).contains("closed-wan0"), "{}", table(&testbed));
        testbed.assert_traffic();
        assert_eq!(Report::new(&testbed, &natbox).errors(), [""; 0]);
        natbox.kill();
        eventually("the kernel removes it", || table(&testbed).is_empty().then_some(()));
    }
    let natbox = testbed.start(&testbed.config());
    natbox.stop(Signal::TERM);
    assert_eq!(table(&testbed), "");
}

#[test]
fn an_interface_that_returns_has_the_filter_again() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    testbed.natbox.ip(&["link", "del", "wan0"]).unwrap();
    natbox.wait_for_log("interface was removed");
    testbed.lab.veth(0, (&testbed.natbox, "wan0"), (&testbed.net, "eth0")).unwrap();
    testbed.natbox.address("wan0", testbed.outside, 24).unwrap();
    testbed.net.address("eth0", PROVIDER, 24).unwrap();
    testbed.natbox.route("default", PROVIDER).unwrap();
    eventually("the forward works again", || testbed.fetch().ok());
    let private = PrivateSources::watch(&testbed.net);
    send_raw(&testbed.natbox, DMZ, CLIENT);
    send_raw(&testbed.natbox, DMZ, PROVIDER);
    private.assert_none();
    natbox.stop(Signal::TERM);
}

/// A table of the same name that belongs to another program stands for a kernel that refuses the
/// filter.
#[test]
fn without_the_filter_natbox_runs_and_says_so() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let mut nft = testbed.natbox.command("nft");
    let mut owner = nft.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let input = owner.stdin.as_mut().unwrap();
    input.write_all(b"add table netdev natbox-nb0 { flags owner; }\n").unwrap();
    eventually("the other program's table", || (!table(&testbed).is_empty()).then_some(()));
    let natbox = testbed.start(&testbed.config());
    testbed.assert_traffic();
    let found = warnings(&natbox);
    let words = "private addresses are not filtered on the uplinks";
    assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    assert!(Report::new(&testbed, &natbox).warnings().iter().any(|found| found.contains(words)));
    // The next look at the host tries it again.
    drop(owner.stdin.take());
    owner.wait().unwrap();
    shell(&testbed.natbox, "ip address add 203.0.113.77 dev wan0");
    eventually("the filter", || table(&testbed).contains("closed-wan0").then_some(()));
    eventually("the end of the warning", || warnings(&natbox).is_empty().then_some(()));
    natbox.stop(Signal::TERM);
}
