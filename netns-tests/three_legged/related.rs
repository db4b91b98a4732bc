//! Sessions that the published server opens to its clients: TFTP from a new port, active FTP. They
//! use the uplink and the published address of the client's request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use natbox::lab::Namespace;
use natbox::lab::http::connect_from;
use natbox::lab::topology::CLIENTS;

use super::plan;
use crate::conformance::proves;
use crate::failover::set_carrier;
use crate::lab::{Site, TIMEOUT, curl, datagrams, listen, output, require, wait_for};

/// Ports of the services.
const TFTP: u16 = 69;
const CONTROL: u16 = 21;
/// Port from which an FTP server opens data connections.
const DATA: u16 = 20;
/// Bytes of a full TFTP block (RFC 1350).
const BLOCK: usize = 512;

/// A TFTP server that sends one file to each reader, from a new port as RFC 1350 section 4 asks.
struct Tftp {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tftp {
    fn start(namespace: &Namespace, address: Ipv4Addr, file: Vec<u8>) -> Result<Tftp> {
        let socket = datagrams(namespace, address, TFTP)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let namespace = namespace.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2 * BLOCK];
            // Relaxed: the thread only needs to see the flag soon.
            while !flag.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                if buffer[..length].starts_with(&[0, 1]) {
                    // A client without its file fails the test.
                    let _ = answer(&namespace, address, client, &file);
                }
            }
        });
        Ok(Tftp { stop, thread: Some(thread) })
    }
}

impl Drop for Tftp {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends a file block by block, each after the acknowledgement of the one before.
fn answer(namespace: &Namespace, address: Ipv4Addr, client: SocketAddr, file: &[u8]) -> Result<()> {
    let socket = datagrams(namespace, address, 0)?;
    socket.connect(client)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    let blocks = file.chunks(BLOCK).chain(file.len().is_multiple_of(BLOCK).then_some(&[][..]));
    for (number, block) in (1_u16..).zip(blocks) {
        let [high, low] = number.to_be_bytes();
        let packet = [&[0, 3, high, low], block].concat();
        if !acknowledged(&socket, &packet, [0, 4, high, low])? {
            bail!("no acknowledgement of block {number}");
        }
    }
    Ok(())
}

fn acknowledged(socket: &UdpSocket, packet: &[u8], wanted: [u8; 4]) -> Result<bool> {
    let mut received = [0; 16];
    for _ in 0..3 {
        socket.send(packet)?;
        if socket.recv(&mut received).is_ok_and(|length| received[..length] == wanted) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lets the client receive datagrams from one address alone, as a firewall in front of it would.
/// curl itself takes an answer from any address.
fn admit_only(client: &Namespace, address: Ipv4Addr) -> Result<()> {
    require("nft")?;
    let mut nft = client.command("nft");
    nft.arg(format!(
        "add table inet client; delete table inet client; add table inet client; \
         add chain inet client input {{ type filter hook input priority 0; }}; \
         add rule inet client input meta l4proto udp ip saddr != {address} drop"
    ));
    output(nft)?;
    Ok(())
}

/// curl reads a file by TFTP over every uplink, again and again. Its answers come from ports that
/// no forward publishes.
#[test]
fn tftp_answers_from_a_new_port_use_the_uplink_of_the_request() -> Result<()> {
    let _proof = proves(&["FWD-8"]);
    let site = Site::three_legged(plan(3))?;
    let file = "x".repeat(3 * BLOCK + 100);
    let server = site.server_address(0);
    let _tftp = Tftp::start(site.server(), server, file.clone().into_bytes())?;
    let config = site.three_legged_config().forward("udp", TFTP, server, TFTP);
    let _natbox = site.start(0, &config)?;
    for round in 0..4 {
        for uplink in 0..3 {
            let from = CLIENTS[round % CLIENTS.len()];
            admit_only(site.client(), site.uplink(uplink).published)?;
            let url = format!("tftp://{}/file", site.uplink(uplink).published);
            let found = curl(site.client(), from, &["--max-time", "5", &url])
                .with_context(|| format!("round {round} over uplink {}", uplink + 1))?;
            ensure!(found == file, "another file");
        }
    }
    Ok(())
}

/// One client socket sends to every uplink, so that the server sees it with several ports.
#[test]
fn one_client_socket_gets_an_answer_from_each_uplink() -> Result<()> {
    let site = Site::three_legged(plan(3))?;
    let server = site.server_address(0);
    let _tftp = Tftp::start(site.server(), server, b"short".to_vec())?;
    let config = site.three_legged_config().forward("udp", TFTP, server, TFTP);
    let _natbox = site.start(0, &config)?;
    let socket = datagrams(site.client(), CLIENTS[0], 40_000)?;
    for uplink in 0..3 {
        let published = site.uplink(uplink).published;
        socket.send_to(b"\0\x01file\0octet\0", (published, TFTP))?;
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).context("an answer")?;
        ensure!(buffer[..length] == *b"\0\x03\0\x01short", "{:?}", &buffer[..length]);
        ensure!(from.ip() == published && from.port() != TFTP, "from {from}, not {published}");
        socket.send_to(&[0, 4, 0, 1], from)?;
    }
    Ok(())
}

/// The server of an active FTP session connects from its port 20 to a port of the client. Its
/// mapping on another uplink does not matter.
#[test]
fn active_data_connections_use_the_uplink_of_the_control_connection() -> Result<()> {
    let _proof = proves(&["FWD-8"]);
    let site = Site::three_legged(plan(2))?;
    let server = site.server_address(0);
    let control = listen(site.server(), server, CONTROL)?;
    let config = site.three_legged_config().forward("tcp", CONTROL, server, CONTROL);
    // By default port 20 would keep using the dead uplink, where it has a mapping.
    let natbox = site.start(0, &config.uplink(1, "on_failure: drain"))?;
    let mut ports = 50_000..;
    let mut peer_of_data = || -> Result<IpAddr> {
        let target = SocketAddrV4::new(CLIENTS[0], ports.next().context("a port")?);
        let data = listen(site.client(), *target.ip(), target.port())?;
        let from = SocketAddrV4::new(server, DATA);
        let dialled = site.server().enter(|| connect_from(Some(from), target, TIMEOUT))?;
        let _dialled = dialled.with_context(|| format!("from {from} to {target}"))?;
        Ok(data.accept()?.1.ip())
    };
    let connect = |uplink: usize| -> Result<(TcpStream, TcpStream)> {
        let to = SocketAddrV4::new(site.uplink(uplink).published, CONTROL);
        let client = site.client().enter(|| connect_from(None, to, TIMEOUT))??;
        Ok((client.stream_ref().try_clone()?, control.accept()?.0))
    };
    for round in 0..6 {
        for uplink in [0, 1] {
            let _control = connect(uplink)?;
            let (peer, published) = (peer_of_data()?, site.uplink(uplink).published);
            ensure!(peer == published, "round {round}: from {peer}, not {published}");
        }
    }
    // A dead uplink gets no new sessions, whatever the control connection.
    let _control = connect(1)?;
    set_carrier(site.uplink(1), false)?;
    wait_for("the uplink's failure", || Ok((!natbox.status()?.uplinks[1].healthy).then_some(())))?;
    for _ in 0..6 {
        let peer = peer_of_data()?;
        ensure!(peer == site.uplink(0).published, "from {peer} after the failure");
    }
    Ok(())
}
