//! What a session from inside holds beside its record: a mapping, a port, a share of its host's
//! limits.
//!
//! ```text
//!   mappings  inside endpoint <-> external endpoint     filter       who may send to a mapping
//!   allocator ports of one external address             ports        the bitmap of free ports
//!   reuse_delay  freed ports that wait                  host_limits  sessions of each inside host
//!   events    beginnings and ends, for a log            key          keys of mappings
//!   held_ports   ports held without a mapping        inbound_limits  sessions from outside
//!   port_set  sets of ports as bitmaps
//!   settings  limits that may change                changed_limits  their change
//!   taken_ports  a pool as it would be               foresight    the mapping that a packet would get
//! ```

pub(crate) mod allocator;
pub(crate) mod changed_limits;
pub(crate) mod events;
pub(crate) mod filter;
pub(crate) mod foresight;
pub(crate) mod held_ports;
pub(crate) mod holding;
pub(crate) mod host_limits;
pub(crate) mod inbound_limits;
pub(crate) mod key;
pub(crate) mod mappings;
pub(crate) mod port_set;
pub(crate) mod ports;
pub(crate) mod reuse_delay;
pub(crate) mod settings;
pub(crate) mod taken_ports;
