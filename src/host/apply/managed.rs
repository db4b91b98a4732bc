//! Keeps the changes of one instance in place, and reverts them.

use std::path::PathBuf;

use super::compare::{StepStatus, compare};
use super::journal::{self, Journal, JournalEntry, JournalFile, JournalHeader};
use super::namespace::NamespaceLock;
use super::revert::revert;
use crate::config::Config;
use crate::host::error::HostError;
use crate::host::kernel::indices::Indices;
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::sysctl;
use crate::host::model::announcements::Announcement;
use crate::host::model::facts::HostFacts;
use crate::host::model::routing_ids::{Precedence, RoutingIds};
use crate::host::model::snapshot::Snapshot;
use crate::host::model::step::Step;
use crate::host::model::steps::steps;

/// A host with natbox's changes. Dropping the value reverts nothing; see [`Self::restore`].
pub(crate) struct ManagedHost {
    /// Configuration as the file has it.
    pub(super) file_config: Config,
    /// Configuration with the last known addresses of its interfaces.
    pub(super) config: Config,
    pub(super) kernel: Kernel,
    pub(super) steps: Vec<Step>,
    pub(super) facts: HostFacts,
    pub(super) ids: RoutingIds,
    /// Changes made so far, as in the journal.
    pub(super) done: Vec<JournalEntry>,
    /// None with `host.manage: false`.
    pub(super) journal: Option<Journal>,
    pub(super) header: JournalHeader,
    pub(super) directory: PathBuf,
}

/// What happens to the remaining steps when one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnFailure {
    /// They are skipped.
    Stop,
    /// They are made.
    Continue,
}

impl ManagedHost {
    /// Returns the facts about the host, as of the last reading.
    pub(crate) fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Returns the configuration with the last known addresses of its interfaces.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Lists the addresses that natbox announces by ARP: none with `host.manage: false`, because
    /// then natbox does not know whether packets to them reach it.
    pub(crate) fn announcements(&self) -> Vec<Announcement> {
        match self.config.host.manage {
            true => self.facts.announcements(&self.config),
            false => Vec::new(),
        }
    }

    /// Makes all changes, and reverts them if one fails.
    ///
    /// # Errors
    /// The first failure. The journal stays on disk if some change could not be reverted.
    pub(super) async fn apply_all(&mut self) -> Result<(), HostError> {
        match self.run_steps(OnFailure::Stop).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.revert_all().await;
                Err(error)
            }
        }
    }

    /// Reads the host again, makes missing changes, and reverts obsolete ones.
    ///
    /// The kernel drops the routes and proxy entries of an interface that goes down or loses its
    /// last address, and does not restore them. Addresses come and go, and interfaces that an
    /// uplink follows get other addresses. To be called when [`crate::host::LinkWatch`] reports a
    /// change.
    ///
    /// [`Self::config`] and [`Self::facts`] then return the new state, even if a change fails
    /// afterwards. A failed change is logged and does not stop the others. The next call tries it
    /// again.
    ///
    /// # Errors
    /// When the kernel does not answer, or the journal cannot be written.
    pub(crate) async fn reconcile(&mut self) -> Result<(), HostError> {
        let snapshot = self.kernel.snapshot().await?;
        let config = self.file_config.resolve(&snapshot.dynamic_addresses(&self.file_config));
        let settings = sysctl::settings(&config)?;
        let (mut facts, _) = HostFacts::collect(&config, &snapshot, settings, |_| Ok(self.ids))?;
        if self.ids.precedence() == Precedence::AfterLocal {
            // An assigned address needs rules before the local one, for which no numbers were free.
            facts.assigned_to_host.iter_mut().flatten().for_each(|flag| *flag = false);
        }
        for warning in
            facts.warnings.iter().filter(|warning| !self.facts.warnings.contains(warning))
        {
            tracing::warn!("{warning}");
        }
        (self.config, self.facts) = (config, facts);
        if self.journal.is_some() {
            let _lock = NamespaceLock::take().await?;
            let steps = steps(&self.config, &self.facts, &self.ids);
            if steps != self.steps {
                self.steps = steps;
                self.revert_obsolete().await?;
            }
            for error in self.run_steps(OnFailure::Continue).await? {
                tracing::warn!(%error, "a setting of the host is missing");
            }
        }
        Ok(())
    }

    /// Reverts all changes, the last one first, and returns every failure.
    ///
    /// The journal stays on disk after a failure, so that the next start tries again.
    pub(crate) async fn restore(mut self) -> Vec<HostError> {
        if self.journal.is_none() {
            return Vec::new();
        }
        // Even without the lock, reverting is better than leaving the changes.
        let lock = NamespaceLock::take().await;
        let mut errors = self.revert_all().await;
        errors.extend(lock.err());
        errors
    }

    async fn revert_obsolete(&mut self) -> Result<(), HostError> {
        let (kept, obsolete) =
            self.done.drain(..).partition(|entry| self.steps.contains(&entry.step));
        self.done = kept;
        let others = self.other_journals();
        for error in revert(&self.kernel, &obsolete, &others).await {
            tracing::warn!(%error, "an obsolete setting stays on the host");
        }
        self.journal = Some(Journal::replace(&self.directory, &self.header, &self.done)?);
        Ok(())
    }

    async fn revert_all(&mut self) -> Vec<HostError> {
        let entries = std::mem::take(&mut self.done);
        let mut errors = revert(&self.kernel, &entries, &self.other_journals()).await;
        if let Some(journal) = self.journal.take()
            && errors.is_empty()
        {
            errors.extend(journal.remove().err());
        }
        errors
    }

    /// Makes all missing changes, and returns the failures.
    ///
    /// # Errors
    /// When the host cannot be read, the journal cannot be written, or a change fails with
    /// [`OnFailure::Stop`].
    async fn run_steps(&mut self, on_failure: OnFailure) -> Result<Vec<HostError>, HostError> {
        let snapshot = self.kernel.snapshot().await?;
        let indices = Indices::new(&snapshot.links);
        let others = self.other_journals();
        let mut errors = Vec::new();
        for step in self.steps.clone() {
            match (self.run_step(&step, &snapshot, &indices, &others).await, on_failure) {
                (Ok(()), _) => {}
                (Err(error), OnFailure::Stop) => return Err(error),
                (Err(error), OnFailure::Continue) => errors.push(error),
            }
        }
        Ok(errors)
    }

    async fn run_step(
        &mut self,
        step: &Step,
        snapshot: &Snapshot,
        indices: &Indices,
        others: &[JournalFile],
    ) -> Result<(), HostError> {
        let (in_place, restore) = match compare(step, snapshot, others)? {
            StepStatus::Missing(restore) => (false, restore),
            StepStatus::Shared(restore) => (true, restore),
            StepStatus::InPlace => return Ok(()),
        };
        let is_new = !self.done.iter().any(|entry| entry.step == *step);
        if is_new {
            let entry = JournalEntry { step: step.clone(), restore };
            if let Some(journal) = &mut self.journal {
                journal.append(&entry)?;
            }
            self.done.push(entry);
        }
        if in_place {
            return Ok(());
        }
        let result = match step {
            Step::Sysctl { path, value, .. } => sysctl::write(path, value),
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Route(_)
            | Step::Rule(_)
            | Step::ProxyNeighbour { .. }
            | Step::RemoveDefaultLocalRule => self.kernel.add(step, indices).await,
        };
        if result.is_err() && is_new {
            // The change was not made, so there is nothing to revert.
            self.done.pop();
        }
        result
    }

    fn other_journals(&self) -> Vec<JournalFile> {
        journal::of_running_instances(&self.directory, self.header.netns)
    }
}
