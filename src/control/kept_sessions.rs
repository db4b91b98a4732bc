//! Sessions that outlive the process (`state.keep`): opens their files, and notes how far the
//! process has come with them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::RunError;
use super::{down, sandbox, settings};
use crate::config::Config;
use crate::engine::{Builder, KeptSessions};
use crate::io::{self, TunDevice, TunHandle};
use crate::nat::{Adopted, Limits, Policy};
use crate::state::{self, DescriptorStore, Opened, SessionState, Wanted};
use crate::time::Tick;

/// The session files of an instance, with its lock.
pub(super) struct StateFiles {
    state: Arc<Mutex<SessionState>>,
    inherits: bool,
    /// None: no store could be opened.
    store: Option<DescriptorStore>,
    /// Queues that another process has kept open.
    queues: Vec<OwnedFd>,
}

impl StateFiles {
    /// Opens the files if the configuration asks for them. Call this with the privileges of the
    /// start.
    ///
    /// # Errors
    /// [`RunError::State`].
    pub(super) fn open(config: &Config) -> Result<Option<Self>, RunError> {
        if !config.state.keep {
            return down::remove_left_sessions(config).map(|()| None);
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
        let (store, queues) = match descriptors(&state) {
            Ok((store, queues)) => (Some(store), queues),
            Err(error) => {
                tracing::warn!(%error, "{LOST}");
                (None, Vec::new())
            }
        };
        Ok(Some(Self { state: Arc::new(Mutex::new(state)), inherits, store, queues }))
    }

    /// Returns the queues that another process has kept open.
    pub(super) fn queues(&mut self) -> &mut Vec<OwnedFd> {
        &mut self.queues
    }

    /// Prepares that an open TUN device outlives the process.
    ///
    /// # Errors
    /// [`RunError::System`].
    pub(super) fn keep_device(&mut self, tun: &TunDevice) -> Result<KeptTun, RunError> {
        let handle = tun.handle().map_err(|source| RunError::System { doing: KEEPING, source })?;
        Ok(KeptTun { handle, store: self.store.take() })
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
        Builder::keeping(kept, limits, policy, workers, state.seed, Tick::now())
            .map_err(|source| RunError::Memory { sessions, source })
    }
}

/// An open TUN device that can outlive the process.
pub(super) struct KeptTun {
    handle: TunHandle,
    /// None: no store could be opened.
    store: Option<DescriptorStore>,
}

impl KeptTun {
    /// Makes the device outlive the process, with its queues. Call this once the instance runs: a
    /// failed start leaves no device.
    ///
    /// # Errors
    /// [`RunError::System`].
    pub(super) fn keep(self) -> Result<(), RunError> {
        let Self { handle, store } = self;
        handle.make_persistent().map_err(|source| RunError::System { doing: KEEPING, source })?;
        if let Some(store) = store
            && let Err(error) = store.keep(handle.queues())
        {
            tracing::warn!(%error, "{LOST}");
        }
        Ok(())
    }
}

const KEEPING: &str = "keeping the TUN device";

/// Opens the store of descriptors.
fn descriptors(state: &SessionState) -> std::io::Result<(DescriptorStore, Vec<OwnedFd>)> {
    state.descriptors(io::inherited_descriptors(state::QUEUES)?)
}

/// Consequence of a missing store.
const LOST: &str = "packets that arrive while no process runs are lost";

/// Does the work of the keeper: holds the TUN's queues open while no process of the instance runs.
///
/// # Errors
/// The privileges cannot be dropped, or the socket fails.
pub(crate) fn keep_descriptors() -> std::io::Result<()> {
    sandbox::enter_without_capabilities().map_err(std::io::Error::other)?;
    state::keep_descriptors()
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
        sessions: limits.sessions,
        accounting: limits.accounting,
        uplinks: config.uplinks.iter().map(|uplink| uplink.name.clone()).collect(),
        // A mapping stands for the part of the remote endpoint that it depends on.
        meaning: format!("{:?} {}", limits.mapping, limits.port_overlapping),
    }
}
