//! A cursor on a node: knows its key path and where to report, and decodes what stands there.
//!
//! Every method that returns an `Option` has reported the reason of a `None`, except [`Fields::get`] and
//! [`Fields::value`], where the key may also be absent.

use std::ops::Deref;

use super::nearest;
use super::renamed;
use super::tree::{Entry, Node, Value};
use crate::config::problem::{Diagnostics, Location, quoted};
use crate::config::types::values::ValueError;

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
pub(in crate::config) struct Section {
    /// Key path without indices; empty for the root.
    pub path: &'static str,
    /// Every key it may hold.
    pub keys: &'static [&'static str],
}

/// A node on the way of decoding.
#[derive(Clone, Debug)]
pub(in crate::config) struct Cursor<'t> {
    node: &'t Node,
    place: Location,
    diagnostics: &'t Diagnostics,
}

impl<'t> Cursor<'t> {
    /// The whole file.
    pub fn root(node: &'t Node, diagnostics: &'t Diagnostics) -> Self {
        Self {
            node,
            place: Location { position: Some(node.position), key: String::new() },
            diagnostics,
        }
    }

    /// Where this node stands.
    pub fn place(&self) -> &Location {
        &self.place
    }

    /// Reports that something else was wanted here.
    pub fn reject(&self, wanted: &str, advice: &str) {
        self.diagnostics.report(&self.place, self.node.describe(), wanted, advice);
    }

    /// The fields of a mapping. Reports keys that are unknown or repeated; `schema` lists the sections where a
    /// misplaced key may belong.
    pub fn fields(
        &self,
        section: &'static Section,
        schema: &[&'static Section],
    ) -> Option<Fields<'t>> {
        let Value::Mapping(entries) = &self.node.value else {
            let advice = format!("its keys are {}", nearest::list(section.keys.iter().copied()));
            self.reject("a mapping", &advice);
            return None;
        };
        let mut fields =
            Fields { place: self.place.clone(), diagnostics: self.diagnostics, known: Vec::new() };
        // Once nothing more is recorded, an endless list of strange keys need not be looked at.
        for entry in entries.iter().take_while(|_| !self.diagnostics.is_full()) {
            let place = entry_place(&self.place, entry);
            let Some(key) = section.keys.iter().copied().find(|key| *key == entry.key) else {
                let advice = unknown_key_advice(&entry.key, section, schema);
                self.diagnostics.report(&place, "an unknown key", "one that natbox knows", advice);
                continue;
            };
            match fields.known.iter().find(|(known, _)| *known == key) {
                Some((_, first)) => {
                    let found = format!("this key again (first in line {})", first.position.line);
                    self.diagnostics.report(
                        &place,
                        found,
                        "it once",
                        "join the two or take one out",
                    );
                }
                None => fields.known.push((key, entry)),
            }
        }
        Some(fields)
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
        let item = |(index, node): (usize, &'t Node)| Self {
            node,
            place: Location {
                position: Some(node.position),
                key: format!("{}[{index}]", self.place.key),
            },
            diagnostics: self.diagnostics,
        };
        Some(nodes.iter().enumerate().map(item).collect())
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
    known: Vec<(&'static str, &'t Entry)>,
}

impl<'t> Fields<'t> {
    /// The fields of a mapping that is not there.
    pub fn absent(place: Location, diagnostics: &'t Diagnostics) -> Self {
        Self { place, diagnostics, known: Vec::new() }
    }

    /// Where the mapping stands.
    pub fn place(&self) -> &Location {
        &self.place
    }

    /// A field, if present.
    pub fn get(&self, key: &str) -> Option<Cursor<'t>> {
        let (_, entry) = self.known.iter().find(|(known, _)| *known == key)?;
        let mut place = entry_place(&self.place, entry);
        // An empty value has no character of its own; its key is the place to look at.
        if !matches!(entry.value.value, Value::Null) {
            place.position = Some(entry.value.position);
        }
        Some(Cursor { node: &entry.value, place, diagnostics: self.diagnostics })
    }

    /// A field that must be present.
    pub fn required(&self, key: &str, wanted: &str, advice: &str) -> Option<Cursor<'t>> {
        let field = self.get(key);
        if field.is_none() {
            self.diagnostics.report(&self.place.field(key), "no such key", wanted, advice);
        }
        field
    }

    /// The value of a field read from its text, if present.
    pub fn value<T>(
        &self,
        key: &str,
        read: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        self.get(key)?.value(read)
    }

    /// The truth value of a field, if present.
    pub fn bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.bool()
    }

    /// The mapping in a field; one without fields when the key is absent or its value is not a mapping.
    pub fn section(
        &self,
        key: &str,
        section: &'static Section,
        schema: &[&'static Section],
    ) -> Self {
        self.get(key)
            .and_then(|field| field.fields(section, schema))
            .unwrap_or_else(|| Self::absent(self.place.field(key), self.diagnostics))
    }
}

fn entry_place(parent: &Location, entry: &Entry) -> Location {
    let key: String = entry.key.chars().take(KEY_CHARACTERS).flat_map(char::escape_debug).collect();
    Location { position: Some(entry.position), ..parent.field(&key) }
}

fn unknown_key_advice(key: &str, section: &Section, schema: &[&Section]) -> String {
    let nearest = || nearest::nearest(key, section.keys.iter().copied());
    if let Some(candidate) = renamed::key(section.path, key).or_else(nearest) {
        return format!("did you mean `{candidate}`?");
    }
    match schema.iter().find(|other| other.keys.contains(&key)) {
        Some(Section { path: "", .. }) => format!("`{key}` belongs at the top level of the file"),
        Some(other) => format!("`{key}` belongs under `{}`", other.path),
        None => format!("the keys here are {}", nearest::list(section.keys.iter().copied())),
    }
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
