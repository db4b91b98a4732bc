//! Reloads that wait for their confirmation, and what a reload would change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A reload that waits for its confirmation, or from which natbox has gone back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingReload {
    /// State.
    pub state: PendingState,
    /// Paths of the keys whose values differ from those before the reload.
    pub changed: Vec<String>,
    /// Time for the confirmation, in seconds.
    pub confirm_seconds: u64,
    /// Seconds until natbox goes back; None: it has gone back.
    pub seconds_left: Option<u64>,
    /// Time of the reload, or of going back, in UTC (RFC 3339).
    pub since: String,
    /// Reason why natbox could not go back when the time had passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// State of a [`PendingReload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PendingState {
    /// The instance uses the new configuration and waits for the confirmation.
    Unconfirmed,
    /// The instance has gone back to the configuration before the reload. A start uses it as well,
    /// as long as the file has the text of the reload.
    Reverted,
}

/// Reason for going back to the configuration before a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevertReason {
    /// No confirmation came in time.
    NotConfirmed,
    /// A command asked for it.
    Cancelled,
}

impl RevertReason {
    /// Returns the reason as part of a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NotConfirmed => "which was not confirmed in time",
            Self::Cancelled => "which was cancelled",
        }
    }
}

/// The answer to a confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Paths of the keys whose new values stay.
    pub changed: Vec<String>,
}

/// What a reload of the file would change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Path of the file.
    pub file: String,
    /// Keys whose values differ, sorted by their paths.
    pub changes: Vec<ChangedKey>,
    /// Sessions that the reload would end; None: the instance would refuse the reload, because a
    /// changed key needs a restart.
    pub sessions_ended: Option<EndingSessions>,
    /// Warnings of the file.
    pub warnings: Vec<String>,
}

/// A key whose value differs between the configuration in use and the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangedKey {
    /// Path of the key.
    pub key: String,
    /// Value in use; None: the key is absent.
    pub before: Option<Value>,
    /// Value of the file; None: the key is absent.
    pub after: Option<Value>,
    /// True: a reload does not change the key.
    pub needs_restart: bool,
}

/// Sessions that a reload would end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndingSessions {
    /// Number of sessions.
    pub total: usize,
    /// Number by the reason of their end; reasons without sessions are missing.
    pub by_reason: BTreeMap<String, usize>,
}
