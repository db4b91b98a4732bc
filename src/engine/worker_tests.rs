//! Workers as threads: they stop when told, and how they die is heard.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::io::{Flushed, FrameBuffers, MemoryIo, PacketIo, Waker};
use crate::nat::{Seed, Translator};
use crate::packet::Offload;
use crate::time::Tick;

use super::scenarios::{E1, G, Setup, settings, udp};
use super::{Engine, Event, Options};

/// A queue that is fed by orders from outside.
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

fn start(workers: usize) -> (Engine, Vec<Sender<Order>>, Receiver<Vec<u8>>) {
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
    let options = Options { busy_poll: Duration::from_micros(50) };
    (Engine::start(queues, nat, waker, options).expect("threads"), orders, received)
}

const DEADLINE: Duration = Duration::from_secs(10);

#[test]
fn workers_translate_publish_and_stop_when_told() {
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
fn a_worker_whose_queue_fails_says_so() {
    let (engine, orders, _received) = start(2);
    orders[1].send(Order::Fail).expect("the worker runs");
    let event = engine.events().recv_timeout(DEADLINE).expect("an event");
    assert!(matches!(event, Event::QueueFailed { worker: 1, .. }), "{event:?}");
    engine.stop();
}

#[test]
fn a_worker_that_panics_says_so_and_the_others_go_on() {
    let (engine, orders, received) = start(2);
    orders[0].send(Order::Panic).expect("the worker runs");
    let event = engine.events().recv_timeout(DEADLINE).expect("an event");
    assert!(
        matches!(&event, Event::Panicked { worker: 0, message } if message == "lost count"),
        "{event:?}"
    );
    orders[1].send(Order::Receive(udp((E1, 1), (G, 8080)))).expect("the worker runs");
    received.recv_timeout(DEADLINE).expect("a translated packet");
    engine.stop();
}
