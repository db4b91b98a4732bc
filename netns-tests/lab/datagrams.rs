//! Echoed datagrams: sent, received and compared.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natbox::lab::Namespace;
use parking_lot::Mutex;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

/// Size of the largest datagram that IPv4 can carry.
const LARGEST: usize = 1 << 16;

/// Receive buffer of a socket, in bytes: enough for some thousand small datagrams.
const BUFFER: usize = 8 << 20;

/// Interval at which an echo checks whether it must stop.
const STOP_POLL: Duration = Duration::from_millis(20);

/// Longest time for a reply on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A server that sends every datagram back. A drop stops the server.
pub(crate) struct Echo {
    seen: Arc<Mutex<BTreeSet<(SocketAddr, u8)>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn start(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Result<Echo> {
        let socket = datagrams(namespace, address, port)?;
        socket.set_read_timeout(Some(STOP_POLL))?;
        let (seen, stop) =
            (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
        let (theirs, flag) = (seen.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; LARGEST];
            // Relaxed: the thread only needs to see the flag soon.
            while !flag.load(Ordering::Relaxed) {
                if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    theirs.lock().insert((peer, if length == 0 { 0 } else { buffer[0] }));
                    // The other end misses a datagram that cannot be sent.
                    let _ = socket.send_to(&buffer[..length], peer);
                }
            }
        });
        Ok(Echo { seen, stop, thread: Some(thread) })
    }

    /// Returns each sender together with the first byte of its datagram.
    pub(crate) fn seen(&self) -> BTreeSet<(SocketAddr, u8)> {
        self.seen.lock().clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Makes a socket for datagrams in a namespace, with a large receive buffer.
pub(crate) fn datagrams(namespace: &Namespace, address: Ipv4Addr, port: u16) -> Result<UdpSocket> {
    let socket = super::bind(namespace, || UdpSocket::bind((address, port)))
        .with_context(|| format!("bind {address}:{port}"))?;
    set_socket_recv_buffer_size_force(&socket, BUFFER)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    Ok(socket)
}

/// Sends one datagram over a connected socket and checks that the same datagram comes back.
pub(crate) fn exchange(socket: &UdpSocket, size: usize) -> Result<()> {
    let sent: Vec<u8> = (0..size).map(|at| (at * 31 + size).to_le_bytes()[0]).collect();
    let mut received = vec![0; LARGEST];
    socket.send(&sent).with_context(|| format!("send {size} bytes"))?;
    let length = loop {
        match socket.recv(&mut received) {
            // The kernel does not restart a call with a timeout (signal(7)).
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => break result.with_context(|| format!("the echo of {size} bytes"))?,
        }
    };
    ensure!(received[..length] == sent, "{size} bytes: the echo differs");
    Ok(())
}
