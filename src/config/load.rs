//! Reads a configuration file, or a text, into a checked configuration.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use super::checks;
use super::file::{self, File};
use super::model::Config;
use super::problem::{Diagnostics, Location, Position, Problem, Problems};
use super::reader::cursor::Cursor;
use super::reader::tree::{self, Node, Value};
use super::schema::Section as _;

/// A configuration that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// Conditions that work but are probably mistakes, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a configuration file.
///
/// # Errors
/// Every problem of the file, in its order. A file that cannot be read is a single problem without
/// a position.
pub(crate) fn load(path: &Path) -> Result<Loaded, Problems> {
    load_with_text(path).map(|(loaded, _)| loaded)
}

/// Reads and checks a configuration file. Returns its text as well.
///
/// # Errors
/// As for [`load`].
pub(crate) fn load_with_text(path: &Path) -> Result<(Loaded, String), Problems> {
    let file_name = path.display().to_string();
    let unreadable = |found: String, advice: &str| {
        let diagnostics = Diagnostics::new(&file_name);
        diagnostics.report(&Location::file(), found, "a readable YAML file", advice);
        diagnostics.into_outcome().0
    };
    let mut bytes = Vec::new();
    let read = fs::File::open(path)
        .and_then(|file| file.take(tree::MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let kinds = [
            (ErrorKind::NotFound, "correct the path after --config"),
            (ErrorKind::PermissionDenied, "run natbox as root, or let this user read the file"),
            (ErrorKind::IsADirectory, "write the path of a file after --config"),
        ];
        let known = kinds.iter().find(|(kind, _)| *kind == error.kind());
        let advice =
            known.map_or("check the path after --config and its permissions", |(_, advice)| advice);
        return Err(unreadable(error.to_string(), advice).unreadable());
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok((parse(&file_name, &text)?, text)),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let diagnostics = Diagnostics::new(&file_name);
            let location = Location {
                position: Some(Position::after(&String::from_utf8_lossy(good))),
                key: String::new(),
            };
            diagnostics.report(
                &location,
                "bytes that are not UTF-8",
                "UTF-8 text",
                "save the file as UTF-8",
            );
            Err(diagnostics.into_outcome().0)
        }
    }
}

/// Checks a configuration given as text. Messages show `file_name`. Without its directory and
/// extension it is the default of `name`.
///
/// # Errors
/// Every problem of the text, in its order.
pub(crate) fn parse(file_name: &str, text: &str) -> Result<Loaded, Problems> {
    let diagnostics = Diagnostics::new(file_name);
    let config = tree::read(text, &diagnostics).and_then(|root| {
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
fn read_file(root: &Node, diagnostics: &Diagnostics) -> Option<File> {
    let schema = file::section_keys();
    let cursor = Cursor::root(root, diagnostics, &schema);
    if matches!(&root.value, Value::Mapping(entries) if entries.is_empty()) {
        let advice =
            "begin with `inside:` and `uplinks:`; `natbox config --reference` prints an example";
        diagnostics.report(cursor.location(), "an empty file", "a configuration", advice);
        return None;
    }
    cursor.fields(File::KEYS).map(|fields| File::read(&fields))
}
