//! The result of one check.

use serde::{Deserialize, Serialize};

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name of the check.
    pub id: String,
    /// Severity.
    pub severity: Severity,
    /// What the check found, as a sentence.
    pub found: String,
    /// Why the finding matters; empty for [`Severity::Ok`].
    pub why: String,
    /// What a person has to do or to check, where no command does everything.
    pub advice: String,
    /// Commands for a POSIX shell that fix the problem, to be run as root in this order.
    pub fix: Vec<String>,
}

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// Something works less well than it could, or natbox could not check it.
    Warning,
    /// Everything is in order.
    Ok,
}

impl Finding {
    /// Makes a finding about something in order.
    pub(crate) fn ok(id: &str, found: impl Into<String>) -> Self {
        Self::new(id, Severity::Ok, found, "")
    }

    /// Makes a finding about something that works less well than it could.
    pub(crate) fn warning(id: &str, found: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, found, why)
    }

    /// Makes a finding about something that does not work.
    pub(crate) fn error(id: &str, found: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(id, Severity::Error, found, why)
    }

    pub(super) fn new(
        id: &str,
        severity: Severity,
        found: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        let (found, why) = (found.into(), why.into());
        Self { id: id.into(), severity, found, why, advice: String::new(), fix: Vec::new() }
    }

    /// Sets what a person has to do.
    #[must_use]
    pub(crate) fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }

    /// Sets the commands that fix the problem.
    #[must_use]
    pub(crate) fn fix(self, commands: impl IntoIterator<Item = String>) -> Self {
        Self { fix: commands.into_iter().collect(), ..self }
    }
}
