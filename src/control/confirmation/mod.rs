//! Reloads that go back by themselves unless they are confirmed.
//!
//! ```text
//!   reload --confirm ─▶ unconfirmed ─ confirm ───────────▶ the record is removed
//!                            │
//!                            └─ the time passes, --cancel ─▶ reverted ─ reload ─▶ removed
//! ```
//!
//! The record of the reload is on disk before the instance uses the new configuration, so neither a
//! killed process nor a reboot loses it (`start`).
//!
//! While a reload is unconfirmed, the instance refuses a plain reload: it would make the new
//! configuration permanent. A second `reload --confirm` uses the file again and begins the time
//! again. The configuration to go back to stays that before the first one (RFC 6241 section 8.4).
//!
//! | file | content |
//! |---|---|
//! | `record` | the record on disk, and its clocks |
//! | `start` | the configuration with which a process starts |

mod record;
mod start;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};

use super::events::Events;
use super::reload_error::ReloadError;
use crate::api::{Confirmed, EventKind, PendingReload, Reloaded, RevertReason};
use crate::config::{self, Change, Config, Loaded};
use record::{Clocks, ReloadRecord, ends_with_the_boot};
pub(super) use start::Remembered;
pub(crate) use start::{StartConfig, start_config};

/// An instance in a stage that can change its configuration.
pub(super) trait Reload {
    /// Returns the configuration in use, as the file has it.
    fn file_config(&self) -> Config;

    /// Returns the path of the file.
    fn path(&self) -> &Path;

    /// Reads the file. Returns its text as well.
    ///
    /// # Errors
    /// See [`ReloadError`].
    fn read(&self) -> Result<(Loaded, String), ReloadError>;

    /// Returns whether the instance cannot make a change in its present stage.
    fn needs_restart(&self, change: &Change) -> bool;

    /// Makes the error about changed keys that need a restart.
    fn refusal(&self, keys: String) -> ReloadError;

    /// Lists the keys that a configuration changes.
    ///
    /// # Errors
    /// Some of them need a restart.
    fn changes(&self, new: &Config) -> Result<Vec<Change>, ReloadError> {
        let changes = config::changes(&self.file_config(), new);
        let fixed = changes.iter().filter(|change| self.needs_restart(change));
        let fixed: Vec<&str> = fixed.map(|change| change.path.as_str()).collect();
        if fixed.is_empty() { Ok(changes) } else { Err(self.refusal(fixed.join(", "))) }
    }

    /// Uses a configuration.
    ///
    /// # Errors
    /// As for [`Self::changes`]. The configuration in use stays then.
    async fn adopt(&self, new: Loaded) -> Result<Reloaded, ReloadError>;
}

/// The reloads of an instance, one at a time.
pub(super) struct Confirmation {
    path: PathBuf,
    record: RefCell<Option<ReloadRecord>>,
    /// Reason why the instance could not go back; it tries again at its next start.
    failed: RefCell<Option<String>>,
    /// True: the start of this process went back.
    went_back: Cell<bool>,
    /// Wakes the countdown.
    changed: Notify,
    one_at_a_time: Mutex<()>,
    events: Rc<Events>,
}

impl Confirmation {
    pub(super) fn new(remembered: Remembered, events: Rc<Events>) -> Self {
        let Remembered { path, record, goes_back } = remembered;
        Self {
            path,
            record: RefCell::new(record),
            failed: RefCell::default(),
            went_back: Cell::new(goes_back),
            changed: Notify::new(),
            one_at_a_time: Mutex::new(()),
            events,
        }
    }

    /// Emits the event of a start that went back, or that continues a countdown.
    pub(super) fn announce(&self) {
        let Some(record) = self.record.borrow().clone() else { return };
        if self.went_back.replace(false) {
            self.events.emit(EventKind::ReloadReverted {
                reason: RevertReason::NotConfirmed,
                changed: record.changed,
                sessions_ended: 0,
            });
        } else if record.is_unconfirmed() {
            let seconds = seconds(record.time_left(&Clocks::now()));
            self.events.emit(EventKind::ReloadPending { seconds });
        }
    }

    /// Reads the file again and uses it. Emits an event with the result.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub(super) async fn reload(&self, instance: &impl Reload) -> Result<Reloaded, ReloadError> {
        let _turn = self.one_at_a_time.lock().await;
        let result = self.use_file(instance).await;
        self.report(&result);
        result
    }

    async fn use_file(&self, instance: &impl Reload) -> Result<Reloaded, ReloadError> {
        self.refuse_unconfirmed()?;
        let (loaded, _) = instance.read()?;
        instance.changes(&loaded.config)?;
        let earlier = self.record.borrow().clone();
        if earlier.is_some() {
            self.store(None).await?;
        }
        self.adopt_or_restore(instance, loaded, earlier).await
    }

    /// Reads the file again and uses it until the time has passed. Emits events with the result.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub(super) async fn reload_for(
        &self,
        instance: &impl Reload,
        confirm_seconds: u64,
    ) -> Result<Reloaded, ReloadError> {
        let _turn = self.one_at_a_time.lock().await;
        let result = self.use_file_for(instance, confirm_seconds).await;
        self.report(&result);
        if let Ok(Reloaded { confirm_seconds: Some(seconds), .. }) = result {
            self.events.emit(EventKind::ReloadPending { seconds });
        }
        result
    }

    async fn use_file_for(
        &self,
        instance: &impl Reload,
        confirm_seconds: u64,
    ) -> Result<Reloaded, ReloadError> {
        if !(1..=MAX_CONFIRM_SECONDS).contains(&confirm_seconds) {
            return Err(ReloadError::ConfirmTime { found: confirm_seconds });
        }
        let (loaded, text) = instance.read()?;
        instance.changes(&loaded.config)?;
        let earlier = self.record.borrow().clone();
        let unconfirmed = earlier.as_ref().filter(|record| record.is_unconfirmed());
        let before = match unconfirmed {
            Some(record) => self.before(record)?,
            None => instance.file_config(),
        };
        let changed = config::changes(&before, &loaded.config);
        let changed: Vec<String> = changed.into_iter().map(|change| change.path).collect();
        // Without a change there is nothing to go back from.
        let record = (!changed.is_empty()).then(|| {
            let before = config::to_yaml(&before);
            ReloadRecord::new(before, text, changed, confirm_seconds, &Clocks::now())
        });
        let waits = record.is_some();
        self.store(record).await?;
        let mut reloaded = self.adopt_or_restore(instance, loaded, earlier).await?;
        reloaded.confirm_seconds = waits.then_some(confirm_seconds);
        if waits && ends_with_the_boot(&self.path) {
            reloaded.warnings.push(self.ends_with_the_boot());
        }
        Ok(reloaded)
    }

    /// Uses a configuration. If that fails, the record is `earlier` again.
    async fn adopt_or_restore(
        &self,
        instance: &impl Reload,
        loaded: Loaded,
        earlier: Option<ReloadRecord>,
    ) -> Result<Reloaded, ReloadError> {
        let adopted = instance.adopt(loaded).await;
        if adopted.is_err() && *self.record.borrow() != earlier {
            self.store(earlier).await?;
        }
        adopted
    }

    /// Makes the configuration of an unconfirmed reload stay.
    ///
    /// # Errors
    /// No reload waits, or its record cannot be removed from the disk.
    pub(super) async fn confirm(&self) -> Result<Confirmed, ReloadError> {
        let _turn = self.one_at_a_time.lock().await;
        let record = self.unconfirmed()?;
        self.store(None).await?;
        let changed = record.changed;
        self.events.emit(EventKind::ReloadConfirmed { changed: changed.clone() });
        Ok(Confirmed { changed })
    }

    /// Goes back at once.
    ///
    /// # Errors
    /// No reload waits, or the instance cannot go back.
    pub(super) async fn cancel(&self, instance: &impl Reload) -> Result<Reloaded, ReloadError> {
        let _turn = self.one_at_a_time.lock().await;
        let record = self.unconfirmed()?;
        self.go_back(instance, record, RevertReason::Cancelled).await
    }

    /// Waits until the time for a confirmation has passed. Cancel safe.
    pub(super) async fn due(&self) {
        loop {
            let left = self.time_left().filter(|_| self.failed.borrow().is_none());
            match left {
                Some(Duration::ZERO) => return,
                // The timer stands still while the host is suspended, the deadline does not.
                Some(left) => {
                    let _ = tokio::time::timeout(left.min(LOOK), self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Goes back if the time for a confirmation has passed.
    ///
    /// # Errors
    /// The instance cannot go back. It does so at its next start.
    pub(super) async fn expire(&self, instance: &impl Reload) -> Result<(), ReloadError> {
        let _turn = self.one_at_a_time.lock().await;
        // A confirmation may have come since.
        if self.time_left() != Some(Duration::ZERO) {
            return Ok(());
        }
        let record = self.unconfirmed()?;
        let gone = self.go_back(instance, record, RevertReason::NotConfirmed).await;
        if let Err(error) = &gone {
            let error = format!(
                "natbox cannot go back from the reload that was not confirmed: {error}; natbox \
                 goes back when it starts again: restart natbox"
            );
            self.failed.replace(Some(error.clone()));
            self.events.emit(EventKind::ReloadFailed { error });
        }
        gone.map(|_| ())
    }

    /// Describes the reload that waits, or from which the instance has gone back.
    pub(super) fn status(&self) -> Option<PendingReload> {
        let record = self.record.borrow();
        record.as_ref().map(|record| PendingReload {
            state: record.state,
            changed: record.changed.clone(),
            confirm_seconds: record.confirm_seconds,
            seconds_left: self.time_left().map(seconds),
            since: record.since.clone(),
            error: self.failed.borrow().clone(),
        })
    }

    async fn go_back(
        &self,
        instance: &impl Reload,
        record: ReloadRecord,
        reason: RevertReason,
    ) -> Result<Reloaded, ReloadError> {
        let config = self.before(&record)?;
        let mut reloaded = instance.adopt(Loaded { config, warnings: Vec::new() }).await?;
        self.events.emit(EventKind::ReloadReverted {
            reason,
            changed: reloaded.changed.clone(),
            sessions_ended: reloaded.sessions_ended,
        });
        let reverted = record.reverted(&Clocks::now());
        if let Err(error) = self.store(Some(reverted.clone())).await {
            tracing::error!(%error, "the next start may use the configuration of the reload");
            reloaded.warnings.push(error.to_string());
            self.record.replace(Some(reverted));
        }
        Ok(reloaded)
    }

    /// Returns the configuration before a reload.
    fn before(&self, record: &ReloadRecord) -> Result<Config, ReloadError> {
        Ok(config::parse(&self.path.display().to_string(), &record.before)?.config)
    }

    /// Writes a record to the disk and adopts it, or removes the one that is there.
    async fn store(&self, record: Option<ReloadRecord>) -> Result<(), ReloadError> {
        let (path, stored) = (self.path.clone(), record.clone());
        // On a thread of its own, because a disk may take long.
        let written = tokio::task::spawn_blocking(move || match stored {
            Some(record) => record.write(&path),
            None => ReloadRecord::remove(&path),
        });
        let written = written.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let failed = |source| ReloadError::Record { path: self.path.clone(), source };
        written.map_err(failed)?;
        self.record.replace(record);
        self.failed.replace(None);
        self.changed.notify_one();
        Ok(())
    }

    fn report(&self, result: &Result<Reloaded, ReloadError>) {
        self.events.emit(match result {
            Ok(Reloaded { changed, sessions_ended, .. }) => {
                EventKind::Reloaded { changed: changed.clone(), sessions_ended: *sessions_ended }
            }
            Err(error) => EventKind::ReloadFailed { error: error.to_string() },
        });
    }

    fn refuse_unconfirmed(&self) -> Result<(), ReloadError> {
        match self.time_left() {
            Some(left) => Err(ReloadError::Unconfirmed { seconds_left: seconds(left) }),
            None => Ok(()),
        }
    }

    fn unconfirmed(&self) -> Result<ReloadRecord, ReloadError> {
        let record = self.record.borrow().clone();
        match record {
            Some(record) if record.is_unconfirmed() => Ok(record),
            Some(record) => Err(ReloadError::GoneBack { at: record.since }),
            None => Err(ReloadError::NothingToConfirm),
        }
    }

    /// Returns the time that is left for a confirmation; None: no reload waits for one.
    fn time_left(&self) -> Option<Duration> {
        let record = self.record.borrow();
        let unconfirmed = record.as_ref().filter(|record| record.is_unconfirmed());
        unconfirmed.map(|record| record.time_left(&Clocks::now()))
    }

    fn ends_with_the_boot(&self) -> String {
        format!(
            "{}: on a tmpfs; natbox does not go back after a reboot; set STATE_DIRECTORY to a \
             directory on a disk, as the unit natbox@.service does",
            self.path.display()
        )
    }
}

/// Returns whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() != 0)
}

/// Longest time for a confirmation: a day.
const MAX_CONFIRM_SECONDS: u64 = 86_400;
/// Longest time between two looks at the clock.
const LOOK: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
