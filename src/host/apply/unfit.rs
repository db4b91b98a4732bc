//! What on the host does not fit a configuration: warnings for the person who changes it.

use std::path::Path;

use super::journal::{self, JournalEntry, JournalHeader};
use crate::config::Config;
use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::kernel::sysctl;
use crate::host::model::facts::HostFacts;
use crate::host::model::routing_ids::{RoutingIds, RuleOwner};
use crate::host::model::snapshot::Snapshot;
use crate::host::model::step::{RTPROT_NATBOX, Rule, Step, TUN_GROUP};

/// Lists the conditions of the host that need a person's attention with a configuration, as
/// messages. `ids`: those of a running instance.
///
/// # Errors
/// When the host cannot be read, or no routing numbers are free.
pub(crate) async fn warnings(
    file_config: &Config,
    ids: Option<RoutingIds>,
) -> Result<Vec<String>, HostError> {
    let snapshot = Kernel::connect()?.snapshot().await?;
    let config = file_config.resolve(&snapshot.dynamic_addresses(file_config));
    let ids = match ids {
        Some(ids) => ids,
        None => RoutingIds::allocate(&snapshot, &config, RuleOwner::ThisInstance)?,
    };
    let facts = HostFacts::collect(&config, &snapshot, sysctl::settings()?, &ids);
    Ok(facts.messages().cloned().collect())
}

/// Warns about rules with natbox's protocol number that no journal explains. `own`: the changes of
/// this instance.
pub(super) fn unowned_rules(
    config: &Config,
    snapshot: &Snapshot,
    own: &[JournalEntry],
    directory: &Path,
    header: &JournalHeader,
) -> Option<String> {
    let is_own = |rule: &Rule| {
        own.iter().any(|entry| match &entry.step {
            Step::Rule(own) => own == rule,
            Step::SetLocalRuleAside => *rule == Rule::local_aside(),
            Step::BringUpTun { .. }
            | Step::Address { .. }
            | Step::Sysctl { .. }
            | Step::Route(_)
            | Step::ProxyNeighbour { .. }
            | Step::KeepMainRule => false,
        })
    };
    let is_unowned = config.host.manage
        && snapshot.natbox_rules().any(|found| !is_own(&found.rule))
        && journal::of_running_instances(directory, header.netns).is_empty();
    is_unowned.then(|| {
        format!(
            "policy rules: there are rules with protocol {RTPROT_NATBOX}, but no journal of a natbox \
             in {}. If the rules are not yours, run: ip rule flush protocol {RTPROT_NATBOX}; ip rule \
             add priority 0 lookup local; ip rule del priority 0 lookup local suppress_ifgroup \
             {TUN_GROUP}",
            directory.display()
        )
    })
}
