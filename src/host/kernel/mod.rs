//! The kernel's interfaces: netlink, `/proc/sys` and `/proc/net`.
//!
//! | file           | content                                                      |
//! |----------------|--------------------------------------------------------------|
//! | `netlink`      | a socket that reads a snapshot, makes and removes changes    |
//! | `encode`       | messages to the kernel                                       |
//! | `decode`       | messages from the kernel                                     |
//! | `indices`      | interface indices by name                                    |
//! | `route_lookup` | the route of one packet, and the neighbour table             |
//! | `watch`        | changes of interfaces and addresses, as the kernel reports them |
//! | `nftables`     | the filter of private addresses on the uplinks               |
//! | `sysctl`       | `/proc/sys`                                                  |
//! | `listeners`    | ports that the host's programs use                           |

pub(super) mod decode;
mod encode;
pub(crate) mod indices;
pub(crate) mod listeners;
pub(crate) mod netlink;
pub(crate) mod nftables;
pub(crate) mod route_lookup;
pub(crate) mod sysctl;
pub(crate) mod watch;
