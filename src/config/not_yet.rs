//! Keys that this version accepts and does not act on. Setting one gives a warning, never silence.

use super::problem::{Place, Sink};
use super::tree::{Node, Value};

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
pub(super) fn warn(root: &Node, sink: &Sink) {
    for entry in &NOT_YET {
        visit(
            root,
            &Place { position: Some(root.position), key: String::new() },
            entry.path,
            entry,
            sink,
        );
    }
}

fn visit(node: &Node, place: &Place, path: &str, not_yet: &NotYet, sink: &Sink) {
    if path.is_empty() {
        let concerned = match (&node.value, not_yet.only) {
            (_, None) => true,
            (Value::Plain(text), Some(only)) => text.eq_ignore_ascii_case(only),
            (Value::Null | Value::Quoted(_) | Value::List(_) | Value::Mapping(_), Some(_)) => false,
        };
        if concerned {
            let advice = format!("this version does not act on it: {}", not_yet.instead);
            sink.warn(place, node.describe(), "nothing yet", advice);
        }
        return;
    }
    let (segment, rest) = path.split_once('.').unwrap_or((path, ""));
    let key = segment.trim_end_matches("[]");
    let Value::Mapping(entries) = &node.value else { return };
    for entry in entries.iter().filter(|entry| entry.key == key) {
        let place = Place { position: Some(entry.position), ..place.field(key) };
        match &entry.value.value {
            Value::List(items) if segment.ends_with("[]") => {
                for (index, item) in items.iter().enumerate() {
                    let place = Place {
                        position: Some(item.position),
                        key: format!("{}[{index}]", place.key),
                    };
                    visit(item, &place, rest, not_yet, sink);
                }
            }
            Value::Null
            | Value::Plain(_)
            | Value::Quoted(_)
            | Value::List(_)
            | Value::Mapping(_) => {
                visit(&entry.value, &place, rest, not_yet, sink);
            }
        }
    }
}
