//! One box with two uplinks: an uplink fails, drains, recovers or changes its address, and only its
//! sessions notice.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use natbox::lab::boxes::NatBox;
use natbox::lab::http::{Connection, HttpServer, connect, connect_from};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan, TopologyUplink};

use crate::lab::{BoxConfig, Echo, Nginx, Site, TIMEOUT, datagrams, listen, wait_for};

/// A web server on the Internet that answers with the client's address.
const OUTSIDE: SocketAddrV4 = SocketAddrV4::new(CLIENTS[0], 8080);
/// A target of health checks that the test can silence.
const TARGET: SocketAddrV4 = SocketAddrV4::new(CLIENTS[3], 8081);
/// Port of a published UDP echo.
const ECHO: u16 = 7;
/// Published port of a web server.
const WEB: u16 = 80;

/// Interval of health checks, and the number of lost checks that fails an uplink (`fall`).
pub(crate) const INTERVAL: Duration = Duration::from_millis(300);
pub(crate) const FALL: u32 = 3;

/// Allowance for a busy machine in measured times.
pub(crate) const SLACK: Duration = Duration::from_millis(600);

fn site() -> Result<(Site, HttpServer)> {
    let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
    let outside =
        HttpServer::start(vec![listen(site.client(), *OUTSIDE.ip(), OUTSIDE.port())?], None)?;
    Ok((site, outside))
}

/// Returns the health keys of an uplink with these targets.
pub(crate) fn health(targets: &str) -> String {
    format!("health: {{ {targets}, interval: {}ms, fall: {FALL}, rise: 2 }}", INTERVAL.as_millis())
}

/// An inside connection to the Internet, and its external address.
struct Talk {
    connection: Connection,
    external: Ipv4Addr,
}

impl Talk {
    fn new(site: &Site) -> Result<Talk> {
        let mut connection = site.server().enter(|| connect(None, OUTSIDE, TIMEOUT))??;
        let external = seen(&mut connection)?;
        Ok(Talk { connection, external })
    }

    /// Opens connections until each uplink has one, and at least eight.
    fn several(site: &Site) -> Result<Vec<Talk>> {
        let mut talks = Vec::new();
        wait_for("connections over both uplinks", || {
            talks.push(Talk::new(site)?);
            let over = |uplink: &TopologyUplink| talks.iter().any(|talk| talk.over(uplink));
            Ok((talks.len() >= 8 && site.topology.uplinks.iter().all(over)).then_some(()))
        })?;
        Ok(talks)
    }

    fn over(&self, uplink: &TopologyUplink) -> bool {
        self.external == uplink.published
    }

    fn goes_on(&mut self) -> Result<()> {
        let external = seen(&mut self.connection)?;
        ensure!(external == self.external, "{} has become {external}", self.external);
        Ok(())
    }
}

fn seen(connection: &mut Connection) -> Result<Ipv4Addr> {
    Ok(connection.get("/")?.text().trim().parse()?)
}

fn wait_until_healthy(natbox: &NatBox, uplink: usize, healthy: bool) -> Result<()> {
    wait_for("the uplink's state", || {
        Ok((natbox.status()?.uplinks[uplink].healthy == healthy).then_some(()))
    })
}

/// Removes or restores the gateway's address, as if the router had died or been repaired.
pub(crate) fn set_router(uplink: &TopologyUplink, alive: bool) -> Result<()> {
    let gateway = format!("{}/24", uplink.gateway);
    uplink.provider.ip(&["address", if alive { "add" } else { "del" }, &gateway, "dev", "box0"])?;
    Ok(())
}

pub(crate) fn set_carrier(uplink: &TopologyUplink, up: bool) -> Result<()> {
    Ok(uplink.provider.ip(&["link", "set", "dev", "box0", if up { "up" } else { "down" }])?)
}

/// Asserts that all new connections use this uplink.
fn assert_new_ones_go_over(site: &Site, uplink: usize) -> Result<()> {
    for _ in 0..12 {
        let talk = Talk::new(site)?;
        ensure!(talk.over(site.uplink(uplink)), "a new connection over {}", talk.external);
    }
    Ok(())
}

/// Covers every kind of probe. The surviving uplink has other targets than the failing one.
#[test]
fn failed_uplink_is_detected_in_time_and_only_its_sessions_are_reset() -> Result<()> {
    let ping = |site: &Site| format!("ping: {}", site.uplink(1).gateway);
    let probes: [&dyn Fn(&Site) -> String; 3] =
        [&ping, &|_| format!("tcp: \"{OUTSIDE}\""), &|_| {
            format!("http: \"http://{TARGET}/alive\"")
        }];
    for probe in probes {
        let (site, _outside) = site()?;
        assert_detected(&site, &probe(&site)).with_context(|| probe(&site))?;
    }
    Ok(())
}

fn assert_detected(site: &Site, probe: &str) -> Result<()> {
    std::fs::write(site.lab.directory().join("alive"), "")?;
    let _nginx = Nginx::start(&site.lab, site.client(), "nginx", site.lab.directory(), &[TARGET])?;
    let (stays, dies) = (site.uplink(0), site.uplink(1));
    let config = site
        .three_legged_config()
        .uplink(0, &health(&format!("ping: [{}], tcp: [\"{OUTSIDE}\"], quorum: 2", stays.gateway)))
        .uplink(1, &format!("{}, on_failure: reset", health(probe)));
    let natbox = site.start(0, &config)?;
    let (mut kept, lost): (Vec<Talk>, Vec<Talk>) =
        Talk::several(site)?.into_iter().partition(|talk| talk.over(stays));
    // For a while only health checks run, and they succeed.
    thread::sleep(INTERVAL * (FALL + 1));
    let status = natbox.status()?;
    ensure!(status.uplinks.iter().all(|uplink| uplink.healthy), "{status:?}");
    for (error, after) in fail(dies, lost, &mut kept)? {
        ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "{error}");
        let limit = INTERVAL * FALL + Duration::from_millis(100) + SLACK;
        ensure!(after < limit, "reset after {after:?}");
    }
    assert_new_ones_go_over(site, 0)?;
    set_router(dies, true)?;
    wait_until_healthy(&natbox, 1, true)?;
    for talk in &mut kept {
        talk.goes_on().context("the surviving uplink")?;
    }
    Talk::several(site).context("both uplinks again")?;
    let status = natbox.status()?;
    ensure!(status.uplinks[0].state_seconds >= status.uplinks[1].state_seconds, "{status:?}");
    ensure!(
        status.uplinks[0].healthy && status.uplinks[1].loss_percent.is_some_and(|loss| loss > 0.0)
    );
    ensure!(status.totals["failover_notifications"] >= 1, "{status:?}");
    Ok(())
}

/// Lets an uplink fail. Asserts that connections over the other uplink continue. Returns the errors
/// of the connections over the failed uplink, and the time until each.
fn fail(
    dies: &TopologyUplink,
    lost: Vec<Talk>,
    kept: &mut [Talk],
) -> Result<Vec<(std::io::Error, Duration)>> {
    thread::scope(|scope| {
        let talkers: Vec<_> = lost
            .into_iter()
            .map(|mut talk| {
                scope.spawn(move || {
                    let error = loop {
                        if let Err(error) = talk.connection.get("/") {
                            break error;
                        }
                        thread::sleep(Duration::from_millis(10));
                    };
                    (error, Instant::now())
                })
            })
            .collect();
        set_router(dies, false)?;
        let died = Instant::now();
        for talk in kept {
            talk.goes_on().context("the surviving uplink")?;
        }
        let ends = talkers.into_iter().map(|talker| talker.join().expect("no panic"));
        Ok(ends.map(|(error, when)| (error, when - died)).collect())
    })
}

/// Without health checks the result is the same. The other uplink loses no datagram, and with
/// `keep` the sessions of the flapping uplink continue.
#[test]
fn uplink_that_flaps_a_hundred_times_disturbs_no_other_uplink() -> Result<()> {
    let (site, _outside) = site()?;
    let config = site.three_legged_config().forward("udp", ECHO, site.server_address(0), ECHO);
    let natbox = site.start(0, &config)?;
    let _echo = Echo::start(site.server(), site.server_address(0), ECHO)?;
    let (mut on_other, mut on_this): (Vec<Talk>, Vec<Talk>) =
        Talk::several(&site)?.into_iter().partition(|talk| talk.over(site.uplink(0)));
    let socket = datagrams(site.client(), CLIENTS[1], 0)?;
    socket.connect(site.uplink(0).endpoint(ECHO))?;
    let stop = AtomicBool::new(false);
    let (sent, received) = thread::scope(|scope| {
        let stream = scope.spawn(|| {
            let (mut sent, mut received) = (0_u32, 0_u32);
            let mut buffer = [0; 8];
            while !stop.load(Ordering::Relaxed) {
                sent += u32::from(socket.send(&sent.to_be_bytes()).is_ok());
                received += u32::from(socket.recv(&mut buffer).is_ok());
            }
            (sent, received)
        });
        let flaps = (|| {
            for _ in 0..100 {
                set_carrier(site.uplink(1), false)?;
                thread::sleep(Duration::from_millis(10));
                set_carrier(site.uplink(1), true)?;
                thread::sleep(Duration::from_millis(10));
            }
            anyhow::Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        flaps.map(|()| stream.join().expect("no panic"))
    })?;
    ensure!(sent == received && sent > 1000, "{sent} sent, {received} came back");
    wait_until_healthy(&natbox, 1, true)?;
    // Fails if the provider's kernel lost its route back to the clients meanwhile.
    for talk in on_other.iter_mut().chain(&mut on_this) {
        talk.goes_on()?;
    }

    set_carrier(site.uplink(1), false)?;
    let down = Instant::now();
    wait_until_healthy(&natbox, 1, false)?;
    ensure!(down.elapsed() < SLACK, "detected after {:?}", down.elapsed());
    ensure!(!natbox.status()?.uplinks[1].link_ready);
    assert_new_ones_go_over(&site, 0)
}

/// The uplink works and only its target is silent: the existing sessions continue.
#[test]
fn drained_uplink_gets_no_new_sessions_and_keeps_its_own() -> Result<()> {
    let (site, _outside) = site()?;
    let target = listen(site.client(), *TARGET.ip(), TARGET.port())?;
    let config = site
        .three_legged_config()
        .uplink(0, &health(&format!("ping: {}", site.uplink(0).gateway)))
        .uplink(1, &format!("{}, on_failure: drain", health(&format!("tcp: \"{TARGET}\""))));
    let natbox = site.start(0, &config)?;
    let mut talks = Talk::several(&site)?;
    drop(target);
    wait_until_healthy(&natbox, 1, false)?;
    assert_new_ones_go_over(&site, 0)?;
    for talk in &mut talks {
        talk.goes_on()?;
    }
    let _target = listen(site.client(), *TARGET.ip(), TARGET.port())?;
    wait_until_healthy(&natbox, 1, true)?;
    Talk::several(&site).map(drop)
}

#[test]
fn sessions_continue_without_a_healthy_uplink_and_failback_moves_sessions_to_their_uplink()
-> Result<()> {
    let (site, _outside) = site()?;
    let open = || listen(site.client(), *TARGET.ip(), TARGET.port());
    let target: TcpListener = open()?;
    let keys = format!("{}, on_failure: reset", health(&format!("tcp: \"{TARGET}\"")));
    let config: BoxConfig = site
        .three_legged_config()
        .uplink(0, &keys.replace("rise: 2", "rise: 4"))
        .uplink(1, &format!("{keys}, failback: reset"));
    let natbox = site.start(0, &config)?;
    let mut talks = Talk::several(&site)?;
    drop(target);
    wait_until_healthy(&natbox, 0, false)?;
    wait_until_healthy(&natbox, 1, false)?;
    for talk in &mut talks {
        talk.goes_on().context("no other uplink is healthy")?;
    }
    talks.extend(Talk::several(&site).context("the box continues with its uplinks")?);
    // `failback` may move sessions that began meanwhile. The second uplink's earlier sessions and
    // all of the first uplink's continue, although the first uplink recovers last.
    let _target = open()?;
    wait_until_healthy(&natbox, 1, true)?;
    ensure!(!natbox.status()?.uplinks[0].healthy, "the test must see the moment between");
    wait_until_healthy(&natbox, 0, true)?;
    thread::sleep(INTERVAL);
    for talk in talks.iter_mut().filter(|talk| talk.over(site.uplink(1))) {
        talk.goes_on().context("over the uplink that recovered first")?;
    }
    let kept = talks
        .iter_mut()
        .filter(|talk| talk.over(site.uplink(0)))
        .filter_map(|talk| talk.goes_on().ok());
    ensure!(kept.count() > 0, "sessions of the uplink that recovered last");

    // One uplink goes down and up: sessions that began meanwhile on uplink 1 and belong on uplink 2
    // move there.
    set_carrier(site.uplink(1), false)?;
    wait_until_healthy(&natbox, 1, false)?;
    let mut moved: Vec<Talk> = (0..16).map(|_| Talk::new(&site)).collect::<Result<_>>()?;
    ensure!(moved.iter().all(|talk| talk.over(site.uplink(0))));
    set_carrier(site.uplink(1), true)?;
    wait_until_healthy(&natbox, 1, true)?;
    wait_for("some sessions to move", || {
        let stay = moved.iter_mut().filter_map(|talk| talk.goes_on().ok()).count();
        Ok((0 < stay && stay < 16).then_some(()))
    })
}

/// Both uplinks fail together. The first one is healthy again at once, the second one is held.
#[test]
fn held_uplink_keeps_its_sessions_while_it_answers() -> Result<()> {
    let (site, _outside) = site()?;
    let open = || listen(site.client(), *TARGET.ip(), TARGET.port());
    let target = open()?;
    let keys =
        |hold: &str| format!("{}, on_failure: reset", health(&format!("tcp: \"{TARGET}\"{hold}")));
    let config = site
        .three_legged_config()
        .uplink(0, &keys(""))
        .uplink(1, &keys(", hold: { first: 5m, max: 5m }"));
    let natbox = site.start(0, &config)?;
    let mut talks = Talk::several(&site)?;
    drop(target);
    wait_until_healthy(&natbox, 0, false)?;
    wait_until_healthy(&natbox, 1, false)?;
    let _target = open()?;
    wait_until_healthy(&natbox, 0, true)?;
    assert_new_ones_go_over(&site, 0)?;
    thread::sleep(INTERVAL * 10);
    let uplink = natbox.status()?.uplinks.swap_remove(1);
    ensure!(!uplink.healthy && uplink.hold_seconds.is_some() && !uplink.in_use, "{uplink:?}");
    for talk in &mut talks {
        talk.goes_on().context("the held uplink answers")?;
    }
    // It dies before the end of its hold.
    let mut lost: Vec<Talk> = talks.into_iter().filter(|talk| talk.over(site.uplink(1))).collect();
    set_router(site.uplink(1), false)?;
    let died = Instant::now();
    let error = wait_for("the sessions to end", || Ok(lost[0].connection.get("/").err()))?;
    ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "{error}");
    let limit = INTERVAL * FALL + Duration::from_millis(100) + SLACK;
    ensure!(died.elapsed() < limit, "after {:?}", died.elapsed());
    Ok(())
}

#[test]
fn changed_interface_address_is_published_and_only_its_sessions_end() -> Result<()> {
    let (site, _outside) = site()?;
    let uplink = site.uplink(1);
    let _web = HttpServer::start(vec![listen(site.server(), site.server_address(0), WEB)?], None)?;
    let config =
        site.three_legged_config().followed(1).forward("tcp", WEB, site.server_address(0), WEB);
    let natbox = site.start(0, &config)?;
    let fetch = |address: Ipv4Addr| -> Result<()> {
        let to = SocketAddrV4::new(address, WEB);
        let answer = site.client().enter(|| connect(Some(CLIENTS[1]), to, TIMEOUT)?.get("/"))??;
        ensure!(answer.text().trim() == CLIENTS[1].to_string(), "{}", answer.text());
        Ok(())
    };
    fetch(uplink.outside)?;
    let mut talks = Vec::new();
    wait_for("a connection over each uplink", || {
        talks.push(Talk::new(&site)?);
        Ok((talks.iter().any(|talk| talk.external == uplink.outside)
            && talks.iter().any(|talk| talk.over(site.uplink(0))))
        .then_some(()))
    })?;
    let [a, b, c, last] = uplink.outside.octets();
    let next = Ipv4Addr::new(a, b, c, last + 6);
    let address = |verb: &str, address: Ipv4Addr| {
        uplink.natbox.ip(&["address", verb, &format!("{address}/24"), "dev", &uplink.interface])
    };
    address("del", uplink.outside)?;
    wait_until_healthy(&natbox, 1, false)?;
    assert_new_ones_go_over(&site, 0)?;
    address("add", next)?;
    wait_until_healthy(&natbox, 1, true)?;
    fetch(next)?;
    fetch(site.uplink(0).published)?;
    for mut talk in talks {
        match talk.over(site.uplink(0)) {
            true => talk.goes_on()?,
            false => ensure!(talk.goes_on().is_err(), "the address is gone"),
        }
    }
    wait_for("a connection over the new address", || {
        Ok((Talk::new(&site)?.external == next).then_some(()))
    })?;
    Ok(())
}

#[test]
fn outbound_rules_choose_uplinks_by_destination_and_hash_by_host() -> Result<()> {
    let (site, _outside) = site()?;
    let elsewhere = SocketAddrV4::new(CLIENTS[4], 8080);
    let _elsewhere =
        HttpServer::start(vec![listen(site.client(), *elsewhere.ip(), elsewhere.port())?], None)?;
    let prefix = &site.uplink(0).prefix;
    let config = site
        .three_legged_config()
        .outbound(&format!("from: {prefix}, hash_by: source-address"))
        .outbound(&format!("from: {prefix}, to: [{}/32], uplinks: [isp2]", CLIENTS[4]));
    let _natbox = site.start(0, &config)?;
    let first = Talk::new(&site)?.external;
    for _ in 0..20 {
        ensure!(Talk::new(&site)?.external == first, "the host's connections are on one uplink");
        let mut connection = site.server().enter(|| connect(None, elsewhere, TIMEOUT))??;
        ensure!(seen(&mut connection)? == site.uplink(1).published);
    }
    Ok(())
}

#[test]
fn host_spreads_its_destinations_and_keeps_each_on_one_uplink() -> Result<()> {
    let (site, _outside) = site()?;
    let destinations: Vec<SocketAddrV4> =
        (100..124).map(|host| SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), 8082)).collect();
    for destination in &destinations {
        site.client().address("lo", *destination.ip(), 32)?;
    }
    let _servers =
        HttpServer::start(vec![listen(site.client(), Ipv4Addr::UNSPECIFIED, 8082)?], None)?;
    let rule = format!("from: {}, hash_by: source-and-destination", site.uplink(0).prefix);
    let _natbox = site.start(0, &site.three_legged_config().outbound(&rule))?;
    // A source port that has a mapping on one uplink keeps to it, whatever the destination.
    let mut ports = 20_000..;
    let mut used = std::collections::BTreeSet::new();
    for destination in destinations {
        let mut talk = || {
            let from = SocketAddrV4::new(site.server_address(0), ports.next().unwrap());
            let talk = || connect_from(Some(from), destination, TIMEOUT);
            seen(&mut site.server().enter(talk)??)
        };
        let first = talk()?;
        for _ in 0..4 {
            let other = talk()?;
            ensure!(other == first, "{destination} by {first} and by {other}");
        }
        used.insert(first);
    }
    let all = site.topology.uplinks.iter().map(|uplink| uplink.published);
    ensure!(used == all.collect(), "{used:?}");
    Ok(())
}
