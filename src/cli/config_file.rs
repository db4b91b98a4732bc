//! The option `--config`, and the files that it names.

use std::path::PathBuf;

use clap::Args;

use super::exit::Failure;
use super::stderr::warn;
use crate::config::{self, Loaded, Problem};

/// The option `--config FILE`, common to every subcommand that reads one file.
#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// Configuration file of the instance (YAML)
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub path: PathBuf,
}

impl ConfigFile {
    /// Loads the file and prints its warnings to standard error.
    ///
    /// # Errors
    /// A user error that holds [`config::Problems`].
    pub(super) fn load(&self) -> Result<config::Config, Failure> {
        let Loaded { config, warnings } = config::load(&self.path).map_err(Failure::user)?;
        show_warnings(&warnings);
        Ok(config)
    }
}

/// Loads several files. Reads all of them before it reports that one is wrong.
///
/// # Errors
/// A user error with the problems of the last wrong file; the problems of earlier files are
/// printed.
pub(super) fn load_all(paths: &[PathBuf]) -> Result<Vec<config::Config>, Failure> {
    let mut configs = Vec::new();
    let mut failed = None;
    for path in paths {
        match (ConfigFile { path: path.clone() }).load() {
            Ok(config) => configs.push(config),
            Err(failure) => {
                // The caller reports the last one.
                if let Some(earlier) = failed.replace(failure) {
                    Failure::report(&earlier);
                }
            }
        }
    }
    failed.map_or(Ok(configs), Err)
}

fn show_warnings(warnings: &[Problem]) {
    for warning in warnings {
        warn(&format!("warning: {warning}"));
    }
}
