//! Decodes nodes of the file, and reports problems with their locations.
//!
//! Every method that returns an `Option` has reported the reason of a `None`, except
//! [`Fields::get`].

use std::ops::Deref;

use super::renamed;
use super::tree::{MappingEntry, Node, Value};
use crate::config::problem::{Diagnostics, Location, ValueError, quoted};
use crate::nearest;

/// A value and its location.
#[derive(Clone, Debug)]
pub(in crate::config) struct Located<T> {
    /// The value.
    pub value: T,
    /// The location of the value in the file.
    pub location: Location,
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The keys of one kind of mapping.
#[derive(Debug)]
pub(in crate::config) struct SectionKeys {
    /// Key path without indices; empty for the root.
    pub path: String,
    /// Every key that the mapping may hold.
    pub keys: Vec<&'static str>,
}

impl<T> Located<T> {
    /// Makes the located form of a value that was not read from a file.
    pub(crate) fn without_location(value: T) -> Self {
        Self { value, location: Location::file() }
    }
}

/// A node of the file, with its location.
#[derive(Clone, Debug)]
pub(in crate::config) struct Cursor<'t> {
    node: &'t Node,
    location: Location,
    diagnostics: &'t Diagnostics,
    schema: &'t [SectionKeys],
}

impl<'t> Cursor<'t> {
    /// Makes the cursor of the whole file. `schema` lists every mapping that a file may hold:
    /// advice on a misplaced key names the mapping where the key belongs.
    pub(crate) fn root(
        node: &'t Node,
        diagnostics: &'t Diagnostics,
        schema: &'t [SectionKeys],
    ) -> Self {
        let location = Location { position: Some(node.position), key: String::new() };
        Self { node, location, diagnostics, schema }
    }

    /// Returns the location of the node.
    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    /// Reports a problem with the node.
    pub(crate) fn reject(&self, wanted: &str, advice: &str) {
        self.diagnostics.report(&self.location, self.node.describe(), wanted, advice);
    }

    /// Returns the fields of a mapping. Reports keys that are unknown or repeated.
    pub(crate) fn fields(&self, keys: &'static [&'static str]) -> Option<Fields<'t>> {
        let Value::Mapping(entries) = &self.node.value else {
            let advice = format!("its keys are {}", nearest::list(keys.iter().copied()));
            self.reject("a mapping", &advice);
            return None;
        };
        let mut fields = Fields {
            location: self.location.clone(),
            diagnostics: self.diagnostics,
            schema: self.schema,
            known: Vec::new(),
        };
        // Bounds the time for a file with many unknown keys: full diagnostics record no more.
        for entry in entries.iter().take_while(|_| !self.diagnostics.is_full()) {
            let location = entry_location(&self.location, entry);
            let Some(key) = keys.iter().copied().find(|key| *key == entry.key) else {
                let advice = self.unknown_key_advice(&entry.key, keys);
                self.diagnostics.report(
                    &location,
                    "an unknown key",
                    "one that natbox knows",
                    advice,
                );
                continue;
            };
            match fields.known.iter().find(|(known, _)| *known == key) {
                Some((_, first)) => {
                    let found = format!("this key again (first in line {})", first.position.line);
                    let advice = "join the two or remove one";
                    self.diagnostics.report(&location, found, "the key once", advice);
                }
                None => fields.known.push((key, entry)),
            }
        }
        Some(fields)
    }

    fn unknown_key_advice(&self, key: &str, keys: &[&'static str]) -> String {
        let nearest = || nearest::nearest(key, keys.iter().copied());
        if let Some(candidate) = renamed::key(&self.location.key, key).or_else(nearest) {
            return format!("did you mean `{candidate}`?");
        }
        match self.schema.iter().find(|section| section.keys.contains(&key)) {
            Some(section) if section.path.is_empty() => {
                format!("`{key}` belongs at the top level of the file")
            }
            Some(section) => format!("`{key}` belongs under `{}`", section.path),
            None => format!("the keys here are {}", nearest::list(keys.iter().copied())),
        }
    }

    /// Returns whether the node is a list.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// Returns the items of a list of at most `most`.
    pub(crate) fn items(&self, most: usize, what: &str) -> Option<Vec<Self>> {
        let Value::List(nodes) = &self.node.value else {
            self.reject(
                &format!("a list of {what}"),
                "begin each item with `- `, or write `[]` for none",
            );
            return None;
        };
        if nodes.len() > most {
            let wanted = format!("at most {most} {what}");
            self.diagnostics.report(
                &self.location,
                format!("{} items", nodes.len()),
                wanted,
                "leave some out",
            );
            return None;
        }
        Some(nodes.iter().enumerate().map(|(index, node)| self.item(index, node)).collect())
    }

    fn item(&self, index: usize, node: &'t Node) -> Self {
        let key = format!("{}[{index}]", self.location.key);
        Self { node, location: Location { position: Some(node.position), key }, ..self.clone() }
    }

    /// Returns the items of a list of 1 to `most`. A scalar alone counts as a list of itself.
    pub(crate) fn some_items(&self, most: usize, what: &str) -> Option<Vec<Self>> {
        if matches!(self.node.value, Value::Plain(_) | Value::Quoted(_)) {
            return Some(vec![self.clone()]);
        }
        let items = self.items(most, what)?;
        if items.is_empty() {
            let advice = format!("add to the list, 1 to {most}");
            self.diagnostics.report(
                &self.location,
                "an empty list",
                format!("a list of {what}"),
                advice,
            );
            return None;
        }
        Some(items)
    }

    /// Returns the only item of a list, or the node itself if it is no list.
    pub(crate) fn sole_item(&self) -> Option<Self> {
        match &self.node.value {
            Value::List(nodes) => {
                let [node] = nodes.as_slice() else { return None };
                Some(self.item(0, node))
            }
            Value::Null | Value::Plain(_) | Value::Quoted(_) | Value::Mapping(_) => {
                Some(self.clone())
            }
        }
    }

    /// Reads a value from the text of a scalar, quoted or not.
    pub(crate) fn value<T>(&self, read: impl FnOnce(&str) -> Result<T, ValueError>) -> Option<T> {
        match &self.node.value {
            Value::Plain(text) | Value::Quoted(text) => match read(text) {
                Ok(value) => Some(value),
                Err(ValueError { wanted, advice }) => {
                    let advice = renamed::value(&self.location.key, text)
                        .map_or(advice, |now| format!("did you mean `{now}`?"));
                    self.diagnostics.report(&self.location, quoted(text), wanted, advice);
                    None
                }
            },
            Value::Null | Value::List(_) | Value::Mapping(_) => {
                // Only the reader of the text knows the values that the key takes.
                let wanted =
                    read("").err().map_or_else(|| "a single value".into(), |error| error.wanted);
                let advice = match &self.node.value {
                    Value::Null => "write a value, or remove the key",
                    Value::List(_) | Value::Mapping(_) | Value::Plain(_) | Value::Quoted(_) => {
                        "write a single value"
                    }
                };
                self.reject(&wanted, advice);
                None
            }
        }
    }

    /// Reads a value like [`Self::value`] from free text. Numbers and truth values of YAML must be
    /// in quotes.
    pub(crate) fn text<T>(&self, read: impl FnOnce(&str) -> Result<T, ValueError>) -> Option<T> {
        match &self.node.value {
            Value::Plain(text) if is_typed_scalar(text) => {
                self.reject("text", &format!("write it in quotes: \"{text}\""));
                None
            }
            Value::Plain(_)
            | Value::Quoted(_)
            | Value::Null
            | Value::List(_)
            | Value::Mapping(_) => self.value(read),
        }
    }

    /// Returns the text of a scalar, quoted or not.
    pub(crate) fn scalar(&self) -> Option<&'t str> {
        match &self.node.value {
            Value::Plain(text) | Value::Quoted(text) => Some(text),
            Value::Null | Value::List(_) | Value::Mapping(_) => None,
        }
    }

    /// Reads `true` or `false`, quoted or not.
    pub(crate) fn bool(&self) -> Option<bool> {
        let truth = self.scalar().and_then(truth);
        if truth.is_none() {
            self.reject("true or false", "write `true` or `false`");
        }
        truth
    }

    /// Returns the value with the location of the node.
    pub(crate) fn locate<T>(&self, value: T) -> Located<T> {
        Located { value, location: self.location.clone() }
    }
}

/// Reads a truth value of YAML.
pub(in crate::config) fn truth(text: &str) -> Option<bool> {
    let [truths, falsities] = TRUTH_VALUES;
    match (truths.contains(&text), falsities.contains(&text)) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// The texts of `true` and of `false` (YAML 1.2.2 section 10.3.2).
pub(in crate::config) const TRUTH_VALUES: [[&str; 3]; 2] =
    [["true", "True", "TRUE"], ["false", "False", "FALSE"]];

/// The known fields of a mapping.
#[derive(Debug)]
pub(in crate::config) struct Fields<'t> {
    location: Location,
    diagnostics: &'t Diagnostics,
    schema: &'t [SectionKeys],
    known: Vec<(&'static str, &'t MappingEntry)>,
}

impl<'t> Fields<'t> {
    /// Returns the fields of a mapping that is not there.
    pub(crate) fn absent(location: Location, diagnostics: &'t Diagnostics) -> Self {
        Self { location, diagnostics, schema: &[], known: Vec::new() }
    }

    /// Returns a field, if present.
    pub(crate) fn get(&self, key: &str) -> Option<Cursor<'t>> {
        let (_, entry) = self.known.iter().find(|(known, _)| *known == key)?;
        let location = value_location(&self.location, entry);
        Some(Cursor {
            node: &entry.value,
            location,
            diagnostics: self.diagnostics,
            schema: self.schema,
        })
    }

    /// Returns a field that must be present. Reports its absence.
    pub(crate) fn required(&self, key: &str, wanted: &str, advice: &str) -> Option<Cursor<'t>> {
        let field = self.get(key);
        if field.is_none() {
            self.diagnostics.report(&self.location.field(key), "no such key", wanted, advice);
        }
        field
    }
}

fn entry_location(parent: &Location, entry: &MappingEntry) -> Location {
    let key: String = entry.key.chars().take(KEY_CHARACTERS).flat_map(char::escape_debug).collect();
    Location { position: Some(entry.position), ..parent.field(&key) }
}

/// Returns the location of an entry's value. An empty value has no character of its own, so its
/// location is that of the key.
fn value_location(parent: &Location, entry: &MappingEntry) -> Location {
    let location = entry_location(parent, entry);
    match entry.value.value {
        Value::Null => location,
        Value::Plain(_) | Value::Quoted(_) | Value::List(_) | Value::Mapping(_) => {
            Location { position: Some(entry.value.position), ..location }
        }
    }
}

/// Finds the location of the value at a key path such as `uplinks[2].health.quorum`. If the file
/// has no such key, the position is that of the mapping around it, or of the closest mapping above.
pub(in crate::config) fn location_of(root: &Node, path: &str) -> Location {
    let mut node = root;
    let mut location = Location { position: Some(root.position), key: String::new() };
    for step in path.split('.') {
        let (key, index) = match step.split_once('[') {
            Some((key, index)) => (key, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (step, None),
        };
        let found = match &node.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == key),
            Value::Null | Value::Plain(_) | Value::Quoted(_) | Value::List(_) => None,
        };
        let Some(entry) = found else { break };
        location = value_location(&location, entry);
        node = &entry.value;
        if let (Some(index), Value::List(items)) = (index, &node.value)
            && let Some(item) = items.get(index)
        {
            node = item;
            location.position = Some(item.position);
        }
    }
    Location { key: path.to_owned(), ..location }
}

/// Returns whether YAML 1.2 takes the text for a truth value or a number. `--5` is text, and so is
/// `1e999`, which no number of 64 bits holds: the printer writes both without quotes.
fn is_typed_scalar(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    matches!(
        text,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" | ".nan" | ".NaN" | ".NAN"
    ) || matches!(digits, ".inf" | ".Inf" | ".INF")
        || digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
            && digits.parse().is_ok_and(f64::is_finite)
        || digits.strip_prefix("0x").is_some_and(|hex| u64::from_str_radix(hex, 16).is_ok())
        || digits.strip_prefix("0o").is_some_and(|octal| u64::from_str_radix(octal, 8).is_ok())
}

/// Most characters of a key that the key path shows.
const KEY_CHARACTERS: usize = 40;
