//! The command line: one file for each subcommand, and what they share.
//!
//! | file | content |
//! |---|---|
//! | `config_file` | the option `--config` |
//! | `helper` | processes with the privileges of the start, for a running instance |
//! | `exit` | exit codes, `Failure`, the panic hook |
//! | `failed` | the message of a failed command, as text or JSON |
//! | `filter_argument` | the filter of a command |
//! | `pcapng` | packets as a capture file |
//! | `output`, `stderr` | standard output as text or JSON, and standard error |
//! | `progress` | the progress of work that takes long |
//! | `target` | the choice of a running instance, and requests to it |
//! | `reference` | docs/reference/cli.md, made from the arguments |

mod check;
mod config;
mod config_file;
mod confirm;
pub mod demo;
mod diff;
#[doc(hidden)]
pub mod doctor;
mod down;
mod drops;
mod events;
mod exit;
mod explain;
mod failed;
mod filter_argument;
mod helper;
mod kill;
mod output;
mod pcapng;
mod plan;
mod progress;
#[cfg(test)]
mod reference;
mod reload;
mod run;
mod sessions;
mod status;
mod stderr;
mod target;
mod top;
mod trace;
mod upgrade;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use exit::Failure;
use failed::ErrorFormat;
use helper::{HelperName, HelperWork};

use crate::control;

/// Runs the program: parses the arguments and runs the subcommand.
///
/// The exit code of a failed subcommand is that of its `Failure`. Wrong arguments are a user error.
/// `--help` and `--version` succeed. With `--json` every error is a JSON object.
pub fn main() -> ExitCode {
    exit::install_panic_hook();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let parsed = Cli::command()
        .try_get_matches_from(&arguments)
        .and_then(|found| Ok((ErrorFormat::of(&found), Cli::from_arg_matches(&found)?)));
    match parsed {
        Ok((format, cli)) => cli.command.run().unwrap_or_else(|failure| format.report(&failure)),
        Err(error) => refuse(&error, ErrorFormat::of_refused(&arguments)),
    }
}

/// Prints the reason why the arguments are not usable, or the help that they ask for.
fn refuse(error: &clap::Error, format: ErrorFormat) -> ExitCode {
    if format == ErrorFormat::Json && error.use_stderr() {
        let text = error.render().to_string();
        // The usage follows after an empty line.
        let reason = text.split("\n\n").next().unwrap_or_default();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason).trim();
        return format.print("", reason, None, exit::USER);
    }
    // If the message cannot be printed, no other place remains for it.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { exit::USER } else { exit::DONE })
}

/// NAT in user space: publishes one server on several unrelated uplinks
#[derive(Debug, Parser)]
#[command(name = "natbox", version, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an instance until SIGTERM or SIGINT
    Run(run::RunArguments),
    /// Run the DNS hook of an instance
    #[command(name = crate::dns::RUNNER_COMMAND, hide = true)]
    RunHooks {
        /// Program to run for each event on standard input
        hook: PathBuf,
    },
    /// List the rules of nftables for an instance
    #[command(name = crate::host::doctor::LISTER_COMMAND, hide = true)]
    ListRules,
    /// Hold the TUN's queues open while no process of an instance runs
    #[command(name = crate::control::KEEPER_COMMAND, hide = true)]
    KeepDescriptors,
    /// Take over from another process that helps an instance
    #[command(name = helper::STAND_BY_COMMAND, hide = true)]
    StandBy,
    /// Check a configuration file and report every problem in it
    Check(check::CheckArguments),
    /// Print the effective configuration, with all defaults
    Config(config::ConfigArguments),
    /// Print the settings that hosts and servers need, as commands and as network configuration
    Plan(plan::PlanArguments),
    /// Build the whole setup in network namespaces on this machine and measure it
    ///
    /// Without a scenario: one server, two uplinks, two instances.
    Demo(demo::DemoArguments),
    /// Show sessions, packets, uplinks and drops of a running instance
    Status(status::StatusArguments),
    /// Find what is wrong with a running instance, its host or a server, and how to fix it
    Doctor(doctor::DoctorArguments),
    /// List, sort and count the sessions of a running instance
    ///
    /// `--json` prints one list with one session per line.
    Sessions(sessions::SessionsArguments),
    /// Show the rates of a running instance on the terminal: uplinks, forwards, hosts, sessions
    ///
    /// A filter restricts forwards, hosts and sessions. Rates of forwards, hosts and sessions need
    /// `limits.accounting`.
    Top(top::TopArguments),
    /// End sessions of a running instance
    ///
    /// Prints how many sessions match with three examples, and asks. The inside hosts receive a
    /// reset (TCP) or an ICMP error (UDP), so that their programs notice at once. Needs root.
    Kill(kill::KillArguments),
    /// Show recent events of a running instance, and follow new ones with `--follow`
    ///
    /// Events are changes of state: uplinks that fail and recover, reloads, exhausted resources.
    /// `--json` prints one object per line.
    Events(events::EventsArguments),
    /// Show what a running instance drops: reasons, rates, what to do, the last 16 packets of each
    ///
    /// A filter selects among these packets. The counts are those of all packets of a reason.
    Drops(drops::DropsArguments),
    /// Show live packets of a running instance, before and after, with what it decides
    ///
    /// Only root may trace. `--json` prints one object per line. At most 128 bytes of each packet
    /// are kept.
    Trace(trace::TraceArguments),
    /// Say what would happen to a packet, and why
    ///
    /// The packet need not exist, and nothing changes:
    /// `natbox explain 'tcp 192.0.2.7:4242 -> 203.0.113.10:80'`.
    Explain(explain::ExplainArguments),
    /// Make a running instance read its configuration file again
    ///
    /// Sessions that the new configuration allows continue. With `--confirm` the instance goes back
    /// by itself, also after a crash or a reboot, unless `natbox confirm` follows in time. Until
    /// then the instance refuses a reload without `--confirm`.
    Reload(reload::ReloadArguments),
    /// Make the configuration of `natbox reload --confirm` stay
    Confirm(confirm::ConfirmArguments),
    /// Show what a reload of a running instance would change, and how many sessions it would end
    ///
    /// The exit code is 0 if nothing would change, 1 if something would, and 2 if natbox cannot
    /// say.
    Diff(diff::DiffArguments),
    /// Ask another natbox program whether it can take over the sessions of an instance
    ///
    /// The exit code is 1 if the sessions would end.
    Upgrade(upgrade::UpgradeArguments),
    /// Say what a start would do with the sessions of an instance
    #[command(name = upgrade::ANSWER_COMMAND, hide = true)]
    PreviewTakeover(upgrade::AnswerArguments),
    /// Stop an instance, and remove its changes of the host, its TUN device and its sessions
    ///
    /// With `state.keep` a stopped instance leaves them for the next start.
    Down(down::DownArguments),
}

impl Command {
    fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Run(arguments) => run::run(&arguments),
            Self::RunHooks { hook } => helper::run(&HelperWork::Hook(hook), HelperName::Worker),
            Self::ListRules => helper::run(&HelperWork::Rules, HelperName::Worker),
            Self::KeepDescriptors => keep_descriptors(),
            Self::StandBy => helper::run(&HelperWork::from_environment()?, HelperName::StandBy),
            Self::Plan(arguments) => plan::run(&arguments),
            Self::Demo(arguments) => demo::run(&arguments),
            Self::Doctor(arguments) => doctor::run(&arguments),
            Self::Status(arguments) => status::run(&arguments),
            Self::Sessions(arguments) => sessions::run(&arguments),
            Self::Top(arguments) => top::run(&arguments),
            Self::Kill(arguments) => kill::run(&arguments),
            Self::Events(arguments) => events::run(&arguments),
            Self::Drops(arguments) => drops::run(&arguments),
            Self::Trace(arguments) => trace::run(&arguments),
            Self::Explain(arguments) => explain::run(&arguments),
            Self::Reload(arguments) => reload::run(&arguments),
            Self::Confirm(arguments) => confirm::run(&arguments),
            Self::Diff(arguments) => diff::run(&arguments),
            Self::Upgrade(arguments) => upgrade::run(&arguments),
            Self::PreviewTakeover(arguments) => upgrade::answer(&arguments),
            Self::Down(arguments) => down::run(&arguments),
            Self::Check(arguments) => check::run(&arguments),
            Self::Config(arguments) => config::run(&arguments),
        }
    }
}

/// Does the work of the process that outlives an instance.
fn keep_descriptors() -> Result<ExitCode, Failure> {
    control::keep_descriptors()
        .context("holding the TUN's queues")
        .map(|()| ExitCode::SUCCESS)
        .map_err(Failure::environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argument_definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
