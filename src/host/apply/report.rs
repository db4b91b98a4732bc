//! What a look at the host found and changed.

use std::collections::BTreeSet;

use super::contest::Setting;
use crate::host::model::dependents::{Dependencies, Dependents};
use crate::host::model::step::Step;

/// Reason of a look at the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckCause {
    /// Interfaces or addresses changed. The kernel itself then drops what depends on an interface.
    Interfaces,
    /// Rules or routes changed, or settings of the TUN.
    Settings,
    /// Time has passed.
    Time,
}

/// What a look at the host found and changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostReport {
    /// Settings that something else had removed and natbox has set again, as commands.
    pub(crate) restored: Vec<String>,
    /// Settings that are missing still, failed or disputed, each with what depends on it.
    pub(crate) missing: Vec<String>,
    /// Errors of settings that were never in place.
    pub(crate) failed: Vec<String>,
    /// Positions of the uplinks that depend on a missing setting.
    pub(crate) failed_uplinks: BTreeSet<usize>,
    /// True when `restored` has only settings that another program removes again and again.
    pub(crate) is_disputed: bool,
    /// Description of the disputed settings, with the usual cause.
    pub(crate) dispute: Option<String>,
    /// Rules of another program before which natbox's rules moved, as text.
    pub(crate) moved_before: Option<Vec<String>>,
}

/// The name of the TUN, after a look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TunName {
    /// As in the configuration.
    Right,
    /// Another program had renamed the TUN, and natbox has renamed it back.
    RenamedBack { is_disputed: bool },
    /// Another program has renamed the TUN: another interface has the name, or natbox waits.
    Wrong,
}

impl HostReport {
    /// Adds a setting that is missing.
    pub(super) fn add_missing(&mut self, setting: &str, dependents: Dependents) {
        self.missing.push(missing(setting, &dependents));
        self.failed_uplinks.extend(dependents.uplinks);
    }
}

/// Describes a setting that is missing.
pub(super) fn missing(setting: &str, dependents: &Dependents) -> String {
    format!("{setting} ({})", dependents.words)
}

/// Returns true when the kernel itself may have dropped a setting, because of a change of an
/// interface of the configuration. The TUN is natbox's alone, so only another program changes it.
/// But the kernel drops a route of the TUN together with the route's source, an address of another
/// interface.
pub(super) fn depends_on_interface(step: &Step, tun: &str) -> bool {
    match (step.interface(), step) {
        (None, _) => false,
        (Some(interface), Step::Route(route)) if interface == tun => route.source.is_some(),
        (Some(interface), _) => interface != tun,
    }
}

impl Setting {
    /// Returns what depends on the setting.
    pub(super) fn dependents(&self, dependencies: Dependencies<'_>) -> Dependents {
        match self {
            Self::Step(step) => dependencies.of_step(step),
            Self::Table(table) => dependencies.of_table(*table),
            Self::TunName(_) => dependencies.of_everything(),
        }
    }
}

/// Describes disputed settings. `times` is the number of removals.
pub(super) fn dispute(
    settings: &[&Setting],
    times: u32,
    dependencies: Dependencies<'_>,
) -> Option<String> {
    let first = settings.first()?;
    let mut dependents: Vec<String> = Vec::new();
    for setting in settings {
        let Dependents { words, .. } = setting.dependents(dependencies);
        if !dependents.contains(&words) {
            dependents.push(words);
        }
    }
    let more = match settings.len() - 1 {
        0 => format!(" ({})", dependents.join("; ")),
        more => format!(" and {more} more ({})", dependents.join("; ")),
    };
    let step = match first {
        Setting::Step(step) => step,
        Setting::Table(table) => {
            return Some(format!(
                "another program added routes to table {table}{more} {times} times; the table is \
                 natbox's alone, and natbox removes such routes after a growing pause; find the \
                 program with: ip monitor route"
            ));
        }
        Setting::TunName(name) => {
            return Some(format!(
                "another program renamed the TUN device {name}{more} {times} times; natbox renames \
                 it back after a growing pause; the usual cause is a .link file of systemd-udevd \
                 that matches the device; otherwise find the program with: ip monitor link"
            ));
        }
    };
    let cause = match step {
        Step::Rule(_) | Step::SetLocalRuleAside | Step::KeepMainRule => {
            "the usual cause is systemd-networkd: set ManageForeignRoutingPolicyRules=no in \
             networkd.conf; otherwise find the program with: ip monitor rule"
        }
        Step::Route(_) | Step::Address { .. } | Step::BringUpTun { .. } => {
            "the usual causes are systemd-networkd (set ManageForeignRoutes=no in networkd.conf) and \
             NetworkManager (set unmanaged-devices for the TUN); otherwise find the program with: ip \
             monitor route address link"
        }
        Step::Sysctl { .. } => {
            "the usual causes are a sysctl.d file that a timer applies, and a firewall script"
        }
        Step::ProxyNeighbour { .. } => "find the program with: ip monitor neigh",
    };
    Some(format!(
        "another program removed `{}`{more} {times} times; natbox sets the settings again, after a \
         growing pause if they are removed at once; {cause}",
        step.command()
    ))
}
