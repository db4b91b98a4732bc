//! Makes the kernel resolve neighbours, and waits for their answers.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::route_lookup::{Neighbour, NeighbourState};

/// Longest wait for an answer. The kernel probes three times, a second apart, before it gives up.
/// Without the privilege to start the probes, the kernel waits 5 s before the first.
pub(super) const TIMEOUT: Duration = Duration::from_secs(9);
/// Time between two readings of the neighbour table.
const INTERVAL: Duration = Duration::from_millis(50);

/// An address on the segment of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NeighbourKey {
    pub(super) address: Ipv4Addr,
    /// Interface index.
    pub(super) index: u32,
}

impl NeighbourKey {
    /// Returns the neighbour's state; None when the table has no entry.
    pub(super) fn state_in(self, neighbours: &[Neighbour]) -> Option<NeighbourState> {
        neighbours.iter().find(|found| self.matches(found)).map(|found| found.state)
    }

    fn matches(self, found: &Neighbour) -> bool {
        (found.address, found.index) == (self.address, self.index)
    }
}

/// Probes known neighbours again, and returns the neighbour table once all `wanted` neighbours have
/// answered, have failed, or `timeout` is over.
///
/// # Errors
/// When the kernel does not answer.
pub(super) async fn settled_neighbours(
    kernel: &Kernel,
    wanted: &[NeighbourKey],
    timeout: Duration,
) -> Result<Vec<Neighbour>, HostError> {
    for known in kernel.neighbours().await? {
        if known.learned && wanted.iter().any(|key| key.matches(&known)) {
            kernel.probe_again(&known).await;
        }
    }
    let mut neighbours = kernel.neighbours().await?;
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        let is_open = |key: &NeighbourKey| match key.state_in(&neighbours) {
            Some(NeighbourState::Reachable | NeighbourState::Failed) => false,
            Some(NeighbourState::Unconfirmed) | None => true,
        };
        if !wanted.iter().any(is_open) {
            break;
        }
        tokio::time::sleep(INTERVAL).await;
        neighbours = kernel.neighbours().await?;
    }
    Ok(neighbours)
}
