//! Original identifications of datagrams that were sent on in fragments under another one. ICMP
//! errors quote the new identification; their receiver knows the original one.

use std::collections::{HashMap, VecDeque};

use crate::nat::fragments::datagram::DatagramId;
use crate::nat::seed::HashKey;
use crate::time::{Span, Tick};

/// The last datagrams that were sent on in fragments, by their identity after the translation.
pub(crate) struct OriginalIds {
    by_id: HashMap<DatagramId, u16, HashKey>,
    /// In the order in which they were sent. When an identity was used twice, the removal of its
    /// first entry removes the second. ICMP errors then show the new identification, as those about
    /// older datagrams do.
    order: VecDeque<(Tick, DatagramId)>,
    capacity: usize,
    lifetime: Span,
}

impl OriginalIds {
    /// Makes an empty list of `capacity` datagrams at most, each for `lifetime`.
    pub(crate) fn new(capacity: usize, lifetime: Span, key: HashKey) -> Self {
        Self { by_id: HashMap::with_hasher(key), order: VecDeque::new(), capacity, lifetime }
    }

    /// Changes the number of datagrams and their lifetime.
    pub(super) fn set(&mut self, capacity: usize, lifetime: Span) {
        (self.capacity, self.lifetime) = (capacity, lifetime);
    }

    /// Notes that a datagram with the identification `original` was sent on as `id`.
    pub(crate) fn note(&mut self, id: DatagramId, original: u16, now: Tick) {
        while let Some((since, oldest)) = self.order.front()
            && (self.order.len() >= self.capacity || now.reached(since.after(self.lifetime)))
        {
            self.by_id.remove(oldest);
            self.order.pop_front();
        }
        if id.identification != original {
            self.by_id.insert(id, original);
            self.order.push_back((now, id));
        }
    }

    /// Original identification of a datagram that was sent on as `id`.
    pub(crate) fn of(&self, id: DatagramId) -> Option<u16> {
        self.by_id.get(&id).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Protocol;
    use std::net::Ipv4Addr;

    fn id(identification: u16) -> DatagramId {
        let address = Ipv4Addr::new(192, 0, 2, 1);
        DatagramId {
            source: address,
            destination: address,
            protocol: Protocol::UDP,
            identification,
        }
    }

    #[test]
    fn the_last_ones_are_known_for_a_while() {
        let mut originals = OriginalIds::new(100, Span::seconds(15), HashKey::of(1));
        for number in 0..1000 {
            originals.note(id(number), number + 7, Tick(1000));
        }
        assert_eq!((originals.of(id(899)), originals.of(id(900))), (None, Some(907)));
        originals.note(id(5000), 1, Tick(16_000));
        assert_eq!((originals.of(id(999)), originals.of(id(5000))), (None, Some(1)));
        assert_eq!((originals.by_id.len(), originals.order.len()), (1, 1));
    }
}
