//! The name server on real sockets of this host, by the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::RecordType;

use super::super::testing::{name, set_up, uplinks, zone};
use super::super::{DnsSettings, PreparedService, Service};
use super::*;
use crate::uplinks::Uplinks;

struct Fixture {
    service: Service,
    uplinks: Uplinks,
    server: SocketAddr,
}

fn start(rate: u32) -> Fixture {
    let settings = DnsSettings {
        zone: zone(),
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        answers_per_second: rate,
        update: None,
        hook_runner: None,
    };
    let prepared = PreparedService::new(settings).unwrap();
    let uplinks = uplinks();
    let service = prepared.start(&uplinks, || {}).unwrap();
    let server = service.listening()[0];
    Fixture { service, uplinks, server }
}

impl Fixture {
    fn count(&self, name: &str) -> u64 {
        self.service.counters().values()[name]
    }

    fn ask(&self, text: &str) -> Option<Message> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(&query(text), self.server).unwrap();
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer).ok()?;
        Some(Message::from_vec(&buffer[..length]).unwrap())
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }
}

fn query(text: &str) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(name(text), RecordType::A));
    message.to_vec().unwrap()
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

fn read_framed(stream: &mut TcpStream) -> Message {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    Message::from_vec(&message).unwrap()
}

fn is_closed(mut stream: TcpStream) -> bool {
    matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_))
}

#[test]
fn answers_by_udp_follow_the_uplinks() {
    let fixture = start(1000);
    assert_eq!(fixture.ask("www.example.org").unwrap().answers.len(), 3);
    set_up(&fixture.uplinks, 1, false);
    assert_eq!(fixture.ask("www.example.org").unwrap().answers.len(), 2);
    assert_eq!(
        fixture.ask("x.example.org").unwrap().metadata.response_code,
        ResponseCode::NXDomain
    );
    assert_eq!(
        (fixture.count("queries"), fixture.count("answers"), fixture.count("oversized")),
        (3, 3, 0)
    );
    // Bytes that are no message get no answer and stop nothing.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.send_to(b"hello", fixture.server).unwrap();
    assert_eq!(fixture.ask("www.example.org").unwrap().answers.len(), 2);
    assert_eq!(fixture.count("ignored"), 1);
}

#[test]
fn a_connection_takes_one_query_after_the_other() {
    let fixture = start(1);
    let mut stream = fixture.connect();
    let message = framed(&query("www.example.org"));
    // Two at once, then one in parts; the limit is for datagrams only.
    stream.write_all(&[message.clone(), message.clone()].concat()).unwrap();
    let answers = [read_framed(&mut stream), read_framed(&mut stream)];
    assert!(answers.iter().all(|answer| answer.answers.len() == 3));
    let (head, tail) = message.split_at(9);
    stream.write_all(head).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(tail).unwrap();
    assert_eq!(read_framed(&mut stream).answers.len(), 3);
    assert_eq!((fixture.count("connections"), fixture.count("queries")), (1, 3));
    // Bytes that are no DNS message end the connection.
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert!(is_closed(stream));
}

#[test]
fn a_silent_connection_is_closed() {
    let fixture = start(1);
    let start = Instant::now();
    assert!(is_closed(fixture.connect()));
    assert!(start.elapsed() >= IDLE, "{:?}", start.elapsed());
}

#[test]
fn one_network_does_not_take_all_connections() {
    let fixture = start(1);
    let connections: Vec<TcpStream> =
        (0..MAX_CONNECTIONS_PER_NETWORK).map(|_| fixture.connect()).collect();
    assert!(is_closed(fixture.connect()));
    assert_eq!(fixture.count("connections_refused"), 1);
    drop(connections);
    // Their slots are free again when the server has seen that they are closed.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut stream = fixture.connect();
        let _ = stream.write_all(&framed(&query("www.example.org")));
        if stream.read(&mut [0; 2]).is_ok_and(|read| read > 0) {
            break;
        }
        assert!(Instant::now() < deadline, "no slot in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_number_of_all_connections_is_limited() {
    let slots = Arc::new(ConnectionSlots::default());
    let client =
        |number: usize| SocketAddr::from(([10, (number / 256) as u8, number as u8, 1], 5000));
    let taken: Vec<ConnectionSlot> = (0..MAX_CONNECTIONS)
        .map(|number| ConnectionSlots::take(&slots, client(number)).unwrap())
        .collect();
    assert!(ConnectionSlots::take(&slots, client(MAX_CONNECTIONS)).is_none());
    drop(taken);
    assert!(ConnectionSlots::take(&slots, client(0)).is_some());
    assert!(slots.0.lock().is_empty(), "a network without a connection has no entry");
}

#[test]
fn a_source_above_its_limit_gets_few_and_short_answers() {
    let fixture = start(10);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let message = query("www.example.org");
    let (mut whole, mut cut, mut bytes) = (0, 0, 0);
    let mut buffer = [0; 1500];
    for _ in 0..20 {
        for _ in 0..10 {
            socket.send_to(&message, fixture.server).unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    while let Ok(length) = socket.recv(&mut buffer) {
        bytes += length;
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        if answer.metadata.truncation {
            assert_eq!(length, message.len());
            cut += 1;
        } else {
            whole += 1;
        }
    }
    let sent = 200 * message.len();
    assert!((10..100).contains(&whole), "{whole} whole answers");
    assert!(cut > 0 && bytes < sent, "{cut} cut ones; {bytes} bytes for {sent}");
    assert_eq!(fixture.count("queries"), 200);
    assert_eq!((fixture.count("answers"), fixture.count("limited_truncated")), (whole, cut));
    assert_eq!(fixture.count("limited_dropped"), 200 - whole - cut);
}

/// Answers of other servers, sent here from a forged source, must not use up the limit of that
/// source.
#[test]
fn messages_that_are_no_query_do_not_count_against_their_source() {
    let fixture = start(1);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut answer = query("www.example.org");
    answer[2] |= 0x80;
    for _ in 0..20 {
        socket.send_to(&answer, fixture.server).unwrap();
    }
    let answer = fixture.ask("www.example.org").unwrap();
    assert!(!answer.metadata.truncation && answer.answers.len() == 3);
    assert_eq!((fixture.count("ignored"), fixture.count("limited_dropped")), (20, 0));
}

#[test]
fn an_address_need_not_exist_yet() {
    let sockets = Sockets::bind(SocketAddr::from(([203, 0, 113, 99], 0))).unwrap();
    assert_eq!(sockets.address().unwrap().ip(), Ipv4Addr::new(203, 0, 113, 99));
}

#[test]
fn the_error_names_a_port_that_is_taken() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let settings = DnsSettings {
        zone: zone(),
        listen: vec![address],
        answers_per_second: 1,
        update: None,
        hook_runner: None,
    };
    let error = PreparedService::new(settings).unwrap_err().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("another name server"),
        "{error}"
    );
}
