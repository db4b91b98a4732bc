//! A range of ports.

use std::ops::RangeInclusive;

/// A range of ports or query identifiers, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

impl PortRange {
    /// Every port, 0 included.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// Makes a range of one port.
    pub const fn single(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// Reports whether `port` lies in the range.
    #[inline]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Iterates over the ports in ascending order.
    pub fn iter(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl From<RangeInclusive<u16>> for PortRange {
    fn from(range: RangeInclusive<u16>) -> Self {
        Self { first: *range.start(), last: *range.end() }
    }
}
