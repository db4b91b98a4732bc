//! Uplinks that answer badly: they lose packets, they are slow, they come and go, or a portal
//! answers for them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use natbox::api::{Event, EventKind, Request, UplinkStatus, client};
use natbox::lab::boxes::NatBox;
use natbox::lab::http::{HttpAnswer, HttpHandler, HttpServer, connect};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan, TopologyUplink};

use crate::failover::{set_carrier, set_router};
use crate::lab::{NATBOX, Site, TIMEOUT, listen, output, wait_for};

/// The shortest interval, so that a test sees many rounds.
const INTERVAL: Duration = Duration::from_millis(100);

fn site() -> Result<Site> {
    Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)
}

/// Returns a health check of the gateway with these further keys.
fn ping(uplink: &TopologyUplink, keys: &str) -> String {
    format!("health: {{ ping: {}, interval: 100ms{keys} }}", uplink.gateway)
}

/// Lets the provider lose this share of the pings from the box.
fn set_loss(uplink: &TopologyUplink, percent: u32) -> Result<()> {
    lose(uplink, &format!("numgen random mod 100 < {percent}"))
}

/// Lets the provider lose the pings from the box that meet a condition of nftables.
fn lose(uplink: &TopologyUplink, condition: &str) -> Result<()> {
    let mut command = uplink.provider.command("nft");
    command.arg(format!(
        "add table ip lossy; flush table ip lossy; \
         add chain ip lossy in {{ type filter hook prerouting priority 0; }}; \
         add rule ip lossy in iifname box0 meta l4proto icmp {condition} drop"
    ));
    output(command).map(drop)
}

fn uplink(natbox: &NatBox, number: usize) -> Result<UplinkStatus> {
    Ok(natbox.status()?.uplinks.swap_remove(number))
}

fn wait_until(natbox: &NatBox, number: usize, healthy: bool) -> Result<UplinkStatus> {
    wait_for(&format!("uplink {number}, healthy: {healthy}"), || {
        let uplink = uplink(natbox, number)?;
        Ok((uplink.healthy == healthy).then_some(uplink))
    })
}

/// Returns the events of all uplinks so far.
fn changes(natbox: &NatBox) -> Result<Vec<EventKind>> {
    let mut kinds = Vec::new();
    let request = Request::Events { follow: false };
    let _ = client::follow(natbox.socket(), &request, |event: Event| {
        if matches!(event.kind, EventKind::UplinkFailed { .. } | EventKind::UplinkHealthy { .. }) {
            kinds.push(event.kind);
        }
        std::ops::ControlFlow::<()>::Continue(())
    })?;
    Ok(kinds)
}

/// With a loss of one half, an uplink whose only limit is `fall` fails and returns all the time.
#[test]
fn uplink_that_loses_half_of_its_packets_fails_and_stays_out() -> Result<()> {
    let site = site()?;
    // One more than the default: a busy machine delays rounds of this interval.
    let config = site.three_legged_config().uplink(1, &ping(site.uplink(1), ", fall: 4"));
    let natbox = site.start(0, &config)?;
    thread::sleep(10 * INTERVAL);
    set_loss(site.uplink(1), 50)?;
    let failed = wait_until(&natbox, 1, false)?;
    ensure!(failed.reason.is_some(), "{failed:?}");
    thread::sleep(100 * INTERVAL);
    let status = natbox.status()?;
    ensure!(status.uplinks[0].healthy && !status.uplinks[1].healthy, "{status:?}");
    let loss = status.uplinks[1].loss_percent.unwrap_or_default();
    ensure!((20.0..=80.0).contains(&loss), "{loss} %");
    let seen = changes(&natbox)?;
    ensure!(seen.len() <= 3, "it flaps: {seen:?}");
    set_loss(site.uplink(1), 0)?;
    wait_until(&natbox, 1, true).map(drop)
}

/// Every key has its default, and every round is good: at least one of three targets answers.
#[test]
fn with_the_defaults_an_uplink_that_loses_half_of_its_packets_fails_and_stays_out() -> Result<()> {
    let site = site()?;
    let targets = format!("{}, {}, {}", site.uplink(1).gateway, CLIENTS[1], CLIENTS[2]);
    let config = site.three_legged_config().uplink(1, &format!("health: {{ ping: [{targets}] }}"));
    let natbox = site.start(0, &config)?;
    wait_for("an answer", || Ok(uplink(&natbox, 1)?.latency_milliseconds))?;
    // Each second packet, so each second probe of each of the three targets.
    lose(site.uplink(1), "numgen inc mod 2 < 1")?;
    let began = Instant::now();
    let failed = loop {
        let uplink = uplink(&natbox, 1)?;
        if !uplink.healthy {
            break uplink;
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "still healthy: {uplink:?}");
        thread::sleep(INTERVAL);
    };
    let reason = failed.reason.unwrap_or_default();
    ensure!(reason.starts_with("loss: ") && reason.ends_with(" probes"), "{reason}");
    thread::sleep(Duration::from_secs(10));
    ensure!(!uplink(&natbox, 1)?.healthy);
    ensure!(changes(&natbox)?.len() == 1, "{:?}", changes(&natbox)?);
    Ok(())
}

/// The other uplink is dead, so the lossy one carries all new sessions.
#[test]
fn lossy_uplink_is_used_while_the_other_one_has_no_carrier() -> Result<()> {
    let site = site()?;
    let outside = SocketAddrV4::new(CLIENTS[0], 8080);
    let _outside =
        HttpServer::start(vec![listen(site.client(), *outside.ip(), outside.port())?], None)?;
    let [_, one, two, three, ..] = CLIENTS;
    let targets = format!("{}, {one}, {two}, {three}", site.uplink(1).gateway);
    let health = format!("health: {{ ping: [{targets}], interval: 100ms }}");
    let natbox = site.start(0, &site.three_legged_config().uplink(1, &health))?;
    let external = || -> Result<Ipv4Addr> {
        let mut connection = site.server().enter(|| connect(None, outside, TIMEOUT))??;
        Ok(connection.get("/")?.text().trim().parse()?)
    };
    // In each round, one or two of the four targets answer.
    lose(site.uplink(1), "numgen inc mod 3 < 2")?;
    wait_until(&natbox, 1, false)?;
    ensure!(external()? == site.uplink(0).published && !uplink(&natbox, 1)?.in_use);
    set_carrier(site.uplink(0), false)?;
    wait_until(&natbox, 0, false)?;
    for _ in 0..20 {
        let external = external()?;
        ensure!(external == site.uplink(1).published, "{external}");
    }
    let last = uplink(&natbox, 1)?;
    ensure!(last.in_use && last.last_resort && !last.healthy, "{last:?}");
    set_carrier(site.uplink(0), true)?;
    wait_until(&natbox, 0, true)?;
    ensure!(external()? == site.uplink(0).published && !uplink(&natbox, 1)?.in_use);
    Ok(())
}

#[test]
fn slow_uplink_fails_by_its_limit_and_returns_by_the_lower_one() -> Result<()> {
    let site = site()?;
    let page = SocketAddrV4::new(CLIENTS[4], 8081);
    let delay = Arc::new(AtomicU16::new(0));
    let slow = Arc::clone(&delay);
    // Relaxed: the test waits for the effect.
    let set_delay = |milliseconds: u16| delay.store(milliseconds, Ordering::Relaxed);
    let handler: HttpHandler = Arc::new(move |_| {
        // Relaxed: as above.
        thread::sleep(Duration::from_millis(slow.load(Ordering::Relaxed).into()));
        Some(HttpAnswer::text(200, ""))
    });
    let listener = listen(site.client(), *page.ip(), page.port())?;
    let _server = HttpServer::start(vec![listener], Some(handler))?;
    let health = format!(
        "health: {{ http: \"http://{page}/\", interval: 100ms, fall: 60, window: 8, latency: {{ fail: 1500ms, return: 600ms }} }}"
    );
    let natbox = site.start(0, &site.three_legged_config().uplink(1, &health))?;
    set_delay(800);
    thread::sleep(15 * INTERVAL);
    ensure!(uplink(&natbox, 1)?.healthy, "below the limit");
    set_delay(2000);
    let failed = wait_until(&natbox, 1, false)?;
    let reason = failed.reason.unwrap_or_default();
    ensure!(reason.starts_with("latency: "), "{reason}");
    ensure!(failed.latency_milliseconds.is_some_and(|latency| latency >= 1500.0));
    let mut command = site.uplink(0).natbox.command(NATBOX);
    command.args(["status", "--socket"]).arg(natbox.socket());
    let text = output(command)?;
    ensure!(text.contains("failed for") && text.contains("; latency: "), "{text}");
    set_delay(800);
    thread::sleep(20 * INTERVAL);
    ensure!(!uplink(&natbox, 1)?.healthy, "between the limits nothing changes");
    set_delay(0);
    let healthy = wait_until(&natbox, 1, true)?;
    ensure!(healthy.reason.is_none() && healthy.hold_seconds.is_none(), "{healthy:?}");
    Ok(())
}

#[test]
fn first_return_is_quick_and_the_second_one_is_held() -> Result<()> {
    let site = site()?;
    let config =
        site.three_legged_config().uplink(1, &ping(site.uplink(1), ", hold: { step: 3s }"));
    let natbox = site.start(0, &config)?;
    let second = site.uplink(1);
    let mut returns = Vec::new();
    for _ in 0..2 {
        wait_for("an answer", || Ok(uplink(&natbox, 1)?.latency_milliseconds))?;
        set_router(second, false)?;
        wait_until(&natbox, 1, false)?;
        set_router(second, true)?;
        let since = Instant::now();
        let mut held = None;
        wait_for("the return", || {
            let uplink = uplink(&natbox, 1)?;
            held = held.max(uplink.hold_seconds);
            Ok(uplink.healthy.then_some(()))
        })?;
        returns.push((since.elapsed(), held));
    }
    let [(first, none), (second, held)] = returns[..] else { unreachable!("two rounds") };
    ensure!(first < Duration::from_millis(2500) && none.is_none(), "{first:?}, {none:?}");
    ensure!(second >= Duration::from_millis(2800) && held == Some(3), "{second:?}, {held:?}");
    Ok(())
}

/// What the portal's server answers.
#[derive(Clone, Copy, Debug)]
enum Portal {
    Absent = 200,
    ForeignRedirect = 302,
    LoginPage = 1,
    ForeignRefresh = 2,
    AuthenticationRequired = 511,
    SameHost = 301,
}

/// A server that answers like the Internet, or like a provider that wants its customer to log in.
fn portal(site: &Site, page: SocketAddrV4, mode: &Arc<AtomicU16>) -> Result<HttpServer> {
    let mode = Arc::clone(mode);
    let handler: HttpHandler = Arc::new(move |_| {
        // Relaxed: the test waits for the effect.
        let mode = mode.load(Ordering::Relaxed);
        let mut answer = match mode {
            1 => HttpAnswer::text(200, "please log in"),
            2 => HttpAnswer::text(200, "here all is well, after the login"),
            mode => HttpAnswer::text(mode, if mode == 200 { "here all is well" } else { "" }),
        };
        let target = match mode {
            302 => Some("http://portal.example.net/login".to_owned()),
            301 => Some(format!("https://{}/alive", page.ip())),
            _ => None,
        };
        answer.headers.extend(target.map(|target| ("Location".to_owned(), target)));
        if mode == 2 {
            let target = "0;url=http://portal.example.net/login".to_owned();
            answer.headers.push(("Refresh".to_owned(), target));
        }
        Some(answer)
    });
    Ok(HttpServer::start(vec![listen(site.client(), *page.ip(), page.port())?], Some(handler))?)
}

/// The first uplink has the default expectation, the second one wants a text.
#[test]
fn answers_of_a_captive_portal_do_not_count() -> Result<()> {
    let site = site()?;
    let page = SocketAddrV4::new(CLIENTS[4], 8081);
    // Relaxed: as above.
    let mode = Arc::new(AtomicU16::new(Portal::Absent as u16));
    let _server = portal(&site, page, &mode)?;
    let health = |keys: &str| {
        format!(
            "health: {{ http: \"http://{page}/alive\", interval: 200ms, fall: 3, rise: 2, hold: {{ max: 0 }}{keys} }}"
        )
    };
    let config = site
        .three_legged_config()
        .uplink(0, &health(""))
        .uplink(1, &health(", expect: { body: all is well }"));
    let natbox = site.start(0, &config)?;
    for (portal, healthy, reason) in [
        (Portal::ForeignRedirect, [false, false], "a redirect to another host, portal.example.net"),
        (Portal::Absent, [true, true], ""),
        (Portal::LoginPage, [true, false], "does not contain the text"),
        (Portal::ForeignRefresh, [false, false], "a redirect to another host, portal.example.net"),
        (Portal::AuthenticationRequired, [false, false], "status 511"),
        (Portal::SameHost, [true, false], "status 301"),
    ] {
        mode.store(portal as u16, Ordering::Relaxed);
        let seen = wait_for(&format!("{portal:?}"), || {
            let uplinks = natbox.status()?.uplinks;
            let is_seen = uplinks.iter().zip(healthy).all(|(uplink, healthy)| {
                let reason_fits = uplink.reason.as_ref().is_none_or(|text| text.contains(reason));
                uplink.healthy == healthy && reason_fits
            });
            Ok(is_seen.then_some(uplinks))
        })?;
        // It stays so.
        thread::sleep(Duration::from_millis(800));
        let uplinks = natbox.status()?.uplinks;
        let stays = uplinks.iter().zip(&seen).all(|(now, then)| now.healthy == then.healthy);
        ensure!(stays, "{portal:?}: {uplinks:?}");
    }
    Ok(())
}
