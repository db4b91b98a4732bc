//! One box with several inside legs: a LAN, a DMZ with a published server, and a network for
//! guests that may use one uplink only.
//!
//! ```text
//!        isp1      isp2
//!      wan0 │        │ wan1
//!           └── box ──┘
//!   lan0 │   dmz0 │   guest0 │      10.0.0.1, 10.1.0.1, 10.2.0.1
//!   10.0.0.101  10.1.0.5  10.2.0.7
//! ```

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natbox::lab::Namespace;
use natbox::lab::boxes::NatBox;
use natbox::lab::http::{HttpServer, connect};
use natbox::lab::interrupt::Interrupt;
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use crate::lab::{NATBOX, Site, curl, datagrams, exchange, listen, output, ping, wait_for};

pub(crate) const DMZ: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 5);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 7);
/// The box's addresses on the second and the third leg.
const BOX_DMZ: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const BOX_GUEST: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);
/// Last octet of [`GUEST`].
const HONEST: u8 = 7;
/// Port of every web server.
pub(crate) const WEB: u16 = 80;

/// A site whose box has three inside legs.
pub(crate) struct Legs {
    pub site: Site,
    pub dmz: Namespace,
    pub guest: Namespace,
}

impl Legs {
    pub(crate) fn new() -> Result<Legs> {
        let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
        let (dmz, guest) = (site.lab.namespace("dmz")?, site.lab.namespace("guest")?);
        let legs = Legs { site, dmz, guest };
        legs.attach(&legs.dmz, "dmz0", 50, BOX_DMZ, DMZ)?;
        legs.attach(&legs.guest, "guest0", 51, BOX_GUEST, GUEST)?;
        Ok(legs)
    }

    /// Joins the box and the host behind a leg.
    fn attach(
        &self,
        host: &Namespace,
        interface: &str,
        number: u8,
        own: Ipv4Addr,
        address: Ipv4Addr,
    ) -> Result<()> {
        self.site.lab.veth(number, (self.natbox(), interface), (host, "eth0"))?;
        self.natbox().address(interface, own, 24)?;
        host.address("eth0", address, 24)?;
        Ok(host.route("default", own)?)
    }

    pub(crate) fn natbox(&self) -> &Namespace {
        &self.site.uplink(0).natbox
    }

    fn lan_host(&self) -> Ipv4Addr {
        self.site.server_address(0)
    }

    /// Returns the configuration: the DMZ's web server on both uplinks, ping to the LAN's host, and
    /// an outbound rule for each leg. `more`: further lines.
    pub(crate) fn text(&self, more: &str) -> String {
        let [one, two] = [0, 1].map(|number| {
            let uplink = self.site.uplink(number);
            format!(
                "{{ name: isp{}, interface: {}, addresses: [{}], gateway: {} }}",
                number + 1,
                uplink.interface,
                uplink.published,
                uplink.gateway
            )
        });
        format!(
            "name: natbox1\n\
             tun: {{ name: nb1 }}\n\
             inside:\n\
             \x20 - {{ interface: lan0, address: 10.0.0.1, prefixes: [10.0.0.0/24] }}\n\
             \x20 - {{ interface: dmz0, address: 10.1.0.1, prefixes: [10.1.0.0/24] }}\n\
             \x20 - {{ interface: guest0, prefixes: [10.2.0.0/24] }}\n\
             uplinks:\n  - {one}\n  - {two}\n\
             forwards:\n\
             \x20 - {{ name: web, protocol: tcp, port: {WEB}, to: '{DMZ}:{WEB}' }}\n\
             \x20 - {{ name: ping, protocol: icmp, to: {} }}\n\
             outbound:\n\
             \x20 - {{ from: 10.0.0.0/24 }}\n\
             \x20 - {{ from: 10.1.0.0/24, uplinks: [isp1] }}\n\
             \x20 - {{ from: 10.2.0.0/24, uplinks: [isp2] }}\n\
             {more}",
            self.lan_host()
        )
    }

    pub(crate) fn start(&self, text: &str) -> Result<NatBox> {
        let directory = self.site.lab.directory();
        let mut natbox =
            NatBox::start(Path::new(NATBOX), self.natbox(), directory, "natbox1", text)?;
        natbox.wait_ready(&Interrupt::default())?;
        Ok(natbox)
    }

    /// Starts a web server on the DMZ's host, which answers with the client's address.
    fn serve_in_dmz(&self) -> Result<HttpServer> {
        Ok(HttpServer::start(vec![listen(&self.dmz, DMZ, WEB)?], None)?)
    }

    /// Fetches the client's address as the DMZ's web server sees it, through an uplink.
    fn fetch(&self, uplink: usize) -> Result<String> {
        let to = self.site.uplink(uplink).endpoint(WEB);
        let timeout = Duration::from_secs(3);
        let get = || connect(Some(CLIENTS[1]), to, timeout)?.get("/");
        Ok(self.site.client().enter(get)??.text().trim().to_owned())
    }

    fn wait_to_fetch(&self) -> Result<()> {
        wait_for("the DMZ's page", || Ok(self.fetch(0).ok())).map(drop)
    }

    /// Clients reach the DMZ's server over both uplinks, and each leg goes out by its own rule.
    fn assert_traffic(&self) -> Result<()> {
        for uplink in [0, 1] {
            let seen = self.fetch(uplink).with_context(|| format!("uplink {}", uplink + 1))?;
            ensure!(seen == CLIENTS[1].to_string(), "seen as {seen}");
        }
        let _internet =
            HttpServer::start(vec![listen(self.site.client(), CLIENTS[0], 8080)?], None)?;
        let url = format!("http://{}:8080", CLIENTS[0]);
        for (host, from, allowed) in [
            (self.site.server(), self.lan_host(), &[0, 1][..]),
            (&self.dmz, DMZ, &[0]),
            (&self.guest, GUEST, &[1]),
        ] {
            let seen = curl(host, from, &[&url]).with_context(|| format!("from {from}"))?;
            let mut uplinks = allowed.iter().map(|uplink| self.site.uplink(*uplink).published);
            ensure!(
                uplinks.any(|published| published.to_string() == seen.trim()),
                "{from} is seen as {seen}"
            );
        }
        Ok(())
    }

    fn totals(&self, natbox: &NatBox, name: &str) -> Result<u64> {
        natbox.status()?.totals.get(name).copied().context("a counter")
    }
}

#[test]
fn each_leg_has_its_forwards_and_outbound_rules() -> Result<()> {
    let legs = Legs::new()?;
    let _web = legs.serve_in_dmz()?;
    let natbox = legs.start(&legs.text(""))?;
    legs.assert_traffic()?;
    let status = natbox.status()?;
    let shown: Vec<_> =
        status.inside.iter().map(|leg| (&*leg.interface, leg.address, leg.up)).collect();
    let wanted = [
        ("lan0", Some(Ipv4Addr::new(10, 0, 0, 1)), true),
        ("dmz0", Some(BOX_DMZ), true),
        ("guest0", Some(BOX_GUEST), true),
    ];
    ensure!(shown == wanted, "{shown:?}");

    // The guests' only uplink is down: they do not move to the other one.
    legs.natbox().ip(&["link", "set", "wan1", "down"])?;
    wait_for("the uplink to fail", || Ok((!natbox.status()?.uplinks[1].healthy).then_some(())))?;
    let echo = crate::lab::Echo::start(legs.site.client(), CLIENTS[0], 7)?;
    let guest = datagrams(&legs.guest, GUEST, 0)?;
    guest.connect((CLIENTS[0], 7))?;
    guest.set_read_timeout(Some(Duration::from_millis(300)))?;
    ensure!(exchange(&guest, 10).is_err(), "a guest over the other uplink");
    let server = datagrams(legs.site.server(), legs.lan_host(), 0)?;
    server.connect((CLIENTS[0], 7))?;
    exchange(&server, 10)?;
    ensure!(echo.seen().len() == 1, "{:?}", echo.seen());
    Ok(())
}

#[test]
fn legs_reach_each_other_past_natbox_and_published_services_through_it() -> Result<()> {
    let legs = Legs::new()?;
    let _web = legs.serve_in_dmz()?;
    let _lan = HttpServer::start(vec![listen(legs.site.server(), legs.lan_host(), 8081)?], None)?;
    let natbox = legs.start(&legs.text(""))?;
    let get = |host: &Namespace, from: Ipv4Addr, to: SocketAddrV4| -> Result<String> {
        let seen = curl(host, from, &[&format!("http://{to}")]);
        Ok(seen.with_context(|| format!("from {from} to {to}"))?.trim().to_owned())
    };
    let (lan, guest) = (legs.site.server(), &legs.guest);
    let direct = [
        (lan, legs.lan_host(), SocketAddrV4::new(DMZ, WEB)),
        (&legs.dmz, DMZ, SocketAddrV4::new(legs.lan_host(), 8081)),
        (guest, GUEST, SocketAddrV4::new(DMZ, WEB)),
    ];
    let before = legs.totals(&natbox, "packets_in")?;
    for (host, from, to) in direct {
        let seen = get(host, from, to)?;
        ensure!(seen == from.to_string(), "{from} reaches {to} as {seen}");
    }
    let after = legs.totals(&natbox, "packets_in")?;
    ensure!(before == after, "natbox saw {} packets between legs", after - before);

    for uplink in [0, 1] {
        let published = legs.site.uplink(uplink).endpoint(WEB);
        for (host, from) in [(lan, legs.lan_host()), (guest, GUEST), (&legs.dmz, DMZ)] {
            let seen = get(host, from, published)?;
            ensure!(seen == published.ip().to_string(), "{from} reaches {published} as {seen}");
        }
    }
    ensure!(legs.totals(&natbox, "packets_in")? > after, "hairpin passes natbox");

    // The guide's rules keep guests from the other legs, and leave them the published services.
    let rules = "nft add table inet guests; \
                 nft 'add chain inet guests forward { type filter hook forward priority 0; }'; \
                 nft 'add rule inet guests forward iifname \"guest0\" oifname { \"lan0\", \"dmz0\" } drop'";
    let mut command = legs.natbox().command("sh");
    command.args(["-euc", rules]);
    output(command)?;
    let timeout = Duration::from_millis(500);
    let to_dmz = || connect(Some(GUEST), SocketAddrV4::new(DMZ, WEB), timeout);
    ensure!(guest.enter(to_dmz)?.is_err(), "a guest in the DMZ");
    let published = legs.site.uplink(0).endpoint(WEB);
    ensure!(get(guest, GUEST, published)? == published.ip().to_string());
    Ok(())
}

/// Guests reach the DMZ from an external address. The LAN reaches it directly.
#[test]
fn outbound_rule_to_another_leg_hides_the_hosts_of_the_first_one() -> Result<()> {
    for assigned_to_host in [false, true] {
        let legs = Legs::new()?;
        let published = legs.site.uplink(1).published;
        if assigned_to_host {
            legs.natbox().address("wan1", published, 24)?;
        }
        let _web = legs.serve_in_dmz()?;
        let echo = crate::lab::Echo::start(&legs.dmz, DMZ, 7)?;
        let rule = "  - { from: 10.2.0.0/24, to: [10.1.0.0/24], uplinks: [isp2] }\n";
        let mut natbox = legs.start(&legs.text(rule))?;
        let url = format!("http://{DMZ}/");
        let seen = |host: &Namespace, from| -> Result<String> {
            Ok(curl(host, from, &[&url]).with_context(|| format!("from {from}"))?.trim().to_owned())
        };
        ensure!(seen(&legs.guest, GUEST)? == published.to_string());
        ensure!(seen(legs.site.server(), legs.lan_host())? == legs.lan_host().to_string());
        ping(&legs.guest, GUEST, DMZ, 2)?;
        let guest = datagrams(&legs.guest, GUEST, 0)?;
        guest.connect((DMZ, 7))?;
        for size in [10, 1472, 4000] {
            exchange(&guest, size).with_context(|| format!("{size} bytes"))?;
        }
        ensure!(echo.seen().iter().all(|(peer, _)| peer.ip() == published), "{:?}", echo.seen());
        // The DMZ's kernel says that nothing listens.
        let refused = datagrams(&legs.guest, GUEST, 0)?;
        refused.connect((DMZ, 9))?;
        refused.send(b"to a closed port")?;
        let error = refused.recv(&mut [0; 8]).expect_err("an ICMP error");
        ensure!(error.kind() == std::io::ErrorKind::ConnectionRefused, "{error}");
        // Hosts that the rule does not name keep their own addresses, and the Internet its rules.
        legs.assert_traffic()?;
        let rules = legs.natbox().ip_output(&["rule", "show"])?;
        ensure!(rules.contains("to 10.1.0.0/24 iif guest0"), "{rules}");
        natbox.process().terminate()?;
    }
    Ok(())
}

/// A host behind one leg sends with a source of another leg: to a host of a third leg, to the
/// Internet, and to a published address. Nothing arrives.
#[test]
fn a_host_does_not_send_with_the_source_of_another_leg() -> Result<()> {
    for assigned_to_host in [false, true] {
        let legs = Legs::new()?;
        let published = legs.site.uplink(0).published;
        if assigned_to_host {
            legs.natbox().address("wan0", published, 24)?;
        }
        let stolen = Ipv4Addr::new(10, 0, 0, 55);
        legs.guest.address("lo", stolen, 32)?;
        let forward = format!("  - {{ name: echo, protocol: udp, port: 7, to: '{DMZ}:7' }}\n");
        let text = legs.text("").replace("outbound:\n", &format!("{forward}outbound:\n"));
        let mut natbox = legs.start(&text)?;
        let in_dmz = datagrams(&legs.dmz, DMZ, 7)?;
        let outside = datagrams(legs.site.client(), CLIENTS[0], 7)?;
        let send = |from: Ipv4Addr, to: Ipv4Addr| -> Result<()> {
            let socket = datagrams(&legs.guest, from, 0)?;
            socket.send_to(&from.octets(), (to, 7))?;
            Ok(())
        };
        let senders = |socket: &UdpSocket| -> Result<Vec<u8>> {
            // The last datagram is honest, so everything before it has arrived.
            let mut all = Vec::new();
            let mut bytes = [0; 4];
            while all.iter().filter(|last| **last == HONEST).count() < 2 {
                socket.recv_from(&mut bytes).context("the honest datagrams")?;
                all.push(bytes[3]);
            }
            Ok(all)
        };
        for (to, receiver) in [(DMZ, &in_dmz), (published, &in_dmz), (CLIENTS[0], &outside)] {
            [GUEST, stolen, GUEST].into_iter().try_for_each(|from| send(from, to))?;
            let arrived = senders(receiver).with_context(|| format!("to {to}"))?;
            ensure!(arrived == [HONEST; 2], "to {to}: {arrived:?} (assigned: {assigned_to_host})");
        }
        natbox.process().terminate()?;

        // Without natbox the datagram arrives.
        legs.natbox().sysctl("net/ipv4/ip_forward", "1")?;
        legs.natbox().sysctl("net/ipv4/conf/all/rp_filter", "0")?;
        legs.natbox().sysctl("net/ipv4/conf/guest0/rp_filter", "0")?;
        [GUEST, stolen, GUEST].into_iter().try_for_each(|from| send(from, DMZ))?;
        ensure!(senders(&in_dmz)? == [HONEST, 55, HONEST]);
    }
    Ok(())
}

#[test]
fn one_leg_goes_and_comes_back_without_harm_to_the_others() -> Result<()> {
    let legs = Legs::new()?;
    let _web = legs.serve_in_dmz()?;
    let rules = || legs.natbox().ip_output(&["rule", "show"]);
    let before = rules()?;
    let natbox = legs.start(&legs.text(""))?;
    let echo = crate::lab::Echo::start(legs.site.client(), CLIENTS[0], 7)?;
    let lan = datagrams(legs.site.server(), legs.lan_host(), 0)?;
    lan.connect((CLIENTS[0], 7))?;
    let is_up = |up: bool| {
        wait_for("the state of the leg", || Ok((natbox.status()?.inside[1].up == up).then_some(())))
    };
    let box_ip = |arguments: &str| {
        legs.natbox().ip(&arguments.split(' ').collect::<Vec<_>>()).map_err(anyhow::Error::from)
    };
    legs.wait_to_fetch()?;

    box_ip("link set dmz0 down")?;
    is_up(false)?;
    exchange(&lan, 1000).context("the LAN while the DMZ is down")?;
    box_ip("link set dmz0 up")?;
    is_up(true)?;
    legs.wait_to_fetch()?;

    // A VLAN interface that is deleted and made again.
    box_ip("link del dmz0")?;
    is_up(false)?;
    exchange(&lan, 1000).context("the LAN without the DMZ")?;
    legs.attach(&legs.dmz, "dmz0", 50, BOX_DMZ, DMZ)?;
    is_up(true)?;
    legs.wait_to_fetch()?;
    wait_for("the source filter", || {
        let value = legs.natbox().read_sysctl("net/ipv4/conf/dmz0/rp_filter")?;
        Ok((value == "2").then_some(()))
    })?;
    exchange(&lan, 1000).context("the LAN after all")?;
    ensure!(echo.seen().len() == 1, "one session throughout: {:?}", echo.seen());
    drop(natbox);
    ensure!(rules()? == before, "what is left: {}", rules()?);
    Ok(())
}

#[test]
fn the_box_starts_without_a_leg_and_uses_it_when_it_comes() -> Result<()> {
    let legs = Legs::new()?;
    let _web = legs.serve_in_dmz()?;
    legs.natbox().ip(&["link", "set", "dmz0", "down", "name", "elsewhere"])?;
    let natbox = legs.start(&legs.text(""))?;
    let published = legs.site.uplink(0).published;
    ping(legs.site.client(), CLIENTS[0], published, 2).context("the first leg")?;
    ensure!(legs.fetch(0).is_err(), "the DMZ has no interface");
    ensure!(!natbox.status()?.inside[1].up);
    legs.natbox().ip(&["link", "set", "elsewhere", "name", "dmz0", "up"])?;
    legs.wait_to_fetch()?;
    legs.assert_traffic()
}

#[test]
fn the_mtu_of_one_leg_does_not_limit_another() -> Result<()> {
    let legs = Legs::new()?;
    let natbox = legs.start(&legs.text(""))?;
    for (namespace, interface) in [(legs.natbox(), "guest0"), (&legs.guest, "eth0")] {
        namespace.ip(&["link", "set", interface, "mtu", "1280"])?;
    }
    wait_for("the event", || {
        let directory = legs.site.lab.directory();
        let log = fs::read_to_string(directory.join("natbox1.log"))?;
        Ok(log.contains("MTU changed").then_some(()))
    })?;
    let large_ping = |host: &Namespace, to: Ipv4Addr| {
        let mut command = host.command("ping");
        command.args(["-n", "-M", "do", "-c", "1", "-W", "2", "-s", "1472", &to.to_string()]);
        output(command)
    };
    large_ping(legs.site.client(), legs.site.uplink(0).published)?;
    large_ping(legs.site.server(), CLIENTS[0])?;
    ensure!(!natbox.status()?.drops.contains_key("mtu-exceeded"));

    // A reply to a guest exceeds the MTU of the guest's leg.
    let echo = crate::lab::Echo::start(legs.site.client(), CLIENTS[0], 7)?;
    let guest = datagrams(&legs.guest, GUEST, 0)?;
    guest.connect((CLIENTS[0], 7))?;
    exchange(&guest, 1252)?;
    let (peer, _) = echo.seen().into_iter().next().context("a datagram")?;
    drop(echo);
    let remote = datagrams(legs.site.client(), CLIENTS[0], 7)?;
    remote.connect(peer)?;
    remote.send(&[7; 1400])?;
    wait_for("the drop", || {
        Ok((natbox.status()?.drops.get("mtu-exceeded") == Some(&1)).then_some(()))
    })
}

#[test]
fn the_plan_configures_a_host_with_several_legs_by_hand() -> Result<()> {
    let legs = Legs::new()?;
    let _web = legs.serve_in_dmz()?;
    let text = legs.text("host: { manage: false }\n");
    let _natbox = legs.start(&text)?;
    ensure!(legs.fetch(0).is_err(), "nothing is set yet");
    let file = legs.site.lab.directory().join("natbox1.yaml");
    let mut command = legs.natbox().command(NATBOX);
    command.args(["plan", "--json", "--config"]).arg(&file);
    let plan: serde_json::Value = serde_json::from_str(&output(command)?)?;
    let own = |place: usize| plan["boxes"][0]["inside"][place]["address"].clone();
    ensure!([own(0), own(1), own(2)] == ["10.0.0.1", "10.1.0.1", "10.2.0.1"], "{plan:#}");
    let commands = plan["boxes"][0]["commands"].as_array().context("commands")?;
    for line in commands {
        let mut command = legs.natbox().command("sh");
        command.args(["-euc", line.as_str().context("a command")?]);
        output(command)?;
    }
    legs.wait_to_fetch()?;
    legs.assert_traffic()?;

    // The server's part: its default route leads to the box on the server's own leg.
    let server = &plan["servers"]
        .as_array()
        .context("servers")?
        .iter()
        .find(|server| server["addresses"][0]["address"] == DMZ.to_string());
    let server = server.context("the DMZ's server")?;
    let commands: Vec<&str> = server["commands"]
        .as_array()
        .context("commands")?
        .iter()
        .filter_map(|line| line.as_str())
        .collect();
    legs.dmz.ip(&["route", "del", "default"])?;
    ensure!(legs.fetch(0).is_err(), "the server has no route back");
    let mut command = legs.dmz.command("sh");
    command.env("DEV_10_1_0_0_24", "eth0").args(["-euc", &commands.join("\n")]);
    output(command)?;
    legs.wait_to_fetch()
}
