//! `natbox drops`: real dropped packets, read back as JSON and as captures.

use std::net::{SocketAddrV4, UdpSocket};
use std::process::{Command, Stdio};

use natbox::api::{DropReport, Request, client};

use crate::single_box::{CLIENT, NATBOX, Published, RunningBox, SERVER, SingleBox, eventually};

const CLOSED: u16 = 9999;

fn drops(natbox: &RunningBox, filter: &str) -> DropReport {
    let request = Request::Drops { filter: filter.to_owned() };
    client::request(natbox.socket(), &request).unwrap()
}

/// Sends datagrams to a published port without a forward, and waits until the box has dropped them.
fn send_unwanted(testbed: &SingleBox, natbox: &RunningBox, payloads: &[&str]) {
    let before = natbox.dropped("no-mapping");
    let socket = testbed.net.enter(|| UdpSocket::bind((CLIENT, 4242))).unwrap().unwrap();
    for payload in payloads {
        socket.send_to(payload.as_bytes(), testbed.endpoint(CLOSED)).unwrap();
    }
    let wanted = before + payloads.len() as u64;
    eventually("the drops", || (natbox.dropped("no-mapping") == wanted).then_some(()));
}

fn tcpdump(testbed: &SingleBox, arguments: &[&str]) -> Command {
    let mut command = testbed.natbox.command("tcpdump");
    command.args(["-nn", "-A"]).args(arguments);
    command
}

#[test]
fn dropped_packets_are_kept_and_written_as_a_capture() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    assert_eq!(drops(&natbox, "udp to :9999").reasons, []);
    let payloads = ["first-payload", "second-payload", "third-payload"];
    send_unwanted(&testbed, &natbox, &payloads);

    let report = drops(&natbox, "udp from 192.0.2.11 to :9999");
    let [reason] = &report.reasons[..] else { panic!("{report:?}") };
    assert_eq!((&reason.reason[..], reason.packets), ("no-mapping", 3));
    assert!(reason.last.is_some() && reason.advice.contains("forward"), "{reason:?}");
    let numbers: Vec<u64> = reason.examples.iter().map(|example| example.number).collect();
    // The kernel may spread the packets over both workers.
    assert_eq!(numbers.len(), 3, "{reason:?}");
    for (example, payload) in reason.examples.iter().zip(payloads) {
        assert_eq!(example.from.as_deref(), Some("outside"));
        assert_eq!(example.uplink.as_deref(), Some("isp"));
        let wanted = format!("udp {CLIENT}:4242 > {}:{CLOSED}", testbed.published);
        assert!(example.packet.summary.starts_with(&wanted), "{example:?}");
        let hex: String = payload.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert!(example.packet.bytes.ends_with(&hex), "{example:?}");
        assert_eq!(example.packet.length as usize, 28 + payload.len());
    }
    assert_eq!(drops(&natbox, "tcp to :9999").reasons, [], "the filter selects");

    let socket = natbox.socket().to_str().unwrap();
    let file = testbed.lab.directory().join("drops.pcapng");
    let file = file.to_str().unwrap();
    let written =
        testbed.natbox(&[], &["drops", "--socket", socket, "--write", file, "udp", "to", ":9999"]);
    assert_eq!(written.code, Some(0), "{written:?}");
    let shown = tcpdump(&testbed, &["-r", file]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    for payload in payloads {
        assert!(shown.contains(payload), "{shown}");
    }
    let text = testbed.natbox(&[], &["drops", "--socket", socket]);
    assert!(text.stdout.contains("To do: ") && text.stdout.contains("no-mapping: 3 packets"));
}

#[test]
fn a_capture_goes_into_a_pipe() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    send_unwanted(&testbed, &natbox, &["through-the-pipe"]);
    let mut command = Command::new(NATBOX);
    command.args(["drops", "--socket", natbox.socket().to_str().unwrap(), "--write", "-"]);
    let mut writer = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut reader = tcpdump(&testbed, &["-r", "-"]);
    let shown = reader.stdin(writer.stdout.take().unwrap()).output().unwrap();
    assert!(writer.wait().unwrap().success());
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("through-the-pipe"), "{shown}");
}

/// The payload belongs to the hosts: who may only read sees headers alone.
#[test]
fn members_of_the_group_see_headers_alone() {
    let testbed = SingleBox::new(Published::OnLink);
    let text = testbed.config().to_string();
    let text = text.replace("admin: { socket:", "admin: { group: '4711', socket:");
    let path = testbed.write("natbox", &text);
    let socket = testbed.config().socket;
    let natbox = RunningBox::launch(&testbed.natbox, "natbox", &path, &socket);
    send_unwanted(&testbed, &natbox, &["secret-payload"]);
    let as_member = ["setpriv", "--reuid=65534", "--regid=4711", "--clear-groups"];
    let socket = socket.to_str().unwrap();
    let shown = testbed.natbox(&as_member, &["drops", "--socket", socket, "--json"]);
    let report: DropReport =
        serde_json::from_str(&shown.stdout).unwrap_or_else(|error| panic!("{error}: {shown:?}"));
    assert!(!report.with_payload);
    let [reason] = &report.reasons[..] else { panic!("{report:?}") };
    assert_eq!(reason.examples[0].packet.bytes.len(), 2 * 28, "{reason:?}");
}

#[test]
fn a_wrong_filter_names_the_word() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let socket = natbox.socket().to_str().unwrap();
    let refused = testbed.natbox(&[], &["drops", "--socket", socket, "tcp", "fron", "10.0.0.1"]);
    refused.assert_says(1, &["column 5", "`fron`", "`from`"]);
    // Another client gets the same answer from the box itself.
    let request = Request::Drops { filter: "tcp fron".to_owned() };
    let error = client::request::<DropReport>(natbox.socket(), &request).unwrap_err();
    assert!(error.to_string().contains("column 5"), "{error}");
}

/// The server's own packets: the box answers them with an ICMP error, and keeps them.
#[test]
fn a_rejected_packet_of_an_inside_host_is_kept_as_it_arrived() {
    let testbed = SingleBox::new(Published::OnLink);
    let text = testbed.config().to_string();
    let text = text.replace("  - { from: 10.0.0.0/24 }", "  - { from: 10.0.0.200/32 }");
    let path = testbed.write("natbox", &text);
    let natbox = RunningBox::launch(&testbed.natbox, "natbox", &path, &testbed.config().socket);
    let socket = testbed.server.enter(|| UdpSocket::bind((SERVER, 5353))).unwrap().unwrap();
    let to = SocketAddrV4::new(CLIENT, 53);
    socket.send_to(b"question", to).unwrap();
    let report = eventually("the drop", || {
        let report = drops(&natbox, "inside 10.0.0.101 and to :53");
        (!report.reasons.is_empty()).then_some(report)
    });
    let [reason] = &report.reasons[..] else { panic!("{report:?}") };
    assert_eq!(reason.reason, "no-outbound-rule");
    let wanted = format!("udp {SERVER}:5353 > {to}");
    assert!(reason.examples[0].packet.summary.starts_with(&wanted), "{reason:?}");
}
