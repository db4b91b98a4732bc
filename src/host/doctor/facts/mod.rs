//! Collects facts: asks the kernel and some programs, and changes nothing.
//!
//! | file            | content                                                         |
//! |-----------------|-----------------------------------------------------------------|
//! | `box_facts`     | the host of a box                                               |
//! | `server_facts`  | this machine as a server                                        |
//! | `link_settings` | MTU, source filter and offloads of an interface                 |
//! | `firewall`      | the rules of nftables, and connection tracking                  |
//! | `network_programs` | systemd-networkd and NetworkManager                          |
//! | `neighbours`    | whether a neighbour answers ARP                                 |
//! | `first_hop`     | the router that really receives the packets from an address     |
//! | `samples`       | addresses that stand for the Internet                           |

pub(super) mod box_facts;
pub(super) mod firewall;
pub(super) mod first_hop;
pub(super) mod link_settings;
mod neighbours;
pub(super) mod network_programs;
pub(super) mod samples;
pub(super) mod server_facts;
