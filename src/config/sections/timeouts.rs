//! `timeouts`: idle timeouts.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::schema::{ValueTypeExt as _, absent, section};
use crate::config::types::duration;

section! {
    /// Idle timeouts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Timeouts {
        /// Timeout of open TCP connections (RFC 5382 REQ-5).
        pub tcp_established: Duration = duration(IDLE).default(Duration::from_secs(2 * 3600 + 4 * 60)),
        /// Timeout of closing and reset TCP connections (RFC 5382 REQ-5).
        pub tcp_transitory: Duration = duration(IDLE).default(Duration::from_secs(4 * 60)),
        /// Timeout of a TCP connection whose first SYN has no answer.
        pub tcp_syn: Duration = duration(IDLE).default(Duration::from_secs(30)),
        /// Timeout of UDP sessions (RFC 4787 REQ-5).
        pub udp: Duration = duration(IDLE).default(Duration::from_secs(5 * 60)),
        /// Timeout of UDP sessions to port 53 after the reply.
        pub udp_dns: Duration = duration(IDLE).default(Duration::from_secs(10)),
        /// Timeout of ICMP queries (RFC 5508 REQ-2).
        pub icmp: Duration = duration(IDLE).default(Duration::from_secs(60)),
        /// Timeout of incomplete sets of fragments.
        pub fragment: Duration = duration(IDLE).default(Duration::from_secs(15)),
        /// Time for which a freed port is reserved for its last holder (RFC 6888 REQ-8). `0`
        /// reserves none.
        pub port_reuse_delay: Duration = duration(Duration::ZERO..=Timeouts::MAX)
            .default(Duration::from_secs(2 * 60)),
    }
}

impl Timeouts {
    /// Longest timeout: the longest span that `time::Tick`s order.
    pub(crate) const MAX: Duration = Duration::from_secs(24 * 24 * 3600);
}

impl Default for Timeouts {
    fn default() -> Self {
        absent()
    }
}

const IDLE: RangeInclusive<Duration> = Duration::from_secs(1)..=Timeouts::MAX;
