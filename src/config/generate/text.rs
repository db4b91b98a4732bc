//! Text of the reference file and of the manual.

use crate::config::document::Document;
use crate::config::schema::{KeyInfo, TypeShape};

/// Breaks a text into lines of at most `width` characters, where its words allow.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Returns the type of a key's value in words; none if the value is always a mapping.
pub(super) fn value_type(key: &KeyInfo) -> Option<&str> {
    let is_mapping = matches!(key.value.shape, TypeShape::Mapping(_));
    (!is_mapping).then_some(&key.value.name)
}

/// Returns a value as YAML in one line.
pub(super) fn yaml(value: &Document) -> String {
    // A zero without a unit is a number for YAML, and reads as a duration.
    if *value == Document::text(0) {
        return "0".to_owned();
    }
    value.to_yaml().trim_end().to_owned()
}

/// Returns a text with a capital at its beginning.
pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
