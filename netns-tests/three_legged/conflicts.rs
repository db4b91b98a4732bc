//! One client endpoint uses the same server port over several uplinks at once. The server must be
//! able to tell the sessions apart, and each reply must use the uplink of its request.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;

use anyhow::{Context, Result, ensure};
use natbox::lab::http::connect_from;
use natbox::lab::topology::CLIENTS;
use rustix::net::sockopt::set_socket_reuseaddr;

use super::{ECHO, WEB, plan, services};
use crate::lab::{Echo, Site, TIMEOUT, datagrams, listen};

/// Each uplink is in conflict with the two others.
const UPLINKS: usize = 3;

/// Client ports in conflict.
const PORTS: std::ops::Range<u16> = 40_000..40_008;

/// Bytes that each TCP connection carries in each direction.
const BYTES: usize = 200_000;

#[test]
fn connections_from_one_endpoint_over_all_uplinks_carry_their_own_data() -> Result<()> {
    for (offload, io) in [("auto", "auto"), ("none", "poll")] {
        let site = Site::three_legged(plan(UPLINKS as u8))?;
        let listener = listen(site.server(), site.server_address(0), WEB)?;
        let mut config = services(&site);
        (config.offload, config.io) = (offload, io);
        let natbox = site.start(0, &config)?;
        let watches = (0..UPLINKS).map(|uplink| site.watch(uplink)).collect::<Result<Vec<_>>>()?;

        let mut connections = Vec::new();
        for port in PORTS {
            for uplink in 0..UPLINKS {
                connections.push((tag(uplink, port), connect(&site, uplink, port)?));
            }
        }
        let count = connections.len();
        let seen = thread::scope(|scope| -> Result<_> {
            let server = scope.spawn(move || serve(&listener, count));
            let clients: Vec<_> = connections
                .iter_mut()
                .map(|(tag, stream)| scope.spawn(|| talk(*tag, stream)))
                .collect();
            for client in clients {
                client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        assert_distinguished(seen)?;
        let sessions = natbox.status()?.sessions.created;
        ensure!(sessions == count as u64, "{sessions} sessions for {count} connections");
        for watch in watches {
            let counts = watch.finish();
            ensure!(counts.wrong == 0 && counts.replies >= 100, "{counts:?}");
        }
    }
    Ok(())
}

#[test]
fn datagrams_from_one_socket_over_all_uplinks_are_answered_by_each_of_them() -> Result<()> {
    let site = Site::three_legged(plan(UPLINKS as u8))?;
    let echo = Echo::start(site.server(), site.server_address(0), ECHO)?;
    let _natbox = site.start(0, &services(&site))?;
    let watches =
        (0..UPLINKS).map(|uplink| site.watch_ports(uplink, &[ECHO])).collect::<Result<Vec<_>>>()?;
    let mut wanted = 0;
    for port in PORTS {
        let socket = datagrams(site.client(), CLIENTS[0], port)?;
        for size in [2, 1400, 4000, 30_000] {
            let data = |uplink| [tag(uplink, port).as_slice(), &vec![uplink as u8; size]].concat();
            for uplink in 0..UPLINKS {
                socket.send_to(&data(uplink), site.uplink(uplink).endpoint(ECHO))?;
            }
            let mut answers = BTreeMap::new();
            for _ in 0..UPLINKS {
                let mut buffer = vec![0; 1 << 16];
                let (length, from) = socket.recv_from(&mut buffer).context("an answer")?;
                answers.insert(from, buffer[..length].to_vec());
            }
            let expected = (0..UPLINKS)
                .map(|uplink| (site.uplink(uplink).endpoint(ECHO).into(), data(uplink)));
            ensure!(
                answers == expected.collect(),
                "a reply over the wrong uplink, port {port}, {size} bytes"
            );
            wanted += 1;
        }
    }
    assert_distinguished(
        echo.seen().into_iter().map(|(peer, uplink)| (peer, usize::from(uplink))).collect(),
    )?;
    for watch in watches {
        let counts = watch.finish();
        ensure!(counts.wrong == 0 && counts.replies >= wanted, "{counts:?}");
    }
    Ok(())
}

/// Returns the uplink and the client port, which precede all data.
fn tag(uplink: usize, port: u16) -> [u8; 3] {
    let [high, low] = port.to_be_bytes();
    [uplink as u8, high, low]
}

/// Returns the data of a connection, which differ from those of every other one.
fn data([uplink, high, low]: [u8; 3]) -> Vec<u8> {
    let start = usize::from(uplink) * 7 + usize::from(low) * 31 + usize::from(high);
    (start..start + BYTES).map(|number| (number * number / 3).to_le_bytes()[0]).collect()
}

fn connect(site: &Site, uplink: usize, port: u16) -> Result<TcpStream> {
    let from = SocketAddrV4::new(CLIENTS[0], port);
    let to = site.uplink(uplink).endpoint(WEB);
    let connection = site.client().enter(|| connect_from(Some(from), to, TIMEOUT))?;
    Ok(connection.with_context(|| format!("from {from} to {to}"))?.stream_ref().try_clone()?)
}

/// Sends tag and data, and receives the data backwards.
fn talk(tag: [u8; 3], stream: &mut TcpStream) -> Result<()> {
    let mut data = data(tag);
    stream.write_all(&tag)?;
    stream.write_all(&data)?;
    let mut answer = vec![0; BYTES];
    stream.read_exact(&mut answer).with_context(|| format!("the answer to {tag:?}"))?;
    data.reverse();
    ensure!(answer == data, "{tag:?} got another answer");
    Ok(())
}

/// Accepts a number of connections, each with the data of its tag. Returns the peers and their
/// uplinks.
fn serve(listener: &TcpListener, count: usize) -> Result<BTreeSet<(SocketAddr, usize)>> {
    set_socket_reuseaddr(listener, true)?;
    thread::scope(|scope| {
        let mut waiting = Vec::new();
        for _ in 0..count {
            let (mut stream, peer) = listener.accept()?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            waiting.push(scope.spawn(move || -> Result<_> {
                let (mut tag, mut received) = ([0; 3], vec![0; BYTES]);
                stream.read_exact(&mut tag)?;
                stream.read_exact(&mut received)?;
                ensure!(received == data(tag), "the data of {tag:?} is another one's");
                received.reverse();
                stream.write_all(&received)?;
                Ok((peer, usize::from(tag[0])))
            }));
        }
        waiting
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Asserts that the server has seen one peer for each port and uplink, all with the client's
/// address, and for each port one with the client's own port.
fn assert_distinguished(seen: BTreeSet<(SocketAddr, usize)>) -> Result<()> {
    let peers: BTreeSet<SocketAddr> = seen.iter().map(|(peer, _)| *peer).collect();
    ensure!(
        seen.len() == PORTS.len() * UPLINKS && peers.len() == seen.len(),
        "the server saw {seen:?}"
    );
    ensure!(peers.iter().all(|peer| peer.ip() == CLIENTS[0]), "another address: {peers:?}");
    for port in PORTS {
        ensure!(
            peers.contains(&SocketAddr::from((CLIENTS[0], port))),
            "no peer kept port {port}: {peers:?}"
        );
    }
    Ok(())
}
