//! A box with traffic of several kinds, and the commands on it.

use std::net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::single_box::{
    CLIENT, DATAGRAMS, NATBOX, Published, RunningBox, SERVER, SingleBox, WEB, eventually, seconds,
};

/// A running box whose web server and UDP server are sockets of the test.
pub(super) struct Operated {
    pub(super) site: SingleBox,
    pub(super) running: RunningBox,
    web: TcpListener,
    datagrams: UdpSocket,
}

/// Both ends of a TCP connection.
pub(super) struct Ends {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
}

impl Operated {
    /// Starts the box. `limits`: the end of the section, such as `, accounting: true`.
    pub(super) fn start(limits: &str) -> Self {
        Self::start_with(&format!("64k{limits}"), "")
    }

    /// Starts the box. `limits`: the section, from the number of sessions on. `extra`: further
    /// lines of the file.
    pub(super) fn start_with(limits: &str, extra: &str) -> Self {
        let site = SingleBox::new(Published::OnLink);
        // Connections to the box come from the client's address.
        let source = CLIENT.to_string();
        let route = ["route", "replace", "203.0.113.0/24", "dev", "eth0", "src", &source];
        site.net.ip(&route).unwrap();
        let mut config = site.config();
        limits.clone_into(&mut config.sessions);
        extra.clone_into(&mut config.extra);
        let web = site.server.enter(|| TcpListener::bind((SERVER, WEB))).unwrap().unwrap();
        let datagrams =
            site.server.enter(|| UdpSocket::bind((SERVER, DATAGRAMS))).unwrap().unwrap();
        datagrams.set_read_timeout(Some(seconds(5))).unwrap();
        let running = site.start(&config);
        Self { site, running, web, datagrams }
    }

    /// Opens a connection from the client to the published web server.
    pub(super) fn inbound(&self) -> Ends {
        let to = self.site.endpoint(WEB).into();
        let client = self.site.net.enter(|| TcpStream::connect_timeout(&to, seconds(5)));
        let (server, _) = self.web.accept().unwrap();
        limited(Ends { client: client.unwrap().unwrap(), server })
    }

    /// Opens a connection from the server to a port of the client.
    pub(super) fn outbound(&self, port: u16) -> Ends {
        let listener = self.site.net.enter(|| TcpListener::bind((CLIENT, port))).unwrap().unwrap();
        let to = SocketAddrV4::new(CLIENT, port).into();
        let client = self.site.server.enter(|| TcpStream::connect_timeout(&to, seconds(5)));
        let (server, _) = listener.accept().unwrap();
        limited(Ends { client: client.unwrap().unwrap(), server })
    }

    /// Sends a datagram to the published UDP server and waits for the answer.
    pub(super) fn datagram(&self) -> UdpSocket {
        let socket = self.site.net.enter(|| UdpSocket::bind((CLIENT, 0))).unwrap().unwrap();
        socket.set_read_timeout(Some(seconds(5))).unwrap();
        socket.connect(self.site.endpoint(DATAGRAMS)).unwrap();
        socket.send(b"question").unwrap();
        let mut buffer = [0; 64];
        loop {
            let (length, from) = self.datagrams.recv_from(&mut buffer).unwrap();
            if &buffer[..length] == b"question" {
                self.datagrams.send_to(b"answer", from).unwrap();
                assert_eq!(socket.recv(&mut buffer).unwrap(), 6);
                return socket;
            }
        }
    }

    /// Sends each datagram of the published UDP server back, until `stop`.
    pub(super) fn answer_datagrams(&self, stop: &AtomicBool) {
        let mut buffer = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            if let Ok((length, from)) = self.datagrams.recv_from(&mut buffer) {
                self.datagrams.send_to(&buffer[..length], from).unwrap();
            }
        }
    }

    /// The command `natbox VERB ... --socket SOCKET`, without standard input.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(NATBOX);
        command.args(arguments).arg("--socket").arg(self.running.socket());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that must succeed, and returns its output.
    #[track_caller]
    pub(super) fn output(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with exit code 1, and returns its message.
    #[track_caller]
    pub(super) fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// The number of sessions that match a filter.
    #[track_caller]
    pub(super) fn count(&self, filter: &str) -> u64 {
        self.output(&["sessions", "--count", filter]).trim().parse().unwrap()
    }

    /// Waits until the handshakes have passed the box.
    pub(super) fn wait_for_sessions(&self, filter: &str, wanted: u64) {
        eventually(filter, || (self.count(filter) == wanted).then_some(()));
    }
}

fn limited(ends: Ends) -> Ends {
    for stream in [&ends.client, &ends.server] {
        stream.set_read_timeout(Some(seconds(5))).unwrap();
    }
    ends
}
