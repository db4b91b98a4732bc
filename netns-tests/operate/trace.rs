//! `natbox trace`: real traffic, seen before and after, and under load with a slow reader.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use natbox::api::{PacketView, Request, TraceLine, TraceVerdict, TracedPacketView};

use crate::lab::{Echo, datagrams, exchange};
use crate::single_box::{
    CLIENT, DATAGRAMS, NATBOX, Published, RunningBox, SERVER, SingleBox, WEB, eventually, seconds,
};

/// A connection to the admin socket on which a trace is on.
struct Stream(BufReader<UnixStream>);

impl Stream {
    fn open(natbox: &RunningBox, filter: &str) -> Result<Self, String> {
        let mut socket = UnixStream::connect(natbox.socket()).unwrap();
        socket.set_read_timeout(Some(seconds(10))).unwrap();
        let request = Request::Trace { filter: filter.to_owned() }.to_json() + "\n";
        socket.write_all(request.as_bytes()).unwrap();
        let mut stream = Self(BufReader::new(socket));
        let line = stream.line();
        match serde_json::from_str(&line) {
            Ok(TraceLine::Started) => Ok(stream),
            _ => Err(line),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn next(&mut self) -> TraceLine {
        serde_json::from_str(&self.line()).unwrap()
    }
}

/// A running `natbox trace` that has reported on standard error that the trace is on.
fn trace(natbox: &RunningBox, arguments: &[&str]) -> (Child, ChildStdout) {
    let mut command = Command::new(NATBOX);
    command.args(["trace", "--socket", natbox.socket().to_str().unwrap()]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut notice = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut notice).unwrap();
    assert!(notice.starts_with("tracing"), "{notice}");
    let output = child.stdout.take().unwrap();
    (child, output)
}

fn summary(packet: &Option<PacketView>) -> &str {
    packet.as_ref().map_or("", |packet| &packet.summary)
}

#[test]
fn live_packets_are_shown_before_and_after_with_their_session() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let _server = testbed.serve();
    let mut stream = Stream::open(&natbox, "tcp to :80 forward web").unwrap();
    assert_eq!(testbed.fetch().unwrap(), CLIENT.to_string());
    let mut packets: Vec<TracedPacketView> = Vec::new();
    while packets.len() < 5 {
        match stream.next() {
            TraceLine::Packet(packet) => packets.push(*packet),
            line @ (TraceLine::Started | TraceLine::Lost { .. }) => panic!("{line:?}"),
        }
    }
    let published = format!("{}:{WEB}", testbed.published);
    let server = format!("{SERVER}:{WEB}");
    for packet in &packets {
        assert_eq!(packet.verdict, TraceVerdict::Translated, "{packet:?}");
        assert_eq!(packet.forward.as_deref(), Some("web"));
        assert_eq!(packet.uplink.as_deref(), Some("isp"));
        let (before, after) = (summary(&packet.before), summary(&packet.after));
        let is_request = before.contains(&format!("> {published}"));
        let is_translated = match is_request {
            true => after.contains(&format!("> {server}")),
            false => {
                before.contains(&format!("{server} >")) && after.contains(&format!("{published} >"))
            }
        };
        assert!(is_translated, "{packet:?}");
    }
    let opening: Vec<_> =
        packets.iter().filter(|packet| packet.session.as_ref().is_some_and(|it| it.new)).collect();
    let [opening] = opening[..] else { panic!("one packet opens the session: {packets:?}") };
    assert!(summary(&opening.before).contains("[S]"), "{opening:?}");
    assert!(packets.iter().any(|packet| summary(&packet.before).contains(&format!("{server} >"))));
}

#[test]
fn the_command_counts_packets_and_shows_drops() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let (mut child, output) = trace(&natbox, &["--count", "2", "udp", "to", ":9999"]);
    let socket = datagrams(&testbed.net, CLIENT, 4242).unwrap();
    for _ in 0..3 {
        socket.send_to(b"unwanted", testbed.endpoint(9999)).unwrap();
    }
    let lines: Vec<String> = BufReader::new(output).lines().map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success());
    assert_eq!(lines.len(), 4, "{lines:?}");
    for pair in lines.chunks(2) {
        assert!(pair[0].contains("dropped (no-mapping): No forward"), "{lines:?}");
        let before = format!("before udp {CLIENT}:4242 > {}:9999", testbed.published);
        assert!(pair[1].contains(&before), "{lines:?}");
    }
}

/// A capture in a pipe: tcpdump shows each packet as soon as it is there, on both sides.
#[test]
fn both_sides_go_into_a_capture_by_a_pipe() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let _echo = Echo::start(&testbed.server, SERVER, DATAGRAMS).unwrap();
    let (mut child, output) = trace(&natbox, &["--write", "-", "--count", "2", "udp", "to", ":7"]);
    let mut reader = testbed.natbox.command("tcpdump");
    reader.args(["-nn", "-r", "-"]).stdin(output).stdout(Stdio::piped());
    let reader = reader.stderr(Stdio::null()).spawn().unwrap();
    let socket = datagrams(&testbed.net, CLIENT, 4242).unwrap();
    socket.connect(testbed.endpoint(DATAGRAMS)).unwrap();
    exchange(&socket, 100).unwrap();
    assert!(child.wait().unwrap().success());
    let shown = reader.wait_with_output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let (published, client) = (testbed.published, CLIENT);
    for wanted in [
        format!("IP {client}.4242 > {published}.7: UDP, length 100"),
        format!("IP {client}.4242 > {SERVER}.7: UDP, length 100"),
        format!("IP {SERVER}.7 > {client}.4242: UDP, length 100"),
        format!("IP {published}.7 > {client}.4242: UDP, length 100"),
    ] {
        assert!(shown.contains(&wanted), "{wanted:?} is missing in:\n{shown}");
    }
}

/// The reader takes nothing while datagrams go to and fro. Each datagram arrives, and each packet
/// is either shown later or counted as lost.
#[test]
fn a_slow_reader_loses_packets_of_the_trace_and_none_of_the_traffic() {
    const EXCHANGES: u64 = 6000;
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let _echo = Echo::start(&testbed.server, SERVER, DATAGRAMS).unwrap();
    let mut stream = Stream::open(&natbox, "udp to :7").unwrap();
    let socket = datagrams(&testbed.net, CLIENT, 4242).unwrap();
    socket.connect(testbed.endpoint(DATAGRAMS)).unwrap();
    for _ in 0..EXCHANGES {
        exchange(&socket, 64).unwrap();
    }
    let (mut shown, mut lost) = (0, 0);
    while shown + lost < 2 * EXCHANGES {
        match stream.next() {
            TraceLine::Packet(_) => shown += 1,
            TraceLine::Lost { packets } => lost += packets,
            TraceLine::Started => panic!("a second start"),
        }
    }
    assert_eq!(shown + lost, 2 * EXCHANGES, "{shown} shown, {lost} lost");
    assert!(lost > 1000, "{lost} lost: the reader was not slow");
    // Now the reader keeps up again.
    exchange(&socket, 64).unwrap();
    for _ in 0..2 {
        assert!(matches!(stream.next(), TraceLine::Packet(_)));
    }
}

#[test]
fn traces_end_with_their_clients_and_only_some_run_at_once() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let mut streams: Vec<Stream> = (0..4).map(|_| Stream::open(&natbox, "").unwrap()).collect();
    let refused = Stream::open(&natbox, "").err().unwrap();
    assert!(refused.contains("too many traces are on"), "{refused}");
    streams.pop();
    let replaced = eventually("the end of the trace", || Stream::open(&natbox, "").ok());
    drop((streams, replaced));
    let (mut child, _output) = trace(&natbox, &["tcp"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let streams = eventually("the end of all traces", || {
        (0..4).map(|_| Stream::open(&natbox, "").ok()).collect::<Option<Vec<_>>>()
    });
    assert_eq!(streams.len(), 4);
}

#[test]
fn only_root_may_trace() {
    let testbed = SingleBox::new(Published::OnLink);
    let text = testbed.config().to_string();
    let text = text.replace("admin: { socket:", "admin: { group: '4711', socket:");
    let path = testbed.write("natbox", &text);
    let socket = testbed.config().socket;
    let _natbox = RunningBox::launch(&testbed.natbox, "natbox", &path, &socket);
    let as_member = ["setpriv", "--reuid=65534", "--regid=4711", "--clear-groups"];
    let socket = socket.to_str().unwrap();
    let refused = testbed.natbox(&as_member, &["trace", "--socket", socket, "udp"]);
    refused.assert_says(1, &["may only read", "as root"]);
}
