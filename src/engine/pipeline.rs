//! The work of a worker on one batch: translate, flush, count.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::io::PacketIo;
use crate::nat::{Counters, DropReason, Translator, WorkerContext};
use crate::time::Tick;

use super::observe::Observation;
use super::trace::BatchTracer;

/// The translator of a worker's queue, with the worker's context.
pub(crate) struct Pipeline {
    nat: Arc<ArcSwap<Translator>>,
    context: WorkerContext,
    bad_vnet_headers: u64,
    worker: usize,
    observation: Arc<Observation>,
}

impl Pipeline {
    /// Makes the pipeline of a worker. Each call of a method uses the translator that `nat` holds
    /// when the call begins. All workers share the observation.
    pub(crate) fn new(
        nat: Arc<ArcSwap<Translator>>,
        worker: usize,
        observation: Arc<Observation>,
    ) -> Self {
        let context = nat.load().worker(worker);
        Self { nat, context, bad_vnet_headers: 0, worker, observation }
    }

    /// Returns the counters since the start.
    pub(crate) fn counters(&self) -> &Counters {
        &self.context.counters
    }

    /// Translates the frames that `io` has received, and sends the translated packets.
    ///
    /// # Errors
    /// Those of [`PacketIo::flush`].
    pub(crate) fn process(&mut self, io: &mut impl PacketIo, now: Tick) -> std::io::Result<()> {
        // Held until the packets are sent: a swap of the policy waits for it.
        let nat = self.nat.load();
        match self.observation.tracers.are_active() {
            false => nat.process(&mut self.context, io, now),
            true => {
                let mut tracer = BatchTracer::new(&nat, &self.observation.tracers, self.worker);
                nat.process_observed(&mut self.context, io, &mut tracer, now);
            }
        }
        self.flush(io, now)?;
        self.publish_drops(io, now);
        Ok(())
    }

    /// Does a slice of the expiry work, and sends packets that are due. Returns true when nothing
    /// more is due now.
    ///
    /// # Errors
    /// Those of [`PacketIo::flush`].
    pub(crate) fn expire(&mut self, io: &mut impl PacketIo, now: Tick) -> std::io::Result<bool> {
        let bytes = self.context.counters.bytes_out;
        let done = self.nat.load().expire_into(&mut self.context, io, now);
        self.flush_since(io, bytes, now)?;
        Ok(done)
    }

    /// Does the work of [`Self::expire`]. Returns the time for the next call. None: nothing is due
    /// before the next packet arrives.
    ///
    /// # Errors
    /// Those of [`PacketIo::flush`].
    pub(crate) fn poll(
        &mut self,
        io: &mut impl PacketIo,
        now: Tick,
    ) -> std::io::Result<Option<Tick>> {
        let bytes = self.context.counters.bytes_out;
        let due = self.nat.load().poll(&mut self.context, io, now);
        self.flush_since(io, bytes, now)?;
        Ok(due)
    }

    /// Flushes if any packet was sent since the counter of bytes showed `bytes`.
    fn flush_since(
        &mut self,
        io: &mut impl PacketIo,
        bytes: u64,
        now: Tick,
    ) -> std::io::Result<()> {
        if self.context.counters.bytes_out != bytes {
            self.flush(io, now)?;
        }
        self.publish_drops(io, now);
        Ok(())
    }

    /// Counts the packets with a bad header, and publishes the examples of dropped packets.
    #[inline]
    fn publish_drops(&mut self, io: &mut impl PacketIo, now: Tick) {
        let bad_vnet_headers = io.bad_vnet_headers();
        let new = bad_vnet_headers - self.bad_vnet_headers;
        if new != 0 {
            let heads = io.buffers_mut().take_bad();
            let last = &heads[heads.len().saturating_sub(new as usize)..];
            self.context.drop_packets(DropReason::BadVnetHeader, new, last, now);
            self.bad_vnet_headers = bad_vnet_headers;
        }
        let examples = &self.observation.examples[self.worker];
        examples.store(self.worker, &mut self.context.dropped);
    }

    fn flush(&mut self, io: &mut impl PacketIo, now: Tick) -> std::io::Result<()> {
        let flushed = io.flush()?;
        self.context.counters.packets_out += u64::from(flushed.sent);
        if flushed.rejected != 0 {
            let heads = io.buffers_mut().take_rejected();
            let rejected = u64::from(flushed.rejected);
            self.context.drop_packets(DropReason::TunWriteError, rejected, &heads, now);
        }
        Ok(())
    }
}
