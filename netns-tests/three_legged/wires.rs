//! Uplinks without an interface of their own, and uplinks of different MTU.

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use natbox::lab::capture::{Capture, TCP};
use natbox::lab::topology::{Attachment, CLIENTS, ThreeLeggedPlan};
use natbox::lab::{Lab, LabError, Namespace, hardware_address};
use parking_lot::Mutex;

use super::{ECHO, WEB, assert_every_uplink_answers_for_itself, plan, serve_page, services};
use crate::lab::{Echo, Site, curl, datagrams, exchange};

/// Index of the pair of interfaces by which the box reaches a segment.
const TRUNK: u8 = 40;

#[test]
fn two_gateways_on_one_segment_are_two_uplinks() -> Result<()> {
    let mut segment = None;
    let attach = |lab: &Lab, number: u8, natbox: &Namespace, provider: &Namespace| {
        let segment = join_segment(lab, &mut segment, natbox, "wan0")?;
        connect_provider(lab, number, provider, segment)?;
        Ok(Attachment { interface: "wan0".into(), sender: hardware_address(TRUNK, 1) })
    };
    let site = Site::three_legged_by(ThreeLeggedPlan { one_network: true, ..plan(2) }, attach)?;
    let [one, two] = [site.uplink(0), site.uplink(1)];
    ensure!(
        one.interface == two.interface && one.outside == two.outside && one.gateway != two.gateway
    );
    assert_every_uplink_answers_for_itself(&site, &services(&site))
}

#[test]
fn interfaces_of_one_parent_are_uplinks_of_their_own() -> Result<()> {
    let mut segment = None;
    let attach = |lab: &Lab, number: u8, natbox: &Namespace, provider: &Namespace| {
        let segment = join_segment(lab, &mut segment, natbox, "trunk")?;
        let interface = format!("trunk.{}", 101 + number);
        let sender = child_of_trunk(natbox, &interface, number, segment, provider, lab)?;
        Ok(Attachment { interface, sender })
    };
    let site = Site::three_legged_by(plan(2), attach)?;
    ensure!(site.uplink(0).interface != site.uplink(1).interface);
    assert_every_uplink_answers_for_itself(&site, &services(&site))
}

/// The packets of uplink 2 also pass the filter of the interface of uplink 1.
#[test]
fn an_interface_and_one_above_it_are_uplinks_of_their_own() -> Result<()> {
    let mut segment = None;
    let attach = |lab: &Lab, number: u8, natbox: &Namespace, provider: &Namespace| {
        let segment = join_segment(lab, &mut segment, natbox, "wan0")?;
        connect_provider(lab, number, provider, segment)?;
        if number == 0 {
            return Ok(Attachment { interface: "wan0".into(), sender: hardware_address(TRUNK, 1) });
        }
        let sender = [2, 0, 0, 0, TRUNK + 1, number];
        add_child(natbox, "wan0", "wan1", sender, &["macvlan", "mode", "private"])?;
        natbox.ip(&["link", "set", "wan1", "up"])?;
        Ok(Attachment { interface: "wan1".into(), sender })
    };
    let site = Site::three_legged_by(plan(2), attach)?;
    ensure!(site.uplink(0).interface == "wan0" && site.uplink(1).interface == "wan1");
    // Each uplink also has a network of its own that is private.
    for (number, uplink) in site.topology.uplinks.iter().enumerate() {
        for (namespace, interface, last) in
            [(&uplink.natbox, &*uplink.interface, 2), (&uplink.provider, "box0", 1)]
        {
            let address = Ipv4Addr::new(192, 168, 10 + number as u8, last);
            namespace.address(interface, address, 24)?;
        }
    }
    assert_every_uplink_answers_for_itself(&site, &services(&site))?;
    let _natbox = site.start(0, &services(&site))?;
    for (number, uplink) in site.topology.uplinks.iter().enumerate() {
        let provider = format!("192.168.{}.1", 10 + number);
        let mut ping = uplink.natbox.command("ping");
        let status = ping.args(["-c", "1", "-W", "2", &provider]).status()?;
        ensure!(status.success(), "no answer of {provider} by {}", uplink.interface);
    }
    Ok(())
}

/// Uplink 2 has an MTU of 1280.
#[test]
fn each_uplink_has_an_mtu_of_its_own() -> Result<()> {
    for (offload, io) in [("auto", "auto"), ("none", "poll")] {
        let site = Site::three_legged(plan(2))?;
        for (end, interface) in
            [(&site.uplink(1).natbox, "wan1"), (&site.uplink(1).provider, "box0")]
        {
            end.ip(&["link", "set", interface, "mtu", "1280"])?;
        }
        let (_nginx, page) = serve_page(&site)?;
        let mut config = services(&site);
        (config.offload, config.io) = (offload, io);
        let _natbox = site.start(0, &config)?;
        let offered = [SegmentSizes::start(site.server())?, SegmentSizes::start(site.client())?];
        // Separate clients, because a kernel applies the MTU that it learned on one path to the
        // other.
        for (number, mtu) in [(0, 1500), (1, 1280)] {
            let (uplink, client) = (site.uplink(number), CLIENTS[number]);
            offered.iter().for_each(SegmentSizes::forget);
            let url = format!("http://{}/page", uplink.endpoint(WEB));
            ensure!(
                curl(site.client(), client, &[&url])? == page,
                "another page over {}",
                uplink.name
            );
            for sizes in &offered {
                let seen = sizes.seen();
                ensure!(
                    seen == [mtu - 40],
                    "segment sizes {seen:?} over {}, offload {offload}",
                    uplink.name
                );
            }
        }
        // Without DF, so that routers fragment what is too large for an uplink.
        for end in [site.client(), site.server()] {
            end.sysctl("net/ipv4/ip_no_pmtu_disc", "1")?;
        }
        let _echo = Echo::start(site.server(), site.server_address(0), ECHO)?;
        for (uplink, client) in site.topology.uplinks.iter().zip(CLIENTS) {
            let socket = datagrams(site.client(), client, 0)?;
            socket.connect(uplink.endpoint(ECHO))?;
            for size in [1200, 1253, 1400, 1472, 1473, 9000] {
                exchange(&socket, size).with_context(|| format!("over {}", uplink.name))?;
            }
        }
    }
    Ok(())
}

/// The segment sizes that a namespace receives in SYNs.
struct SegmentSizes {
    seen: Arc<Mutex<Vec<u16>>>,
    _capture: Capture,
}

impl SegmentSizes {
    fn start(namespace: &Namespace) -> Result<SegmentSizes> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let theirs = seen.clone();
        let capture = Capture::start(namespace, move |frame| {
            let Some(packet) = frame.ipv4().filter(|packet| packet.protocol() == TCP) else {
                return;
            };
            // Linux puts this option first.
            if let Some([.., 2, 4, high, low]) = packet.payload().first_chunk::<24>()
                && packet.payload()[13] & 2 != 0
            {
                theirs.lock().push(u16::from_be_bytes([*high, *low]));
            }
        })?;
        Ok(SegmentSizes { seen, _capture: capture })
    }

    fn seen(&self) -> Vec<u16> {
        self.seen.lock().clone()
    }

    fn forget(&self) {
        self.seen.lock().clear();
    }
}

/// Returns the segment that the box reaches by `interface`, and makes it at the first call.
fn join_segment<'a>(
    lab: &Lab,
    segment: &'a mut Option<Namespace>,
    natbox: &Namespace,
    interface: &str,
) -> Result<&'a Namespace, LabError> {
    if segment.is_none() {
        let namespace = lab.namespace("segment")?;
        lab.veth(TRUNK, (natbox, interface), (&namespace, "box1"))?;
        namespace.bridge("br0", &["box1"])?;
        *segment = Some(namespace);
    }
    Ok(segment.as_ref().expect("made above"))
}

fn connect_provider(
    lab: &Lab,
    number: u8,
    provider: &Namespace,
    segment: &Namespace,
) -> Result<(), LabError> {
    let port = format!("isp{}", number + 1);
    lab.veth(number, (provider, "box0"), (segment, &port))?;
    segment.ip(&["link", "set", &port, "master", "br0"])
}

/// Makes an uplink of an interface below `trunk`: a VLAN if the kernel has them, otherwise a
/// MACVLAN, which is the same for a router above. Returns the hardware address.
fn child_of_trunk(
    natbox: &Namespace,
    interface: &str,
    number: u8,
    segment: &Namespace,
    provider: &Namespace,
    lab: &Lab,
) -> Result<[u8; 6], LabError> {
    let (vlan, mac) = ((101 + number).to_string(), [2, 0, 0, 0, TRUNK + 1, number]);
    match add_child(natbox, "trunk", interface, mac, &["vlan", "id", &vlan]) {
        Ok(()) => {
            // The provider is on the same VLAN of the segment's port only.
            let (port, bridge) = (format!("vlan{vlan}"), format!("br{vlan}"));
            segment.ip(&["link", "set", "box1", "nomaster"])?;
            segment
                .ip(&["link", "add", "link", "box1", "name", &port, "type", "vlan", "id", &vlan])?;
            segment.ip(&["link", "set", &port, "up"])?;
            let end = format!("isp{}", number + 1);
            lab.veth(number, (provider, "box0"), (segment, &end))?;
            segment.bridge(&bridge, &[&port, &end])?;
        }
        Err(LabError::Command { message, .. }) if message.contains("Unknown device type") => {
            add_child(natbox, "trunk", interface, mac, &["macvlan", "mode", "private"])?;
            connect_provider(lab, number, provider, segment)?;
        }
        Err(error) => return Err(error),
    }
    natbox.ip(&["link", "set", interface, "up"])?;
    Ok(mac)
}

fn add_child(
    namespace: &Namespace,
    parent: &str,
    name: &str,
    mac: [u8; 6],
    kind: &[&str],
) -> Result<(), LabError> {
    let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
    let words = ["link", "add", "link", parent, "name", name, "address", &mac, "type"];
    namespace.ip(&[&words[..], kind].concat())
}
