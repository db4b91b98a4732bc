//! `natbox explain`: what it says about a packet is what the box then does with this packet.

use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use natbox::api::{Explanation, MappingPort, PacketOutcome};
use natbox::lab::Namespace;
use natbox::packet::{Protocol, TcpFlags, builder};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

use crate::single_box::{
    CLIENT, Published, RunningBox, SERVER, SingleBox, WEB, eventually, seconds,
};

/// Port of the client of the forward.
const CLIENT_PORT: u16 = 4242;
/// Ports of the two ends of an outbound session.
const INSIDE_PORT: u16 = 5000;
const REMOTE_PORT: u16 = 9000;
const CLOSED: u16 = 9999;

/// Asks the box about a packet. The box must be the same afterwards.
fn explain(testbed: &SingleBox, natbox: &RunningBox, packet: &str) -> Explanation {
    // A worker publishes its counters after the batch.
    eventually("the counters of the last batch", || {
        let sessions = natbox.status().sessions;
        let ended = sessions.expired + sessions.evicted;
        (sessions.created - ended == u64::from(sessions.now)).then_some(())
    });
    let before = (natbox.sessions(), natbox.status().sessions, natbox.status().drops);
    let socket = natbox.socket().to_str().unwrap();
    let ended = testbed.natbox(&[], &["explain", "--json", "--socket", socket, packet]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let after = (natbox.sessions(), natbox.status().sessions, natbox.status().drops);
    // The sessions come nearer to their ends meanwhile.
    assert_eq!(before.0.len(), after.0.len(), "{packet}");
    assert_eq!((before.1, before.2), (after.1, after.2), "{packet}");
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Returns source and destination of the packet that leaves.
fn sent(explanation: &Explanation) -> (String, String) {
    let sent = explanation.sent.as_ref().unwrap_or_else(|| panic!("{explanation:?}"));
    let addresses = sent.addresses.clone().unwrap();
    (addresses.source, addresses.destination)
}

fn socket(namespace: &Namespace, address: (Ipv4Addr, u16)) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(seconds(10))).unwrap();
    socket
}

#[test]
fn a_connection_through_a_forward_goes_as_explained() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let request = format!("tcp {CLIENT}:{CLIENT_PORT} -> {}:{WEB}", testbed.published);
    let said = explain(&testbed, &natbox, &request);
    assert_eq!(said.outcome, PacketOutcome::Translated, "{said:?}");
    assert_eq!((said.forward.as_deref(), said.uplink.as_deref()), (Some("web"), Some("isp")));
    assert!(said.session.is_none(), "{said:?}");
    assert_eq!(said.opens.as_ref().unwrap().origin, "forward");
    let place = |place: &Option<natbox::api::PlaceView>| {
        let place = place.clone().unwrap();
        (place.side, place.interface.unwrap())
    };
    assert_eq!(place(&said.from), ("outside".to_owned(), "wan0".to_owned()));
    assert_eq!(place(&said.towards), ("inside".to_owned(), "lan0".to_owned()));

    // The real connection reaches the server with the addresses of the answer.
    let server = testbed.server.enter(|| TcpListener::bind((SERVER, WEB))).unwrap().unwrap();
    let client = testbed.net.enter(|| connect_from(CLIENT_PORT, testbed.endpoint(WEB))).unwrap();
    let (accepted, peer) = server.accept().unwrap();
    assert_eq!(sent(&said), (peer.to_string(), accepted.local_addr().unwrap().to_string()));

    let said = explain(&testbed, &natbox, &format!("{request} ack"));
    let session = said.session.as_ref().unwrap_or_else(|| panic!("{said:?}"));
    assert_eq!((&session.state[..], &session.origin[..]), ("established", "forward"));
    assert!(said.opens.is_none() && said.forward.as_deref() == Some("web"), "{said:?}");
    let reply = format!("tcp {SERVER}:{WEB} -> {CLIENT}:{CLIENT_PORT} ack");
    let said = explain(&testbed, &natbox, &reply);
    let seen = (client.peer_addr().unwrap().to_string(), client.local_addr().unwrap().to_string());
    assert_eq!(sent(&said), seen);
}

fn connect_from(port: u16, to: SocketAddrV4) -> TcpStream {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(CLIENT, port)).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    TcpStream::from(socket)
}

#[test]
fn an_outbound_session_goes_as_explained_before_and_after_it_begins() {
    let testbed = SingleBox::new(Published::OnLink);
    let mut config = testbed.config();
    config.extra = "nat: { port_preservation: true }\n".to_owned();
    let natbox = testbed.start(&config);
    let packet = format!("udp {SERVER}:{INSIDE_PORT} -> {CLIENT}:{REMOTE_PORT}");
    let said = explain(&testbed, &natbox, &packet);
    assert_eq!(said.opens.as_ref().unwrap().origin, "outbound", "{said:?}");
    assert_eq!(said.mapping.as_ref().unwrap().port, MappingPort::Kept);
    assert_eq!(said.outbound_rule.as_deref(), Some("from 10.0.0.0/24 over isp"));

    let remote = socket(&testbed.net, (CLIENT, REMOTE_PORT));
    let inside = socket(&testbed.server, (SERVER, INSIDE_PORT));
    inside.send_to(b"question", (CLIENT, REMOTE_PORT)).unwrap();
    let (_, from) = remote.recv_from(&mut [0; 64]).unwrap();
    assert_eq!(sent(&said).0, from.to_string(), "the port that was said");

    let said = explain(&testbed, &natbox, &packet);
    assert!(said.session.is_some() && said.opens.is_none(), "{said:?}");
    assert_eq!(sent(&said).0, from.to_string());
    let said = explain(&testbed, &natbox, &format!("udp {CLIENT}:{REMOTE_PORT} -> {from}"));
    assert_eq!(sent(&said).1, inside.local_addr().unwrap().to_string());
    remote.send_to(b"answer", from).unwrap();
    inside.recv_from(&mut [0; 64]).unwrap();
}

#[test]
fn a_drop_is_explained_with_its_reason_and_counted_under_it() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let packet = format!("udp {CLIENT}:{CLIENT_PORT} to {}:{CLOSED}", testbed.published);
    let said = explain(&testbed, &natbox, &packet);
    let drop = said.drop.unwrap();
    assert_eq!((said.outcome, &drop.reason[..]), (PacketOutcome::Dropped, "no-mapping"));
    assert!(drop.advice.contains("forward") && said.sent.is_none(), "{drop:?}");
    assert_eq!(natbox.dropped("no-mapping"), 0);
    let client = socket(&testbed.net, (CLIENT, CLIENT_PORT));
    client.send_to(b"unwanted", testbed.endpoint(CLOSED)).unwrap();
    crate::single_box::eventually("the drop", || (natbox.dropped("no-mapping") == 1).then_some(()));

    let socket = natbox.socket().to_str().unwrap();
    let text = testbed.natbox(&[], &["explain", "--socket", socket, &packet]);
    for words in ["dropped: no-mapping", "advice", "outside (wan0)", "28 bytes"] {
        assert!(text.stdout.contains(words), "{words}: {}", text.stdout);
    }
    let wrong = testbed.natbox(&[], &["explain", "--socket", socket, &format!("{packet} dff")]);
    wrong.assert_says(1, &["found `dff`", "did you mean `df`?"]);
    let lan = testbed.natbox(&[], &["explain", "--socket", socket, &format!("{packet} from lan0")]);
    assert!(lan.stdout.contains("not to `lan0`"), "{lan:?}");
}

#[test]
fn a_capture_is_explained_packet_by_packet_without_a_box() {
    let testbed = SingleBox::new(Published::OnLink);
    let config = testbed.write("alone", &testbed.config().to_string());
    let capture = testbed.lab.directory().join("three.pcap");
    let (client, published) = ((CLIENT, CLIENT_PORT), (testbed.published, WEB));
    let request = builder::tuple(Protocol::TCP, client, published);
    let reply = builder::tuple(Protocol::TCP, (SERVER, WEB), client);
    let packets = [
        builder::tcp(request, TcpFlags::SYN, 1, 0, &[], b""),
        builder::tcp(reply, TcpFlags(0x12), 1, 2, &[], b""),
        builder::udp(builder::tuple(Protocol::UDP, client, (testbed.published, CLOSED)), b"?"),
    ];
    let header = PcapHeader { datalink: DataLink::RAW, ..PcapHeader::default() };
    let file = std::fs::File::create(&capture).unwrap();
    let mut writer = PcapWriter::with_header(file, header).unwrap();
    for (number, packet) in packets.iter().enumerate() {
        let time = Duration::from_millis(number as u64);
        writer.write_packet(&PcapPacket::new(time, packet.len() as u32, packet)).unwrap();
    }
    drop(writer);
    let (config, capture) = (config.to_str().unwrap(), capture.to_str().unwrap());
    let ended = testbed.natbox(&[], &["explain", "-c", config, "--pcap", capture, "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let explained: Vec<serde_json::Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [opens, replies, dropped] = &explained[..] else { panic!("{ended:?}") };
    assert_eq!((&opens["outcome"], &opens["forward"]), (&"translated".into(), &"web".into()));
    assert!(opens["opens"].is_object() && opens["session"].is_null(), "{opens}");
    // The second packet finds the session of the first one.
    assert!(replies["session"].is_object() && replies["opens"].is_null(), "{replies}");
    assert_eq!(
        replies["sent"]["addresses"]["source"],
        format!("{}:{WEB}", testbed.published),
        "{replies}"
    );
    assert_eq!(dropped["drop"]["reason"], "no-mapping");
    assert_eq!(dropped["number"], 3);
}
