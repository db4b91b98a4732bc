//! Plain values: what the host has, what natbox needs there, and the steps from one to the other.
//! Nothing in this folder calls the kernel.
//!
//! | file          | content                                                              |
//! |---------------|----------------------------------------------------------------------|
//! | `step`        | one change: a rule, a route, an address, a sysctl, a proxy entry     |
//! | `command`     | a change in the words of `ip` and `sysctl`                           |
//! | `snapshot`    | interfaces, addresses, routes and rules of the network namespace     |
//! | `settings`    | sysctls that decide which steps natbox needs                         |
//! | `routing_ids` | numbers of natbox's tables and rules                                 |
//! | `precedence`  | the place of natbox's rules among those of other programs            |
//! | `presence`    | interfaces that exist and are up, and those that a start waits for   |
//! | `facts`       | conclusions about the host, for one configuration                    |
//! | `other_networks` | networks behind interfaces that natbox does not use               |
//! | `own_traffic` | the host's own packets from inside addresses                         |
//! | `other_interfaces` | interfaces that the configuration does not name                 |
//! | `stacked`     | interfaces whose packets pass another interface of the host           |
//! | `static_routes` | routes that an uplink without a gateway copies                     |
//! | `private_filter` | the filter that keeps private addresses off the uplinks           |
//! | `exposure`    | inside addresses of the box that an outside segment reaches          |
//! | `collect`     | derives the facts from snapshot and settings                         |
//! | `target_warnings` | messages about forwards that cannot work                         |
//! | `dependents`  | uplinks that depend on a setting                                     |
//! | `warnings`    | messages about a host that does not fit the configuration            |
//! | `announcements` | addresses that natbox announces by ARP                             |
//! | `steps`       | the list of all changes, in order                                    |

pub(crate) mod announcements;
pub(crate) mod collect;
pub(crate) mod command;
pub(crate) mod dependents;
pub(crate) mod exposure;
pub(crate) mod facts;
pub(crate) mod other_interfaces;
pub(crate) mod other_networks;
pub(crate) mod own_traffic;
pub(crate) mod precedence;
pub(crate) mod presence;
pub(crate) mod private_filter;
pub(crate) mod routing_ids;
pub(crate) mod settings;
pub(crate) mod snapshot;
pub(crate) mod stacked;
pub(crate) mod static_routes;
pub(crate) mod step;
pub(crate) mod steps;
mod target_warnings;
mod warnings;
