//! Sessions that outlive the process (`state.keep`): opens their files, and notes how far the
//! process has come with them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::error::RunError;
use super::settings;
use crate::config::Config;
use crate::engine::{Builder, KeptSessions};
use crate::host;
use crate::nat::{Adopted, Limits, Policy};
use crate::state::{Opened, SessionState, Wanted};
use crate::time::Tick;

/// The session files of an instance, with its lock.
pub(super) struct StateFiles {
    state: Arc<Mutex<SessionState>>,
    inherits: bool,
}

impl StateFiles {
    /// Opens the files if the configuration asks for them. Call this with the privileges of the
    /// start.
    ///
    /// # Errors
    /// [`RunError::State`].
    pub(super) fn open(config: &Config) -> Result<Option<Self>, RunError> {
        if !config.state.keep {
            return Ok(None);
        }
        let (state, opened) =
            SessionState::open(&config.state.directory, &config.name, &wanted(config))?;
        if let Opened::Empty(Some(reason)) = &opened {
            tracing::warn!(
                directory = %config.state.directory.display(),
                "the sessions of the process before this one have ended: {reason}"
            );
        }
        let inherits = matches!(opened, Opened::Inherited);
        Ok(Some(Self { state: Arc::new(Mutex::new(state)), inherits }))
    }

    /// Makes the translator over the files.
    ///
    /// # Errors
    /// [`RunError::Memory`].
    pub(super) fn builder(
        &self,
        limits: Limits,
        policy: Policy,
        workers: usize,
    ) -> Result<Builder, RunError> {
        let noting = Arc::clone(&self.state);
        let inherits = self.inherits;
        let adopted = move |adopted: Adopted| note_adoption(&noting, inherits, adopted);
        let state = self.state.lock();
        let kept = KeptSessions { files: &state.files, inherits, adopted: Box::new(adopted) };
        let sessions = limits.sessions;
        Builder::new(limits, policy, workers, state.seed, Tick::now(), Some(kept))
            .map_err(|source| RunError::Memory { sessions, source })
    }
}

/// Notes that the next process may take the files over.
fn note_adoption(state: &Mutex<SessionState>, inherits: bool, adopted: Adopted) {
    if inherits {
        let Adopted { kept, dropped } = adopted;
        tracing::info!(kept, dropped, "sessions of the process before this one continue");
    }
    if let Err(error) = state.lock().adopted() {
        tracing::warn!(%error, "the header of the session files could not be written");
    }
}

/// Describes the files that a configuration needs.
fn wanted(config: &Config) -> Wanted {
    let limits = settings::limits(config);
    Wanted {
        boot: host::boot_id(),
        sessions: limits.sessions,
        accounting: limits.accounting,
        uplinks: config.uplinks.iter().map(|uplink| uplink.name.clone()).collect(),
        // A mapping stands for the part of the remote endpoint that it depends on.
        meaning: format!("{:?} {}", limits.mapping, limits.port_overlapping),
    }
}
