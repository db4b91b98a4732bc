//! Which identification a datagram had come with that was sent on in pieces under another: for ICMP errors, which quote
//! the new one to a sender that knows its own.

use std::collections::{HashMap, VecDeque};

use crate::nat::fragments::datagram::DatagramId;
use crate::nat::seed::HashKey;
use crate::time::{Span, Tick};

/// The last datagrams that were sent on in pieces, by the name that they left under.
pub(crate) struct OriginalIds {
    by_name: HashMap<DatagramId, u16, HashKey>,
    /// In order of their going. A name that was given twice may be forgotten with its first entry: errors then show
    /// the new number, as those about older datagrams do.
    order: VecDeque<(Tick, DatagramId)>,
    capacity: usize,
    lifetime: Span,
}

impl OriginalIds {
    /// Room for `capacity` datagrams, each for `lifetime`.
    pub(crate) fn new(capacity: usize, lifetime: Span, key: HashKey) -> Self {
        Self { by_name: HashMap::with_hasher(key), order: VecDeque::new(), capacity, lifetime }
    }

    /// Notes that a datagram with the identification `original` was sent on under this name.
    pub(crate) fn note(&mut self, name: DatagramId, original: u16, now: Tick) {
        while let Some((since, oldest)) = self.order.front()
            && (self.order.len() >= self.capacity || now.reached(since.after(self.lifetime)))
        {
            self.by_name.remove(oldest);
            self.order.pop_front();
        }
        if name.identification != original {
            self.by_name.insert(name, original);
            self.order.push_back((now, name));
        }
    }

    /// The identification that it had come with.
    pub(crate) fn of(&self, name: DatagramId) -> Option<u16> {
        self.by_name.get(&name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Protocol;
    use std::net::Ipv4Addr;

    fn name(identification: u16) -> DatagramId {
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
            originals.note(name(number), number + 7, Tick(1000));
        }
        assert_eq!((originals.of(name(899)), originals.of(name(900))), (None, Some(907)));
        originals.note(name(5000), 1, Tick(16_000));
        assert_eq!((originals.of(name(999)), originals.of(name(5000))), (None, Some(1)));
        assert_eq!((originals.by_name.len(), originals.order.len()), (1, 1));
    }
}
