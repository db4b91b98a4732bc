//! Findings about a reload that waits for its confirmation, or from which the instance has gone
//! back.

use crate::api::{PendingReload, PendingState};
use crate::host::doctor::Finding;

/// Reports the reload.
pub(super) fn pending(reload: &PendingReload) -> Finding {
    let keys = reload.changed.join(", ");
    let warning = |found: String, why: &str| Finding::warning("reload", found, why);
    if let Some(error) = &reload.error {
        let why = "the instance uses a configuration that was not confirmed";
        return Finding::error("reload", error.clone(), why);
    }
    match reload.state {
        PendingState::Unconfirmed => {
            let left = reload.seconds_left.unwrap_or_default();
            warning(
                format!("a reload waits for its confirmation: natbox goes back in {left} s"),
                "the new values then have no effect any more",
            )
            .advice(format!("changed: {keys}"))
            .fix(["natbox confirm".to_owned()])
        }
        PendingState::Reverted => warning(
            format!("natbox went back from a reload at {}: {keys}", reload.since),
            "the file still had the text of that reload, and no start uses it",
        )
        .advice("correct the file, then run natbox reload"),
    }
}

/// Returns whether the running configuration differs from the file because the instance has gone
/// back.
pub(super) fn has_gone_back(reload: Option<&PendingReload>) -> bool {
    reload.is_some_and(|reload| reload.state == PendingState::Reverted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::doctor::Severity;

    #[test]
    fn a_reload_that_waits_and_one_that_went_back_are_named_with_what_to_do() {
        let mut reload = PendingReload {
            state: PendingState::Unconfirmed,
            changed: vec!["forwards".to_owned()],
            confirm_seconds: 60,
            seconds_left: Some(42),
            since: "2026-01-01T00:00:00Z".to_owned(),
            error: None,
        };
        let waits = pending(&reload);
        assert!(waits.found.contains("in 42 s") && waits.fix == ["natbox confirm"], "{waits:?}");
        assert!(!has_gone_back(Some(&reload)) && !has_gone_back(None));
        reload.state = PendingState::Reverted;
        let gone = pending(&reload);
        assert!(gone.found.contains("2026-01-01") && gone.fix.is_empty(), "{gone:?}");
        assert!(has_gone_back(Some(&reload)));
        reload.error = Some("natbox cannot go back".to_owned());
        assert_eq!(pending(&reload).severity, Severity::Error);
    }
}
