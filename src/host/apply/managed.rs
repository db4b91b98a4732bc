//! Keeps the changes of one instance in place, and reverts them.

use std::path::PathBuf;
use std::time::Instant;

use super::clean_up::check_devices;
use super::compare::{StepStatus, compare};
use super::contest::{Contest, Setting};
use super::journal::{self, Journal, JournalEntry, JournalFile, JournalHeader};
use super::namespace::NamespaceLock;
use super::report::{CheckCause, HostReport, TunName, depends_on_interface, dispute, missing};
use super::revert::revert;
use super::unfit::unowned_rules;
use crate::config::Config;
use crate::host::error::HostError;
use crate::host::kernel::indices::Indices;
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::nftables::FilterTable;
use crate::host::kernel::sysctl;
use crate::host::model::announcements::Announcement;
use crate::host::model::dependents::Dependencies;
use crate::host::model::facts::{HostFacts, InterfaceFacts};
use crate::host::model::other_interfaces::other_interfaces;
use crate::host::model::precedence::preceding;
use crate::host::model::private_filter::PrivateFilter;
use crate::host::model::routing_ids::RoutingIds;
use crate::host::model::settings::interface_names;
use crate::host::model::snapshot::{Link, Snapshot};
use crate::host::model::stacked::stacks;
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
    /// Interfaces as of the last reading.
    pub(super) links: Vec<Link>,
    /// Wanted steps that have been in place.
    pub(super) placed: Vec<Step>,
    pub(super) contest: Contest,
    /// True when the last report had a dispute.
    pub(super) is_disputed: bool,
    /// Missing settings that the log already names.
    pub(super) reported: Vec<String>,
    /// The filter of private addresses. It needs no journal: it vanishes with the process.
    pub(super) filter: FilterTable,
    /// Reason why the filter is not as wanted.
    pub(super) filter_problem: Option<String>,
    /// None with `host.manage: false`.
    pub(super) journal: Option<Journal>,
    pub(super) header: JournalHeader,
    pub(super) directory: PathBuf,
}

/// The outcome of a step that was compared with the host.
enum StepOutcome {
    InPlace,
    /// The change has been made.
    Made,
    /// Another program removes the setting again and again, and natbox waits.
    Waits,
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

    /// Returns the configuration as the file has it.
    pub(crate) fn file_config(&self) -> &Config {
        &self.file_config
    }

    /// Replaces the configuration after a reload. [`Self::reconcile`] then makes its settings.
    ///
    /// # Errors
    /// When another natbox uses an interface of the configuration, or the journal cannot be
    /// written. The configuration is the old one then.
    pub(crate) async fn set_config(&mut self, file_config: Config) -> Result<(), HostError> {
        let header = JournalHeader::of(&file_config)?;
        if self.journal.is_some() && header != self.header {
            let _lock = NamespaceLock::take().await?;
            check_devices(&self.directory, &header)?;
            self.journal = Some(Journal::replace(&self.directory, &header, &self.done)?);
        }
        (self.file_config, self.header) = (file_config, header);
        Ok(())
    }

    /// Returns the numbers of the instance's tables and rules. The place of the rules may change.
    pub(crate) fn routing_ids(&self) -> RoutingIds {
        self.ids
    }

    /// Lists the addresses that natbox announces by ARP: none with `host.manage: false`, because
    /// then natbox does not know whether packets to them reach it.
    pub(crate) fn announcements(&self) -> Vec<Announcement> {
        match self.config.host.manage {
            true => self.facts.announcements(&self.config),
            false => Vec::new(),
        }
    }

    /// Returns the reason why private addresses are not filtered as the configuration wants.
    pub(crate) fn filter_problem(&self) -> Option<&str> {
        self.filter_problem.as_deref()
    }

    /// Sets the filter of private addresses. Without it natbox runs as well.
    fn set_filter(&mut self) {
        let result = self.filter.set(PrivateFilter::new(&self.config, &self.facts));
        let problem = result.err().map(|error| error.to_string());
        if let Some(error) = problem.as_ref().filter(|_| self.filter_problem.is_none()) {
            tracing::warn!("private addresses are not filtered on the uplinks: {error}");
        }
        self.filter_problem = problem;
    }

    /// Makes all changes, and reverts them if one fails.
    ///
    /// # Errors
    /// The first failure; [`HostError::Vanished`] if an interface is gone since the facts were
    /// collected. The journal stays on disk if some change could not be reverted.
    pub(super) async fn apply_all(&mut self) -> Result<(), HostError> {
        match self.make_all().await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.revert_all().await;
                Err(match self.vanished().await {
                    Some(interface) => HostError::Vanished { interface, source: Box::new(error) },
                    None => error,
                })
            }
        }
    }

    /// Returns an interface of the configuration that has vanished or gone down since the facts
    /// were collected.
    async fn vanished(&self) -> Option<String> {
        let links = self.kernel.links().await.ok()?;
        let is_lost = |found: &&InterfaceFacts| {
            let link = links.iter().find(|link| link.name == found.interface);
            let is_there = link.is_some_and(|link| link.up && link.index == found.index);
            found.takes_routes() && !is_there
        };
        let mut known = self.facts.legs.iter().chain(&self.facts.uplinks);
        known.find(is_lost).map(|found| found.interface.clone())
    }

    async fn make_all(&mut self) -> Result<(), HostError> {
        self.set_filter();
        // A route of a process before this one may be in the place of a new one.
        self.revert_obsolete(|step| !matches!(step, Step::Rule(_))).await?;
        let snapshot = self.kernel.snapshot().await?;
        let (indices, others) = (Indices::new(&snapshot.links), self.other_journals());
        self.links = snapshot.links.clone();
        for step in self.steps.clone() {
            match self.run_step(&step, &snapshot, &indices, &others).await {
                Ok(_) => self.placed.push(step),
                // The interface of a container may vanish at any moment. The next look decides.
                Err(error) if self.is_of_other_interface(&step) => {
                    tracing::warn!("a setting of the host is missing: {error}");
                    let dependents = self.dependencies().of_step(&step);
                    self.reported.push(missing(&error.to_string(), &dependents));
                }
                Err(error) => return Err(error),
            }
        }
        // Changes of a process before this one that this one does not need.
        self.revert_obsolete(|_| true).await
    }

    /// Finds what depends on the settings of the instance.
    pub(super) fn dependencies(&self) -> Dependencies<'_> {
        Dependencies { config: &self.config, ids: self.ids }
    }

    /// Returns true for a setting of an interface that the configuration does not name.
    fn is_of_other_interface(&self, step: &Step) -> bool {
        step.interface().is_some_and(|name| {
            name != self.config.tun.name && !interface_names(&self.config).contains(&name)
        })
    }

    /// Returns true when something has changed of which the kernel sends no report: sysctls and
    /// proxy entries. Compares the rules as well. Also true when a disputed or failed setting is
    /// due, and when a dispute has ended.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) async fn has_drifted(&self) -> Result<bool, HostError> {
        if self.journal.is_none() {
            return Ok(false);
        }
        let dispute_ends =
            self.is_disputed && self.contest.disputed(Instant::now()).next().is_none();
        if dispute_ends || !self.reported.is_empty() || sysctl::settings()? != self.facts.settings {
            return Ok(true);
        }
        if self.kernel.wrong_tun_name().await?.is_some() {
            return Ok(true);
        }
        let links = self.kernel.links().await?;
        let others = |links| other_interfaces(&self.config, links);
        let stacks = |links| stacks(&interface_names(&self.config), links);
        if others(&links) != others(&self.links) || stacks(&links) != stacks(&self.links) {
            return Ok(true);
        }
        let (rules, proxies) = (self.kernel.rules().await?, self.kernel.proxies().await?);
        let snapshot = Snapshot { links, rules, proxies, ..Snapshot::default() };
        if self.ids.moved(&snapshot, &self.config, true).is_some() {
            return Ok(true);
        }
        let is_missing = |step: &Step| match step {
            Step::Rule(_)
            | Step::Sysctl { .. }
            | Step::ProxyNeighbour { .. }
            | Step::SetLocalRuleAside
            | Step::KeepMainRule => !matches!(
                compare(step, &snapshot, &[]),
                Ok(StepStatus::InPlace | StepStatus::Shared(_))
            ),
            // The kernel reports changes of these.
            Step::BringUpTun { .. } | Step::Address { .. } | Step::Route(_) => false,
        };
        Ok(self.steps.iter().any(is_missing))
    }

    /// Reads the host again, makes missing changes, and reverts obsolete ones.
    ///
    /// The kernel drops the routes and proxy entries of an interface that goes down or loses its
    /// last address, and does not restore them. Addresses come and go, and interfaces that an
    /// uplink follows get other addresses. Other programs remove rules and routes, or add rules
    /// before natbox's. Call this method when [`crate::host::LinkWatch`] reports a change.
    ///
    /// [`Self::config`], [`Self::facts`] and [`Self::routing_ids`] then return the new state, even
    /// if a change fails afterwards. A failed change is logged and does not stop the others. The
    /// next call tries it again.
    ///
    /// # Errors
    /// When the kernel does not answer, or the journal cannot be written.
    pub(crate) async fn reconcile(&mut self, cause: CheckCause) -> Result<HostReport, HostError> {
        let snapshot = self.kernel.snapshot().await?;
        let config = self.file_config.resolve(&snapshot.dynamic_addresses(&self.file_config));
        let mut report = HostReport::default();
        if self.journal.is_some()
            && let Some(ids) = self.ids.moved(&snapshot, &config, cause == CheckCause::Time)
        {
            let end = self.ids.priorities().end;
            let before = preceding(&snapshot, &config, end);
            report.moved_before = Some(before.map(|found| found.words()).collect());
            self.ids = ids;
        }
        let facts = HostFacts::collect(&config, &snapshot, sysctl::settings()?, &self.ids);
        let mut facts = facts.without_interfaces(&journal::interfaces_of_others()?);
        // Another program may have flushed a rule that natbox found at the start.
        facts.has_main_rule |= self.facts.has_main_rule;
        facts.warnings.extend(unowned_rules(
            &config,
            &snapshot,
            &self.done,
            &self.directory,
            &self.header,
        ));
        let is_known = |message: &&String| self.facts.messages().any(|known| known == *message);
        for message in facts.messages().filter(|message| !is_known(message)) {
            tracing::warn!("{message}");
        }
        (self.config, self.facts) = (config, facts);
        if self.journal.is_some() {
            self.set_filter();
            let _lock = NamespaceLock::take().await?;
            self.steps = steps(&self.config, &self.facts, &self.ids);
            // New rules come before the removal of old ones, so that no packet passes in between.
            self.revert_obsolete(|step| !matches!(step, Step::Rule(_))).await?;
            self.restore_missing(cause, &mut report).await?;
            self.revert_obsolete(|_| true).await?;
        }
        Ok(report)
    }

    /// Leaves all changes and the journal in place for the next process.
    pub(crate) fn leave(self) {
        drop(self.journal);
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

    /// Reverts the changes of the steps that are no longer wanted and that `includes` selects.
    async fn revert_obsolete(&mut self, includes: fn(&Step) -> bool) -> Result<(), HostError> {
        let is_obsolete =
            |entry: &JournalEntry| includes(&entry.step) && !is_wanted(&self.steps, &entry.step);
        if !self.done.iter().any(is_obsolete) {
            return Ok(());
        }
        let (obsolete, kept) = std::mem::take(&mut self.done).into_iter().partition(is_obsolete);
        self.done = kept;
        let others = self.other_journals();
        for error in revert(&self.kernel, &obsolete, &others).await {
            tracing::warn!(%error, "an obsolete setting stays on the host");
        }
        self.journal = Some(Journal::replace(&self.directory, &self.header, &self.done)?);
        Ok(())
    }

    async fn revert_all(&mut self) -> Vec<HostError> {
        let mut entries = std::mem::take(&mut self.done);
        if matches!(self.kernel.wrong_tun_name().await, Ok(Some(_))) {
            entries.retain(|entry| !self.is_sysctl_of_tun(&entry.step));
        }
        let mut errors = revert(&self.kernel, &entries, &self.other_journals()).await;
        if let Some(journal) = self.journal.take()
            && errors.is_empty()
        {
            errors.extend(journal.remove().err());
        }
        errors
    }

    /// Makes all missing changes, and reports them.
    ///
    /// # Errors
    /// When the host cannot be read.
    async fn restore_missing(
        &mut self,
        cause: CheckCause,
        report: &mut HostReport,
    ) -> Result<(), HostError> {
        let now = Instant::now();
        let renamed = self.rename_tun_back(now, report).await?;
        let mut snapshot = self.kernel.snapshot().await?;
        let mut disputes = self.remove_intruders(&snapshot, now, report).await;
        if !disputes.is_empty() {
            snapshot = self.kernel.snapshot().await?;
        }
        let is_misnamed = renamed == TunName::Wrong;
        if let TunName::RenamedBack { is_disputed } = renamed {
            disputes.push(is_disputed);
        }
        let (indices, others) = (Indices::new(&snapshot.links), self.other_journals());
        let before = std::mem::replace(&mut self.links, snapshot.links.clone());
        let mut is_disputed = disputes.into_iter().all(|is_disputed| is_disputed);
        let mut placed = Vec::new();
        for step in self.steps.clone() {
            if is_misnamed && self.is_sysctl_of_tun(&step) {
                placed.extend(self.placed.contains(&step).then_some(step));
                continue;
            }
            match self.run_step(&step, &snapshot, &indices, &others).await {
                Ok(StepOutcome::InPlace) => {}
                Ok(StepOutcome::Made) => {
                    if self.was_removed(&step, cause, &before) {
                        is_disputed &= self.contest.record(&Setting::Step(step.clone()), now);
                        report.restored.push(step.command());
                    }
                }
                Ok(StepOutcome::Waits) => {
                    let dependents = self.dependencies().of_step(&step);
                    report.add_missing(&step.command(), dependents);
                }
                Err(error) => {
                    self.report_failure(&step, &error, report);
                    if !self.placed.contains(&step) {
                        continue;
                    }
                }
            }
            placed.push(step);
        }
        self.placed = placed;
        report.is_disputed = is_disputed && !report.restored.is_empty();
        let disputed: Vec<(&Setting, u32)> = self.contest.disputed(now).collect();
        let settings: Vec<&Setting> = disputed.iter().map(|(setting, _)| *setting).collect();
        let times = disputed.iter().map(|(_, times)| *times).max().unwrap_or(0);
        report.dispute = dispute(&settings, times, self.dependencies());
        self.is_disputed = report.dispute.is_some();
        for setting in report.missing.iter().filter(|setting| !self.reported.contains(setting)) {
            tracing::warn!("a setting of the host is missing: {setting}");
        }
        self.reported.clone_from(&report.missing);
        Ok(())
    }

    /// Reports a step that failed.
    fn report_failure(&self, step: &Step, error: &HostError, report: &mut HostReport) {
        if !self.placed.contains(step) && !self.is_of_other_interface(step) {
            report.failed.push(error.to_string());
        }
        report.add_missing(&error.to_string(), self.dependencies().of_step(step));
    }

    /// Returns true when another program, and neither the kernel nor natbox, has undone a step.
    /// `before`: the interfaces as of the look before.
    fn was_removed(&self, step: &Step, cause: CheckCause, before: &[Link]) -> bool {
        let index = |links: &[Link]| {
            let link = links.iter().find(|link| Some(link.name.as_str()) == step.interface());
            link.map(|link| link.index)
        };
        // A new interface has the kernel's settings.
        if index(before) != index(&self.links) {
            return false;
        }
        let tun = &self.config.tun.name;
        match cause {
            CheckCause::Interfaces => {
                self.placed.contains(step) && !depends_on_interface(step, tun)
            }
            // A changed sysctl may need another value of a sysctl that natbox has set before.
            CheckCause::Settings | CheckCause::Time => {
                self.placed.contains(step)
                    || self.placed.iter().any(|placed| placed.sets_same(step))
            }
        }
    }

    /// Compares a step with the host, and makes its change if it is missing and not disputed.
    async fn run_step(
        &mut self,
        step: &Step,
        snapshot: &Snapshot,
        indices: &Indices,
        others: &[JournalFile],
    ) -> Result<StepOutcome, HostError> {
        let (in_place, restore) = match compare(step, snapshot, others)? {
            StepStatus::Missing(restore) => (false, restore),
            StepStatus::Shared(restore) => (true, restore),
            StepStatus::InPlace => return Ok(StepOutcome::InPlace),
        };
        if !in_place && !self.contest.allows(&Setting::Step(step.clone()), Instant::now()) {
            return Ok(StepOutcome::Waits);
        }
        let is_new = !self.done.iter().any(|entry| entry.step == *step);
        if is_new {
            let entry = JournalEntry { step: step.clone(), restore };
            if let Some(journal) = &mut self.journal {
                journal.append(&entry)?;
            }
            self.done.push(entry);
        }
        if in_place {
            return Ok(StepOutcome::InPlace);
        }
        let result = match step {
            Step::Sysctl { path, value, .. } => sysctl::write(path, value),
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Route(_)
            | Step::Rule(_)
            | Step::ProxyNeighbour { .. }
            | Step::SetLocalRuleAside
            | Step::KeepMainRule => self.kernel.add(step, indices).await,
        };
        if result.is_err() && is_new {
            // The change was not made, so there is nothing to revert.
            self.done.pop();
        }
        result.map(|()| StepOutcome::Made)
    }

    fn other_journals(&self) -> Vec<JournalFile> {
        journal::of_running_instances(&self.directory, self.header.netns)
    }
}

/// Returns true for a step that the configuration needs. The TUN stays up also if another length of
/// its queues is wanted.
fn is_wanted(steps: &[Step], step: &Step) -> bool {
    let is_up = |wanted: &Step| matches!(wanted, Step::BringUpTun { .. });
    steps.contains(step) || is_up(step) && steps.iter().any(is_up)
}
