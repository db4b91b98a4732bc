//! What a worker does with a batch, for fuzz targets: the bytes that a read of the device returns
//! go in, and the packets of the writes come out.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::io::{MemoryIo, PacketIo as _};
use crate::nat::{Counters, Policy, Translator};
use crate::packet::Offload;
use crate::time::Tick;

use super::handle::swap_policy;
use super::observe::Observation;
use super::pipeline::Pipeline;

/// One worker over a queue in memory.
pub struct WireQueue {
    nat: Arc<ArcSwap<Translator>>,
    pipeline: Pipeline,
    io: MemoryIo,
}

/// The packets that a worker has sent, each with its offload header.
pub type SentPackets = Vec<(Vec<u8>, Offload)>;

impl WireQueue {
    /// Makes the worker of a translator. A batch has at most `limit` frames, 1 to
    /// [`BATCH`](crate::packet::BATCH).
    ///
    /// # Panics
    /// `limit` is out of range.
    pub fn new(nat: Translator, limit: usize) -> Self {
        let nat = Arc::new(ArcSwap::from_pointee(nat));
        let pipeline = Pipeline::new(Arc::clone(&nat), 0, Observation::new(1));
        Self { nat, pipeline, io: MemoryIo::with_limit(limit) }
    }

    /// Queues the bytes of one read: a virtio header and a packet, neither of them valid or whole.
    ///
    /// # Panics
    /// The packet is longer than an IPv4 packet can be.
    pub fn push(&mut self, wire: &[u8]) {
        self.io.push_wire(wire);
    }

    /// Does all batches that wait, each as a worker does it: receive, translate, send, expire.
    pub fn run(&mut self, now: Tick) -> SentPackets {
        loop {
            let frames = self.io.receive(Duration::ZERO).expect("memory does not fail");
            self.pipeline.process(&mut self.io, now).expect("memory does not fail");
            self.pipeline.expire(&mut self.io, now).expect("memory does not fail");
            if frames == 0 {
                return self.io.sent();
            }
        }
    }

    /// Does what a worker does while no packet arrives, until nothing more is due.
    pub fn idle(&mut self, now: Tick) -> SentPackets {
        while self.pipeline.poll(&mut self.io, now).expect("memory does not fail") == Some(now) {}
        self.io.sent()
    }

    /// Replaces the policy, as a reload does. Returns the number of sessions that ended.
    pub fn change_policy(&mut self, policy: Policy, now: Tick) -> usize {
        let (new, mut transition) = self.nat.load().with_policy(policy);
        let new = Arc::new(new);
        swap_policy(&self.nat, Arc::clone(&new));
        let mut ended = 0;
        while !transition.is_complete() {
            ended += new.enforce(&mut transition, now);
        }
        ended
    }

    /// Returns the translator, which a change of policy replaces.
    pub fn translator(&self) -> Arc<Translator> {
        self.nat.load_full()
    }

    /// Returns the counters since the start.
    pub fn counters(&self) -> &Counters {
        self.pipeline.counters()
    }
}
