//! Datagrams larger than the lines' MTU: real kernels cut them up, and put together what comes out of the box.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use natbox::cli::demo::lab::Namespace;

use crate::single_box::{CLIENT, DATAGRAMS, Published, SERVER, SingleBox, seconds};

/// In one piece, in two, in many; the largest that IPv4 can carry.
const SIZES: [usize; 7] = [1472, 1473, 2960, 4000, 9001, 30_000, 65_507];

#[test]
fn large_datagrams_cross_the_box_both_ways_through_a_forward_and_outbound() {
    for workers in ["1", "2"] {
        let scene = SingleBox::new(Published::OnLink);
        let mut config = scene.config();
        config.workers = workers.to_owned();
        let natbox = scene.start(&config);
        let inside = bind(&scene.server, SERVER, DATAGRAMS);
        let outside = bind(&scene.net, CLIENT, 4000);
        let from_outside = bind(&scene.net, CLIENT, 0);
        from_outside.connect(scene.endpoint(DATAGRAMS)).unwrap();
        let from_inside = bind(&scene.server, SERVER, 0);
        from_inside.connect(SocketAddrV4::new(CLIENT, 4000)).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| echo(&inside, &stop));
            scope.spawn(|| echo(&outside, &stop));
            let outcome = std::panic::catch_unwind(|| {
                for size in SIZES {
                    exchange(&from_outside, size);
                    exchange(&from_inside, size);
                }
            });
            // Relaxed: the echoes only have to see it soon.
            stop.store(true, Ordering::Relaxed);
            outcome.unwrap();
        });
        for reason in ["fragment-refused", "fragment-duplicate", "fragments-full", "fragment-incomplete"] {
            assert_eq!(natbox.dropped(reason), 0, "{reason} with {workers} workers");
        }
    }
}

#[test]
fn a_large_ping_from_inside_is_answered() {
    let scene = SingleBox::new(Published::Routed);
    let _natbox = scene.start(&scene.config());
    let mut ping = scene.server.command("ping");
    ping.args(["-c", "5", "-i", "0.05", "-W", "2", "-s", "20000", &CLIENT.to_string()]);
    let output = ping.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(" 0% packet loss"), "{text}");
}

fn bind(namespace: &Namespace, address: Ipv4Addr, port: u16) -> UdpSocket {
    let socket = namespace.enter(|| UdpSocket::bind((address, port))).unwrap().unwrap();
    socket.set_read_timeout(Some(seconds(2))).unwrap();
    socket
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    socket.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            // What cannot be sent is what the other side misses.
            let _ = socket.send_to(&buffer[..length], peer);
        }
    }
}

/// Sends one datagram and gets the same back.
fn exchange(socket: &UdpSocket, size: usize) {
    let sent: Vec<u8> = (0..size).map(|at| (at * 31 + size).to_le_bytes()[0]).collect();
    let mut received = vec![0; 65_536];
    socket.send(&sent).unwrap();
    let length = socket.recv(&mut received).unwrap_or_else(|error| panic!("{size} bytes: {error}"));
    assert!(received[..length] == sent, "{size} bytes: the echo differs");
}
