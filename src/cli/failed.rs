//! The message of a command that failed: a sentence for a person, or an object for a program.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::ArgMatches;
use serde::Serialize;

use super::exit::{Failure, sentence};
use super::output;
use super::stderr::warn;
use crate::config::Problems;

/// Form of the message of a failed command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorFormat {
    /// A sentence on standard error.
    Text,
    /// An object on standard output, which is where a program expects the answer. If a part of the
    /// answer has been printed already, on standard error.
    Json,
}

/// A failed command, as JSON.
#[derive(Serialize)]
struct JsonError<'e> {
    error: &'e str,
    exit_code: u8,
    /// Problems of configuration files, one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    problems: Option<&'e Problems>,
}

impl ErrorFormat {
    /// Returns the form for a command: JSON if it has the option `--json`, and the user gave it.
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let is_set = |matches: &ArgMatches, option: &str| {
            matches.try_get_one::<bool>(option).is_ok_and(|found| found == Some(&true))
        };
        let commands = std::iter::successors(Some(matches), |above| {
            above.subcommand().map(|(_, below)| below)
        });
        let mut wants =
            commands.map(|matches| JSON_OPTIONS.iter().any(|(name, _)| is_set(matches, name)));
        if wants.any(|wants| wants) { Self::Json } else { Self::Text }
    }

    /// Returns the form for arguments that clap refused.
    pub(super) fn of_refused(arguments: &[OsString]) -> Self {
        let mut options = arguments.iter().take_while(|argument| *argument != "--");
        let asks = |argument: &OsString| JSON_OPTIONS.iter().any(|(_, option)| argument == option);
        if options.any(asks) { Self::Json } else { Self::Text }
    }

    /// Prints the error of a failure and its causes, and returns the exit code.
    pub(super) fn report(self, failure: &Failure) -> ExitCode {
        let (error, code) = failure.parts();
        match error.downcast_ref::<Problems>() {
            // Each problem begins with the file's name. A prefix would hide that from editors that
            // jump to it.
            Some(problems) => self.print("", &problems.to_string(), Some(problems), code),
            None => self.print("natbox: ", &sentence(error), None, code),
        }
    }

    /// Prints an error and returns its exit code. `prefix`: the begin of the text for a person.
    pub(super) fn print(
        self,
        prefix: &str,
        error: &str,
        problems: Option<&Problems>,
        exit_code: u8,
    ) -> ExitCode {
        match self {
            Self::Text => warn(&format!("{prefix}{error}")),
            Self::Json => {
                let object = JsonError { error, exit_code, problems };
                let object = serde_json::to_string(&object).expect("texts and numbers serialise");
                // A closed or full standard output is the error itself.
                if output::has_printed() || output::offer(&object).is_err() {
                    warn(&object);
                }
            }
        }
        ExitCode::from(exit_code)
    }
}

/// Options that ask for JSON: their names in the definitions, and as the user writes them.
const JSON_OPTIONS: [(&str, &str); 2] = [("json", "--json"), ("json_lines", "--json-lines")];
