//! The results of a failed and recovered uplink, as text and as JSON.

use serde::Serialize;

/// The results. The field names are keys of `--json`.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct FailoverReport {
    /// Datagrams that were lost on the way there or back over the surviving uplink.
    #[serde(rename = "lost_on_other_lines")]
    pub lost_on_other_uplinks: u64,
    /// Datagrams sent over the surviving uplink.
    #[serde(rename = "datagrams_on_other_lines")]
    pub datagrams_on_other_uplinks: u64,
    /// Failed requests over the surviving uplink.
    #[serde(rename = "failed_requests_on_surviving_line")]
    pub failed_requests_on_surviving_uplink: u64,
    /// Requests over the surviving uplink, each on a connection of its own.
    #[serde(rename = "requests_on_surviving_line")]
    pub requests_on_surviving_uplink: u64,
    /// Seconds from the failure of the uplink until an inside host that used the uplink got a reply
    /// over the other.
    #[serde(rename = "seconds_to_new_line")]
    pub seconds_to_new_uplink: f64,
    /// Longest accepted value in seconds: interval times `fall` of the configuration, and a tenth
    /// of a second.
    pub seconds_wanted: f64,
    /// Seconds from the repair of the uplink until the instance used the uplink again.
    pub seconds_until_back: f64,
}

impl FailoverReport {
    /// Describes each unmet expectation in one sentence.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.lost_on_other_uplinks > 0 {
            problems.push(format!(
                "{} datagrams were lost on the surviving uplink",
                self.lost_on_other_uplinks
            ));
        }
        if self.failed_requests_on_surviving_uplink > 0 {
            problems.push(format!(
                "{} requests failed on the surviving uplink",
                self.failed_requests_on_surviving_uplink
            ));
        }
        if self.seconds_to_new_uplink > self.seconds_wanted + SLACK {
            problems.push(format!(
                "an inside host used the other uplink after {:.2} s; at most {:.2} s are allowed",
                self.seconds_to_new_uplink, self.seconds_wanted
            ));
        }
        problems
    }

    /// Formats the results as text.
    pub(super) fn text(&self) -> String {
        format!(
            "  uplink 2 failed:   inside hosts used uplink 1 after {:.2} s ({:.2} s allowed); \
             uplink 2 was in use {:.2} s after it recovered\n\
             \x20 uplink 1 survived: {} of {} datagrams lost, {} of {} requests failed\n",
            self.seconds_to_new_uplink,
            self.seconds_wanted,
            self.seconds_until_back,
            self.lost_on_other_uplinks,
            self.datagrams_on_other_uplinks,
            self.failed_requests_on_surviving_uplink,
            self.requests_on_surviving_uplink
        )
    }
}

/// Allowance in seconds for the machine: threads that wait for a core, a handshake.
const SLACK: f64 = 0.4;
