//! A million requests over two uplinks. Every session is in conflict with one of the other uplink,
//! and a random worker reads each packet, which is the worst case for the uplink of a reply.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use anyhow::{Context, Result, ensure};
use natbox::lab::topology::CLIENTS;

use super::{ECHO, plan, services};
use crate::lab::{Echo, Site, datagrams};
use crate::probe::spray;

/// Requests, each with a reply.
const REQUESTS: u64 = 1_000_000;

/// Concurrent clients.
const PARALLEL_CLIENTS: usize = 2;

/// Open sockets of a client, each with a session on each uplink.
const SOCKETS: usize = 64;

/// Requests of a socket on each uplink before a new socket replaces it, so that sessions come and
/// go all the time.
const ROUNDS: u64 = 50;

#[test]
fn none_of_a_million_replies_uses_the_wrong_uplink() -> Result<()> {
    let site = Site::three_legged(plan(2))?;
    let echo = Echo::start(site.server(), site.server_address(0), ECHO)?;
    let mut config = services(&site);
    config.workers = "2".into();
    let natbox = site.start(0, &config)?;
    spray(natbox.status()?.pid);
    let watches = [site.watch_ports(0, &[ECHO])?, site.watch_ports(1, &[ECHO])?];
    let before = [site.uplink(0).frames()?, site.uplink(1).frames()?];

    let generations = REQUESTS / (PARALLEL_CLIENTS as u64 * 2 * SOCKETS as u64 * ROUNDS) + 1;
    let answers: u64 = thread::scope(|scope| {
        let clients: Vec<_> = CLIENTS[..PARALLEL_CLIENTS]
            .iter()
            .map(|client| {
                let site = &site;
                scope.spawn(move || {
                    (0..generations).map(|_| generation(site, *client)).sum::<Result<u64>>()
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .sum::<Result<u64>>()
    })?;
    ensure!(answers >= REQUESTS, "only {answers} answers");

    // Every session had a peer of its own, half of them with a port that the client had not chosen.
    // (A reused port finds its sessions alive.)
    let seen = echo.seen();
    let peers: BTreeSet<SocketAddr> = seen.iter().map(|(peer, _)| *peer).collect();
    let sessions = natbox.status()?.sessions.created;
    ensure!(peers.len() == seen.len(), "the server took two sessions for one");
    ensure!(peers.len() as u64 == sessions, "{} peers in {sessions} sessions", peers.len());
    ensure!(sessions >= generations * SOCKETS as u64, "only {sessions} sessions");
    let mut replies = 0;
    for ((uplink, watch), before) in site.topology.uplinks.iter().zip(watches).zip(before) {
        let crossed = uplink.frames()? - before;
        let counts = watch.finish();
        ensure!(
            crossed <= counts.frames,
            "{crossed} frames crossed {}, seen: {counts:?}",
            uplink.name
        );
        ensure!(counts.wrong == 0, "{counts:?}");
        replies += counts.replies;
    }
    ensure!(replies == answers, "{replies} replies on the uplinks, {answers} at the clients");
    Ok(())
}

/// Sends requests from new sockets over both uplinks, again and again. Returns the number of
/// replies.
fn generation(site: &Site, client: Ipv4Addr) -> Result<u64> {
    let sockets =
        (0..SOCKETS).map(|_| datagrams(site.client(), client, 0)).collect::<Result<Vec<_>>>()?;
    let targets =
        [0_u8, 1].map(|uplink| SocketAddr::from(site.uplink(usize::from(uplink)).endpoint(ECHO)));
    for round in 0..ROUNDS {
        for (number, socket) in (0_u8..).zip(&sockets) {
            for (uplink, target) in (0_u8..).zip(targets) {
                socket.send_to(&[uplink, number, round as u8], target)?;
            }
        }
        for (number, socket) in (0_u8..).zip(&sockets) {
            let mut uplinks = [false; 2];
            for _ in targets {
                let mut answer = [0; 4];
                let (length, from) =
                    socket.recv_from(&mut answer).context("an answer is missing")?;
                let [uplink, ..] = answer;
                let is_right = length == 3 && answer[1..3] == [number, round as u8];
                ensure!(is_right && from == targets[usize::from(uplink)], "{answer:?} from {from}");
                uplinks[usize::from(uplink)] = true;
            }
            ensure!(uplinks == [true; 2], "two replies over one uplink");
        }
    }
    Ok(ROUNDS * 2 * SOCKETS as u64)
}
