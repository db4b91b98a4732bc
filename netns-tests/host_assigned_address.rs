//! The published address is assigned to the host: natbox gets every packet first, and passes the
//! host's packets to the host.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};

use rustix::process::Signal;

use crate::single_box::{
    CLIENT, DATAGRAMS, Published, RunningBox, SERVER, SingleBox, eventually, seconds, serve,
};

/// Runs all kinds of traffic of such a host at the same time.
fn assert_all_works(testbed: &SingleBox) {
    let own = serve(&testbed.natbox, Ipv4Addr::UNSPECIFIED, 8022);
    let outside = serve(&testbed.net, CLIENT, 8080);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The host's own service, for a client outside.
            let to = testbed.endpoint(8022);
            let connect = || natbox::lab::http::connect(Some(CLIENT), to, seconds(3));
            let mut connection = testbed.net.enter(connect).unwrap().unwrap();
            assert_eq!(connection.get("/").unwrap().text().trim(), CLIENT.to_string());
            let answer = connection.get("/bytes/3000000").unwrap();
            assert_eq!(answer.body.len(), 3_000_000, "from the host's own server");
        });
        scope.spawn(|| {
            // A connection that the host opens.
            let to = SocketAddrV4::new(CLIENT, 8080);
            let connect = || natbox::lab::http::connect(None, to, seconds(3));
            let mut connection = testbed.natbox.enter(connect).unwrap().unwrap();
            assert_eq!(connection.get("/").unwrap().text().trim(), testbed.published.to_string());
            assert_eq!(
                connection.get("/bytes/3000000").unwrap().body.len(),
                3_000_000,
                "to the host itself"
            );
        });
        scope.spawn(|| {
            for _ in 0..5 {
                assert_eq!(testbed.fetch().unwrap(), CLIENT.to_string(), "through the forward");
            }
            let mut connection = testbed.connect(seconds(3)).unwrap();
            assert_eq!(
                connection.get("/bytes/3000000").unwrap().body.len(),
                3_000_000,
                "through the forward"
            );
        });
        scope.spawn(|| {
            let to = SocketAddrV4::new(CLIENT, 8080);
            for _ in 0..5 {
                let connect = || natbox::lab::http::connect(None, to, seconds(3));
                let mut connection = testbed.server.enter(connect).unwrap().unwrap();
                assert_eq!(
                    connection.get("/").unwrap().text().trim(),
                    testbed.published.to_string()
                );
            }
        });
        scope.spawn(|| {
            // Datagrams of the host, as a resolver sends them.
            let peer = bind(&testbed.net, CLIENT, 53);
            let own = bind(&testbed.natbox, Ipv4Addr::UNSPECIFIED, 0);
            own.send_to(b"question", (CLIENT, 53)).unwrap();
            let mut buffer = [0; 64];
            let (_, from) = peer.recv_from(&mut buffer).unwrap();
            assert_eq!(from.ip(), testbed.published);
            peer.send_to(b"answer", from).unwrap();
            let (length, _) = own.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"answer");
        });
        scope.spawn(|| {
            for (namespace, to) in [
                (&testbed.natbox, CLIENT),
                (&testbed.net, testbed.published),
                (&testbed.server, CLIENT),
            ] {
                let mut command = namespace.command("ping");
                command.args(["-n", "-c", "2", "-i", "0.1", "-W", "2", &to.to_string()]);
                let output = command.output().unwrap();
                assert!(
                    output.status.success(),
                    "{to}: {}",
                    String::from_utf8_lossy(&output.stdout)
                );
            }
        });
    });
    drop((own, outside));
}

fn bind(namespace: &natbox::lab::Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind((address, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(seconds(3))).unwrap();
    socket
}

#[test]
fn the_hosts_traffic_and_translated_traffic_work_side_by_side() {
    let testbed = SingleBox::new(Published::Owned);
    let _server = testbed.serve();
    let before = testbed.host_state();
    for (workers, offload) in [("2", "auto"), ("1", "none")] {
        let config = crate::single_box::Config {
            workers: workers.into(),
            offload: offload.into(),
            ..testbed.config()
        };
        let natbox = testbed.start(&config);
        assert_all_works(&testbed);
        assert!(natbox.status().totals["passed_to_host"] > 0);
        natbox.stop(Signal::TERM);
        before.assert_same(&testbed.host_state(), "after TERM");
    }
}

/// JSON and Ansible write keywords in quotes. A program that reads YAML 1.1 makes `false` of `off`.
#[test]
fn box_starts_with_keywords_as_other_programs_write_them() {
    let testbed = SingleBox::new(Published::Owned);
    let _server = testbed.serve();
    let config = crate::single_box::Config {
        extra: "nat: { \"mss_clamp\": false, \"mapping\": \"endpoint-independent\" }\n".into(),
        workers: "\"auto\"".into(),
        ..testbed.config()
    };
    let listed = format!("addresses: [{}]", testbed.published);
    let text = config.to_string();
    assert!(text.contains(&listed), "{text}");
    let path = testbed.write("quoted", &text.replace(&listed, "addresses: \"interface\""));
    let natbox = RunningBox::launch(&testbed.natbox, "quoted", &path, &config.socket);
    assert_eq!(natbox.status().uplinks[0].address, Some(testbed.published));
    testbed.assert_traffic();
}

#[test]
fn no_mapping_takes_a_port_at_which_the_host_waits() {
    let _proof = crate::conformance::proves(&["PORT-3"]);
    for later in [false, true] {
        let testbed = SingleBox::new(Published::Owned);
        let before = (!later).then(|| bind(&testbed.natbox, Ipv4Addr::UNSPECIFIED, 5351));
        let config = crate::single_box::Config {
            extra: "nat: { ports: 5351-5352 }\n".into(),
            ..testbed.config()
        };
        let natbox = testbed.start(&config);
        let own = before.unwrap_or_else(|| {
            let own = bind(&testbed.natbox, Ipv4Addr::UNSPECIFIED, 5351);
            // natbox reads the listening ports every two seconds.
            std::thread::sleep(seconds(3));
            own
        });
        let client = bind(&testbed.net, CLIENT, 41_404);
        let mut buffer = [0; 64];
        // An inside host sends from the port of the host's service.
        let inside = bind(&testbed.server, SERVER, 5351);
        inside.send_to(b"from inside", (CLIENT, 41_404)).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"from inside");
        assert_eq!(from, SocketAddrV4::new(testbed.published, 5352).into());
        // No other port is free for a second mapping.
        let second = bind(&testbed.server, SERVER, 5353);
        second.send_to(b"one more", (CLIENT, 41_404)).unwrap();
        eventually("the drop is counted", || {
            (natbox.dropped("ports-exhausted") == 1).then_some(())
        });
        // The client reaches the host at that port.
        client.send_to(b"to the host", (testbed.published, 5351)).unwrap();
        let (length, from) = own.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.ip()), (&b"to the host"[..], CLIENT.into()));
        own.send_to(b"from the host", from).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from.port()), (&b"from the host"[..], 5351));
    }
}

/// The ports lie in the range from which the host picks ports for its own connections.
#[test]
fn kept_port_in_the_range_of_the_host_is_kept_while_the_host_does_not_use_it() {
    let testbed = SingleBox::new(Published::Owned);
    // A connection of the host, which has no listening socket.
    let peer = bind(&testbed.net, CLIENT, 53);
    let _ntp = bind(&testbed.natbox, Ipv4Addr::UNSPECIFIED, 123);
    let own = bind(&testbed.natbox, Ipv4Addr::UNSPECIFIED, 41_000);
    testbed.natbox.enter(|| own.connect((CLIENT, 53))).unwrap().unwrap();
    let extra = "nat: { port_preservation: true }\n".into();
    let _natbox = testbed.start(&crate::single_box::Config { extra, ..testbed.config() });
    let external = |inside_port| {
        let inside = bind(&testbed.server, SERVER, inside_port);
        inside.send_to(b"which port?", (CLIENT, 53)).unwrap();
        let mut buffer = [0; 64];
        let (_, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(from.ip(), testbed.published);
        peer.send_to(b"this one", from).unwrap();
        inside.recv_from(&mut buffer).unwrap();
        from.port()
    };
    assert_eq!(external(40_000), 40_000);
    // IPsec of an inside host, and NTP of an inside host while the host has a server of its own.
    assert_eq!(external(500), 500);
    let other = external(123);
    assert!((1024..32_768).contains(&other) || other > 60_999, "{other}");
    let other = external(41_000);
    assert!(other != 41_000 && !(32_768..=60_999).contains(&other), "{other}");
    // The host picks the port of an inside connection for a connection to another server.
    let servers = [8080, 8081].map(|port| (serve(&testbed.net, CLIENT, port), port));
    let from = |address, (_, port): &(_, u16)| {
        let to = SocketAddrV4::new(CLIENT, *port);
        let from = Some(SocketAddrV4::new(address, 42_000));
        natbox::lab::http::connect_from(from, to, seconds(3)).unwrap()
    };
    let seen = |connection: &mut natbox::lab::http::Connection| {
        connection.get("/").unwrap().text().trim().to_owned()
    };
    let mut inside = testbed.server.enter(|| from(SERVER, &servers[0])).unwrap();
    let mut hosts = testbed.natbox.enter(|| from(testbed.published, &servers[1])).unwrap();
    for connection in [&mut inside, &mut hosts] {
        assert_eq!(connection.stream_ref().local_addr().unwrap().port(), 42_000);
        assert_eq!(seen(connection), testbed.published.to_string());
    }
}

#[test]
fn the_next_start_recovers_from_a_killed_box_that_had_the_address() {
    let testbed = SingleBox::new(Published::Owned);
    let _server = testbed.serve();
    let before = testbed.host_state();
    assert!(!before.rules().contains("suppress_ifgroup"), "{}", before.rules());
    for _ in 0..2 {
        testbed.start(&testbed.config()).kill();
        let rules = testbed.host_state();
        let first = "0:\tfrom all lookup local suppress_ifgroup 7100\n";
        assert!(rules.rules().starts_with(first), "{}", rules.rules());
    }
    let natbox = testbed.start(&testbed.config());
    assert_all_works(&testbed);
    natbox.stop(Signal::INT);
    before.assert_same(&testbed.host_state(), "after kill -9, a restart and INT");
}

#[test]
fn connections_of_the_host_outlive_start_stop_and_death_of_the_box() {
    let testbed = SingleBox::new(Published::Owned);
    let listener =
        testbed.natbox.enter(|| TcpListener::bind((testbed.published, 8022))).unwrap().unwrap();
    let to = testbed.endpoint(8022).into();
    let mut client =
        testbed.net.enter(|| TcpStream::connect_timeout(&to, seconds(3))).unwrap().unwrap();
    let (mut host, _) = listener.accept().unwrap();
    let outer = testbed.net.enter(|| TcpListener::bind((CLIENT, 8080))).unwrap().unwrap();
    let out_to = SocketAddrV4::new(CLIENT, 8080).into();
    let mut own =
        testbed.natbox.enter(|| TcpStream::connect_timeout(&out_to, seconds(3))).unwrap().unwrap();
    let (mut peer, _) = outer.accept().unwrap();
    let mut talk = |when: &str| {
        let pairs: [(&mut TcpStream, &mut TcpStream); 2] =
            [(&mut client, &mut host), (&mut own, &mut peer)];
        for (one, other) in pairs {
            let mut buffer = [0; 8];
            for socket in [&*one, &*other] {
                socket.set_read_timeout(Some(seconds(5))).unwrap();
            }
            one.write_all(b"question").unwrap();
            other.read_exact(&mut buffer).unwrap_or_else(|error| panic!("{when}: {error}"));
            other.write_all(b"response").unwrap();
            one.read_exact(&mut buffer).unwrap_or_else(|error| panic!("{when}: {error}"));
        }
    };
    talk("before");
    let natbox = testbed.start(&testbed.config());
    talk("while it runs");
    natbox.stop(Signal::TERM);
    talk("after it stopped");
    let natbox = testbed.start(&testbed.config());
    talk("while the second runs");
    natbox.kill();
    talk("after the second was killed");
    testbed.start(&testbed.config()).stop(Signal::TERM);
    talk("after the third");
}

#[test]
fn a_private_host_reaches_the_published_service_and_the_hosts_own() {
    let testbed = SingleBox::new(Published::Owned);
    let _server = testbed.serve();
    let _own = serve(&testbed.natbox, testbed.published, 8022);
    let _natbox = testbed.start(&testbed.config());
    for port in [crate::single_box::WEB, 8022] {
        let to = testbed.endpoint(port);
        let answer = eventually(&format!("{to} from inside"), || {
            let connect = || natbox::lab::http::connect(None, to, seconds(1));
            let mut connection = testbed.server.enter(connect).unwrap().ok()?;
            Some(
                connection
                    .get("/")
                    .unwrap_or_else(|error| panic!("{to}: {error}"))
                    .text()
                    .trim()
                    .to_owned(),
            )
        });
        // Hairpin shows the external address (RFC 4787 REQ-9).
        let expected = if port == crate::single_box::WEB { testbed.published } else { SERVER };
        assert_eq!(answer, expected.to_string());
    }
}

#[test]
fn datagrams_to_a_forward_go_inside_and_others_to_the_host() {
    let testbed = SingleBox::new(Published::Owned);
    let inside = bind(&testbed.server, SERVER, DATAGRAMS);
    let own = bind(&testbed.natbox, testbed.published, 9999);
    let client = bind(&testbed.net, CLIENT, 0);
    let _natbox = testbed.start(&testbed.config());
    let mut buffer = [0; 2000];
    for (socket, port) in [(&inside, DATAGRAMS), (&own, 9999)] {
        client.send_to(&[3; 1200], (testbed.published, port)).unwrap();
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!((length, from), (1200, client.local_addr().unwrap()), "port {port}");
        socket.send_to(b"answer", from).unwrap();
        let (_, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!(from, testbed.endpoint(port).into());
    }
    // The host rejects packets to a port without a listener, from its own address.
    client.connect((testbed.published, 9998)).unwrap();
    client.send(b"request").unwrap();
    let error = client.recv(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

/// Regression: the first rule passed over the TUN's own addresses, and no probe had a reply.
#[test]
fn health_checks_get_their_replies_beside_an_address_of_the_host() {
    let testbed = SingleBox::new(Published::Owned);
    let text = testbed.config().to_string().replace(
        &format!("gateway: {} }}", crate::single_box::PROVIDER),
        &format!(
            "gateway: {0}, health: {{ ping: [{0}], interval: 1s }} }}",
            crate::single_box::PROVIDER
        ),
    );
    assert!(text.contains("health"), "{text}");
    let path = testbed.write("natbox", &text);
    let socket = testbed.config().socket;
    let natbox = crate::single_box::RunningBox::launch(&testbed.natbox, "natbox", &path, &socket);
    eventually("a reply to a probe", || natbox.status().uplinks[0].latency_milliseconds);
    assert!(natbox.status().uplinks[0].healthy);
    natbox.stop(Signal::TERM);
}
