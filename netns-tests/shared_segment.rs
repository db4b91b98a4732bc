//! Several interfaces of the box on one segment. Each answers ARP for its own addresses alone, so
//! that packets arrive where the box expects them.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result, ensure};
use natbox::lab::http::{HttpServer, connect};
use natbox::lab::topology::{Attachment, CLIENTS, ThreeLeggedPlan};
use natbox::lab::{Lab, Namespace, hardware_address};
use rustix::process::Signal;

use crate::lab::{BoxConfig, Site, TIMEOUT, listen};
use crate::single_box::{
    BOX_INSIDE, CLIENT, PROVIDER, Published, SERVER, SingleBox, WEB, eventually,
};

/// Attempts with empty neighbour tables. Without the settings about half of them fail.
const ATTEMPTS: usize = 20;
/// Address of the second uplink's interface.
const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// Builds two uplinks, each by an interface of its own, on one segment.
fn site() -> Result<Site> {
    let mut segment: Option<Namespace> = None;
    let attach = |lab: &Lab, number: u8, natbox: &Namespace, provider: &Namespace| {
        let (interface, port) = (format!("wan{number}"), format!("isp{}", number + 1));
        let to_box = format!("box{number}");
        let segment = match &segment {
            Some(segment) => segment,
            None => {
                let made = segment.insert(lab.namespace("segment")?);
                made.bridge("br0", &[])?;
                made
            }
        };
        lab.veth(40 + number, (natbox, &interface), (segment, &to_box))?;
        lab.veth(number, (provider, "box0"), (segment, &port))?;
        for port in [&to_box, &port] {
            segment.ip(&["link", "set", port, "master", "br0"])?;
        }
        Ok(Attachment { interface, sender: hardware_address(40 + number, 1) })
    };
    let plan = ThreeLeggedPlan { uplinks: 2, servers: 1, mbit: None, one_network: true };
    let site = Site::three_legged_by(plan, attach)?;
    site.uplink(1).natbox.address("wan1", SECOND, 24)?;
    Ok(site)
}

/// Fetches a page over both uplinks, again and again, while no neighbour is known.
fn assert_both_answer_always(site: &Site, config: &BoxConfig, to: [Ipv4Addr; 2]) -> Result<()> {
    let server = listen(site.server(), site.server_address(0), WEB)?;
    let _server = HttpServer::start(vec![server], None)?;
    let _natbox = site.start(0, config)?;
    for attempt in 0..ATTEMPTS {
        for (uplink, address) in site.topology.uplinks.iter().zip(to) {
            for namespace in [&uplink.provider, &uplink.natbox] {
                namespace.ip(&["neigh", "flush", "all"])?;
            }
            let endpoint = SocketAddrV4::new(address, WEB);
            let fetch = || connect(Some(CLIENTS[1]), endpoint, TIMEOUT / 10)?.get("/");
            let answer = site.client().enter(fetch)?;
            let answer = answer.with_context(|| format!("attempt {attempt} at {address}"))?;
            ensure!(answer.text().trim() == CLIENTS[1].to_string(), "{}", answer.text());
        }
    }
    Ok(())
}

fn sysctl(namespace: &Namespace, interface: &str, key: &str) -> Result<String> {
    let path = format!("/proc/sys/net/ipv4/conf/{interface}/{key}");
    Ok(namespace.enter(|| std::fs::read_to_string(path))??.trim().to_owned())
}

#[test]
fn two_uplinks_on_one_segment_answer_for_their_own_addresses() -> Result<()> {
    let site = site()?;
    let [first, second] = [site.uplink(0), site.uplink(1)];
    for uplink in [first, second] {
        uplink.natbox.address(&uplink.interface, uplink.published, 24)?;
    }
    let config = site.three_legged_config().forward("tcp", WEB, site.server_address(0), WEB);
    assert_both_answer_always(&site, &config, [first.published, second.published])?;
    for (key, interface) in [("arp_ignore", "wan0"), ("arp_announce", "wan1")] {
        ensure!(sysctl(&first.natbox, interface, key)? == "0", "natbox restores {key}");
    }
    Ok(())
}

#[test]
fn two_uplinks_that_follow_their_interfaces_on_one_segment_answer_always() -> Result<()> {
    let site = site()?;
    let config = site.three_legged_config().followed(0).followed(1);
    let config = config.forward("tcp", WEB, site.server_address(0), WEB);
    // The clients' routes lead to the published addresses alone.
    for (uplink, address) in site.topology.uplinks.iter().zip([site.uplink(0).outside, SECOND]) {
        let old = site.client().ip_output(&["route", "show", &uplink.published.to_string()])?;
        let route = old.replacen(&uplink.published.to_string(), &address.to_string(), 1);
        let words: Vec<&str> =
            ["route", "add"].into_iter().chain(route.split_whitespace()).collect();
        site.client().ip(&words)?;
    }
    assert_both_answer_always(&site, &config, [site.uplink(0).outside, SECOND])
}

#[test]
fn two_uplinks_on_one_segment_answer_for_addresses_that_no_host_has() -> Result<()> {
    let site = site()?;
    let config = site.three_legged_config().forward("tcp", WEB, site.server_address(0), WEB);
    let to = [site.uplink(0).published, site.uplink(1).published];
    assert_both_answer_always(&site, &config, to)
}

/// Inside and uplink share a switch. The router and the server hear both interfaces of the box.
#[test]
fn inside_and_uplink_on_one_segment_answer_for_their_own_addresses() {
    for (kind, is_reversed) in
        [(Published::OnLink, false), (Published::Owned, true), (Published::Routed, true)]
    {
        let testbed = SingleBox::new(kind);
        let switch = testbed.lab.namespace("switch").unwrap();
        let ends = [
            (&testbed.natbox, "wan0"),
            (&testbed.net, "eth0"),
            (&testbed.natbox, "lan0"),
            (&testbed.server, "eth0"),
        ];
        for (namespace, interface) in ends.iter().step_by(2) {
            namespace.ip(&["link", "del", interface]).unwrap();
        }
        let ports: Vec<String> = (0..ends.len()).map(|port| format!("port{port}")).collect();
        for (number, (end, port)) in ends.iter().zip(&ports).enumerate() {
            testbed.lab.veth(50 + number as u8, *end, (&switch, port)).unwrap();
        }
        // A bridge sends a request to its ports in their order, and the first answer counts.
        let mut ordered: Vec<&str> = ports.iter().map(String::as_str).collect();
        if is_reversed {
            ordered.reverse();
        }
        switch.bridge("br0", &ordered).unwrap();
        testbed.natbox.address("wan0", testbed.outside, 24).unwrap();
        testbed.natbox.route("default", PROVIDER).unwrap();
        testbed.natbox.address("lan0", BOX_INSIDE, 24).unwrap();
        testbed.net.address("eth0", PROVIDER, 24).unwrap();
        testbed.server.address("eth0", SERVER, 24).unwrap();
        testbed.server.route("default", BOX_INSIDE).unwrap();
        if kind == Published::Routed {
            testbed.net.route(&format!("{}/32", testbed.published), testbed.outside).unwrap();
        }
        let _server = testbed.serve();
        let running = testbed.start(&testbed.config());
        eventually("traffic", || testbed.fetch().ok());
        for attempt in 0..ATTEMPTS / 2 {
            for namespace in [&testbed.net, &testbed.server, &testbed.natbox] {
                namespace.ip(&["neigh", "flush", "all"]).unwrap();
            }
            let seen =
                testbed.fetch().unwrap_or_else(|error| panic!("{kind:?} {attempt}: {error}"));
            assert_eq!(seen, CLIENT.to_string());
            // The server has learned the box's hardware address from the box's own request.
            testbed.server.ip(&["neigh", "flush", "all"]).unwrap();
            testbed.assert_outbound();
        }
        drop(running);
    }
}

/// The address of a third interface, and whether the interface comes after the start of the box.
const THIRD: [(Option<&str>, bool); 4] = [
    (None, false),
    (Some("203.0.113.5"), false),
    (Some("192.168.77.1"), false),
    (Some("203.0.113.5"), true),
];

/// A third interface of the host is on the uplink's segment. The configuration does not name it.
#[test]
fn a_third_interface_on_the_segment_answers_for_its_own_address_alone() {
    for kind in [Published::Owned, Published::OnLink] {
        for (address, is_late) in THIRD {
            let testbed = SingleBox::new(kind);
            let switch = testbed.lab.namespace("switch").unwrap();
            testbed.natbox.ip(&["link", "del", "wan0"]).unwrap();
            // A bridge sends a request to its ports in their order, and the last answer counts.
            for (number, (end, interface)) in
                [(&testbed.natbox, "wan0"), (&testbed.net, "eth0")].into_iter().enumerate()
            {
                let port = format!("port{number}");
                testbed.lab.veth(50 + number as u8, (end, interface), (&switch, &port)).unwrap();
            }
            switch.bridge("br0", &["port0", "port1"]).unwrap();
            testbed.natbox.address("wan0", testbed.outside, 24).unwrap();
            testbed.natbox.route("default", PROVIDER).unwrap();
            testbed.net.address("eth0", PROVIDER, 24).unwrap();
            let _server = testbed.serve();
            let add_third = || {
                testbed.lab.veth(60, (&testbed.natbox, "mgmt0"), (&switch, "port2")).unwrap();
                switch.ip(&["link", "set", "port2", "master", "br0"]).unwrap();
                let address = address.map(|address| address.parse().unwrap());
                address.into_iter().for_each(|it| testbed.natbox.address("mgmt0", it, 24).unwrap());
            };
            if !is_late {
                add_third();
            }
            let running = testbed.start(&testbed.config());
            if is_late {
                add_third();
                let is_set = || sysctl(&testbed.natbox, "mgmt0", "arp_ignore").unwrap() == "1";
                eventually("the setting of the new interface", || is_set().then_some(()));
                assert_eq!(running.status().host.unwrap().restored, 0, "a new interface");
            }
            for attempt in 0..ATTEMPTS / 2 {
                for namespace in [&testbed.net, &testbed.natbox] {
                    namespace.ip(&["neigh", "flush", "all"]).unwrap();
                }
                let seen = testbed.fetch();
                let seen = seen.unwrap_or_else(|error| panic!("{address:?} {attempt}: {error}"));
                assert_eq!(seen, CLIENT.to_string());
            }
            // A program of the host stays reachable at the third interface.
            if address == Some("203.0.113.5") {
                let own = address.unwrap().parse().unwrap();
                let _own = crate::single_box::serve(&testbed.natbox, own, 8022);
                let to = SocketAddrV4::new(own, 8022);
                let connect = || connect(Some(PROVIDER), to, TIMEOUT / 10);
                testbed.net.enter(connect).unwrap().unwrap();
            }
            running.stop(Signal::TERM);
            for key in ["arp_ignore", "arp_announce"] {
                assert_eq!(
                    sysctl(&testbed.natbox, "mgmt0", key).unwrap(),
                    "0",
                    "{key} is restored"
                );
            }
        }
    }
}
