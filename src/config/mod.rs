//! Reading and checking the configuration file.
//!
//! ```text
//! text ─ tree ─▶ nodes with positions ─ sections ─▶ draft: typed values, places ─ checks ─▶ Config ─ emit ─▶ text
//!                                      (cursor, values, network, words)         (forwards)
//! ```
//!
//! * *position*: line and column; *place*: a position and the key path that leads there.
//! * *misfit*: what a single value should have been; *problem*: a misfit or a contradiction, with its place.
//!
//! Invariants: every step goes on after a problem, so that one run names them all; a [`Config`] comes out only if
//! there was none; no text, however hostile, makes this module panic, recurse without bound or take more than linear
//! time and memory in [`MAX_BYTES`].

mod checks;
mod cursor;
mod dns;
mod emit;
mod forwards;
mod model;
mod nearest;
mod network;
mod not_yet;
mod problem;
mod sections;
mod tree;
mod uplinks;
mod values;
mod whereabouts;
mod words;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use dns::{Dns, DnsName, DnsServer, DnsUpdate};
pub use emit::{to_json, to_yaml};
pub use model::*;
pub use problem::{Position, Problem, Problems};
pub use whereabouts::Whereabouts;
pub use words::Words;

use problem::{Place, Sink};

/// Largest file that is read, in bytes; thousands of forwards fit.
pub const MAX_BYTES: usize = 1 << 20;

/// A configuration that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// What works but probably not as meant, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a configuration file.
///
/// # Errors
/// Every problem of the file, in its order; a file that cannot be read is a single problem without a position.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let file_name = path.display().to_string();
    let unreadable = |found: String, advice: &str| {
        let sink = Sink::new(&file_name);
        sink.report(&Place::file(), found, "a readable YAML file", advice);
        sink.into_outcome().0
    };
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Err(unreadable(
            error.to_string(),
            "check the path after --config and its permissions",
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => parse(&file_name, &text),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let sink = Sink::new(&file_name);
            let place = Place {
                position: Some(Position::after(&String::from_utf8_lossy(good))),
                key: String::new(),
            };
            sink.report(&place, "bytes that are not UTF-8", "UTF-8 text", "save the file as UTF-8");
            Err(sink.into_outcome().0)
        }
    }
}

/// Checks a configuration given as text; `file_name` stands in the messages, and without its directory and ending it
/// is the default of `name`.
///
/// # Errors
/// Every problem of the text, in its order.
pub fn parse(file_name: &str, text: &str) -> Result<Loaded, Problems> {
    let sink = Sink::new(file_name);
    let config = tree::read(text, &sink).and_then(|root| {
        not_yet::warn(&root, &sink);
        let draft = sections::decode(&root, file_name, &sink)?;
        checks::check(draft, &sink)
    });
    let (problems, warnings) = sink.into_outcome();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, warnings }),
        Some(_) | None if !problems.is_empty() => Err(problems),
        Some(_) | None => unreachable!("a configuration was refused without a reason"),
    }
}

#[cfg(test)]
mod tests;
