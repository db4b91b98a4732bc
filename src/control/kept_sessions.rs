//! Sessions that outlive the process (`state.keep`): opens their files, and notes how far the
//! process has come with them.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::RunError;
use super::{down, sandbox, settings};
use crate::config::Config;
use crate::engine::{Builder, KeptSessions};
use crate::host;
use crate::io::{self, ArpSocket, TunDevice, TunHandle};
use crate::nat::{Adopted, Contents, Imported, Limits, OldSessions, Policy, import_sessions};
use crate::state::{self, DescriptorStore, Opened, Preview, SessionState, StateRequirements};
use crate::time::Tick;

/// The session files of an instance, with its lock.
pub(super) struct StateFiles {
    state: Arc<Mutex<SessionState>>,
    earlier: EarlierSessions,
    /// None: no store could be opened.
    store: Option<DescriptorStore>,
    /// Descriptors that another process has kept open.
    inherited: Vec<OwnedFd>,
}

/// Notes the names of the uplinks in the session files, so that the next process knows which
/// uplink a session names by its number.
pub(super) struct KeptNames(Arc<Mutex<SessionState>>);

impl KeptNames {
    /// Notes the names, in the order of the numbers.
    pub(super) fn set(&self, names: Vec<String>) {
        if let Err(error) = self.0.lock().set_uplinks(names) {
            tracing::warn!(%error, "the header of the session files could not be written");
        }
    }
}

/// What the files have for the translator.
enum EarlierSessions {
    Nothing,
    Sessions,
    /// Sessions in old files, which need an import, and the reason.
    OldSessions(OldSessions, String),
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
            SessionState::open(&config.state.directory, &config.name, &required(config))?;
        let earlier = match opened {
            Opened::Empty(None) => EarlierSessions::Nothing,
            Opened::Empty(Some(reason)) => {
                tracing::warn!(
                    directory = %config.state.directory.display(),
                    "the sessions of the process before this one have ended: {reason}"
                );
                EarlierSessions::Nothing
            }
            Opened::Inherited => EarlierSessions::Sessions,
            Opened::Old(old, reason) => EarlierSessions::OldSessions(old, reason),
        };
        let (store, inherited) = match descriptors(&state) {
            Ok((store, inherited)) => (Some(store), inherited),
            Err(error) => {
                tracing::warn!(%error, "{LOST}");
                (None, Vec::new())
            }
        };
        let state = Arc::new(Mutex::new(state));
        Ok(Some(Self { state, earlier, store, inherited }))
    }

    /// Returns what notes the names of the uplinks after a reload.
    pub(super) fn names(&self) -> KeptNames {
        KeptNames(Arc::clone(&self.state))
    }

    /// Returns the descriptors that another process has kept open: queues of the TUN device, and
    /// the socket that announces addresses.
    pub(super) fn inherited(&mut self) -> &mut Vec<OwnedFd> {
        &mut self.inherited
    }

    /// Prepares that an open TUN device outlives the process, and the socket that announces
    /// addresses.
    ///
    /// # Errors
    /// [`RunError::System`].
    pub(super) fn keep_device(
        &mut self,
        tun: &TunDevice,
        arp: Option<&ArpSocket>,
    ) -> Result<KeptTun, RunError> {
        let failed = |source| RunError::System { doing: KEEPING, source };
        let handle = tun.handle().map_err(failed)?;
        let arp = arp.map(ArpSocket::descriptor).transpose().map_err(failed)?;
        Ok(KeptTun { handle, arp, store: self.store.take() })
    }

    /// Makes the translator over the files. Imports the sessions of old files before, on a thread
    /// of its own.
    ///
    /// # Errors
    /// [`RunError::Memory`], [`RunError::State`].
    pub(super) async fn builder(
        &mut self,
        limits: Limits,
        policy: Policy,
        workers: usize,
    ) -> Result<Builder, RunError> {
        let sessions = limits.sessions;
        let contents = match std::mem::replace(&mut self.earlier, EarlierSessions::Nothing) {
            EarlierSessions::Nothing => Contents::Empty,
            EarlierSessions::Sessions => Contents::Inherited,
            EarlierSessions::OldSessions(old, reason) => {
                let state = Arc::clone(&self.state);
                let (limits, policy) = (limits.clone(), policy.clone());
                let work = move || import(&state, &old, &limits, &policy, workers);
                // The runtime cancels no task that has begun, so an error is a panic of the task.
                let imported = tokio::task::spawn_blocking(work)
                    .await
                    .unwrap_or_else(|error| resume_unwind(error.into_panic()))?;
                report_import(&imported, &reason);
                Contents::Imported(imported)
            }
        };
        let state = self.state.lock();
        let inherits = !matches!(contents, Contents::Empty);
        let noting = Arc::clone(&self.state);
        let adopted = move |adopted: Adopted| note_adoption(&noting, inherits, adopted);
        let kept = KeptSessions { files: &state.files, contents, adopted: Box::new(adopted) };
        Builder::new(limits, policy, workers, state.seed, Tick::now(), Some(kept))
            .map_err(|source| RunError::Memory { sessions, source })
    }
}

/// Imports the sessions of old files into the present ones. Walks the whole old table.
fn import(
    state: &Mutex<SessionState>,
    old: &OldSessions,
    limits: &Limits,
    policy: &Policy,
    workers: usize,
) -> Result<Imported, RunError> {
    let mut state = state.lock();
    let (files, seed, now) = (&state.files, state.seed, Tick::now());
    let imported = import_sessions(old, files, limits, policy, workers, seed, now)
        .map_err(|source| RunError::Memory { sessions: limits.sessions, source })?;
    state.imported()?;
    Ok(imported)
}

fn report_import(imported: &Imported, reason: &str) {
    let Imported { kept, without_record, dropped, without_uplink } = imported;
    let without_uplink = without_uplink.len();
    tracing::info!(
        kept,
        dropped,
        without_uplink,
        "sessions of the process before this one were imported: {reason}"
    );
    if *without_record > 0 {
        tracing::warn!(
            without_record,
            "limits.sessions: the table is too small for all sessions of the process before this one"
        );
    }
}

/// An open TUN device that can outlive the process.
pub(super) struct KeptTun {
    handle: TunHandle,
    /// The kernel waits for all readers of packets when the last descriptor of the socket closes.
    arp: Option<OwnedFd>,
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
        let Self { handle, arp, store } = self;
        let descriptors: Vec<_> = handle.queues().iter().chain(&arp).map(AsFd::as_fd).collect();
        handle.make_persistent().map_err(|source| RunError::System { doing: KEEPING, source })?;
        if let Some(store) = store
            && let Err(error) = store.keep(&descriptors)
        {
            tracing::warn!(%error, "{LOST}");
        }
        Ok(())
    }
}

const KEEPING: &str = "keeping the TUN device";

/// Opens the store of descriptors.
fn descriptors(state: &SessionState) -> std::io::Result<(DescriptorStore, Vec<OwnedFd>)> {
    state.descriptors(io::inherited_descriptors(state::DESCRIPTORS)?)
}

/// Consequence of a missing store.
const LOST: &str = "packets that arrive while no process runs are lost";

/// Does the work of the keeper: holds the TUN's queues open while no process of the instance runs.
///
/// # Errors
/// The privileges cannot be dropped, or the socket fails.
pub(crate) fn keep_descriptors() -> std::io::Result<()> {
    sandbox::enter_without_files().map_err(std::io::Error::other)?;
    state::keep_descriptors()
}

/// Notes that the next process may take the files over.
fn note_adoption(state: &Mutex<SessionState>, inherits: bool, adopted: Adopted) {
    if inherits {
        let Adopted { kept, dropped, damaged } = adopted;
        tracing::info!(kept, dropped, "sessions of the process before this one continue");
        if damaged > 0 {
            tracing::warn!(
                damaged,
                "the session files were damaged; natbox has removed the damage"
            );
        }
    }
    if let Err(error) = state.lock().adopted() {
        tracing::warn!(%error, "the header of the session files could not be written");
    }
}

/// Reports what a start with a configuration does with the sessions of a process before it. Changes
/// nothing.
pub(crate) fn preview(config: &Config) -> Preview {
    if !config.state.keep {
        let reason = "`state.keep` is false in the configuration".to_owned();
        return Preview::End { reason };
    }
    state::preview(&config.state.directory, &config.name, &required(config))
}

/// Describes the files that a configuration needs.
fn required(config: &Config) -> StateRequirements {
    let limits = settings::limits(config);
    StateRequirements {
        boot: host::boot_id(),
        sessions: limits.sessions,
        accounting: limits.accounting,
        uplinks: config.uplink_names_by_number(),
        // A mapping stands for the part of the remote endpoint that it depends on.
        meaning: format!("{:?} {}", limits.mapping, limits.port_overlapping),
    }
}
