//! A reload changes every part of the configuration while packets flow, or it changes nothing.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use natbox::api::{Difference, EffectiveConfig, Reloaded, Request, Status, client};
use natbox::lab::boxes::NatBox;
use natbox::lab::capture::UplinkCapture;
use natbox::lab::http::{Connection, HttpServer, connect};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use crate::dns::programs::{dig, short};
use crate::failover::{health, set_router};
use crate::lab::{BoxConfig, Echo, NATBOX, Site, TIMEOUT, datagrams, exchange, listen, wait_for};
use crate::single_box::HostState;

const WEB: u16 = 80;
const ECHO: u16 = 7;
/// A web server on the Internet that answers with the client's address.
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(CLIENTS[0], 8080);
/// Timeout of connections that must fail.
const SHORT: Duration = Duration::from_secs(2);
/// Pause between two datagrams of the traffic.
const PAUSE: Duration = Duration::from_millis(2);

/// A box with two uplinks and a server behind it.
struct Testbed {
    site: Site,
    _echo: Echo,
    _web: HttpServer,
    _outside: HttpServer,
}

impl Testbed {
    fn new() -> Result<Testbed> {
        let plan = ThreeLeggedPlan { uplinks: 3, servers: 1, mbit: None, one_network: false };
        let site = Site::three_legged(plan)?;
        let server = site.server_address(0);
        let _echo = Echo::start(site.server(), server, ECHO)?;
        let _web = HttpServer::start(vec![listen(site.server(), server, WEB)?], None)?;
        let listener = listen(site.client(), *OUTSIDE.ip(), OUTSIDE.port())?;
        let _outside = HttpServer::start(vec![listener], None)?;
        Ok(Testbed { site, _echo, _web, _outside })
    }

    /// A configuration of some uplinks, each of which publishes the server.
    fn config(&self, uplinks: &[usize]) -> BoxConfig {
        let server = self.site.server_address(0);
        let mut config = self.site.three_legged_of(uplinks);
        for uplink in uplinks {
            let name = uplink + 1;
            config = config
                .forward_as(&format!(
                    "name: web{name}, uplink: isp{name}, protocol: tcp, port: {WEB}, to: {server}"
                ))
                .forward_as(&format!(
                    "name: echo{name}, uplink: isp{name}, protocol: udp, port: {ECHO}, to: {server}"
                ));
        }
        config
    }

    /// Writes the text of a configuration for the next reload.
    fn write(&self, natbox: &NatBox, text: &str) -> Result<()> {
        let text = format!("{text}admin: {{ socket: {} }}\n", natbox.socket().display());
        Ok(fs::write(self.site.lab.directory().join("natbox1.yaml"), text)?)
    }

    fn reload(&self, natbox: &NatBox, config: &BoxConfig) -> Result<Reloaded> {
        self.write(natbox, &config.text())?;
        let counted: Difference = client::request(natbox.socket(), &Request::Difference)?;
        let counted = counted.sessions_ended.context("no key needs a restart")?.total;
        let reloaded: Reloaded = client::request(natbox.socket(), &Request::Reload)?;
        ensure!(counted == reloaded.sessions_ended, "{counted} counted, {reloaded:?}");
        Ok(reloaded)
    }

    /// Makes a reload that fails, and returns its error.
    fn refused(&self, natbox: &NatBox, text: &str) -> Result<String> {
        self.write(natbox, text)?;
        match client::request::<Reloaded>(natbox.socket(), &Request::Reload) {
            Ok(reloaded) => anyhow::bail!("the reload went through: {reloaded:?}"),
            Err(error) => Ok(error.to_string()),
        }
    }

    fn host(&self) -> HostState {
        HostState::of_box(&self.site.uplink(0).natbox, self.site.lab.directory())
    }

    /// Returns the state of the host when natbox has followed its last change.
    fn settled_host(&self) -> Result<HostState> {
        let mut before = self.host();
        wait_for("a host that does not change", || {
            thread::sleep(Duration::from_millis(1500));
            let now = self.host();
            let is_settled = now == before;
            before = now.clone();
            Ok(is_settled.then_some(now))
        })
    }

    /// Opens a connection from the Internet to the server over an uplink.
    fn connect(&self, uplink: usize, timeout: Duration) -> Result<Connection> {
        let to = self.site.uplink(uplink).endpoint(WEB);
        // A session from inside to this client would be related, and use the same uplink.
        let mut connection =
            self.site.client().enter(|| connect(Some(CLIENTS[3]), to, timeout))??;
        connection.get("/")?;
        Ok(connection)
    }

    /// Fails unless connections from the server to the Internet use these uplinks.
    fn assert_used(&self, wanted: &[usize]) -> Result<()> {
        let mut used = Vec::new();
        for _ in 0..30 {
            let mut connection = self.site.server().enter(|| connect(None, OUTSIDE, TIMEOUT))??;
            let seen: Ipv4Addr = connection.get("/")?.text().trim().parse()?;
            let mut uplinks = self.site.topology.uplinks.iter();
            let place = uplinks.position(|uplink| uplink.published == seen);
            used.push(place.context("no published address")?);
        }
        used.sort_unstable();
        used.dedup();
        ensure!(used == wanted, "connections use the uplinks {used:?}");
        Ok(())
    }
}

/// Datagrams that a client exchanges with the server all the time, over one session.
struct Traffic {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Traffic {
    fn start(site: &Site, uplink: usize) -> Result<Traffic> {
        let socket = datagrams(site.client(), CLIENTS[1], 0)?;
        socket.connect(site.uplink(uplink).endpoint(ECHO))?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut count = 0;
            // Relaxed: the thread only needs to see the flag soon.
            while !flag.load(Ordering::Relaxed) {
                exchange(&socket, 200).with_context(|| format!("datagram {count}"))?;
                count += 1;
                thread::sleep(PAUSE);
            }
            Ok(count)
        });
        Ok(Traffic { stop, thread })
    }

    /// Fails if a datagram was lost.
    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.thread.join().expect("the traffic does not panic")?;
        ensure!(count > 10, "only {count} datagrams");
        Ok(())
    }
}

fn names(natbox: &NatBox) -> Result<Vec<String>> {
    Ok(natbox.status()?.uplinks.into_iter().map(|uplink| uplink.name).collect())
}

#[test]
fn uplinks_come_and_go_while_packets_flow() -> Result<()> {
    let testbed = Testbed::new()?;
    let site = &testbed.site;
    let natbox = site.start(0, &testbed.config(&[0]))?;
    let traffic = Traffic::start(site, 0)?;
    let mut stays = testbed.connect(0, TIMEOUT)?;
    let alone = testbed.host();

    let reloaded = testbed.reload(&natbox, &testbed.config(&[0, 1]))?;
    ensure!(reloaded.changed == ["forwards", "outbound", "uplinks"], "{reloaded:?}");
    ensure!(reloaded.sessions_ended == 0, "{reloaded:?}");
    ensure!(names(&natbox)? == ["isp1", "isp2"]);
    ensure!(natbox.status()?.uplinks[1].in_use, "its link is ready");
    // Each rule of the uplink that stays is still there.
    let rules = testbed.host();
    for rule in alone.rules().lines() {
        ensure!(rules.rules().contains(rule), "{rule} is gone: {}", rules.rules());
    }
    let captures = [site.watch_ports(0, &[WEB, ECHO])?, site.watch_ports(1, &[WEB, ECHO])?];
    let mut over_second = testbed.connect(1, SHORT)?;
    wait_for("replies on both uplinks", || {
        let mut counts = captures.iter().map(UplinkCapture::counts);
        Ok(counts.all(|count| count.replies > 0).then_some(()))
    })?;
    let counts = captures.map(UplinkCapture::finish);
    for (uplink, count) in counts.into_iter().enumerate() {
        ensure!(count.wrong == 0, "uplink {uplink}: {count:?}");
    }
    testbed.assert_used(&[0, 1])?;

    // The order of the file does not matter, and a third one replaces the second one.
    let reloaded = testbed.reload(&natbox, &testbed.config(&[2, 0]))?;
    ensure!(reloaded.sessions_ended >= 1, "{reloaded:?}");
    ensure!(names(&natbox)? == ["isp3", "isp1"]);
    ensure!(over_second.get("/").is_err(), "the uplink of the connection is gone");
    ensure!(testbed.connect(1, SHORT).is_err());
    let mut over_third = testbed.connect(2, TIMEOUT)?;
    testbed.assert_used(&[0, 2])?;

    // An uplink whose interface does not exist waits for it.
    let absent = testbed.config(&[2, 0]).text().replace(
        "uplinks:\n",
        "uplinks:\n  - { name: isp9, interface: wan9, addresses: [192.0.2.200], gateway: 192.0.2.201 }\n",
    );
    testbed.write(&natbox, &absent)?;
    let _: Reloaded = client::request(natbox.socket(), &Request::Reload)?;
    let status = natbox.status()?;
    ensure!(status.uplinks[0].name == "isp9" && !status.uplinks[0].healthy, "{status:?}");
    testbed.assert_used(&[0, 2])?;

    // The second uplink gets a number again that another one had.
    testbed.reload(&natbox, &testbed.config(&[0, 1, 2]))?;
    testbed.assert_used(&[0, 1, 2])?;
    over_third.get("/").context("the third uplink stays")?;
    testbed.connect(1, TIMEOUT)?;

    testbed.reload(&natbox, &testbed.config(&[0]))?;
    alone.assert_same(&testbed.host(), "with the uplink of the start alone");
    testbed.assert_used(&[0])?;
    stays.get("/").context("the first uplink stays")?;
    traffic.end()
}

/// `doctor` and the state of the box agree, although the numbers are not those of the file.
#[test]
fn a_stop_after_reloads_restores_the_host() -> Result<()> {
    let testbed = Testbed::new()?;
    let before = testbed.host();
    let mut natbox = testbed.site.start(0, &testbed.config(&[0, 1]))?;
    testbed.reload(&natbox, &testbed.config(&[2, 1]))?;
    let effective: EffectiveConfig = client::request(natbox.socket(), &Request::EffectiveConfig)?;
    let number = |name: &str| effective.uplink_numbers[name].uplink;
    ensure!((number("isp2"), number("isp3")) == (1, 2), "{effective:?}");
    let mut doctor = Command::new(NATBOX);
    doctor.args(["doctor", "--json", "--socket"]).arg(natbox.socket());
    let findings = testbed.site.uplink(0).natbox.enter(|| doctor.output())??;
    let findings = String::from_utf8(findings.stdout)?;
    ensure!(!findings.contains("ip route") && !findings.contains("ip rule"), "{findings}");
    testbed.connect(2, TIMEOUT)?;
    let status = natbox.process().terminate()?;
    ensure!(status.success(), "{status}");
    before.assert_same(&testbed.host(), "after a stop");
    Ok(())
}

#[test]
fn a_refused_reload_changes_nothing() -> Result<()> {
    let testbed = Testbed::new()?;
    let natbox = testbed.site.start(0, &testbed.config(&[0]))?;
    let traffic = Traffic::start(&testbed.site, 0)?;
    let effective = || -> Result<EffectiveConfig> {
        Ok(client::request(natbox.socket(), &Request::EffectiveConfig)?)
    };
    let (host, before) = (testbed.host(), effective()?);
    let same = |when: &str| -> Result<()> {
        host.assert_same(&testbed.host(), when);
        ensure!(effective()? == before, "{when}");
        Ok(())
    };
    let two = testbed.config(&[0, 1]);

    let error = testbed.refused(&natbox, &format!("{}uplonks: []\n", two.text()))?;
    ensure!(error.contains("uplonks"), "{error}");
    same("a bad file")?;

    let fixed = two.clone().extra("limits: { sessions: 1000, sessions_per_host: 10 }");
    let error = testbed.refused(&natbox, &fixed.text())?;
    ensure!(error.contains("limits.sessions changed; restart natbox"), "{error}");
    same("a key that needs a restart")?;

    // A route of another program is where natbox needs one of its own for the second uplink.
    let host_of_box = &testbed.site.uplink(0).natbox;
    let published = testbed.site.uplink(1).published.to_string();
    host_of_box.ip(&["route", "add", "blackhole", &published])?;
    let host = testbed.settled_host()?;
    let error = testbed.refused(&natbox, &two.text())?;
    ensure!(error.contains("the host refuses") && error.contains(&published), "{error}");
    host.assert_same(&testbed.host(), "a setting that the host refuses");
    ensure!(effective()? == before, "a setting that the host refuses");
    ensure!(names(&natbox)? == ["isp1"]);
    host_of_box.ip(&["route", "del", "blackhole", &published])?;

    testbed.reload(&natbox, &two)?;
    testbed.connect(1, TIMEOUT)?;
    traffic.end()
}

#[test]
fn dns_comes_changes_and_goes() -> Result<()> {
    let testbed = Testbed::new()?;
    let site = &testbed.site;
    let natbox = site.start(0, &testbed.config(&[0]))?;
    let traffic = Traffic::start(site, 0)?;
    let server = site.uplink(0).published;
    let dns = |ttl: &str, name: &str| {
        format!(
            "dns: {{ zone: example.org, ttl: {ttl}, names: [{{ name: {name} }}], \
             name_servers: [{{ name: ns1, address: {server} }}] }}"
        )
    };
    let reloaded = testbed.reload(&natbox, &testbed.config(&[0]).extra(&dns("30s", "www")))?;
    ensure!(reloaded.changed == ["dns"], "{reloaded:?}");
    let answers = |name: &str| short(site.client(), server, &[name, "A"]);
    ensure!(answers("www.example.org")? == [server.to_string()]);
    ensure!(natbox.status()?.dns.is_some_and(|dns| dns.listening.len() == 1));

    testbed.reload(&natbox, &testbed.config(&[0, 1]).extra(&dns("7s", "web")))?;
    let second = site.uplink(1).published;
    for at in [server, second] {
        let mut found = short(site.client(), at, &["web.example.org", "A"])?;
        found.sort();
        let mut wanted = [server.to_string(), second.to_string()];
        wanted.sort();
        ensure!(found == wanted, "{at}: {found:?}");
        let text = dig(site.client(), at, &["web.example.org", "A"])?;
        ensure!(text.contains("\t7\tIN\tA\t") || text.contains(" 7 IN A"), "{text}");
    }
    ensure!(answers("www.example.org")?.is_empty());

    testbed.reload(&natbox, &testbed.config(&[0]))?;
    ensure!(answers("web.example.org").is_err() || answers("web.example.org")?.is_empty());
    ensure!(natbox.status()?.dns.is_none());
    traffic.end()
}

#[test]
fn health_checks_come_change_and_go() -> Result<()> {
    let testbed = Testbed::new()?;
    let site = &testbed.site;
    let natbox = site.start(0, &testbed.config(&[0, 1]))?;
    let traffic = Traffic::start(site, 0)?;
    let checked =
        |target: Ipv4Addr| testbed.config(&[0, 1]).uplink(1, &health(&format!("ping: {target}")));
    let wait_until = |healthy: bool| {
        wait_for("the state of isp2", || {
            Ok((natbox.status()?.uplinks[1].healthy == healthy).then_some(()))
        })
    };
    let gateway = site.uplink(1).gateway;
    let reloaded = testbed.reload(&natbox, &checked(gateway))?;
    ensure!(reloaded.changed == ["uplinks[1].health"], "{reloaded:?}");
    wait_for("an answer", || Ok(natbox.status()?.uplinks[1].latency_milliseconds))?;
    ensure!(natbox.status()?.uplinks[1].healthy);
    set_router(site.uplink(1), false)?;
    wait_until(false)?;
    testbed.assert_used(&[0])?;
    // Another target that does not answer either: the uplink is not healthy in between.
    testbed.reload(&natbox, &checked(Ipv4Addr::new(192, 0, 2, 99)))?;
    ensure!(!natbox.status()?.uplinks[1].healthy);
    set_router(site.uplink(1), true)?;
    ensure!(!natbox.status()?.uplinks[1].healthy);
    testbed.reload(&natbox, &checked(gateway))?;
    wait_until(true)?;
    set_router(site.uplink(1), false)?;
    wait_until(false)?;
    testbed.reload(&natbox, &testbed.config(&[0, 1]))?;
    wait_until(true)?;
    traffic.end()
}

#[test]
fn limits_timeouts_and_addresses_change() -> Result<()> {
    let testbed = Testbed::new()?;
    let site = &testbed.site;
    let natbox = site.start(0, &testbed.config(&[0]))?;
    let traffic = Traffic::start(site, 0)?;
    let mut inside = Vec::new();
    let open = || site.server().enter(|| connect(None, OUTSIDE, Duration::from_secs(1)));
    for _ in 0..3 {
        inside.push(open()??);
    }
    let limited = testbed.config(&[0]).extra("limits: { sessions_per_host: 3 }");
    let reloaded = testbed.reload(&natbox, &limited)?;
    ensure!(reloaded.changed == ["limits.sessions_per_host"], "{reloaded:?}");
    ensure!(open()?.is_err(), "a fourth session");
    for connection in &mut inside {
        connection.get("/").context("a session of before")?;
    }
    let drops = natbox.status()?.drops;
    ensure!(drops.contains_key("host-session-limit"), "{drops:?}");
    testbed.reload(&natbox, &testbed.config(&[0]).extra("limits: { sessions_per_host: 4 }"))?;
    inside.push(open()??);
    ensure!(open()?.is_err(), "a fifth session");

    // Sessions that are idle for longer than the new timeout end.
    let short = testbed.config(&[0]).extra("timeouts: { tcp_established: 1s }");
    testbed.reload(&natbox, &short)?;
    // Longer than the timeout.
    thread::sleep(Duration::from_millis(1200));
    ensure!(inside[0].get("/").is_err(), "the session has ended");

    // Another external address of the same uplink.
    let more = testbed.config(&[0]).text().replace(
        &format!("addresses: [{}]", site.uplink(0).published),
        &format!("addresses: [{}, 203.0.113.77]", site.uplink(0).published),
    );
    ensure!(more.contains("203.0.113.77"));
    let server = site.server_address(0);
    let more = more
        .replace("uplink: isp1, ", &format!("address: {}, ", site.uplink(0).published))
        .replace(
            "forwards:\n",
            &format!(
                "forwards:\n  - {{ protocol: tcp, address: 203.0.113.77, port: 81, to: \"{server}:{WEB}\" }}\n"
            ),
        );
    testbed.write(&natbox, &more)?;
    let _: Reloaded = client::request(natbox.socket(), &Request::Reload)?;
    let to = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 77), 81);
    let mut over_more = site.client().enter(|| connect(None, to, SHORT))??;
    over_more.get("/")?;
    let reloaded = testbed.reload(&natbox, &testbed.config(&[0]))?;
    ensure!(reloaded.sessions_ended >= 1, "{reloaded:?}");
    ensure!(over_more.get("/").is_err());
    traffic.end()
}

#[test]
fn a_restart_after_a_reload_takes_the_sessions_over() -> Result<()> {
    let testbed = Testbed::new()?;
    let site = &testbed.site;
    let keeping =
        |uplinks: &[usize]| testbed.config(uplinks).keeping(&site.lab.directory().join("state"));
    let mut natbox = site.start(0, &keeping(&[0]))?;
    testbed.reload(&natbox, &keeping(&[0, 1]))?;
    let mut talks = [testbed.connect(0, TIMEOUT)?, testbed.connect(1, TIMEOUT)?];
    natbox.process().kill()?;
    drop(natbox);
    let mut natbox = site.start(0, &keeping(&[0, 1]))?;
    for talk in &mut talks {
        talk.get("/").context("after the first restart")?;
    }
    // Another length of the TUN's queues.
    testbed
        .write(&natbox, &keeping(&[0, 1]).text().replace("keep: true", "keep: true, hold: 77"))?;
    let reloaded: Reloaded = client::request(natbox.socket(), &Request::Reload)?;
    ensure!(reloaded.changed == ["state.hold"], "{reloaded:?}");
    let link = site.uplink(0).natbox.ip_output(&["link", "show", "dev", "nb1"])?;
    ensure!(link.contains("qlen 77"), "{link}");
    // The numbers are not those of the file now.
    testbed.reload(&natbox, &keeping(&[2, 1]))?;
    let mut talks = [testbed.connect(1, TIMEOUT)?, testbed.connect(2, TIMEOUT)?];
    natbox.process().kill()?;
    drop(natbox);
    let natbox = site.start(0, &keeping(&[2, 1]))?;
    for talk in &mut talks {
        talk.get("/").context("after the second restart")?;
    }
    drop(natbox);
    site.down(&keeping(&[2, 1]))?;
    Ok(())
}

#[test]
fn the_log_and_the_admin_socket_change() -> Result<()> {
    let testbed = Testbed::new()?;
    let site = &testbed.site;
    let mut natbox = site.start(0, &testbed.config(&[0]))?;
    let traffic = Traffic::start(site, 0)?;
    let config = testbed.config(&[0]).extra("log: { level: debug, format: json, mappings: true }");
    let reloaded = testbed.reload(&natbox, &config)?;
    ensure!(reloaded.changed == ["log.format", "log.level", "log.mappings"], "{reloaded:?}");
    testbed.assert_used(&[0])?;
    wait_for("a mapping as JSON", || {
        let log = natbox.process().log();
        let mut lines = log.lines().filter(|line| line.starts_with('{'));
        Ok(lines.any(|line| line.contains("mapping begins")).then_some(()))
    })?;
    testbed.reload(&natbox, &testbed.config(&[0]))?;
    let mappings = |natbox: &mut NatBox| natbox.process().log().matches("mapping begins").count();
    let before = mappings(&mut natbox);
    testbed.assert_used(&[0])?;
    ensure!(mappings(&mut natbox) == before, "the mapping log has ended");

    let other = site.lab.directory().join("other.sock");
    let text = format!("{}admin: {{ socket: {} }}\n", testbed.config(&[0]).text(), other.display());
    fs::write(site.lab.directory().join("natbox1.yaml"), text)?;
    let reloaded: Reloaded = client::request(natbox.socket(), &Request::Reload)?;
    ensure!(reloaded.changed == ["admin.socket"], "{reloaded:?}");
    wait_for("the new socket", || {
        let status = client::request::<Status>(&other, &Request::Status);
        Ok(status.ok())
    })?;
    ensure!(!natbox.socket().exists(), "the old socket is gone");
    traffic.end()
}
