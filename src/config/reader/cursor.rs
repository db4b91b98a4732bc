//! A cursor on a node: knows its key path and where to report, and decodes what stands there.
//!
//! Every method that returns an `Option` has reported the reason of a `None`, except [`Fields::get`].

use std::ops::Deref;

use super::nearest;
use super::renamed;
use super::tree::{Entry, Node, Value};
use crate::config::problem::{Diagnostics, Location, ValueError, quoted};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(in crate::config) struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Location,
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
    pub fn unplaced(value: T) -> Self {
        Self { value, place: Location::file() }
    }
}

/// A node on the way of decoding.
#[derive(Clone, Debug)]
pub(in crate::config) struct Cursor<'t> {
    node: &'t Node,
    place: Location,
    diagnostics: &'t Diagnostics,
    schema: &'t [SectionKeys],
}

impl<'t> Cursor<'t> {
    /// Makes the cursor of the whole file. `schema` lists every mapping that a file may hold: advice on a misplaced
    /// key names the mapping where the key belongs.
    pub fn root(node: &'t Node, diagnostics: &'t Diagnostics, schema: &'t [SectionKeys]) -> Self {
        let place = Location { position: Some(node.position), key: String::new() };
        Self { node, place, diagnostics, schema }
    }

    /// Where this node stands.
    pub fn place(&self) -> &Location {
        &self.place
    }

    /// Reports that something else was wanted here.
    pub fn reject(&self, wanted: &str, advice: &str) {
        self.diagnostics.report(&self.place, self.node.describe(), wanted, advice);
    }

    /// Returns the fields of a mapping. Reports keys that are unknown or repeated.
    pub fn fields(&self, keys: &'static [&'static str]) -> Option<Fields<'t>> {
        let Value::Mapping(entries) = &self.node.value else {
            let advice = format!("its keys are {}", nearest::list(keys.iter().copied()));
            self.reject("a mapping", &advice);
            return None;
        };
        let mut fields = Fields {
            place: self.place.clone(),
            diagnostics: self.diagnostics,
            schema: self.schema,
            known: Vec::new(),
        };
        // Once nothing more is recorded, an endless list of strange keys need not be looked at.
        for entry in entries.iter().take_while(|_| !self.diagnostics.is_full()) {
            let place = entry_place(&self.place, entry);
            let Some(key) = keys.iter().copied().find(|key| *key == entry.key) else {
                let advice = self.unknown_key_advice(&entry.key, keys);
                self.diagnostics.report(&place, "an unknown key", "one that natbox knows", advice);
                continue;
            };
            match fields.known.iter().find(|(known, _)| *known == key) {
                Some((_, first)) => {
                    let found = format!("this key again (first in line {})", first.position.line);
                    let advice = "join the two or take one out";
                    self.diagnostics.report(&place, found, "it once", advice);
                }
                None => fields.known.push((key, entry)),
            }
        }
        Some(fields)
    }

    fn unknown_key_advice(&self, key: &str, keys: &[&'static str]) -> String {
        let nearest = || nearest::nearest(key, keys.iter().copied());
        if let Some(candidate) = renamed::key(&self.place.key, key).or_else(nearest) {
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

    /// The items of a list of at most `most`.
    pub fn items(&self, most: usize, what: &str) -> Option<Vec<Self>> {
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
                &self.place,
                format!("{} items", nodes.len()),
                wanted,
                "leave some out",
            );
            return None;
        }
        Some(nodes.iter().enumerate().map(|(index, node)| self.item(index, node)).collect())
    }

    fn item(&self, index: usize, node: &'t Node) -> Self {
        let key = format!("{}[{index}]", self.place.key);
        Self { node, place: Location { position: Some(node.position), key }, ..self.clone() }
    }

    /// The items of a list of 1 to `most`; a single scalar counts as a list of itself.
    pub fn some_items(&self, most: usize, what: &str) -> Option<Vec<Self>> {
        if matches!(self.node.value, Value::Plain(_) | Value::Quoted(_)) {
            return Some(vec![self.clone()]);
        }
        let items = self.items(most, what)?;
        if items.is_empty() {
            let advice = format!("add to the list, 1 to {most}");
            self.diagnostics.report(
                &self.place,
                "an empty list",
                format!("a list of {what}"),
                advice,
            );
            return None;
        }
        Some(items)
    }

    /// Returns the only item of a list, or the node itself if it is no list.
    pub fn sole_item(&self) -> Option<Self> {
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

    /// A value read from a scalar's text, quoted or not.
    pub fn value<T>(&self, read: impl FnOnce(&str) -> Result<T, ValueError>) -> Option<T> {
        match &self.node.value {
            Value::Plain(text) | Value::Quoted(text) => match read(text) {
                Ok(value) => Some(value),
                Err(ValueError { wanted, advice }) => {
                    let advice = renamed::value(&self.place.key, text)
                        .map_or(advice, |now| format!("did you mean `{now}`?"));
                    self.diagnostics.report(&self.place, quoted(text), wanted, advice);
                    None
                }
            },
            Value::Null | Value::List(_) | Value::Mapping(_) => {
                // What would have been wanted is known only to the reader of the text.
                let wanted =
                    read("").err().map_or_else(|| "a single value".into(), |error| error.wanted);
                let advice = match &self.node.value {
                    Value::Null => "write a value, or take the key out",
                    Value::List(_) | Value::Mapping(_) | Value::Plain(_) | Value::Quoted(_) => {
                        "write a single value"
                    }
                };
                self.reject(&wanted, advice);
                None
            }
        }
    }

    /// Like [`Self::value`] for free text: what YAML takes for a number or a truth value must be in quotes.
    pub fn text<T>(&self, read: impl FnOnce(&str) -> Result<T, ValueError>) -> Option<T> {
        match &self.node.value {
            Value::Plain(text) if is_typed_scalar(text) => {
                self.reject("text", &format!("put it in quotes if it is meant: \"{text}\""));
                None
            }
            Value::Plain(_)
            | Value::Quoted(_)
            | Value::Null
            | Value::List(_)
            | Value::Mapping(_) => self.value(read),
        }
    }

    /// The text of a plain scalar, if it is one.
    pub fn word(&self) -> Option<&'t str> {
        match &self.node.value {
            Value::Plain(text) => Some(text),
            Value::Quoted(_) | Value::Null | Value::List(_) | Value::Mapping(_) => None,
        }
    }

    /// `true` or `false`.
    pub fn bool(&self) -> Option<bool> {
        match &self.node.value {
            Value::Plain(text) if matches!(text.as_str(), "true" | "True" | "TRUE") => Some(true),
            Value::Plain(text) if matches!(text.as_str(), "false" | "False" | "FALSE") => {
                Some(false)
            }
            Value::Plain(_)
            | Value::Quoted(_)
            | Value::Null
            | Value::List(_)
            | Value::Mapping(_) => {
                self.reject("true or false", "write `true` or `false`, without quotes");
                None
            }
        }
    }

    /// The value together with its place.
    pub fn locate<T>(&self, value: T) -> Located<T> {
        Located { value, place: self.place.clone() }
    }
}

/// The known fields of a mapping.
#[derive(Debug)]
pub(in crate::config) struct Fields<'t> {
    place: Location,
    diagnostics: &'t Diagnostics,
    schema: &'t [SectionKeys],
    known: Vec<(&'static str, &'t Entry)>,
}

impl<'t> Fields<'t> {
    /// Returns the fields of a mapping that is not there.
    pub fn absent(place: Location, diagnostics: &'t Diagnostics) -> Self {
        Self { place, diagnostics, schema: &[], known: Vec::new() }
    }

    /// Returns a field, if present.
    pub fn get(&self, key: &str) -> Option<Cursor<'t>> {
        let (_, entry) = self.known.iter().find(|(known, _)| *known == key)?;
        let place = value_place(&self.place, entry);
        Some(Cursor {
            node: &entry.value,
            place,
            diagnostics: self.diagnostics,
            schema: self.schema,
        })
    }

    /// A field that must be present.
    pub fn required(&self, key: &str, wanted: &str, advice: &str) -> Option<Cursor<'t>> {
        let field = self.get(key);
        if field.is_none() {
            self.diagnostics.report(&self.place.field(key), "no such key", wanted, advice);
        }
        field
    }
}

fn entry_place(parent: &Location, entry: &Entry) -> Location {
    let key: String = entry.key.chars().take(KEY_CHARACTERS).flat_map(char::escape_debug).collect();
    Location { position: Some(entry.position), ..parent.field(&key) }
}

/// The place of an entry's value. An empty value has no character of its own: its key is the place to look at.
fn value_place(parent: &Location, entry: &Entry) -> Location {
    let place = entry_place(parent, entry);
    match entry.value.value {
        Value::Null => place,
        Value::Plain(_) | Value::Quoted(_) | Value::List(_) | Value::Mapping(_) => {
            Location { position: Some(entry.value.position), ..place }
        }
    }
}

/// Finds the place of the value at a key path such as `uplinks[2].health.quorum`. If the file has no such key, the
/// place is that of the mapping around it, or of the closest mapping above.
pub(in crate::config) fn place_of(root: &Node, path: &str) -> Location {
    let mut node = root;
    let mut place = Location { position: Some(root.position), key: String::new() };
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
        place = value_place(&place, entry);
        node = &entry.value;
        if let (Some(index), Value::List(items)) = (index, &node.value)
            && let Some(item) = items.get(index)
        {
            node = item;
            place.position = Some(item.position);
        }
    }
    Location { key: path.to_owned(), ..place }
}

/// Whether YAML 1.2 takes the text for a truth value or a number. What only looks like one, such as `1e999`, which no
/// number of 64 bits holds, or `--5`, is text: the printer writes it without quotes.
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

/// How much of a key the key path shows.
const KEY_CHARACTERS: usize = 40;
