//! Packets and bytes of each uplink.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

/// Translated packets and bytes of one uplink since the start of the process, without hairpin
/// sessions and ICMP errors. A super-packet counts as one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UplinkTraffic {
    /// Packets that came over the uplink.
    pub packets_in: u64,
    /// Their bytes, IP headers included.
    pub bytes_in: u64,
    /// Packets that left over the uplink.
    pub packets_out: u64,
    /// Their bytes, IP headers included.
    pub bytes_out: u64,
}

/// The traffic that one worker has translated, by uplink. Relaxed: only the worker writes, and the
/// counts depend on nothing else.
pub(crate) struct WorkerTraffic([UplinkCells; UPLINKS]);

#[derive(Default)]
#[repr(align(32))]
struct UplinkCells {
    /// Packets and bytes towards the outside, then towards the inside.
    cells: [[AtomicU64; 2]; 2],
}

/// The traffic of every worker.
#[derive(Default)]
pub(crate) struct Traffic(Mutex<Vec<Arc<WorkerTraffic>>>);

impl Default for WorkerTraffic {
    fn default() -> Self {
        Self(std::array::from_fn(|_| UplinkCells::default()))
    }
}

impl WorkerTraffic {
    /// Counts a packet.
    #[inline]
    pub(crate) fn count(&self, uplink: u8, inside: bool, bytes: usize) {
        let [packets, sum] = &self.0[usize::from(uplink)].cells[usize::from(inside)];
        packets.store(packets.load(Relaxed).wrapping_add(1), Relaxed);
        sum.store(sum.load(Relaxed).wrapping_add(bytes as u64), Relaxed);
    }
}

impl Traffic {
    /// Adds a worker.
    pub(crate) fn worker(&self) -> Arc<WorkerTraffic> {
        let worker = Arc::<WorkerTraffic>::default();
        self.0.lock().push(Arc::clone(&worker));
        worker
    }

    /// Returns the sums over the workers for an uplink.
    pub(crate) fn of(&self, uplink: u8) -> UplinkTraffic {
        let mut sum = UplinkTraffic::default();
        for worker in self.0.lock().iter() {
            let [outbound, inbound] = &worker.0[usize::from(uplink)].cells;
            sum.packets_out += outbound[0].load(Relaxed);
            sum.bytes_out += outbound[1].load(Relaxed);
            sum.packets_in += inbound[0].load(Relaxed);
            sum.bytes_in += inbound[1].load(Relaxed);
        }
        sum
    }
}

/// Numbers that an uplink can have.
const UPLINKS: usize = 1 << u8::BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traffic_of_an_uplink_is_the_sum_over_the_workers() {
        let traffic = Traffic::default();
        let workers = [traffic.worker(), traffic.worker()];
        workers[0].count(1, true, 100);
        workers[1].count(1, true, 40);
        workers[1].count(1, false, 7);
        workers[0].count(255, false, 9);
        let expected = UplinkTraffic { packets_in: 2, bytes_in: 140, packets_out: 1, bytes_out: 7 };
        assert_eq!(traffic.of(1), expected);
        assert_eq!(traffic.of(255).bytes_out, 9);
        assert_eq!(traffic.of(0), UplinkTraffic::default());
    }
}
