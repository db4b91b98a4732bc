//! The capture that finds no reply on the wrong uplink would find one.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Result, ensure};
use natbox::lab::http::{HttpServer, connect};
use natbox::lab::topology::{CLIENTS, Private};

use crate::lab::{Site, listen, wait_for};

#[test]
fn packets_from_an_address_of_the_other_uplink_are_counted() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let uplink = site.uplink(0);
    let stray = site.uplink(1).published;
    uplink.natbox.address("lo", stray, 32)?;
    let watch = site.watch(0)?;
    let frames = uplink.provider.received_frames("box0")?;

    // No box runs. Its host sends packets, first with a correct address and then with the other
    // uplink's.
    let send = |from, count| {
        uplink.natbox.enter(|| {
            let socket = UdpSocket::bind((from, 80))?;
            (0..count).try_for_each(|_| socket.send_to(b"x", (CLIENTS[0], 9)).map(drop))
        })
    };
    send(uplink.outside, 1)??;
    send(stray, 5)??;
    let counts = wait_for("the strays to be counted", || {
        Ok(Some(watch.counts()).filter(|counts| counts.wrong >= 5))
    })?;
    ensure!(counts.wrong == 5 && counts.replies == 0, "{counts:?}");
    let described = counts.first_wrong.unwrap_or_default();
    ensure!(described.starts_with(&format!("{stray} > {}", CLIENTS[0])), "{described}");

    let crossed = uplink.provider.received_frames("box0")? - frames;
    let seen = watch.finish().frames;
    ensure!(crossed == seen, "{crossed} frames crossed the uplink, the capture saw {seen}");
    Ok(())
}

#[test]
fn replies_that_a_server_sends_to_the_wrong_box_are_counted() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let _natbox = site.start(1, &site.web_config(1))?;
    let _web = HttpServer::start(vec![listen(site.server(), site.server_address(1), 80)?], None)?;
    // The host of box 1 is a plain router here, and the server's table for uplink 2 names it.
    site.uplink(0).natbox.sysctl("net/ipv4/ip_forward", "1")?;
    let wrong = site.uplink(0).inside.to_string();
    site.server().ip(&["route", "replace", "default", "via", &wrong, "table", "102"])?;
    let watch = site.watch(0)?;

    let timeout = Duration::from_secs(1);
    let attempt =
        site.client().enter(|| connect(Some(CLIENTS[0]), site.uplink(1).endpoint(80), timeout))?;
    ensure!(attempt.is_err(), "a reply over the wrong uplink cannot open a connection");
    let counts = watch.finish();
    ensure!(counts.wrong >= 1 && counts.replies == 0, "{counts:?}");
    let wanted = format!("{} > {} protocol 6 ports 80 >", site.server_address(1), CLIENTS[0]);
    ensure!(
        counts.first_wrong.as_ref().is_some_and(|first| first.starts_with(&wanted)),
        "{counts:?}"
    );
    Ok(())
}
