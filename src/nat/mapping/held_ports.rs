//! External ports that sessions hold without a mapping: those of exposed hosts, and second ports of
//! inside hosts whose first one is in use towards the same server.
//!
//! The first session takes the port's bit in the pool, and the last one gives the bit back. So no
//! mapping gets the port meanwhile. A port outside the pool needs no bit, because no mapping ever
//! gets it.

use std::collections::HashMap;

use rand::rngs::StdRng;

use crate::nat::mapping::ports::{PortPool, PortPreference};

/// The held ports of one pool.
#[derive(Default)]
pub(crate) struct HeldPorts(HashMap<u16, Held>);

struct Held {
    sessions: u32,
    /// True: a forward has taken the port over, so the last session leaves the bit to it.
    is_claimed: bool,
}

impl HeldPorts {
    /// Takes a held port over for a forward; false when no session holds the port.
    pub(super) fn claim(&mut self, port: u16) -> bool {
        self.set_claimed(port, true)
    }

    /// Undoes [`Self::claim`]; false when no session holds the port.
    pub(super) fn unclaim(&mut self, port: u16) -> bool {
        self.set_claimed(port, false)
    }

    fn set_claimed(&mut self, port: u16, is_claimed: bool) -> bool {
        self.0.get_mut(&port).map(|held| held.is_claimed = is_claimed).is_some()
    }

    /// Reports whether a session holds a port.
    pub(super) fn has(&self, port: u16) -> bool {
        self.0.contains_key(&port)
    }

    /// Holds a port of a pool for one more session; false when a mapping has the port.
    pub(super) fn hold(&mut self, port: u16, pool: &PortPool) -> bool {
        if let Some(held) = self.0.get_mut(&port) {
            held.sessions += 1;
            return true;
        }
        let won = pool.reserve(port);
        if won {
            self.0.insert(port, Held { sessions: 1, is_claimed: false });
        }
        won
    }

    /// Holds a random free port of a pool for a session.
    pub(super) fn hold_any(
        &mut self,
        pool: &PortPool,
        preference: PortPreference,
        random: &mut StdRng,
    ) -> Option<u16> {
        let port = pool.take(preference, random)?;
        self.0.insert(port, Held { sessions: 1, is_claimed: false });
        Some(port)
    }

    /// Releases a port that a session held.
    pub(super) fn release(&mut self, port: u16, pool: &PortPool) {
        let Some(held) = self.0.get_mut(&port) else { return };
        held.sessions -= 1;
        if held.sessions == 0 && self.0.remove(&port).is_some_and(|held| !held.is_claimed) {
            pool.release(port);
        }
    }
}

#[cfg(test)]
impl HeldPorts {
    /// Returns the ports with their sessions, to compare.
    pub(super) fn snapshot(&self) -> Vec<(u16, u32)> {
        let mut ports: Vec<_> = self.0.iter().map(|(port, held)| (*port, held.sessions)).collect();
        ports.sort_unstable();
        ports
    }
}
