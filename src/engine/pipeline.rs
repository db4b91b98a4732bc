//! The work of a worker on one batch: translate, flush, count.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::io::PacketIo;
use crate::nat::{Counters, DropReason, Translator, WorkerContext};
use crate::time::Tick;

/// The translator of a worker's queue, with the worker's context.
pub(crate) struct Pipeline {
    nat: Arc<ArcSwap<Translator>>,
    context: WorkerContext,
    bad_vnet_headers: u64,
}

impl Pipeline {
    /// Makes the pipeline of a worker. Each call of a method uses the translator that `nat` holds
    /// when the call begins.
    pub(crate) fn new(nat: Arc<ArcSwap<Translator>>, context: WorkerContext) -> Self {
        Self { nat, context, bad_vnet_headers: 0 }
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
        nat.process(&mut self.context, io, now);
        self.flush(io)?;
        let bad_vnet_headers = io.bad_vnet_headers();
        let counters = &mut self.context.counters;
        counters.drops.count(DropReason::BadVnetHeader, bad_vnet_headers - self.bad_vnet_headers);
        self.bad_vnet_headers = bad_vnet_headers;
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
        self.flush_since(io, bytes)?;
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
        self.flush_since(io, bytes)?;
        Ok(due)
    }

    /// Flushes if any packet was sent since the counter of bytes showed `bytes`.
    fn flush_since(&mut self, io: &mut impl PacketIo, bytes: u64) -> std::io::Result<()> {
        if self.context.counters.bytes_out == bytes { Ok(()) } else { self.flush(io) }
    }

    fn flush(&mut self, io: &mut impl PacketIo) -> std::io::Result<()> {
        let flushed = io.flush()?;
        let counters = &mut self.context.counters;
        counters.packets_out += u64::from(flushed.sent);
        counters.drops.count(DropReason::TunWriteError, u64::from(flushed.rejected));
        Ok(())
    }
}
