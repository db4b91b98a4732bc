//! Preparing, applying and taking back, in that order.
//!
//! ```text
//!   prepare ── lock, clean up after dead processes, look ──▶ PlannedHost
//!   PlannedHost::apply ── journal, change; journal, change; … ── unlock ──▶ ManagedHost
//!   ManagedHost::reconcile ── look again; set what is missing, take back what is obsolete
//!   ManagedHost::restore ── lock, take back in reverse, forget the journal
//! ```
//!
//! Two things are shared by all boxes of a namespace: sysctls, and the place of the local rule. A box that finds one
//! as it wants it because another box put it there writes it down as if it had done so itself, and a box that stops
//! leaves it while another's journal holds it. So the last one takes it back.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Config;
use crate::host::apply::compare::{StepStatus, compare, is_shared};
use crate::host::apply::journal::{self, Header, Journal, JournalEntry, JournalFile, Lock};
use crate::host::error::HostError;
use crate::host::kernel::netlink::{Indices, Kernel};
use crate::host::kernel::sysctl;
use crate::host::model::facts::HostFacts;
use crate::host::model::routing_ids::{RoutingIds, RuleOwner};
use crate::host::model::snapshot::Snapshot;
use crate::host::model::steps::{self, RTPROT_NATBOX, Step};

/// Checks the interfaces, takes back what killed predecessors left in this network namespace, and looks at the host.
/// Nothing of ours is set yet, and no TUN needs to exist.
///
/// With `host.manage: false` it only looks.
///
/// # Errors
/// When the inside or every line is missing or down, an interface is in use by another natbox, privilege is lacking, or no
/// numbers are free.
pub async fn prepare(config: &Config) -> Result<PlannedHost, HostError> {
    prepare_in(config, Path::new(journal::DIRECTORY)).await
}

async fn prepare_in(config: &Config, directory: &Path) -> Result<PlannedHost, HostError> {
    let kernel = Kernel::connect()?;
    let header = Header::of_this_process(&config.tun.name, interfaces(config))?;
    let mut lock = None;
    if config.host.manage {
        // A missing interface is said before anything is touched.
        let snapshot = kernel.snapshot().await?;
        let (facts, _) = HostFacts::collect(config, &snapshot, |assigned_to_host| {
            Ok(RoutingIds::default_ids(&config.tun.name, assigned_to_host))
        })?;
        facts.check_interfaces(config, &snapshot)?;
        journal::make_directory(directory)?;
        lock = Some(Lock::take().await?);
        clean_up(&kernel, directory, &header).await?;
    }
    let snapshot = kernel.snapshot().await?;
    let file_config = config;
    let config = &file_config.resolve(&snapshot.dynamic_addresses(file_config));
    let choose = |assigned_to_host| match config.host.manage {
        true => RoutingIds::allocate(
            &snapshot,
            &config.tun.name,
            assigned_to_host,
            RuleOwner::OtherInstance,
        ),
        // Somebody has run the plan's commands, perhaps.
        false => RoutingIds::allocate(
            &snapshot,
            &config.tun.name,
            assigned_to_host,
            RuleOwner::ThisInstance,
        ),
    };
    let (mut facts, ids) = HostFacts::collect(config, &snapshot, choose)?;
    facts.check_interfaces(config, &snapshot)?;
    if config.host.manage
        && live_journals(directory, header.netns).is_empty()
        && snapshot.our_rules().next().is_some()
    {
        facts.warnings.push(format!(
            "there are rules with protocol {RTPROT_NATBOX} of a natbox that left no journal in {}; if they are not yours: \
             ip rule add priority 0 lookup local; ip rule flush protocol {RTPROT_NATBOX}",
            directory.display()
        ));
    }
    let steps = steps::steps(config, &facts, &ids);
    let directory = directory.to_owned();
    let (file_config, config) = (file_config.clone(), config.clone());
    Ok(PlannedHost { file_config, config, kernel, steps, facts, ids, header, directory, lock })
}

/// Everything is known, nothing is changed.
pub struct PlannedHost {
    file_config: Config,
    config: Config,
    kernel: Kernel,
    steps: Vec<Step>,
    facts: HostFacts,
    ids: RoutingIds,
    header: Header,
    directory: PathBuf,
    /// Nothing with `host.manage: false`.
    lock: Option<Lock>,
}

impl PlannedHost {
    /// What was found on the host.
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// The numbers of its tables and rules.
    pub fn routing_ids(&self) -> RoutingIds {
        self.ids
    }

    /// The configuration with the addresses that its interfaces have now.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Sets everything, and takes back what was set so far if something fails. With `host.manage: false` nothing at
    /// all is changed, not even the TUN brought up: what `natbox plan` prints is the user's to run then.
    ///
    /// `tun_index` is the interface index of the open TUN device.
    ///
    /// # Errors
    /// When the kernel refuses a change or something foreign is in the way.
    pub async fn apply(self, tun_index: u32) -> Result<ManagedHost, HostError> {
        let Self { file_config, config, kernel, steps, facts, ids, header, directory, lock } = self;
        let manage = lock.is_some();
        let tun = config.tun.name.clone();
        let (done, journal) = (Vec::new(), None);
        let mut managed = ManagedHost {
            file_config,
            config,
            kernel,
            steps,
            facts,
            ids,
            done,
            journal,
            header,
            directory,
        };
        if !manage {
            managed.steps.clear();
            return Ok(managed);
        }
        let links = managed.kernel.links().await?;
        let found = links.iter().find(|link| link.name == tun).map(|link| link.index);
        if found != Some(tun_index) {
            let found = found.map_or("missing".into(), |index| index.to_string());
            return Err(HostError::WrongTun { name: tun, found, opened: tun_index });
        }
        managed.journal = Some(Journal::create(&managed.directory, &managed.header)?);
        match managed.run_steps(Insist::AtOnce).await {
            Ok(_) => {
                drop(lock);
                Ok(managed)
            }
            Err(error) => {
                // The first error is the one to tell; the journal stays if something could not be taken back.
                managed.take_back().await;
                Err(error)
            }
        }
    }
}

/// What becomes of the other steps when one cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Insist {
    /// They are not tried.
    AtOnce,
    /// They are made all the same.
    GoOn,
}

/// What was set. Dropping it takes nothing back.
pub struct ManagedHost {
    file_config: Config,
    config: Config,
    kernel: Kernel,
    steps: Vec<Step>,
    facts: HostFacts,
    ids: RoutingIds,
    done: Vec<JournalEntry>,
    /// Nothing with `host.manage: false`.
    journal: Option<Journal>,
    header: Header,
    directory: PathBuf,
}

impl ManagedHost {
    /// What was found on the host before.
    pub fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// The configuration with the addresses that its interfaces had when they were looked at last.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Looks at the host again, sets what is missing there, and takes back what is obsolete. The kernel drops the routes and proxy
    /// entries of an interface that goes down or loses its last address, and does not bring them back; addresses come and
    /// go; interfaces that are followed have other ones. To be called when [`super::LinkWatch`] tells of a change.
    ///
    /// [`Self::config`] and [`Self::facts`] tell then how it is, also if something fails afterwards. What cannot be set is logged,
    /// and does not keep the rest from being set; a later call tries again.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or the journal not be written.
    pub async fn reconcile(&mut self) -> Result<(), HostError> {
        let snapshot = self.kernel.snapshot().await?;
        let config = self.file_config.resolve(&snapshot.dynamic_addresses(&self.file_config));
        let (mut facts, _) = HostFacts::collect(&config, &snapshot, |_| Ok(self.ids))?;
        if !self.ids.may_precede_local() {
            // It takes rules before the local one, for which there was no room.
            facts
                .assigned_to_host
                .iter_mut()
                .flatten()
                .for_each(|assigned_to_host| *assigned_to_host = false);
        }
        for warning in
            facts.warnings.iter().filter(|warning| !self.facts.warnings.contains(warning))
        {
            tracing::warn!("{warning}");
        }
        (self.config, self.facts) = (config, facts);
        if self.journal.is_some() {
            let _lock = Lock::take().await?;
            let steps = steps::steps(&self.config, &self.facts, &self.ids);
            if steps != self.steps {
                self.steps = steps;
                self.take_back_obsolete().await?;
            }
            for error in self.run_steps(Insist::GoOn).await? {
                tracing::warn!(%error, "not everything could be set");
            }
        }
        Ok(())
    }

    async fn take_back_obsolete(&mut self) -> Result<(), HostError> {
        let (kept, obsolete) =
            self.done.drain(..).partition(|entry| self.steps.contains(&entry.step));
        self.done = kept;
        let others = live_journals(&self.directory, self.header.netns);
        for error in take_back(&self.kernel, &obsolete, &others).await {
            tracing::warn!(%error, "could not be taken back");
        }
        self.journal = Some(Journal::replace(&self.directory, &self.header, &self.done)?);
        Ok(())
    }

    /// Takes back everything in reverse order. A failure does not stop the rest; all of them are returned. The
    /// journal is kept if there was one, so that the next start tries again.
    pub async fn restore(mut self) -> Vec<HostError> {
        if self.journal.is_none() {
            return Vec::new();
        }
        // Without the lock it is still better to take things back than not to.
        let lock = Lock::take().await;
        let mut errors = self.take_back().await;
        errors.extend(lock.err());
        errors
    }

    /// Makes all steps that are not made; those that could not be.
    ///
    /// # Errors
    /// When the host cannot be looked at or the journal not be written; with [`Insist::AtOnce`] also the first that could not be
    /// made.
    async fn run_steps(&mut self, insist: Insist) -> Result<Vec<HostError>, HostError> {
        let snapshot = self.kernel.snapshot().await?;
        let indices = Indices::new(&snapshot.links);
        let others = live_journals(&self.directory, self.header.netns);
        let mut errors = Vec::new();
        for step in self.steps.clone() {
            match (self.run_step(&step, &snapshot, &indices, &others).await, insist) {
                (Ok(()), _) => {}
                (Err(error), Insist::AtOnce) => return Err(error),
                (Err(error), Insist::GoOn) => errors.push(error),
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
        let (there, restore) = match compare(step, snapshot, others)? {
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
        if there {
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
            // It was not made, so it is not to be taken back.
            self.done.pop();
        }
        result
    }

    async fn take_back(&mut self) -> Vec<HostError> {
        let entries = std::mem::take(&mut self.done);
        let mut errors =
            take_back(&self.kernel, &entries, &live_journals(&self.directory, self.header.netns))
                .await;
        if let Some(journal) = self.journal.take()
            && errors.is_empty()
        {
            errors.extend(journal.remove().err());
        }
        errors
    }
}

/// Waits until there is no interface of a name, for a while. The kernel takes an io_uring down after its process has closed it, and
/// with that the last queue of a TUN.
pub async fn wait_until_gone(name: &str) {
    let Ok(kernel) = Kernel::connect() else { return };
    for _ in 0..GONE_LOOKS {
        match kernel.links().await {
            Ok(links) if links.iter().any(|link| link.name == name) => {
                tokio::time::sleep(GONE_PAUSE).await
            }
            Ok(_) | Err(_) => return,
        }
    }
}

/// Takes back, last first. `others`: journals of boxes that still run.
async fn take_back(
    kernel: &Kernel,
    entries: &[JournalEntry],
    others: &[JournalFile],
) -> Vec<HostError> {
    let mut errors = Vec::new();
    // Some devices may be gone, and indices are looked up anew; without any, only rules and sysctls can be.
    let links = kernel.links().await.unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    let indices = Indices::new(&links);
    for JournalEntry { step, restore } in entries.iter().rev() {
        let held = |other: &JournalFile| other.entries.iter().any(|entry| entry.step == *step);
        if is_shared(step) && others.iter().any(held) {
            continue;
        }
        let result = match step {
            Step::Sysctl { path, value, .. } => put_back(path, value, restore),
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Route(_)
            | Step::Rule(_)
            | Step::ProxyNeighbour { .. }
            | Step::RemoveDefaultLocalRule => kernel.remove(step, &indices).await,
        };
        errors.extend(result.err());
    }
    errors
}

/// Restores a sysctl, unless somebody has given it another value in the meantime.
fn put_back(path: &str, ours: &str, restore: &[(String, String)]) -> Result<(), HostError> {
    if sysctl::read(path)?.as_deref() != Some(ours) {
        return Ok(());
    }
    for (path, value) in restore {
        if sysctl::read(path)?.is_some_and(|found| found != *value) {
            sysctl::write(path, value)?;
        }
    }
    Ok(())
}

/// Journals of other natbox processes that run in this namespace.
fn live_journals(directory: &Path, netns: u64) -> Vec<JournalFile> {
    let mut journals = journal::read_all(directory);
    journals.retain(|found| {
        found.header.netns == netns
            && found.header.alive()
            && found.header.pid != std::process::id()
    });
    journals
}

/// Takes back what dead processes left here, drops journals that nobody needs, and refuses to share a device with a
/// process that runs.
async fn clean_up(kernel: &Kernel, directory: &Path, header: &Header) -> Result<(), HostError> {
    let others = live_journals(directory, header.netns);
    for found in journal::read_all(directory) {
        let theirs = &found.header;
        if theirs.netns == header.netns && theirs.alive() {
            if let Some(what) = contested(header, theirs) {
                return Err(HostError::Taken { what, pid: theirs.pid, tun: theirs.tun.clone() });
            }
            continue;
        }
        if theirs.netns == header.netns {
            let snapshot = kernel.snapshot().await?;
            // Each look is a new one: several journals may hold the same rule.
            let is_of_this_namespace =
                found.entries.first().is_some_and(|entry| match &entry.step {
                    Step::Rule(rule) => {
                        snapshot.rule(rule).is_some_and(|rule| rule.protocol == RTPROT_NATBOX)
                    }
                    Step::BringUpTun { .. }
                    | Step::Address { .. }
                    | Step::Sysctl { .. }
                    | Step::Route(_)
                    | Step::ProxyNeighbour { .. }
                    | Step::RemoveDefaultLocalRule => false,
                });
            if is_of_this_namespace {
                tracing::info!(
                    pid = theirs.pid,
                    tun = theirs.tun,
                    "taking back what a dead natbox left on the host"
                );
                // Trying again at every start would not mend it, and would keep this box from starting.
                for error in take_back(kernel, &found.entries, &others).await {
                    tracing::warn!(%error, "could not be taken back");
                }
            }
        } else if theirs.alive() || !journal::namespace_is_gone(theirs.netns) {
            continue;
        }
        fs::remove_file(&found.path).map_err(|error| HostError::journal(&found.path, error))?;
    }
    Ok(())
}

/// What two boxes of one namespace both want. Legs cannot be shared: the rule that sends what comes in by a leg to a
/// TUN can name only one.
fn contested(ours: &Header, theirs: &Header) -> Option<String> {
    if ours.tun == theirs.tun {
        return Some(format!("tun.name: {}", ours.tun));
    }
    let leg = ours.interfaces.iter().find(|interface| theirs.interfaces.contains(interface))?;
    Some(format!("interface {leg}"))
}

const GONE_LOOKS: u32 = 200;
const GONE_PAUSE: Duration = Duration::from_millis(5);

/// The legs, the inside first.
fn interfaces(config: &Config) -> Vec<String> {
    let uplinks = config.uplinks.iter().map(|uplink| uplink.interface.clone());
    let mut interfaces: Vec<String> =
        std::iter::once(config.inside.interface.clone()).chain(uplinks).collect();
    interfaces.dedup();
    interfaces
}
