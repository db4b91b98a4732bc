//! Sets of ports as bitmaps that several threads read and change.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::values::nat::PortRange;

/// One bit for each port.
pub(super) type PortSet = Box<[AtomicU64; WORDS]>;

/// Returns an empty set.
pub(super) fn no_ports() -> PortSet {
    Box::new([const { AtomicU64::new(0) }; WORDS])
}

/// Makes a set hold exactly the ports of these ranges.
pub(super) fn set_all(set: &PortSet, ranges: impl Iterator<Item = PortRange>) {
    let mut words = [0; WORDS];
    for PortRange { first, last } in ranges {
        let (from, to) = (usize::from(first / 64), usize::from(last / 64));
        for (number, word) in (from..).zip(&mut words[from..=to]) {
            *word |= word_mask(number, first, last);
        }
    }
    for (stored, word) in set.iter().zip(words) {
        stored.store(word, Relaxed);
    }
}

/// Reports whether a set has a port.
pub(super) fn is_set(set: &PortSet, port: u16) -> bool {
    set[usize::from(port / 64)].load(Relaxed) & 1 << (port % 64) != 0
}

/// The bits of a word whose ports lie between `first` and `last`. The word has one of these ports.
pub(super) fn word_mask(number: usize, first: u16, last: u16) -> u64 {
    let start = (number * 64) as u32;
    let below = u32::from(first).saturating_sub(start);
    let above = (start + 63).saturating_sub(u32::from(last));
    u64::MAX << below & u64::MAX >> above
}

/// Words of a set.
pub(super) const WORDS: usize = 65536 / 64;
