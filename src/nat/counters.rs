//! Counters of one worker: plain integers that the engine publishes once per batch.

use crate::nat::verdict::DropReason;
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $field:ident,)+) => {
        /// Counts of one worker since it started.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $field: u64,)+
            /// Packets dropped, by [`DropReason`].
            pub drops: Drops,
        }

        impl Counters {
            /// Names of the counters, in the order of [`Self::values`], without the drops.
            pub const NAMES: &[&str] = &[$(stringify!($field)),+];
            /// One sentence for each of [`Self::NAMES`], for the generated reference.
            pub const EXPLANATIONS: &[&str] = &[$(concat!($($doc),+)),+];
            /// Length of [`Self::values`].
            pub const COUNT: usize = Self::NAMES.len() + DropReason::ALL.len();

            /// Lists the counters, then the drops in the order of their reasons.
            pub fn values(&self) -> impl Iterator<Item = u64> {
                [$(self.$field),+].into_iter().chain(self.drops.0)
            }

            /// Reverses [`Self::values`]. Missing numbers are zero.
            pub fn from_values(mut values: impl Iterator<Item = u64>) -> Self {
                Self {
                    $($field: values.next().unwrap_or(0),)+
                    drops: Drops(std::array::from_fn(|_| values.next().unwrap_or(0))),
                }
            }

            /// Adds the counts of another worker.
            pub fn add(&mut self, other: &Self) {
                *self = Self::from_values(self.values().zip(other.values()).map(|(one, two)| one + two));
            }
        }
    };
}

counters! {
    /// Packets read from the device; a super-packet is one.
    packets_in,
    /// Bytes of the packets read, IP header included.
    bytes_in,
    /// Packets written to the device.
    packets_out,
    /// Bytes of the packets written, IP header included.
    bytes_out,
    /// Packets translated towards the inside.
    translated_inbound,
    /// Packets translated towards the outside.
    translated_outbound,
    /// Packets of static forwards translated without a session: the table was full, or the packet
    /// opens none.
    forwarded_stateless,
    /// Packets passed untranslated by a `no_nat` rule, ICMP errors about such packets included.
    bypassed,
    /// Packets passed to the host untouched.
    passed_to_host,
    /// ICMP errors that natbox itself sent.
    icmp_errors_sent,
    /// ICMP errors that natbox did not send because of `limits.icmp_errors_per_host`.
    icmp_errors_rate_limited,
    /// TCP resets and ICMP errors sent to inside hosts because their uplink failed or lost its
    /// address.
    failover_notifications,
    /// ICMP errors translated, in either direction.
    icmp_errors_translated,
    /// Sessions opened.
    sessions_created,
    /// Sessions that ended by their idle timeout.
    sessions_expired,
    /// Sessions ended early because the table was full.
    sessions_evicted,
    /// Batches with at least one packet.
    batches,
}

/// Numbers of dropped packets by reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl Drops {
    /// Adds dropped packets to a reason.
    #[inline]
    pub fn count(&mut self, reason: DropReason, packets: u64) {
        self.0[reason as usize] += packets;
    }

    /// Number of packets dropped for this reason.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// Lists all reasons with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|reason| (*reason, self.of(*reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_publishing_and_add_up() {
        let mut counters = Counters::from_values(1..);
        assert_eq!(
            counters.values().collect::<Vec<_>>(),
            (1..=Counters::COUNT as u64).collect::<Vec<_>>()
        );
        let copy = counters.clone();
        counters.add(&copy);
        assert!(counters.values().zip(copy.values()).all(|(twice, once)| twice == 2 * once));
        assert_eq!(counters.drops.of(DropReason::NotIpv4), 2 * (Counters::NAMES.len() as u64 + 1));
    }
}
