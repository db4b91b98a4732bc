//! Two boxes with one uplink each, and a name server on each. One uplink fails silently.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use natbox::lab::Namespace;
use natbox::lab::boxes::NatBox;
use natbox::lab::http;
use natbox::lab::topology::{CLIENTS, Private};

use super::programs::{ServedZone, Server, StubResolver, authority, dig, resolver, short};
use super::{Address, ZONE, start};
use crate::lab::{Nginx, Site, output, require, wait_for};

/// TTL of the addresses in seconds.
const TTL: u64 = 2;

/// Time that a client and its resolver may take to ask again without an answer: the client's
/// attempts to connect, of [`CONNECT`] each, and the resolver's attempts at the dead name server.
const RETRY: Duration = Duration::from_secs(6);

/// Addresses of the root server and of the recursive resolver.
pub(super) const ROOT: Ipv4Addr = CLIENTS[3];
pub(super) const RECURSIVE: Ipv4Addr = CLIENTS[4];

/// Seconds that the client waits for a connection before it tries again.
const CONNECT: &str = "1";

#[test]
fn clients_of_a_failed_uplink_reach_the_other_and_its_clients_lose_nothing() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    fs::write(site.lab.directory().join("page"), "the page")?;
    let listen = [0, 1].map(|uplink| SocketAddrV4::new(site.server_address(uplink), 80));
    let _nginx = Nginx::start(&site.lab, site.server(), "nginx", site.lab.directory(), &listen)?;
    // Several names, so that the resolver asks often.
    let names: Vec<String> = (1..=12).map(|number| format!("w{number}.example.org")).collect();
    let listed: Vec<String> = (1..=12).map(|number| format!("{{ name: w{number} }}")).collect();
    let dns = format!("{ZONE}, ttl: {TTL}s, negative_ttl: {TTL}s, names: [{}]", listed.join(", "));
    let boxes = [start(&site, 0, Address::Owned, &dns)?, start(&site, 1, Address::Nobodys, &dns)?];

    let _root = delegate(&site)?;
    let unbound = resolver(&site.lab, site.client(), RECURSIVE, ROOT)?;
    assert_both_answer(&site, &names, &boxes).with_context(|| unbound.log())?;

    let _stub = StubResolver::new(site.client(), RECURSIVE)?;
    ensure!(visit(site.client(), &names[0])? == "the page");
    let host = just_cached(&site, &names).with_context(|| unbound.log())?;
    let (took, Visits { done, failed }) =
        fail_first_uplink(&site, host).with_context(|| unbound.log())?;
    ensure!(
        took <= Duration::from_secs(TTL) + RETRY,
        "the client was without the site for {took:?}"
    );
    ensure!(
        failed.is_empty() && done > 50,
        "{done} requests on the surviving uplink, failed: {failed:?}"
    );
    println!(
        "the client recovered after {took:?}; {done} requests on the surviving uplink, none failed"
    );

    // The uplink recovers together with its name server. The resolver decides when it asks that
    // server again.
    site.uplink(0).provider.sysctl("net/ipv4/ip_forward", "1")?;
    let again = short(site.client(), site.uplink(0).published, &[host, "A"])?;
    ensure!(again == [site.uplink(0).published.to_string()], "{again:?}");
    Ok(())
}

/// Starts a root server that delegates the zone to both name servers, as a registrar does.
pub(super) fn delegate(site: &Site) -> Result<Server> {
    let delegation = ". 3600 IN NS root.\nroot. 3600 IN A 192.0.2.14\n\
         example.org. 3600 IN NS ns1.example.org.\nexample.org. 3600 IN NS ns2.example.org.\n\
         ns1.example.org. 3600 IN A 203.0.113.10\nns2.example.org. 3600 IN A 198.51.100.10\n";
    let parent = ServedZone { name: ".", records: delegation, options: "" };
    authority(&site.lab, site.client(), "root", ROOT, "", &[parent])
}

pub(super) fn resolve(site: &Site, name: &str) -> Result<Vec<String>> {
    short(site.client(), RECURSIVE, &["+recurse", name, "A"])
}

/// Asserts that the resolver asks both name servers, and that each answers with the address of its
/// own uplink.
fn assert_both_answer(site: &Site, names: &[String], boxes: &[NatBox]) -> Result<()> {
    let mut seen = BTreeSet::new();
    wait_for("the resolver to ask both name servers", || {
        for name in names {
            seen.extend(resolve(site, name)?);
        }
        Ok((seen.len() >= 2).then_some(()))
    })?;
    let addresses = [0, 1].map(|uplink| site.uplink(uplink).published.to_string());
    ensure!(seen == BTreeSet::from(addresses), "{seen:?}");
    for natbox in boxes {
        let dns = natbox.status()?.dns.context("no DNS in the status")?;
        ensure!(dns.counters["queries"] > 0, "{dns:?}");
    }
    Ok(())
}

/// Returns a name whose address on the first uplink the resolver has cached at this moment. A
/// failure of the uplink then is the worst case.
fn just_cached<'n>(site: &Site, names: &'n [String]) -> Result<&'n str> {
    let fresh = format!("\t{TTL}\tIN\tA\t{}\n", site.uplink(0).published);
    wait_for("a name that the first uplink has just answered", || {
        for name in names {
            let question = ["+recurse", "+noall", "+answer", name, "A"];
            if dig(site.client(), RECURSIVE, &question)?.ends_with(&fresh) {
                return Ok(Some(name.as_str()));
            }
        }
        Ok(None)
    })
}

/// Lets the first uplink fail silently. Returns the time until a client reaches the site again, and
/// the visits over the other uplink meanwhile.
fn fail_first_uplink(site: &Site, host: &str) -> Result<(Duration, Visits)> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let surviving = scope.spawn(|| visit_by_address(site, 1, &stop));
        site.uplink(0).provider.sysctl("net/ipv4/ip_forward", "0")?;
        let died = Instant::now();
        let mut failures = Vec::new();
        let back = wait_for("the client to reach the site again", || {
            let visit = visit(site.client(), host);
            failures
                .extend(visit.as_ref().err().map(|error| format!("{:?}: {error}", died.elapsed())));
            Ok(visit.ok())
        });
        let took = died.elapsed();
        // A later client succeeds at the first or second attempt.
        let later = (|| -> Result<()> {
            back.with_context(|| failures.join("\n"))?;
            let surviving_address = site.uplink(1).published.to_string();
            for _ in 0..5 {
                ensure!(visit(site.client(), host)? == "the page");
                let addresses = resolve(site, host)?;
                ensure!(addresses == [surviving_address.as_str()], "the name has {addresses:?}");
                std::thread::sleep(Duration::from_millis(300));
            }
            Ok(())
        })();
        // Relaxed: no other value depends on the flag.
        stop.store(true, Ordering::Relaxed);
        let visits = surviving.join().expect("the visitor does not panic")?;
        later?;
        Ok((took, visits))
    })
}

/// Visits a host by name, as a browser does.
fn visit(client: &Namespace, host: &str) -> Result<String> {
    require("curl")?;
    let mut command = client.command("curl");
    command.args(["-sS", "--fail", "--connect-timeout", CONNECT, "--max-time", "5"]);
    command.arg(format!("http://{host}/page"));
    output(command)
}

struct Visits {
    done: u32,
    failed: Vec<String>,
}

/// Makes one request after the other, each on a connection of its own.
fn visit_by_address(site: &Site, uplink: usize, stop: &AtomicBool) -> Result<Visits> {
    let to = site.uplink(uplink).endpoint(80);
    site.client().enter(|| {
        let mut visits = Visits { done: 0, failed: Vec::new() };
        // Relaxed: no other value depends on the flag.
        while !stop.load(Ordering::Relaxed) {
            let page = http::connect(Some(CLIENTS[1]), to, Duration::from_secs(5))
                .and_then(|mut connection| connection.get("/page"));
            match page {
                Ok(page) if page.text() == "the page" => visits.done += 1,
                Ok(page) => visits.failed.push(format!("{} {}", page.status, page.text())),
                Err(error) => visits.failed.push(error.to_string()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(visits)
    })?
}
