//! Explains what is wrong with a box's host or with a server behind boxes, why it matters, and what
//! fixes it.
//!
//! Collecting and evaluating are apart. The folder [`facts`] asks the kernel and some programs,
//! changes nothing, and returns plain data. The folder [`checks`] makes findings of these data and
//! asks nothing. The folder [`nft`] evaluates the rules of nftables for both. A running instance
//! gets these rules from [`lister`].
//!
//! ```text
//!   Config  ──▶ box_facts    ──▶ BoxFacts    ──▶ box_checks    ──┐
//!                                                                ├──▶ Vec<Finding>
//!   Configs ──▶ server_facts ──▶ ServerFacts ──▶ server_checks ──┘
//! ```

mod checks;
mod facts;
mod finding;
mod lister;
mod nft;

pub(crate) use crate::host::model::presence::InterfaceState;
pub use finding::{Finding, Severity};
pub(crate) use lister::{LISTER_COMMAND, RuleListing, list_rules};

use crate::config::Config;
use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::model::facts::HostFacts;
use crate::host::model::routing_ids::RoutingIds;
use checks::{box_checks, box_firewall, filters, server_checks};
use facts::{box_facts, firewall, server_facts};

/// Checks the host of a box.
///
/// `running` holds the routing numbers of the running instance. Without a running instance the
/// settings of the host are not checked.
///
/// # Errors
/// When the kernel does not answer.
pub(crate) fn examine_box(
    config: &Config,
    running: Option<RoutingIds>,
) -> Result<Vec<Finding>, HostError> {
    on_a_runtime(async move {
        Ok(match box_facts::collect(config, running).await? {
            Ok(facts) => box_checks::evaluate(&facts),
            // Without the interfaces every other check is meaningless.
            Err(awaited) => awaited.iter().map(box_checks::missing_interface).collect(),
        })
    })
}

/// Reports the conditions of the host in which a running box needs a person's attention, as of the
/// last reading of the host.
pub(crate) fn examine_host(config: &Config, host: &HostFacts) -> Vec<Finding> {
    box_checks::configuration(config, host)
}

/// Checks that the host's filters let the packets of a running box pass. `listing` holds the rules
/// of nftables, or the reason why they could not be read. Returns only what is not in order.
pub(crate) fn examine_firewall(
    config: &Config,
    host: &HostFacts,
    listing: Result<String, String>,
) -> Vec<Finding> {
    let filters = firewall::filters(listing);
    let mut findings = filters::unreadable(&filters);
    let filtered = box_facts::FilteredBox { config, host, filters: &filters };
    findings.extend(box_firewall::evaluate(filtered));
    findings.retain(|finding| finding.severity != Severity::Ok);
    findings
}

/// Lists the interfaces with their states.
///
/// # Errors
/// When the kernel does not answer.
pub(crate) fn interface_states() -> Result<Vec<(String, InterfaceState)>, HostError> {
    on_a_runtime(async move {
        let links = Kernel::connect()?.links().await?;
        let state = |name: &String| (name.clone(), InterfaceState::of(name, &links));
        Ok(links.iter().map(|link| state(&link.name)).collect())
    })
}

/// Checks this machine as a server behind these boxes. With `probe`, sends packets that show the
/// path of the replies.
///
/// # Errors
/// When the kernel does not answer.
pub(crate) fn examine_server(configs: &[Config], probe: bool) -> Result<Vec<Finding>, HostError> {
    on_a_runtime(async move {
        Ok(server_checks::evaluate(&server_facts::collect(configs, probe).await?))
    })
}

/// Runs a future on a thread of its own, because the caller may be inside a tokio runtime.
fn on_a_runtime<T: Send>(
    work: impl Future<Output = Result<T, HostError>> + Send,
) -> Result<T, HostError> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime
            .map_err(|source| HostError::Netlink { doing: "starting a runtime".into(), source })?
            .block_on(work)
    };
    std::thread::scope(|scope| {
        scope.spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests;
