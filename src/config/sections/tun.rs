//! `tun`: the TUN device and its workers.

use std::time::Duration;

use crate::config::problem::ValueError;
use crate::config::schema::{ValueTypeExt as _, absent, section};
use crate::config::types::{
    Format, Scalar as _, any_of, config_enum, duration, integer, network, number, word, words,
};

section! {
    /// The TUN device that natbox creates, and the threads that serve it.
    #[derive(Clone, Debug, PartialEq)]
    pub(crate) struct Tun {
        /// Name of the interface. No other interface may have it.
        pub name: String = network::tun_interface().default("nb0".into()),
        /// Number of queues, each served by one thread. `auto` takes half of the usable cores.
        pub workers: Workers = workers().default(Workers::Auto),
        /// I/O backend.
        pub io: IoBackend = word().default(IoBackend::Auto),
        /// Strongest offload level to ask the kernel for. natbox takes the next weaker level that
        /// the kernel grants.
        pub offload: OffloadLimit = word().default(OffloadLimit::Auto),
        /// Time to poll before a worker sleeps while traffic flows. `0` turns polling off.
        pub busy_poll: Duration = duration(Duration::ZERO..=Duration::from_millis(1))
            .default(Duration::from_micros(50)),
    }
}

impl Default for Tun {
    fn default() -> Self {
        absent()
    }
}

/// Number of workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// Half of the usable cores.
    Auto,
    /// 1 to 256.
    Count(u16),
}

fn workers() -> Format<Workers> {
    Format {
        parse: parse_workers,
        emit: |workers| match workers {
            Workers::Auto => "auto".into(),
            Workers::Count(number) => u32::from(*number).into(),
        },
        name: "`auto` or number from 1 to 256",
        constraint: || any_of([words(&["auto"]), integer(&(1..=256))]),
        free_text: false,
    }
}

fn parse_workers(text: &str) -> Result<Workers, ValueError> {
    if text == "auto" {
        return Ok(Workers::Auto);
    }
    match number(1..=256).parse(text) {
        Ok(number) => Ok(Workers::Count(number as u16)),
        Err(error) => Err(error.wanting("`auto` or a number of threads from 1 to 256")),
    }
}

config_enum! {
    /// I/O backend.
    pub(crate) enum IoBackend {
        /// The best backend that the kernel offers: `uring` from Linux 6.1, otherwise `poll`.
        Auto = "auto",
        /// io_uring. The box does not start if the kernel lacks it.
        Uring = "uring",
        /// One read or write call a packet, and poll.
        Poll = "poll",
    }
}

config_enum! {
    /// Upper bound on the offload level.
    pub(crate) enum OffloadLimit {
        /// The strongest level that the kernel grants.
        Auto = "auto",
        /// Segmentation of TCP and UDP, and checksums. Starts at the same level as `auto`.
        TsoUso = "tso+uso",
        /// Segmentation of TCP, and checksums.
        Tso = "tso",
        /// Checksums only.
        Checksum = "checksum",
        /// Plain packets of at most the interface's MTU, with complete checksums.
        None = "none",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,24}|[0-9auto]{0,24}") {
            let _ = parse_workers(&text);
        }
    }
}
