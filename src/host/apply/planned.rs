//! Plans the changes of one instance: restores what dead processes left, and reads the host.

use std::path::{Path, PathBuf};

use super::clean_up::clean_up;
use super::contest::Contest;
use super::journal::{self, Journal, JournalEntry, JournalHeader};
use super::managed::ManagedHost;
use super::namespace::NamespaceLock;
use super::unfit::unowned_rules;
use crate::config::Config;
use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::nftables::FilterTable;
use crate::host::kernel::sysctl;
use crate::host::model::facts::HostFacts;
use crate::host::model::routing_ids::{RoutingIds, RuleOwner};
use crate::host::model::snapshot::Snapshot;
use crate::host::model::step::Step;
use crate::host::model::steps::steps;

/// Restores what killed processes left in this network namespace, and reads the host. Changes
/// nothing for this instance yet; the TUN and the interfaces need not exist.
///
/// With `host.manage: false` the function only reads.
///
/// # Errors
/// When another natbox uses an interface, privilege is lacking, or no routing numbers are free.
pub(crate) async fn prepare(config: &Config) -> Result<PlannedHost, HostError> {
    let directory = Path::new(journal::DIRECTORY);
    let kernel = Kernel::connect()?;
    let header = JournalHeader::of(config)?;
    let (lock, inherited) = match config.host.manage {
        true => {
            let (lock, inherited) =
                lock_and_clean_up(&kernel, directory, &header, config.state.keep).await?;
            (Some(lock), inherited)
        }
        false => (None, Vec::new()),
    };
    let snapshot = kernel.snapshot().await?;
    let file_config = config;
    let config = file_config.resolve(&snapshot.dynamic_addresses(file_config));
    let owner = match config.host.manage {
        true => RuleOwner::OtherInstance,
        // A person may have run the commands of `natbox plan`.
        false => RuleOwner::ThisInstance,
    };
    let ids = RoutingIds::allocate(&without(&snapshot, &inherited), &config, owner)?;
    let facts = HostFacts::collect(&config, &snapshot, sysctl::settings()?, &ids);
    let mut facts = facts.without_interfaces(&journal::interfaces_of_others()?);
    facts.warnings.extend(unowned_rules(&config, &snapshot, &inherited, directory, &header));
    Ok(PlannedHost {
        steps: steps(&config, &facts, &ids),
        file_config: file_config.clone(),
        directory: directory.to_owned(),
        config,
        kernel,
        facts,
        ids,
        header,
        inherited,
        lock,
    })
}

/// Returns a snapshot without the rules, routes and addresses of a journal, whose numbers this
/// process takes over.
fn without(snapshot: &Snapshot, inherited: &[JournalEntry]) -> Snapshot {
    let mut others = snapshot.clone();
    for JournalEntry { step, .. } in inherited {
        match step {
            Step::Rule(rule) => others.rules.retain(|found| found.rule != *rule),
            Step::Route(route) => others.routes.retain(|found| found.route != *route),
            Step::Address { address, .. } => {
                others.addresses.retain(|found| found.address != *address);
            }
            Step::BringUpTun { .. }
            | Step::Sysctl { .. }
            | Step::ProxyNeighbour { .. }
            | Step::SetLocalRuleAside
            | Step::KeepMainRule => {}
        }
    }
    others
}

/// Takes the lock and restores what dead processes left. `inherits`: what a process with the same
/// TUN has left stays, and its journal is returned.
///
/// # Errors
/// When a running process uses a device of this configuration, or a journal cannot be removed.
pub(super) async fn lock_and_clean_up(
    kernel: &Kernel,
    directory: &Path,
    header: &JournalHeader,
    inherits: bool,
) -> Result<(NamespaceLock, Vec<JournalEntry>), HostError> {
    journal::make_directory(directory)?;
    let lock = NamespaceLock::take().await?;
    let inherited = clean_up(kernel, directory, header, inherits).await?;
    Ok((lock, inherited))
}

/// A host whose changes are planned and not yet made.
pub(crate) struct PlannedHost {
    file_config: Config,
    config: Config,
    kernel: Kernel,
    steps: Vec<Step>,
    facts: HostFacts,
    ids: RoutingIds,
    header: JournalHeader,
    directory: PathBuf,
    /// Changes of a dead process that this one takes over.
    inherited: Vec<JournalEntry>,
    /// None with `host.manage: false`.
    lock: Option<NamespaceLock>,
}

impl PlannedHost {
    /// Returns the facts about the host.
    pub(crate) fn facts(&self) -> &HostFacts {
        &self.facts
    }

    /// Returns the numbers of the instance's tables and rules.
    pub(crate) fn routing_ids(&self) -> RoutingIds {
        self.ids
    }

    /// Returns the configuration with the present addresses of its interfaces.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Makes all changes, and reverts them if one fails.
    ///
    /// With `host.manage: false` nothing changes, and the TUN stays down. The user runs the
    /// commands of `natbox plan` instead. `tun_index` is the interface index of the open TUN.
    ///
    /// # Errors
    /// When the kernel refuses a change, or another program's route is in the place of one of
    /// natbox's. [`HostError::Vanished`] if an interface of the configuration is gone: time may
    /// help.
    pub(crate) async fn apply(self, tun_index: u32) -> Result<ManagedHost, HostError> {
        let Self { file_config, config, kernel, steps, facts, ids, .. } = self;
        let Self { header, directory, inherited, lock, .. } = self;
        let filter = FilterTable::new(&config.tun.name, config.state.keep);
        let mut managed = ManagedHost {
            file_config,
            config,
            kernel,
            steps,
            facts,
            ids,
            done: inherited,
            links: Vec::new(),
            placed: Vec::new(),
            contest: Contest::default(),
            is_disputed: false,
            reported: Vec::new(),
            filter,
            filter_problem: None,
            journal: None,
            header,
            directory,
        };
        let Some(lock) = lock else {
            managed.steps.clear();
            return Ok(managed);
        };
        check_tun(&managed.kernel, &managed.config.tun.name, tun_index).await?;
        managed.kernel.follow_tun(tun_index, &managed.config.tun.name);
        let journal = Journal::replace(&managed.directory, &managed.header, &managed.done)?;
        managed.journal = Some(journal);
        let applied = managed.apply_all().await;
        drop(lock);
        applied.map(|()| managed)
    }
}

/// Checks that the open TUN is the interface that the configuration names.
async fn check_tun(kernel: &Kernel, name: &str, opened: u32) -> Result<(), HostError> {
    let links = kernel.links().await?;
    let found = links.iter().find(|link| link.name == name).map(|link| link.index);
    if found == Some(opened) {
        return Ok(());
    }
    let found = found.map_or("missing".into(), |index| index.to_string());
    Err(HostError::WrongTun { name: name.to_owned(), found, opened })
}
