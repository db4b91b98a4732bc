//! Both ways to read: multishot, and single reads as on a kernel before 6.7.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Instant;

use io_uring::{opcode, types};

use super::ring::ENTRIES;
use super::*;
use crate::io::testing::{SUPER, collect, deliver, queue};
use crate::io::virtio;
use crate::packet::{Frames, Offload};

/// Runs a test with multishot reads, and with single reads as on a kernel without them.
fn both(work: impl Fn(bool)) {
    [true, false].into_iter().for_each(work);
}

/// A backend, the kernel's end of its queue, and the backend's waker.
fn pair(multishot: bool) -> (UringIo, OwnedFd, Waker) {
    let (queue, kernel) = queue();
    let waker = Waker::new().expect("an eventfd");
    let rings = UringIo::all_with(vec![queue], &waker, multishot);
    let mut rings = rings.map_err(|(error, _)| error).expect("a kernel with io_uring");
    assert_eq!(rings[0].ring.is_multishot(), multishot, "this kernel has multishot reads");
    (rings.remove(0), kernel, waker)
}

/// Receives until `count` frames have arrived. Returns their packets.
fn receive(io: &mut UringIo, count: usize) -> Vec<Vec<u8>> {
    let (mut packets, started) = (Vec::new(), Instant::now());
    while packets.len() < count {
        let frames = io.receive(Duration::from_secs(1)).expect("alive");
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{} of {count} arrived",
            packets.len()
        );
        let mut bytes = 0;
        for index in 0..frames {
            assert!(bytes < BYTE_BUDGET);
            let frame = io.frame(index);
            bytes += frame.length;
            packets.push(frame.buffer[..frame.length].to_vec());
        }
    }
    packets
}

#[test]
fn packets_and_their_offloads_go_through_unchanged() {
    both(|multishot| {
        let (mut io, kernel, _waker) = pair(multishot);
        deliver(&kernel, SUPER, &[9; 60_000]);
        assert_eq!(io.receive(Duration::from_secs(5)).expect("alive"), 1);
        let frame = io.frame(0);
        assert_eq!((frame.offload, &frame.buffer[..frame.length]), (SUPER, &[9; 60_000][..]));
        io.frame(0).buffer[..5].copy_from_slice(b"SMALL");
        io.submit(0, 60_000, SUPER);
        io.send(b"extra", Offload::default());
        assert_eq!(io.flush().expect("alive"), Flushed { sent: 2, rejected: 0 });
        let (offload, packet) = collect(&kernel).expect("the frame");
        assert_eq!((offload, &packet[..6], packet.len()), (SUPER, &b"SMALL\x09"[..], 60_000));
        assert_eq!(collect(&kernel), Some((Offload::default(), b"extra".to_vec())));
        assert_eq!(collect(&kernel), None);
    });
}

#[test]
fn more_packets_than_buffers_and_entries_come_and_go_in_order() {
    both(|multishot| {
        let (mut io, kernel, _waker) = pair(multishot);
        for round in 0..50_u8 {
            // Three times the buffers. A socket holds at most 11.
            let feeder = rustix::io::dup(&kernel).expect("a descriptor");
            let fed = std::thread::spawn(move || {
                for number in 0..3 * BATCH as u8 {
                    let wire =
                        [&virtio::encode(&Offload::default())[..], &[round, number]].concat();
                    while rustix::io::write(&feeder, &wire) == Err(Errno::AGAIN) {
                        std::thread::yield_now();
                    }
                }
            });
            let wanted: Vec<_> = (0..3 * BATCH as u8).map(|number| vec![round, number]).collect();
            assert_eq!(receive(&mut io, 3 * BATCH), wanted);
            fed.join().expect("no panic");
        }
        // More packets outwards than the queue has entries, while a thread collects them.
        let taker = rustix::io::dup(&kernel).expect("a descriptor");
        let count = 3 * ENTRIES;
        let taken = std::thread::spawn(move || {
            let mut packets = Vec::new();
            while packets.len() < count as usize {
                packets.extend(collect(&taker).map(|(_, packet)| packet));
            }
            packets
        });
        for number in 0..count {
            io.send(&number.to_be_bytes(), Offload::default());
        }
        assert_eq!(io.flush().expect("alive").sent, count);
        let mut packets = taken.join().expect("no panic");
        // While a socket is full, packets may overtake each other. A device is never full.
        packets.sort();
        assert_eq!(
            packets,
            (0..count).map(|number| number.to_be_bytes().to_vec()).collect::<Vec<_>>()
        );
    });
}

#[test]
fn bad_vnet_headers_are_counted_and_the_packets_after_them_arrive() {
    both(|multishot| {
        let (mut io, kernel, _waker) = pair(multishot);
        for _ in 0..BATCH {
            deliver(&kernel, SUPER, &[0; 30]);
            rustix::io::write(&kernel, b"short").expect("space in the socket");
            deliver(&kernel, Offload::default(), b"good");
            assert_eq!(receive(&mut io, 1), [b"good"]);
        }
        assert_eq!(io.bad_vnet_headers(), 2 * BATCH as u64);
    });
}

#[test]
fn looking_once_does_not_wait_and_waiting_ends_with_the_time() {
    both(|multishot| {
        let (mut io, _kernel, _waker) = pair(multishot);
        let start = Instant::now();
        assert_eq!(io.receive(Duration::ZERO).expect("alive"), 0);
        assert!(start.elapsed() < Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(io.receive(Duration::from_millis(20)).expect("alive"), 0);
        assert!(start.elapsed() >= Duration::from_millis(20));
    });
}

#[test]
fn waiting_ends_with_a_packet_and_with_the_waker_for_good() {
    both(|multishot| {
        let (mut io, kernel, waker) = pair(multishot);
        std::thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                assert_eq!(io.receive(Duration::MAX).expect("alive"), 1);
                for _ in 0..3 {
                    assert_eq!(io.receive(Duration::MAX).expect("alive"), 0);
                }
            });
            std::thread::sleep(Duration::from_millis(10));
            deliver(&kernel, Offload::default(), b"late");
            std::thread::sleep(Duration::from_millis(10));
            waker.wake();
            receiver.join().expect("no panic");
        });
    });
}

#[test]
fn nothing_holds_the_queue_when_the_backend_is_gone() {
    both(|multishot| {
        let (mut io, kernel, _waker) = pair(multishot);
        assert_eq!(io.receive(Duration::ZERO).expect("alive"), 0);
        drop(io);
        // The other end is closed, except in a child that another test has just forked.
        let started = Instant::now();
        while rustix::io::write(&kernel, b"packet") != Err(Errno::CONNREFUSED) {
            assert!(started.elapsed() < Duration::from_secs(10), "something holds the queue");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// With the same ring, an unrestricted request for a file would succeed.
#[test]
fn the_ring_opens_no_file_and_no_socket_and_touches_no_other_descriptor() {
    both(|multishot| {
        let (mut io, kernel, _waker) = pair(multishot);
        assert_eq!(io.receive(Duration::ZERO).expect("alive"), 0);
        let refused = -libc::EACCES;
        let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), c"/".as_ptr()).build();
        assert_eq!(io.ring.try_request(open), refused);
        let socket = opcode::Socket::new(libc::AF_INET, libc::SOCK_DGRAM, 0).build();
        assert_eq!(io.ring.try_request(socket), refused);
        let other = types::Fd(kernel.as_raw_fd());
        let write = opcode::Write::new(other, [0].as_ptr(), 1).build();
        assert_eq!(io.ring.try_request(write), refused);
        // The queue still works.
        deliver(&kernel, Offload::default(), b"packet");
        assert_eq!(receive(&mut io, 1), [b"packet"]);
    });
}
