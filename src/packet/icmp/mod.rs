//! ICMP: messages that are parsed, and errors that natbox sends.

mod error;
mod message;

pub use error::{IcmpErrorKind, icmp_error};
pub(crate) use message::{
    CHECKSUM, DESTINATION_UNREACHABLE, HEADER, IDENTIFIER, Quote, TIME_EXCEEDED, identifier,
    is_translatable_error, may_be_error, read_quote,
};
pub use message::{IcmpError, QueryKind};
