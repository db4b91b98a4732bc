//! The control plane: everything that runs beside the packets.
//!
//! One thread runs all of it (a tokio current-thread runtime). The workers never wait for this
//! thread: they report failures through the engine's channel and publish their counters.
//!
//! | file                               | content                                                 |
//! |------------------------------------|---------------------------------------------------------|
//! | `run`, `start`                     | privileges, the order of start and stop                 |
//! | `wait`, `waiting`                  | the wait for interfaces before the start                |
//! | `subsystem`                        | contract of each subsystem, and the loop that runs it   |
//! | `workers`                          | TUN device, workers                                     |
//! | `reconcile`                        | the host: links, addresses, listening ports             |
//! | `health`, `failover`               | checks of the uplinks, and the response to failures     |
//! | `uplink_states`                    | states of uplinks at the start and after a reload       |
//! | `announcer`                        | announcements of addresses by ARP                       |
//! | `dns`                              | name server, updates, hook                              |
//! | `exhaustion`                       | events about exhausted resources                        |
//! | `firewall`, `warnings`             | the host's filters, and warnings about the host         |
//! | `admin`, `instance`, `status`, `sessions` | the admin socket and its answers                 |
//! | `drops`, `trace`, `packet_view`    | drops, live packets, packets as a user may see them     |
//! | `explain`                          | what would happen to a packet                           |
//! | `admin_access`, `admin_socket`     | users and file of the admin socket                      |
//! | `signals`                          | stop, reload, counters                                  |
//! | `reload`, `settings`               | configuration in use, and the policy made from it       |
//! | `reload_error`                     | reasons why an instance refuses a reload                |
//! | `confirmation`, `countdown`        | reloads that go back                                    |
//! | `difference`                       | what a reload would change                              |
//! | `state_file`                       | where files lie that outlive the process                |
//! | `events`, `logging`, `mapping_log` | events, the log and the mapping log                     |
//! | `service_manager`                  | reports to systemd                                      |
//! | `sandbox`, `needed_files`          | dropping privileges, and the files that stay open       |
//!
//! The control plane never names the translator. It reaches the translator through
//! [`crate::engine::Handle`] alone.

mod admin;
mod admin_access;
mod admin_socket;
mod announcer;
mod answer;
mod confirmation;
mod countdown;
mod difference;
mod dns;
mod down;
mod drops;
mod error;
mod events;
mod exhaustion;
mod explain;
mod failover;
mod firewall;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod health;
mod instance;
mod kept_sessions;
pub(crate) mod logging;
mod mapping_log;
mod needed_files;
mod packet_view;
mod reconcile;
mod reload;
mod reload_error;
mod run;
mod sandbox;
mod service_manager;
mod session_events;
mod session_requests;
mod sessions;
mod settings;
mod signals;
mod start;
mod state_file;
mod status;
mod subsystem;
mod trace;
mod uplink_states;
mod wait;
mod waiting;
mod warnings;
mod workers;

pub(crate) use crate::state::{KEEPER_COMMAND, Preview};
pub(crate) use confirmation::start_config;
pub(crate) use down::down;
pub(crate) use error::{RunError, SocketError};
pub(crate) use explain::FreshInstance;
pub(crate) use kept_sessions::{keep_descriptors, preview};
pub(crate) use reload::needs_restart;
pub(crate) use run::run;
