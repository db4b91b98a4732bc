//! Reading and checking the configuration file.
//!
//! ```text
//! text ─ tree ─▶ nodes with positions ─ sections ─▶ draft: typed values, places ─ checks ─▶ Config ─ emit ─▶ text
//!                                      (cursor, values, network, words)         (forwards)
//! ```
//!
//! * *position*: line and column; *place*: a position and the key path that leads there.
//! * *error*: what a single value should have been; *problem*: a error or a contradiction, with its place.
//!
//! Invariants: every step goes on after a problem, so that one run names them all; a [`Config`] comes out only if
//! there was none; no text, however hostile, makes this module panic, recurse without bound or take more than linear
//! time and memory in [`MAX_BYTES`].

mod changes;
mod checks;
mod document;
mod dynamic_address;
mod emit;
mod file;
mod generate;
mod model;
mod problem;
mod reader;
mod schema;
mod sections;
mod types;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use changes::{Change, changes, reloadable_keys};
pub use dynamic_address::DynamicAddress;
pub use emit::{to_json, to_yaml};
pub use generate::{json_schema, reference};
pub use model::Config;
pub use problem::{Position, Problem, Problems};
pub use sections::{
    AddressPooling, Admin, Dns, DnsName, DnsServer, DnsUpdate, EndpointDependence, Failback,
    Forward, ForwardProtocol, HashBy, Health, Host, Inside, IoBackend, Limits, Log, LogFormat,
    LogLevel, MssClamp, Nat, NoNatRule, OffloadLimit, OnFailure, OutboundRule, RejectWith, State,
    Timeouts, Tun, UnsolicitedSyn, Uplink, WebTarget, Workers,
};
pub use types::ConfigEnum;
pub use types::network::PortRange;

use problem::{Diagnostics, Location};
use reader::cursor::Cursor;
use reader::tree::{Node, Value};
use reader::{tree, unimplemented_keys};
use schema::Section as _;

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
        let diagnostics = Diagnostics::new(&file_name);
        diagnostics.report(&Location::file(), found, "a readable YAML file", advice);
        diagnostics.into_outcome().0
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
            let diagnostics = Diagnostics::new(&file_name);
            let place = Location {
                position: Some(Position::after(&String::from_utf8_lossy(good))),
                key: String::new(),
            };
            diagnostics.report(
                &place,
                "bytes that are not UTF-8",
                "UTF-8 text",
                "save the file as UTF-8",
            );
            Err(diagnostics.into_outcome().0)
        }
    }
}

/// Checks a configuration given as text; `file_name` stands in the messages, and without its directory and ending it
/// is the default of `name`.
///
/// # Errors
/// Every problem of the text, in its order.
pub fn parse(file_name: &str, text: &str) -> Result<Loaded, Problems> {
    let diagnostics = Diagnostics::new(file_name);
    let config = tree::read(text, &diagnostics).and_then(|root| {
        unimplemented_keys::warn(&root, &diagnostics);
        let file = read_file(&root, &diagnostics)?;
        checks::check(file, &root, file_name, &diagnostics)
    });
    let (problems, warnings) = diagnostics.into_outcome();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, warnings }),
        Some(_) | None if !problems.is_empty() => Err(problems),
        Some(_) | None => unreachable!("a configuration was refused without a reason"),
    }
}

/// Reads the keys of the file; None if the file is not even a mapping.
fn read_file(root: &Node, diagnostics: &Diagnostics) -> Option<file::File> {
    let schema = file::section_keys();
    let cursor = Cursor::root(root, diagnostics, &schema);
    if matches!(&root.value, Value::Mapping(entries) if entries.is_empty()) {
        let advice = "begin with `inside:` and `uplinks:`; configs/natbox1.yaml is an example";
        diagnostics.report(cursor.place(), "an empty file", "a configuration", advice);
        return None;
    }
    cursor.fields(file::File::KEYS).map(|fields| file::File::read(&fields))
}

#[cfg(test)]
mod tests;
