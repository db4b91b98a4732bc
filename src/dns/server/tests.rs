//! The name server on real sockets of this host, by the loopback interface.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::RecordType;

use super::super::testing::{lines, name, zone};
use super::super::{Prepared, Service, Settings, Uplinks};
use super::*;

struct Scene {
    service: Service,
    lines: Uplinks,
    server: SocketAddr,
}

fn start(rate: u32) -> Scene {
    let settings = Settings {
        zone: zone(),
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        answers_per_second: rate,
        update: None,
        helper: None,
    };
    let prepared = Prepared::new(settings).unwrap();
    let lines = Uplinks::new(lines().lines);
    let service = prepared.start(&lines).unwrap();
    let server = service.listening()[0];
    Scene { service, lines, server }
}

impl Scene {
    fn count(&self, name: &str) -> u64 {
        self.service.counters().values()[name]
    }

    fn ask(&self, text: &str) -> Option<Message> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send_to(&question(text), self.server).unwrap();
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

fn question(text: &str) -> Vec<u8> {
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
fn datagrams_are_answered_and_follow_the_lines() {
    let scene = start(1000);
    assert_eq!(scene.ask("www.example.org").unwrap().answers.len(), 3);
    scene.lines.set_up(1, false);
    assert_eq!(scene.ask("www.example.org").unwrap().answers.len(), 2);
    assert_eq!(scene.ask("x.example.org").unwrap().metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(
        (scene.count("queries"), scene.count("answers"), scene.count("oversized")),
        (3, 3, 0)
    );
    // What is no message at all gets nothing, and stops nothing.
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.send_to(b"hello", scene.server).unwrap();
    assert_eq!(scene.ask("www.example.org").unwrap().answers.len(), 2);
    assert_eq!(scene.count("ignored"), 1);
}

#[test]
fn a_connection_takes_one_question_after_the_other() {
    let scene = start(1);
    let mut stream = scene.connect();
    let message = framed(&question("www.example.org"));
    // Two at once, then one in pieces; the limit is for datagrams only.
    stream.write_all(&[message.clone(), message.clone()].concat()).unwrap();
    let answers = [read_framed(&mut stream), read_framed(&mut stream)];
    assert!(answers.iter().all(|answer| answer.answers.len() == 3));
    let (head, tail) = message.split_at(9);
    stream.write_all(head).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(tail).unwrap();
    assert_eq!(read_framed(&mut stream).answers.len(), 3);
    assert_eq!((scene.count("connections"), scene.count("queries")), (1, 3));
    // What is no message of DNS ends the connection.
    stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    assert!(is_closed(stream));
}

#[test]
fn a_silent_connection_is_closed() {
    let scene = start(1);
    let start = Instant::now();
    assert!(is_closed(scene.connect()));
    assert!(start.elapsed() >= IDLE, "{:?}", start.elapsed());
}

#[test]
fn one_network_does_not_take_all_connections() {
    let scene = start(1);
    let connections: Vec<TcpStream> =
        (0..MAX_CONNECTIONS_PER_NETWORK).map(|_| scene.connect()).collect();
    assert!(is_closed(scene.connect()));
    assert_eq!(scene.count("connections_refused"), 1);
    drop(connections);
    // Their places are free again, as soon as the server has seen that they are closed.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut stream = scene.connect();
        let _ = stream.write_all(&framed(&question("www.example.org")));
        if stream.read(&mut [0; 2]).is_ok_and(|read| read > 0) {
            break;
        }
        assert!(Instant::now() < deadline, "no place in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn all_places_together_are_limited() {
    let places = Arc::new(ConnectionSlots::default());
    let client =
        |number: usize| SocketAddr::from(([10, (number / 256) as u8, number as u8, 1], 5000));
    let taken: Vec<ConnectionSlot> = (0..MAX_CONNECTIONS)
        .map(|number| ConnectionSlots::take(&places, client(number)).unwrap())
        .collect();
    assert!(ConnectionSlots::take(&places, client(MAX_CONNECTIONS)).is_none());
    drop(taken);
    assert!(ConnectionSlots::take(&places, client(0)).is_some());
    assert!(places.0.lock().is_empty(), "what is not used is not remembered");
}

#[test]
fn a_source_above_its_limit_gets_few_and_short_answers() {
    let scene = start(10);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let message = question("www.example.org");
    let (mut whole, mut cut, mut bytes) = (0, 0, 0);
    let mut buffer = [0; 1500];
    for _ in 0..20 {
        for _ in 0..10 {
            socket.send_to(&message, scene.server).unwrap();
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
    assert_eq!(scene.count("queries"), 200);
    assert_eq!((scene.count("answers"), scene.count("limited_truncated")), (whole, cut));
    assert_eq!(scene.count("limited_dropped"), 200 - whole - cut);
}

/// Answers of other servers, sent here from a forged source, must not use up what that source is to get.
#[test]
fn what_asks_nothing_counts_against_nobody() {
    let scene = start(1);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut answer = question("www.example.org");
    answer[2] |= 0x80;
    for _ in 0..20 {
        socket.send_to(&answer, scene.server).unwrap();
    }
    let answer = scene.ask("www.example.org").unwrap();
    assert!(!answer.metadata.truncation && answer.answers.len() == 3);
    assert_eq!((scene.count("ignored"), scene.count("limited_dropped")), (20, 0));
}

#[test]
fn an_address_need_not_be_there_yet() {
    let sockets = Sockets::bind(SocketAddr::from(([203, 0, 113, 99], 0))).unwrap();
    assert_eq!(sockets.address().unwrap().ip(), Ipv4Addr::new(203, 0, 113, 99));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let settings = Settings {
        zone: zone(),
        listen: vec![address],
        answers_per_second: 1,
        update: None,
        helper: None,
    };
    let error = Prepared::new(settings).unwrap_err().to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("another name server"),
        "{error}"
    );
}
