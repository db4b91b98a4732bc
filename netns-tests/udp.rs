//! UDP through a forward, there and back.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use natbox::cli::demo::lab::Namespace;
use natbox::cli::demo::topology::{CLIENTS, Private};

use crate::lab::{PATIENCE, Site};

/// UDP payload that fills an Ethernet packet.
const LARGEST: usize = 1500 - 20 - 8;

#[test]
fn udp_is_echoed_over_both_lines_at_every_size() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let _boxes = [0, 1]
        .map(|line| site.start(line, &site.config(line).forward("udp", 7, site.server_address(line), 7007)));
    let _boxes: Vec<_> = _boxes.into_iter().collect::<Result<_>>()?;
    let servers = [0, 1].map(|line| bind(site.server(), site.server_address(line), 7007));
    let servers: Vec<_> = servers.into_iter().collect::<Result<_>>()?;
    let stop = AtomicBool::new(false);

    std::thread::scope(|scope| {
        for server in &servers {
            scope.spawn(|| echo(server, &stop));
        }
        let outcome = (|| {
            for (line, client) in [0, 1].into_iter().zip(CLIENTS) {
                let socket = bind(site.client(), client, 0)?;
                socket.connect(site.line(line).endpoint(7))?;
                for size in (0..LARGEST).step_by(97).chain([LARGEST]) {
                    exchange(&socket, size)
                        .with_context(|| format!("{size} bytes over line {}", line + 1))?;
                }
            }
            Ok(())
        })();
        // Relaxed: the threads only have to see it soon.
        stop.store(true, Ordering::Relaxed);
        outcome
    })
}

fn bind(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    let socket = namespace.enter(|| UdpSocket::bind((address, port)))??;
    socket.set_read_timeout(Some(PATIENCE / 50))?;
    Ok(socket)
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            // A datagram that cannot be sent is one the client misses.
            let _ = socket.send_to(&buffer[..length], peer);
        }
    }
}

/// Sends one datagram and gets it back; nothing is lost on these lines.
fn exchange(socket: &UdpSocket, size: usize) -> Result<()> {
    let sent: Vec<u8> = (0..size).map(|at| (at * 31 + size).to_le_bytes()[0]).collect();
    let mut received = [0; 2048];
    socket.send(&sent)?;
    let length = socket.recv(&mut received)?;
    ensure!(received[..length] == sent, "the echo differs");
    Ok(())
}
