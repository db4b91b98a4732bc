//! The option `--config`, and the files that it names.

use std::path::PathBuf;

use clap::Args;

use super::exit::Failure;
use super::stderr::warn;
use crate::config::{self, Loaded, Problem, Problems};

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
    /// A user error.
    pub(super) fn load(&self) -> Result<config::Config, Failure> {
        let Loaded { config, warnings } = config::load(&self.path).map_err(Failure::user)?;
        show_warnings(&warnings);
        Ok(config)
    }
}

/// Loads several files. Reads all of them before it reports that one is wrong.
///
/// # Errors
/// A user error with the problems of all files. A user error if two of the paths lead to one file.
pub(super) fn load_all(paths: &[PathBuf]) -> Result<Vec<config::Config>, Failure> {
    check_distinct(paths)?;
    let mut configs = Vec::new();
    let mut problems: Option<Problems> = None;
    for path in paths {
        match config::load(path) {
            Ok(Loaded { config, warnings }) => {
                show_warnings(&warnings);
                configs.push(config);
            }
            Err(more) => {
                problems = Some(match problems.take() {
                    Some(earlier) => earlier.and(more),
                    None => more,
                });
            }
        }
    }
    problems.map_or(Ok(configs), |problems| Err(Failure::user(problems)))
}

/// Checks that each path leads to a file of its own. A missing file is reported later.
fn check_distinct(paths: &[PathBuf]) -> Result<(), Failure> {
    let files: Vec<_> = paths.iter().map(|path| path.canonicalize().ok()).collect();
    for (place, file) in files.iter().enumerate().filter(|(_, file)| file.is_some()) {
        if let Some(first) = files[..place].iter().position(|earlier| earlier == file) {
            let (path, first) = (paths[place].display(), paths[first].display());
            return Err(Failure::user(anyhow::anyhow!(
                "--config: found {path}, which is the same file as {first}, wanted each file once; \
                 leave one out"
            )));
        }
    }
    Ok(())
}

fn show_warnings(warnings: &[Problem]) {
    for warning in warnings {
        warn(&format!("warning: {warning}"));
    }
}
