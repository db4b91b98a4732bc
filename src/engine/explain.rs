//! What would happen to a packet: by the running translator, or by a translator without traffic.

use crate::nat::{Explained, Limits, Policy, Seed, Translator, WorkerContext};
use crate::packet::VecFrames;
use crate::time::Tick;

use super::handle::Handle;

impl Handle {
    /// Explains what would happen now to a packet, and changes nothing.
    pub(crate) fn explain(&self, packet: &[u8]) -> Explained {
        self.translator().load().explain(packet, Tick::now())
    }
}

/// A translator without sessions, workers and devices. All of its uplinks are up.
pub(crate) struct FreshTranslator {
    nat: Translator,
    context: WorkerContext,
}

impl FreshTranslator {
    /// Makes the translator.
    ///
    /// # Errors
    /// The memory for the sessions cannot be mapped.
    pub(crate) fn new(limits: Limits, policy: Policy) -> std::io::Result<Self> {
        let nat = Translator::new(limits, policy, 1, Seed::random(), Tick(0))?;
        Ok(Self { context: nat.worker(0), nat })
    }

    /// Explains what would happen to a packet at this time, and then lets it happen. So the next
    /// packet finds the sessions of those before it.
    pub(crate) fn explain_next(&mut self, packet: &[u8], now: Tick) -> Explained {
        let mut frames = VecFrames::new();
        while self.nat.poll(&mut self.context, &mut frames, now) == Some(now) {}
        let explained = self.nat.explain_next(&mut self.context, packet, now);
        frames.push(packet);
        self.nat.process(&mut self.context, &mut frames, now);
        explained
    }
}
