//! The health of the uplinks.
//!
//! | file      | content                                                  |
//! |-----------|----------------------------------------------------------|
//! | `uplink`  | one uplink as a pure state machine                       |
//! | `monitor` | the state machines of all uplinks, and what they publish |
//! | `checks`  | the subsystem that probes the uplinks at their intervals |
//! | `probes`  | one probe of one target over one uplink                  |
//! | `names`   | host names of targets, looked up or remembered           |

mod checks;
mod monitor;
mod names;
mod probes;
mod uplink;

pub(super) use checks::HealthChecks;
pub(super) use monitor::UplinkMonitor;
pub(super) use probes::RawSockets;
