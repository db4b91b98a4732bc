//! The control plane: everything that runs beside the packets.
//!
//! One thread runs all of it (a tokio current-thread runtime). The workers never wait for this
//! thread: they report failures through the engine's channel and publish their counters.
//!
//! | file                               | idea                                                          |
//! |------------------------------------|---------------------------------------------------------------|
//! | `run`, `start`                     | privileges, the order of start and stop                       |
//! | `subsystem`                        | the contract of every part below, and the loop that runs it   |
//! | `workers`                          | TUN device, workers                                           |
//! | `reconcile`                        | the host: links, addresses, listening ports                   |
//! | `health`, `failover`               | checks of the uplinks, and what follows from them             |
//! | `dns`                              | name server, updates, hook                                    |
//! | `exhaustion`                       | events about exhausted resources                              |
//! | `admin`, `status`, `sessions`      | the admin socket and its answers                              |
//! | `signals`                          | stop, reload, counters                                        |
//! | `reload`, `settings`               | the configuration in use, and the policy that follows from it |
//! | `events`, `logging`, `mapping_log` | what natbox reports                                           |
//! | `sandbox`                          | dropping privileges                                           |
//!
//! No file here names the translator: [`crate::engine::Handle`] is the only door to it.

mod admin;
mod dns;
mod error;
mod events;
mod exhaustion;
mod failover;
mod health;
pub(crate) mod logging;
mod mapping_log;
mod reconcile;
mod reload;
mod run;
mod sandbox;
mod sessions;
mod settings;
mod signals;
mod start;
mod status;
mod subsystem;
mod workers;

pub(crate) use error::{RunError, SocketError};
pub(crate) use run::run;
