//! Named sessions: each message has the name of its session and a number, and comes back as it was.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use natbox::lab::Namespace;
use natbox::lab::http::connect;
use natbox::lab::topology::CLIENTS;
use parking_lot::Mutex;

use crate::lab::{Echo, Site, listen, wait_for};

/// Published ports: TCP, UDP.
pub(super) const PUBLISHED: [u16; 2] = [80, 81];
/// Servers on the Internet.
const OUTSIDE_TCP: SocketAddrV4 = SocketAddrV4::new(CLIENTS[1], 8080);
const OUTSIDE_UDP: SocketAddrV4 = SocketAddrV4::new(CLIENTS[2], 7);
/// Sessions of each kind.
const EACH: usize = 4;
/// Longest time for an answer: longer than any fault that must not end a session.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause between two messages.
const SEND_INTERVAL: Duration = Duration::from_millis(25);

/// The traffic of a test.
pub(super) struct Traffic {
    shared: Arc<Shared>,
    talkers: Vec<(String, Arc<AtomicU64>)>,
    threads: Vec<JoinHandle<()>>,
    _echoes: [Echo; 2],
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// TCP connections that ended before their time.
    breaks: AtomicU64,
    last_break: Mutex<Option<String>>,
    /// Messages that came back otherwise.
    wrong: Mutex<Vec<String>>,
}

/// How a session goes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One connection for all messages.
    Lasting,
    /// A connection for each message.
    Brief,
    Datagrams,
}

impl Traffic {
    /// Starts sessions of each kind: inbound over each uplink, and outbound.
    pub(super) fn start(site: &Site) -> Result<Traffic> {
        let (client, server, inside) = (site.client(), site.server(), site.server_address(0));
        let shared = Arc::new(Shared::default());
        let mut traffic = Traffic {
            shared,
            talkers: Vec::new(),
            threads: Vec::new(),
            _echoes: [
                Echo::start(client, *OUTSIDE_UDP.ip(), OUTSIDE_UDP.port())?,
                Echo::start(server, inside, PUBLISHED[1])?,
            ],
        };
        traffic.serve(listen(server, inside, PUBLISHED[0])?);
        traffic.serve(listen(client, *OUTSIDE_TCP.ip(), OUTSIDE_TCP.port())?);
        for number in 0..EACH {
            for uplink in 0..2 {
                let to = |port| SocketAddrV4::new(site.uplink(uplink).published, port);
                let from = CLIENTS[3 + number % 2];
                let name =
                    |what: &str| format!("{what} in over uplink {} number {number}", uplink + 1);
                traffic.talk(name("lasting"), Kind::Lasting, client, from, to(PUBLISHED[0]));
                traffic.talk(name("brief"), Kind::Brief, client, from, to(PUBLISHED[0]));
                traffic.talk(name("datagrams"), Kind::Datagrams, client, from, to(PUBLISHED[1]));
            }
            let name = |what: &str| format!("{what} out number {number}");
            traffic.talk(name("lasting"), Kind::Lasting, server, inside, OUTSIDE_TCP);
            traffic.talk(name("brief"), Kind::Brief, server, inside, OUTSIDE_TCP);
            traffic.talk(name("datagrams"), Kind::Datagrams, server, inside, OUTSIDE_UDP);
        }
        Ok(traffic)
    }

    /// Sends each line of each connection back.
    fn serve(&mut self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        self.threads.push(thread::spawn(move || {
            listener.set_nonblocking(true).expect("a socket option");
            while !shared.stop.load(Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let shared = Arc::clone(&shared);
                        thread::spawn(move || shared.answer(stream));
                    }
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        }));
    }

    fn talk(
        &mut self,
        name: String,
        kind: Kind,
        from: &Namespace,
        address: Ipv4Addr,
        to: SocketAddrV4,
    ) {
        let count = Arc::new(AtomicU64::new(0));
        self.talkers.push((name.clone(), Arc::clone(&count)));
        let talker = Talker {
            name,
            kind,
            from: from.clone(),
            address,
            to,
            count,
            shared: Arc::clone(&self.shared),
        };
        self.threads.push(thread::spawn(move || talker.run()));
    }

    /// Waits until each session has exchanged some messages, and checks that none went elsewhere.
    pub(super) fn flows(&self, when: &str) -> Result<()> {
        let before: Vec<u64> = self.talkers.iter().map(|(_, count)| count.load(Relaxed)).collect();
        let mut silent = Vec::new();
        let flowing = wait_for(when, || {
            silent = self
                .talkers
                .iter()
                .zip(&before)
                .filter(|((_, count), before)| count.load(Relaxed) < **before + 3)
                .map(|((name, _), _)| name.clone())
                .collect();
            Ok(silent.is_empty().then_some(()))
        });
        let wrong = self.shared.wrong.lock();
        ensure!(wrong.is_empty(), "{} messages went wrong: {:?}", wrong.len(), &wrong[..1]);
        flowing.with_context(|| format!("silent: {silent:?}"))
    }

    /// Number of TCP connections that ended before their time.
    pub(super) fn breaks(&self) -> u64 {
        self.shared.breaks.load(Relaxed)
    }

    pub(super) fn last_break(&self) -> Option<String> {
        self.shared.last_break.lock().clone()
    }

    /// Ends all sessions.
    pub(super) fn stop(mut self) -> Result<()> {
        self.flows("at the end")?;
        self.shared.stop.store(true, Relaxed);
        let mut threads = std::mem::take(&mut self.threads).into_iter();
        threads.try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked")))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Sends each line back. All lines of a connection have one name.
    fn answer(&self, stream: TcpStream) {
        let _ = stream.set_nonblocking(false);
        let _ = stream.set_read_timeout(Some(REPLY_TIMEOUT * 2));
        let (mut lines, mut name) = (BufReader::new(&stream), None);
        let mut line = String::new();
        while !self.stop.load(Relaxed) && lines.read_line(&mut line).is_ok_and(|length| length > 0)
        {
            let (of, _) = line.rsplit_once(' ').unwrap_or_default();
            let first = name.get_or_insert_with(|| of.to_owned());
            if first != of {
                self.wrong.lock().push(format!("a connection of {first:?} brings {line:?}"));
            }
            if (&stream).write_all(line.as_bytes()).is_err() {
                return;
            }
            line.clear();
        }
    }
}

/// One session, or one after the other.
struct Talker {
    name: String,
    kind: Kind,
    from: Namespace,
    address: Ipv4Addr,
    to: SocketAddrV4,
    /// Messages that came back.
    count: Arc<AtomicU64>,
    shared: Arc<Shared>,
}

impl Talker {
    fn run(&self) {
        let mut number = 0;
        let (mut connection, mut socket) = (None, None);
        while !self.shared.stop.load(Relaxed) {
            number += 1;
            let message = format!("{} {number}\n", self.name);
            let result = match self.kind {
                Kind::Datagrams => self.datagram(&mut socket, &message),
                Kind::Lasting | Kind::Brief => self.line(&mut connection, &message),
            };
            match result {
                Ok(answer) if answer == message => {
                    self.count.fetch_add(1, Relaxed);
                }
                Ok(answer) => self.shared.wrong.lock().push(format!("{message:?} is {answer:?}")),
                Err(error) => self.failed(&mut connection, &error),
            }
            if matches!(self.kind, Kind::Brief) {
                connection = None;
            }
            thread::sleep(SEND_INTERVAL);
        }
    }

    /// A connection that cannot be opened during a fault is no break.
    fn failed(&self, connection: &mut Option<BufReader<TcpStream>>, error: &anyhow::Error) {
        if connection.take().is_some()
            && matches!(self.kind, Kind::Lasting)
            && !self.shared.stop.load(Relaxed)
        {
            self.shared.breaks.fetch_add(1, Relaxed);
            *self.shared.last_break.lock() = Some(format!("{}: {error:#}", self.name));
        }
    }

    fn line(&self, connection: &mut Option<BufReader<TcpStream>>, message: &str) -> Result<String> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(BufReader::new(self.connect()?)),
        };
        connection.get_mut().write_all(message.as_bytes())?;
        let mut answer = String::new();
        let length = connection.read_line(&mut answer).context("waiting for the answer")?;
        ensure!(length > 0, "the connection is closed");
        Ok(answer)
    }

    fn connect(&self) -> Result<TcpStream> {
        let timeout =
            if matches!(self.kind, Kind::Lasting) { REPLY_TIMEOUT } else { Duration::from_secs(2) };
        let connection = self.from.enter(|| connect(Some(self.address), self.to, timeout))??;
        Ok(connection.stream_ref().try_clone()?)
    }

    /// A datagram that is lost is sent again as another message.
    fn datagram(&self, socket: &mut Option<UdpSocket>, message: &str) -> Result<String> {
        let socket = match socket {
            Some(socket) => socket,
            None => {
                let opened = self.from.enter(|| -> std::io::Result<UdpSocket> {
                    let socket = UdpSocket::bind((self.address, 0))?;
                    socket.connect(self.to)?;
                    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
                    Ok(socket)
                })??;
                socket.insert(opened)
            }
        };
        socket.send(message.as_bytes())?;
        let mut buffer = [0; 256];
        loop {
            let length = socket.recv(&mut buffer)?;
            let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
            // An answer to a message of this session that was given up.
            let is_late = answer != message && answer.starts_with(&format!("{} ", self.name));
            if !is_late {
                return Ok(answer);
            }
        }
    }
}
