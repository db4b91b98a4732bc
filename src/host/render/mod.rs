//! Prints what a person has to set by hand: the box's steps as commands, and the settings of the
//! servers behind the boxes.
//!
//! | file             | content                                                         |
//! |------------------|-----------------------------------------------------------------|
//! | `plan`           | the plan for all machines, and its form for people              |
//! | `box_plan`       | the commands of one box                                         |
//! | `probe`          | whether this machine is one of the boxes                        |
//! | `servers`        | the plans of all servers                                        |
//! | `server_targets` | the servers, as the forwards of all boxes show them             |
//! | `server_plan`    | the plan of one server, and its form for people                 |
//! | `server_text`    | shell commands, systemd-networkd and netplan                    |

mod box_plan;
mod plan;
mod probe;
mod server_plan;
pub(crate) mod server_targets;
mod server_text;
mod servers;

pub(crate) use plan::plan;
