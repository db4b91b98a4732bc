//! Workers as threads: translation, failures, and changes of policy while they run.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::io::{Flushed, FrameBuffers, MemoryIo, PacketIo, Waker};
use crate::nat::{Adopted, Contents, Policy, Seed, SessionFiles, TableCursor, Translator};
use crate::packet::Offload;
use crate::time::Tick;

use super::scenarios::{E1, G, Setup, settings, udp};
use super::{Builder, Engine, KeptSessions, Options, WorkerFailure};

/// A queue that obeys the test.
struct Puppet {
    memory: MemoryIo,
    orders: Receiver<Order>,
    sent: Sender<Vec<u8>>,
}

enum Order {
    Receive(Vec<u8>),
    Fail,
    Panic,
}

impl PacketIo for Puppet {
    fn receive(&mut self, wait: Duration) -> io::Result<usize> {
        match self.orders.recv_timeout(wait.min(Duration::from_millis(20))) {
            Ok(Order::Receive(packet)) => self.memory.push(&packet, Offload::default()),
            Ok(Order::Fail) => return Err(io::Error::other("the device is gone")),
            Ok(Order::Panic) => panic!("lost count"),
            Err(_) => {}
        }
        self.memory.receive(Duration::ZERO)
    }

    fn flush(&mut self) -> io::Result<Flushed> {
        let flushed = self.memory.flush()?;
        for (packet, _) in self.memory.sent() {
            self.sent.send(packet).expect("the test listens");
        }
        Ok(flushed)
    }

    fn stop_reading(&mut self) -> io::Result<()> {
        self.memory.stop_reading()
    }

    fn buffers(&self) -> &FrameBuffers {
        self.memory.buffers()
    }

    fn buffers_mut(&mut self) -> &mut FrameBuffers {
        self.memory.buffers_mut()
    }

    fn bad_vnet_headers(&self) -> u64 {
        0
    }
}

type Started = (Engine, Vec<Sender<Order>>, Receiver<Vec<u8>>);

fn start(workers: usize) -> Started {
    start_with(workers, options(Duration::from_micros(50)))
}

fn start_with(workers: usize, options: Options) -> Started {
    let Setup { limits, policy } = settings();
    let nat = Translator::new(limits, policy, workers, Seed::from(1), Tick::now()).expect("memory");
    let waker = Waker::new().expect("an eventfd");
    let (sent, received) = channel();
    let (orders, queues): (Vec<_>, Vec<_>) = (0..workers)
        .map(|_| {
            let (sender, orders) = channel();
            (sender, Puppet { memory: MemoryIo::new(), orders, sent: sent.clone() })
        })
        .unzip();
    (Engine::start(queues, nat, waker, options).expect("threads"), orders, received)
}

fn options(busy_poll: Duration) -> Options {
    Options { busy_poll, confine_worker: || Ok(()), confine_thread: || {} }
}

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn workers_translate_publish_counters_and_stop() {
    let (engine, orders, received) = start(2);
    for (number, orders) in orders.iter().enumerate() {
        orders
            .send(Order::Receive(udp((E1, 1000 + number as u16), (G, 8080))))
            .expect("the worker runs");
        received.recv_timeout(DEADLINE).expect("a translated packet");
    }
    let counters = engine.stop();
    assert_eq!(counters.iter().map(|counters| counters.packets_in).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(counters.iter().map(|counters| counters.sessions_created).sum::<u64>(), 2);
}

#[test]
fn a_worker_reports_that_its_queue_failed() {
    let (engine, orders, _received) = start(2);
    orders[1].send(Order::Fail).expect("the worker runs");
    let failure = engine.failures().recv_timeout(DEADLINE).expect("a failure");
    assert!(matches!(failure, WorkerFailure::QueueFailed { worker: 1, .. }), "{failure:?}");
    engine.stop();
}

#[test]
fn a_worker_that_keeps_its_privileges_reads_no_packet() {
    let (engine, orders, received) = start_with(
        1,
        Options {
            confine_worker: || Err(io::Error::other("no filter")),
            ..options(Duration::ZERO)
        },
    );
    let failure = engine.failures().recv_timeout(DEADLINE).expect("a failure");
    assert!(matches!(failure, WorkerFailure::Unconfined { worker: 0, .. }), "{failure:?}");
    // The worker has dropped its queue.
    assert!(orders[0].send(Order::Receive(udp((E1, 1), (G, 8080)))).is_err());
    assert!(received.try_recv().is_err());
    engine.stop();
}

#[test]
fn a_worker_reports_its_panic_and_the_others_go_on() {
    let (engine, orders, received) = start(2);
    orders[0].send(Order::Panic).expect("the worker runs");
    let failure = engine.failures().recv_timeout(DEADLINE).expect("a failure");
    assert!(
        matches!(&failure, WorkerFailure::Panicked { worker: 0, message } if message == "lost count"),
        "{failure:?}"
    );
    orders[1].send(Order::Receive(udp((E1, 1), (G, 8080)))).expect("the worker runs");
    received.recv_timeout(DEADLINE).expect("a translated packet");
    engine.stop();
}

#[test]
fn a_change_of_policy_ends_sessions_without_waiting_on_the_calling_thread() {
    let (engine, orders, received) = start(2);
    let handle = engine.handle();
    orders[0].send(Order::Receive(udp((E1, 1), (G, 8080)))).expect("the worker runs");
    received.recv_timeout(DEADLINE).expect("a translated packet");
    assert_eq!(handle.occupancy().sessions, 1);

    let (done, results) = channel();
    let keep = done.clone();
    handle
        .change_policy(settings().policy, move |ended| keep.send(ended).expect("the test listens"));
    let closed = Policy { outbound: Vec::new(), forwards: Vec::new(), ..settings().policy };
    handle.change_policy(closed, move |ended| {
        done.send(ended).expect("the test listens");
    });
    let ended = [results.recv_timeout(DEADLINE), results.recv_timeout(DEADLINE)];
    assert_eq!(ended, [Ok(0), Ok(1)], "the same policy ends nothing, the second one all");
    assert_eq!(handle.occupancy().sessions, 0);
    orders[1].send(Order::Receive(udp((E1, 2), (G, 8080)))).expect("the worker runs");
    let deadline = std::time::Instant::now() + DEADLINE;
    while handle.totals().drops.iter().all(|(_, count)| count == 0) {
        assert!(std::time::Instant::now() < deadline, "the packet is not dropped");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(handle.totals().sessions_created, 1, "the new policy opens no session");
    engine.stop();
}

#[test]
fn a_handle_lists_every_session_with_its_uplink() {
    let (engine, orders, received) = start(1);
    for port in 1..=20 {
        orders[0].send(Order::Receive(udp((E1, port), (G, 8080)))).expect("the worker runs");
        received.recv_timeout(DEADLINE).expect("a translated packet");
    }
    let handle = engine.handle();
    let mut ports = Vec::new();
    let mut next = Some(TableCursor::default());
    while let Some(from) = next {
        let (listing, mut slice) = (handle.listing(), Vec::new());
        next = listing.slice(from, &mut slice);
        for session in slice {
            let uplink = listing.uplinks()[usize::from(session.uplink)];
            assert_eq!(uplink, settings().policy.uplinks[0].name);
            ports.push(session.original.source.port);
        }
    }
    ports.sort_unstable();
    assert_eq!(ports, (1..=20).collect::<Vec<u16>>());
    engine.stop();
}

/// Without sessions of a process before this one, the files are in order from the start on.
#[test]
fn the_adoption_is_over_at_the_start_if_there_is_nothing_to_adopt() {
    let Setup { limits, policy } = settings();
    let files = SessionFiles::temporary(limits.sessions);
    let start = |contents| {
        let (sender, adopted) = channel();
        let report = move |adopted| sender.send(adopted).expect("the test listens");
        let kept = KeptSessions { files: &files, contents, adopted: Box::new(report) };
        let (limits, policy, seed) = (limits.clone(), policy.clone(), Seed::from(1));
        let builder = Builder::new(limits, policy, 1, seed, Tick::now(), Some(kept));
        let waker = Waker::new().expect("an eventfd");
        let options = options(Duration::ZERO);
        let engine = builder.expect("memory").start(vec![MemoryIo::new()], waker, options);
        (engine.expect("threads"), adopted)
    };
    let (engine, adopted) = start(Contents::Empty);
    assert_eq!(adopted.try_recv(), Ok(Adopted::default()));
    drop(engine);
    let (_engine, adopted) = start(Contents::Inherited);
    assert_eq!(adopted.recv_timeout(DEADLINE), Ok(Adopted::default()));
}
