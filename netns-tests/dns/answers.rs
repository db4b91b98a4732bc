//! dig against the name server of a box.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use natbox::lab::Namespace;
use natbox::lab::topology::{CLIENTS, Private};

use super::programs::{dig, short};
use super::{Address, ZONE, start};
use crate::lab::{NATBOX, Site, output};

/// The parts of dig's output that the tests check.
struct Seen<'t>(&'t str);

impl Seen<'_> {
    fn has(&self, what: &str) -> Result<()> {
        ensure!(self.0.contains(what), "no {what:?} in\n{}", self.0);
        Ok(())
    }

    fn status(&self, wanted: &str, flags: &str, counts: [u8; 3]) -> Result<()> {
        let [answers, authority, additional] = counts;
        self.has(&format!("status: {wanted}, "))?;
        self.has(&format!(
            ";; flags: {flags}; QUERY: 1, ANSWER: {answers}, AUTHORITY: {authority}, ADDITIONAL: {additional}"
        ))
    }
}

#[test]
fn name_server_answers_dig_authoritatively() -> Result<()> {
    dig_gets_it_from(Address::Owned)
}

#[test]
fn name_server_answers_at_an_address_without_a_host() -> Result<()> {
    dig_gets_it_from(Address::Nobodys)
}

fn dig_gets_it_from(address: Address) -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let names = "names: [{ name: www }, { name: \"@\" }, { name: a.deep }]";
    let natbox = start(&site, 0, address, &format!("{ZONE}, {names}, answers_per_second: 1000"))?;
    let server = site.uplink(0).published;
    let ask = |arguments: &[&str]| dig(site.client(), server, arguments);
    let soa = "example.org.\t\t30\tIN\tSOA\tns1.example.org. hostmaster.example.org. ";

    // By UDP and by TCP, with EDNS and without. The answer repeats the letter case of the question.
    for transport in [&["+notcp"][..], &["+tcp"], &["+bufsize=4096"]] {
        let text = ask(&[transport, &["WwW.example.ORG", "A"]].concat())?;
        Seen(&text).status("NOERROR", "qr aa", [1, 0, 1])?;
        Seen(&text).has("EDNS: version: 0, flags:; udp: 1232")?;
        Seen(&text).has("WwW.example.ORG.\t30\tIN\tA\t203.0.113.10")?;
    }
    Seen(&ask(&["+noedns", "www.example.org", "A"])?).status("NOERROR", "qr aa", [1, 0, 0])?;
    // The server offers no recursion.
    Seen(&ask(&["+recurse", "www.example.org", "A"])?).status("NOERROR", "qr aa rd", [1, 0, 1])?;
    Seen(&ask(&["+recurse", "www.example.org", "A"])?)
        .has("recursion requested but not available")?;

    let text = ask(&["example.org", "NS"])?;
    Seen(&text).status("NOERROR", "qr aa", [2, 0, 3])?;
    for what in
        ["NS\tns1.example.org.", "NS\tns2.example.org.", "A\t203.0.113.10", "A\t198.51.100.10"]
    {
        Seen(&text).has(what)?;
    }
    Seen(&ask(&["example.org", "SOA"])?).status("NOERROR", "qr aa", [1, 0, 1])?;
    ensure!(short(site.client(), server, &["example.org", "A"])? == ["203.0.113.10"]);
    ensure!(short(site.client(), server, &["ns2.example.org", "A"])? == ["198.51.100.10"]);

    for (name, kind) in
        [("www.example.org", "AAAA"), ("deep.example.org", "A"), ("www.example.org", "TXT")]
    {
        let text = ask(&[name, kind])?;
        Seen(&text).status("NOERROR", "qr aa", [0, 1, 1])?;
        Seen(&text).has(soa)?;
    }
    let text = ask(&["nowhere.example.org", "A"])?;
    Seen(&text).status("NXDOMAIN", "qr aa", [0, 1, 1])?;
    Seen(&text).has(soa)?;
    let text = ask(&["www.example.org", "ANY", "+notcp"])?;
    Seen(&text).status("NOERROR", "qr aa", [1, 0, 1])?;
    Seen(&text).has("HINFO\t\"RFC8482\" \"\"")?;

    for refused in [&["example.net", "A"][..], &[".", "NS"], &["version.bind", "CH", "TXT"]] {
        Seen(&ask(refused)?).status("REFUSED", "qr", [0, 0, 1])?;
    }
    Seen(&ask(&["example.org", "AXFR"])?).has("; Transfer failed.")?;
    Seen(&ask(&["+opcode=notify", "example.org", "SOA"])?).has("status: NOTIMP")?;
    let text = ask(&["+edns=1", "+noednsnegotiation", "www.example.org", "A"])?;
    Seen(&text).status("BADVERS", "qr", [0, 0, 1])?;
    // dig prints a warning if an answer breaks the rules of the format.
    ensure!(!text.contains("WARNING: Message"), "{text}");

    let dns = natbox.status()?.dns.context("no DNS in the status")?;
    ensure!(dns.listening == [(server, 53).into()] && dns.in_use == ["isp1"], "{dns:?}");
    ensure!(dns.counters["queries"] >= 20 && dns.counters["connections"] >= 2, "{dns:?}");
    let mut command = site.uplink(0).natbox.command(NATBOX);
    command.args(["status", "--socket"]).arg(natbox.socket());
    let text = output(command)?;
    ensure!(text.contains(&format!("dns       {} queries, ", dns.counters["queries"])), "{text}");
    Ok(())
}

/// One flood whose source is, for the box, the victim's forged address, and a real client of the
/// same network.
#[test]
fn query_flood_is_not_amplified_and_real_clients_get_answers() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let natbox = start(
        &site,
        0,
        Address::Owned,
        &format!("{ZONE}, names: [{{ name: www }}], answers_per_second: 20"),
    )?;
    let server = site.uplink(0).published;
    let (sent, received) = flood(site.client(), server, 4000)?;
    let dns = natbox.status()?.dns.context("no DNS in the status")?;
    let count = |name: &str| dns.counters[name];
    ensure!(received < sent, "{received} bytes came back for {sent}");
    ensure!(count("answers") < 400, "{dns:?}");
    ensure!(count("limited_truncated") > 0 && count("limited_dropped") > 0, "{dns:?}");
    let difference = count("limited_truncated").abs_diff(count("limited_dropped"));
    ensure!(difference <= 1, "every second one: {dns:?}");
    ensure!(
        count("answers") + count("limited_truncated") + count("limited_dropped")
            == count("queries"),
        "{dns:?}"
    );
    // Meanwhile the server sends a real client to TCP and answers there.
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(site.client(), server, 4000));
        let answer =
            short(site.client(), server, &["+tries=10", "+timeout=1", "www.example.org", "A"]);
        flooding.join().expect("the flood does not panic")?;
        let answer = answer?;
        // dig also prints a line for each attempt that was dropped.
        ensure!(answer.iter().any(|uplink| uplink == "203.0.113.10"), "{answer:?}");
        Ok(())
    })?;
    Ok(())
}

/// Sends questions as fast as possible. Returns the bytes sent and received.
fn flood(client: &Namespace, server: Ipv4Addr, questions: u32) -> Result<(usize, usize)> {
    client.enter(|| {
        let socket = UdpSocket::bind((CLIENTS[2], 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        let mut question =
            b"\x12\x34\0\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01".to_vec();
        let (mut sent, mut received, mut buffer) = (0, 0, [0; 1500]);
        for number in 0..questions {
            question[..2].copy_from_slice(&(number as u16).to_be_bytes());
            sent += socket.send_to(&question, (server, 53))?;
            if number % 50 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        while let Ok(length) = socket.recv(&mut buffer) {
            received += length;
        }
        Ok((sent, received))
    })?
}

#[test]
fn questions_by_udp_take_no_session() -> Result<()> {
    for address in [Address::Nobodys, Address::Owned] {
        let site = Site::new(Private::Shared, 1)?;
        let natbox = start(&site, 0, address, &format!("{ZONE}, names: [{{ name: www }}]"))?;
        let server = site.uplink(0).published;
        for _ in 0..10 {
            let answers = short(site.client(), server, &["+notcp", "www.example.org", "A"])?;
            ensure!(answers == ["203.0.113.10"], "{answers:?}");
        }
        let created = natbox.status()?.sessions.created;
        ensure!(created == 0, "{address:?}: {created} sessions");
    }
    Ok(())
}
