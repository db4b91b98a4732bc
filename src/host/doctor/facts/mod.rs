//! Collects facts: asks the kernel and some programs, and changes nothing.

pub(crate) mod box_facts;
pub(crate) mod first_hop;
pub(crate) mod links;
pub(crate) mod server_facts;
