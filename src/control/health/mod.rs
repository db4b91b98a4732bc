//! The health of the uplinks.
//!
//! | file      | content                                                  |
//! |-----------|----------------------------------------------------------|
//! | `uplink`  | one uplink as a pure state machine                       |
//! | `rounds`  | the rounds of an uplink: waiting, good, lost             |
//! | `loss`    | the loss of an uplink, from the results of its probes     |
//! | `hold`    | the time that a failed uplink must answer                |
//! | `monitor` | the state machines of all uplinks, and what they publish |
//! | `checks`  | the subsystem that probes the uplinks at their intervals |
//! | `probes`  | one probe of one target over one uplink                  |
//! | `web`     | HTTP probes, and which of their answers count            |
//! | `names`   | host names of targets, looked up or remembered           |

mod checks;
mod hold;
mod loss;
mod monitor;
mod names;
mod probes;
mod rounds;
mod uplink;
mod web;

pub(super) use checks::{HealthChecks, NewChecks};
pub(super) use monitor::UplinkMonitor;
pub(super) use probes::RawSockets;

/// Returns the reason of an uplink by which no packet can leave.
pub(super) fn link_not_ready() -> String {
    uplink::DownReason::LinkNotReady.to_string()
}
