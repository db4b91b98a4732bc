//! Fragmented datagrams and the identification field of IPv4.

pub(crate) mod datagram;
pub(crate) mod identification;
pub(crate) mod original_ids;
pub(crate) mod store;
#[cfg(test)]
mod tests;
