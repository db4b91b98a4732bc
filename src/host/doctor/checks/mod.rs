//! Evaluates facts: each check makes findings of plain data and asks nothing.
//!
//! | file              | check                                                              |
//! |-------------------|--------------------------------------------------------------------|
//! | `box_checks`      | all checks of a box, in order                                      |
//! | `box_steps`       | the settings of the host are in place                              |
//! | `box_paths`       | packets take the right path through the box                        |
//! | `box_uplinks`     | gateways answer, addresses are present and unique                  |
//! | `box_services`    | programs of the host listen where forwards lead                    |
//! | `box_firewall`    | the host's filters let natbox's packets pass                       |
//! | `box_exposure`    | outside segments do not reach inside addresses of the box          |
//! | `box_packets`     | the packets that have to pass the host's filters                   |
//! | `server_checks`   | all checks of a server, in order                                   |
//! | `server_replies`  | replies go to the right box                                        |
//! | `server_services` | programs listen, and the filters let their packets pass            |
//! | `network_programs` | systemd-networkd and NetworkManager leave natbox's settings alone |
//! | `mtu`             | the MTUs fit                                                       |
//! | `offloads`        | the offloads of the interfaces fit                                 |
//! | `conntrack`       | connection tracking does no harm                                   |
//! | `filters`         | the rules of nftables were readable                                |

pub(super) mod box_checks;
mod box_exposure;
pub(super) mod box_firewall;
mod box_packets;
mod box_paths;
mod box_services;
mod box_steps;
mod box_uplinks;
pub(super) mod conntrack;
pub(super) mod filters;
mod mtu;
mod network_programs;
pub(super) mod offloads;
pub(super) mod server_checks;
mod server_replies;
mod server_services;
mod transports;
