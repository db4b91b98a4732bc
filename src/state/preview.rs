//! What a start would do with the sessions of an instance, before anything is stopped.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::header::{HEADER, StateHeader, StateRequirements};

/// What a start does with the sessions in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "sessions", rename_all = "kebab-case")]
pub(crate) enum Preview {
    /// There are none.
    None,
    /// It continues them, from the first packet on.
    Continue,
    /// It imports those that the configuration allows.
    Import {
        /// Why it cannot continue them as they are.
        reason: String,
    },
    /// It ends them.
    End {
        /// Why.
        reason: String,
    },
}

/// Reports what a start with these requirements does. Takes no lock and changes nothing, so a
/// process may have the sessions meanwhile.
pub(crate) fn preview(base: &Path, name: &str, required: &StateRequirements) -> Preview {
    let header = match StateHeader::read(&base.join(name), HEADER) {
        Ok(Some(header)) => header,
        Ok(None) => return Preview::None,
        Err(error) => return Preview::End { reason: error.to_string() },
    };
    match header.check(required) {
        Ok(()) => Preview::Continue,
        Err(reason) if reason.allows_import() && header.format().is_some() => {
            Preview::Import { reason: reason.to_string() }
        }
        Err(reason) => Preview::End { reason: reason.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::directory::SessionState;

    fn required(sessions: u32, boot: &str) -> StateRequirements {
        StateRequirements {
            boot: boot.to_owned(),
            sessions,
            accounting: false,
            uplinks: vec!["isp1".to_owned()],
            meaning: "eim".to_owned(),
        }
    }

    #[test]
    fn a_preview_is_what_a_start_does() {
        let base = tempfile::tempdir().expect("a directory");
        let start = |required: &StateRequirements| preview(base.path(), "box", required);
        let usual = required(100, "one");
        assert_eq!(start(&usual), Preview::None);
        // Also while a process has the sessions.
        let _running = SessionState::open(base.path(), "box", &usual).expect("state");
        assert_eq!(start(&usual), Preview::Continue);
        let reason = "the configuration has another `limits.sessions`".to_owned();
        assert_eq!(start(&required(200, "one")), Preview::Import { reason });
        let reason = "the files are of another boot".to_owned();
        assert_eq!(start(&required(100, "two")), Preview::End { reason });
    }
}
