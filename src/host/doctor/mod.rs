//! What is wrong with a box's host or with a server behind boxes, why it matters, and what mends it.
//!
//! Looking and judging are apart: a `*_seen` file asks the kernel and some programs, changes nothing, and leaves plain data; a
//! `*_judged` file makes findings of it and asks nobody. [`filters`], [`rules`], [`conntrack`] and [`legs`] serve both sides.
//!
//! ```text
//!   Config ─▶ box_facts ─▶ BoxFacts ─▶ box_checks ─┐
//!                                                ├─▶ Vec<Finding>, the worst first
//!   Configs ─▶ server_facts ─▶ ServerFacts ─▶ server_checks ─┘
//! ```

mod checks;
mod facts;
mod nft;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::model::routing_ids::RoutingIds;
use checks::{box_checks, server_checks};
use facts::{box_facts, server_facts};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at: a word that does not change.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, as a sentence.
    pub found: String,
    /// Why it matters; empty where all is well.
    pub why: String,
    /// What a person has to do or look at, where no command does it all.
    pub advice: String,
    /// Commands for a POSIX shell, run as root and in this order, that mend it.
    pub fix: Vec<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work.
    Error,
    /// It works, but not as well as it could, or nobody could look.
    Warning,
    /// As it should be.
    Ok,
}

impl Finding {
    /// All is well.
    pub fn ok(id: &str, found: impl Into<String>) -> Self {
        Self::new(id, Severity::Ok, found, "")
    }

    /// Something works less well than it could.
    pub fn warning(id: &str, found: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(id, Severity::Warning, found, why)
    }

    /// Something does not work.
    pub fn error(id: &str, found: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(id, Severity::Error, found, why)
    }

    fn new(id: &str, severity: Severity, found: impl Into<String>, why: impl Into<String>) -> Self {
        let (found, why) = (found.into(), why.into());
        Self { id: id.into(), severity, found, why, advice: String::new(), fix: Vec::new() }
    }

    /// The same with what a person has to do.
    #[must_use]
    pub fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: advice.into(), ..self }
    }

    /// The same with what mends it.
    #[must_use]
    pub fn fix(self, commands: impl IntoIterator<Item = String>) -> Self {
        Self { fix: commands.into_iter().collect(), ..self }
    }
}

/// Looks at the host of a box. `numbers`: those of the box that runs; None: none runs, and what it would set is not looked for.
///
/// # Errors
/// When the kernel does not answer at all.
pub fn examine_box(config: &Config, ids: Option<RoutingIds>) -> Result<Vec<Finding>, HostError> {
    on_a_runtime(async move {
        Ok(match box_facts::collect(config, ids).await? {
            Ok(seen) => box_checks::evaluate(&seen),
            // Without its interfaces there is nothing more to look at.
            Err(error) => vec![box_checks::missing_interface(&error)],
        })
    })
}

/// The interfaces that are up, with somebody at the other end.
///
/// # Errors
/// When the kernel does not answer at all.
pub fn interfaces_up() -> Result<Vec<String>, HostError> {
    on_a_runtime(async move {
        let links = Kernel::connect()?.snapshot().await?.links;
        Ok(links.into_iter().filter(|link| link.carrier).map(|link| link.name).collect())
    })
}

/// Looks at this machine as the server of all these boxes; `probe`: also sends packets that show the way of the replies.
///
/// # Errors
/// When the kernel does not answer at all.
pub fn examine_server(configs: &[Config], probe: bool) -> Result<Vec<Finding>, HostError> {
    on_a_runtime(async move {
        Ok(server_checks::evaluate(&server_facts::collect(configs, probe).await?))
    })
}

/// The caller may be in a runtime or not.
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
