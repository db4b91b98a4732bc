//! Keys that this version accepts and does not act on. Setting one gives a warning, never silence.

use super::tree::{Node, Value};
use crate::config::problem::{Diagnostics, Location};

/// A key without effect so far.
struct NotYet {
    /// Key path; `[]` stands for every item of a list.
    path: &'static str,
    /// Without effect only for this value; None: for every value.
    only: Option<&'static str>,
    /// What happens instead.
    instead: &'static str,
}

const NOT_YET: [NotYet; 2] = [
    NotYet { path: "admin.http", only: None, instead: "nothing listens there" },
    NotYet { path: "state.keep", only: Some("true"), instead: "sessions end with the process" },
];

/// Warns of every such key in the file.
pub(in crate::config) fn warn(root: &Node, diagnostics: &Diagnostics) {
    for entry in &NOT_YET {
        visit(
            root,
            &Location { position: Some(root.position), key: String::new() },
            entry.path,
            entry,
            diagnostics,
        );
    }
}

fn visit(
    node: &Node,
    place: &Location,
    path: &str,
    unimplemented_keys: &NotYet,
    diagnostics: &Diagnostics,
) {
    if path.is_empty() {
        let concerned = match (&node.value, unimplemented_keys.only) {
            (_, None) => true,
            (Value::Plain(text), Some(only)) => text.eq_ignore_ascii_case(only),
            (Value::Null | Value::Quoted(_) | Value::List(_) | Value::Mapping(_), Some(_)) => false,
        };
        if concerned {
            let advice = format!("this version does not act on it: {}", unimplemented_keys.instead);
            diagnostics.warn(place, node.describe(), "nothing yet", advice);
        }
        return;
    }
    let (segment, rest) = path.split_once('.').unwrap_or((path, ""));
    let key = segment.trim_end_matches("[]");
    let Value::Mapping(entries) = &node.value else { return };
    for entry in entries.iter().filter(|entry| entry.key == key) {
        let place = Location { position: Some(entry.position), ..place.field(key) };
        match &entry.value.value {
            Value::List(items) if segment.ends_with("[]") => {
                for (index, item) in items.iter().enumerate() {
                    let place = Location {
                        position: Some(item.position),
                        key: format!("{}[{index}]", place.key),
                    };
                    visit(item, &place, rest, unimplemented_keys, diagnostics);
                }
            }
            Value::Null
            | Value::Plain(_)
            | Value::Quoted(_)
            | Value::List(_)
            | Value::Mapping(_) => {
                visit(&entry.value, &place, rest, unimplemented_keys, diagnostics);
            }
        }
    }
}
