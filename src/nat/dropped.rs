//! Examples of dropped packets: what a worker keeps of them until its batch ends.
//!
//! The cost of a flood is bounded: in each [`WINDOW`] a worker keeps the first [`PER_WINDOW`]
//! packets of a reason. Each example has a number among the drops of its reason, so that gaps show.

use crate::nat::verdict::DropReason;
use crate::packet::PacketHead;
use crate::time::Tick;

/// A dropped packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DroppedPacket {
    pub(crate) reason: DropReason,
    /// Number of this drop among those of its worker and its reason, from 1.
    pub(crate) number: u64,
    /// The packet as it arrived.
    pub(crate) head: PacketHead,
}

/// The reasons and examples of the drops since the last [`Self::clear`].
pub(crate) struct DroppedPackets {
    packets: Vec<DroppedPacket>,
    /// Bit n: a packet was dropped for the n-th reason.
    reasons: u64,
    windows: [Window; DropReason::ALL.len()],
}

/// The examples that a worker may still keep of one reason.
#[derive(Clone, Copy)]
struct Window {
    number: u32,
    left: u8,
}

impl DroppedPackets {
    pub(crate) fn new() -> Self {
        let window = Window { number: 0, left: PER_WINDOW };
        Self {
            packets: Vec::with_capacity(CAPACITY),
            reasons: 0,
            windows: [window; DropReason::ALL.len()],
        }
    }

    /// Reports whether no packet was dropped.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.reasons == 0
    }

    /// Returns the reasons for which packets were dropped.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = DropReason> {
        let reasons = self.reasons;
        DropReason::ALL.iter().copied().filter(move |reason| reasons & bit(*reason) != 0)
    }

    /// Returns the examples, in the order of their drops.
    pub(crate) fn packets(&self) -> &[DroppedPacket] {
        &self.packets
    }

    /// Removes all examples.
    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        self.reasons = 0;
    }

    /// Notes that packets were dropped for a reason.
    pub(crate) fn note(&mut self, reason: DropReason) {
        self.reasons |= bit(reason);
    }

    /// Keeps a packet as an example, if the reason's window and the space allow this.
    pub(crate) fn keep(&mut self, reason: DropReason, number: u64, now: Tick, head: &[u8]) {
        if self.admits(reason, now) {
            self.packets.push(DroppedPacket { reason, number, head: PacketHead::of(head) });
        }
    }

    /// Keeps the head of a packet as an example, as [`Self::keep`] does.
    pub(crate) fn keep_head(
        &mut self,
        reason: DropReason,
        number: u64,
        now: Tick,
        head: PacketHead,
    ) {
        if self.admits(reason, now) {
            self.packets.push(DroppedPacket { reason, number, head });
        }
    }

    fn admits(&mut self, reason: DropReason, now: Tick) -> bool {
        let (window, number) = (&mut self.windows[reason as usize], now.0 / WINDOW);
        if window.number != number {
            *window = Window { number, left: PER_WINDOW };
        }
        // The list never grows beyond the memory that it has from the start.
        let is_kept = window.left != 0 && self.packets.len() < CAPACITY;
        window.left -= u8::from(is_kept);
        is_kept
    }
}

fn bit(reason: DropReason) -> u64 {
    1 << reason as u32
}

const _: () = assert!(DropReason::ALL.len() <= 64, "one bit for each reason");

/// Length of a window, in milliseconds.
const WINDOW: u32 = 100;
/// Examples of one reason in one window.
const PER_WINDOW: u8 = 16;
/// Examples in one batch: one for each of its frames.
const CAPACITY: usize = crate::packet::BATCH;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each example is the packet that was dropped under its number. A window holds the first
        /// packets of each reason, and the memory never grows.
        #[test]
        fn examples_are_the_first_dropped_packets_of_each_window(
            drops in prop::collection::vec(
                (0..3usize, 0..40u32, prop::bool::weighted(0.02)),
                0..300,
            )
        ) {
            let mut kept = DroppedPackets::new();
            let (mut now, mut counts) = (0, [0; 3]);
            let mut expected: Vec<(usize, u64)> = Vec::new();
            let (mut in_window, mut window) = ([0; 3], 0);
            for (reason, pause, ends_batch) in drops {
                now += pause;
                if now / WINDOW != window {
                    (in_window, window) = ([0; 3], now / WINDOW);
                }
                counts[reason] += 1;
                let packet = [reason as u8, counts[reason] as u8, (counts[reason] >> 8) as u8];
                kept.note(DropReason::ALL[reason]);
                kept.keep(DropReason::ALL[reason], counts[reason], Tick(now), &packet);
                if in_window[reason] < PER_WINDOW && expected.len() < CAPACITY {
                    in_window[reason] += 1;
                    expected.push((reason, counts[reason]));
                }
                prop_assert!(kept.reasons().any(|dropped| dropped == DropReason::ALL[reason]));
                let found = kept.packets().iter().map(|packet| {
                    (packet.reason as usize, packet.number, packet.head.bytes().to_vec())
                });
                let wanted = expected.iter().map(|(reason, number)| {
                    (*reason, *number, vec![*reason as u8, *number as u8, (*number >> 8) as u8])
                });
                prop_assert_eq!(found.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
                prop_assert_eq!(kept.packets.capacity(), CAPACITY);
                if ends_batch {
                    kept.clear();
                    expected.clear();
                    prop_assert!(kept.is_empty());
                }
            }
        }
    }
}
