//! `limits`: bounds of memory, and of what one host may use.

use crate::config::schema::{ValueTypeExt as _, absent, section};
use crate::config::types::count;

section! {
    /// Bounds of memory, and of what one host may use.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Limits {
        /// Sessions at one time, exactly. natbox keeps 1,024 more for sessions that the box itself
        /// opens.
        pub sessions: u32 = count(1..=Limits::MAX_SESSIONS).default(1_000_000).needs_restart(),
        /// Sessions that one inside host may have opened at one time. `0` sets no limit.
        pub sessions_per_host: u32 = count(0..=Limits::MAX_SESSIONS).default(64_000),
        /// Sessions that one inside host may open in a second. `0` sets no limit.
        pub new_sessions_per_host: u32 = count(0..=Limits::MAX_SESSIONS).default(0),
        /// Fragmented datagrams tracked at one time. One source may use an eighth of them, at least
        /// 16.
        pub fragments: u32 = count(1..=Limits::MAX_FRAGMENTS).default(4096),
        /// Freed ports reserved for their last holders, on each external address for each protocol.
        pub delayed_ports: u32 = count(0..=Limits::MAX_PORTS).default(16_000),
        /// ICMP errors that natbox itself sends to one host in a second (RFC 1812 section 4.3.2.8).
        /// `0` sets no limit.
        pub icmp_errors_per_host: u32 = count(0..=1_000_000).default(100),
    }
}

impl Limits {
    /// Largest value of [`Limits::sessions`] and of the limits for one host.
    pub(crate) const MAX_SESSIONS: u32 = 512_000_000;
    /// Largest value of [`Limits::fragments`].
    pub(crate) const MAX_FRAGMENTS: u32 = 1_000_000;
    /// Largest value of [`Limits::delayed_ports`]: the number of ports.
    pub(crate) const MAX_PORTS: u32 = 65_536;
}

impl Default for Limits {
    fn default() -> Self {
        absent()
    }
}
