//! IPv4 headers and their options.

mod header;
pub(crate) mod options;
mod scrub;

pub(crate) use header::{CHECKSUM, HEADER, Header, TOTAL_LENGTH};
