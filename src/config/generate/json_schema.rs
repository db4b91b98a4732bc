//! The JSON Schema of the file (draft 2020-12), for editors and other tools.

use crate::config::document::Document;
use crate::config::file::File;
use crate::config::schema::{Absence, KeyInfo, Section as _, SectionInfo, TypeInfo, TypeShape};

use super::text::{capitalised, value_type};

/// Returns the JSON Schema of the configuration file.
///
/// A file that meets the schema may still be refused: the schema does not express the range of
/// durations, nor keys that depend on one another.
pub(crate) fn json_schema() -> String {
    let mut root = vec![
        ("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into()),
        ("title".to_owned(), "natbox configuration".into()),
    ];
    let file = File::describe();
    root.push(("description".to_owned(), Document::text(&file.doc)));
    root.extend(mapping(&file));
    Document::Mapping(root).to_json()
}

/// Returns the keywords of a mapping.
fn mapping(section: &SectionInfo) -> Vec<(String, Document)> {
    let properties = section.keys.iter().map(|key| (key.name, property(key)));
    let required = section.keys.iter().filter(|key| key.absence == Absence::Refused);
    let mut keywords = vec![
        ("type".to_owned(), "object".into()),
        ("additionalProperties".to_owned(), false.into()),
        ("properties".to_owned(), Document::mapping(properties)),
    ];
    let required: Vec<&str> = required.map(|key| key.name).collect();
    if !required.is_empty() {
        keywords.push(("required".to_owned(), Document::texts(required)));
    }
    keywords
}

fn property(key: &KeyInfo) -> Document {
    let mut description = key.doc.clone();
    if let Some(value) = value_type(key).filter(|_| key.value.words.is_empty()) {
        description.push_str(&format!(" {}.", capitalised(value)));
    }
    for word in &key.value.words {
        description.push_str(&format!(" {}: {}", word.word, word.meaning));
    }
    if let Absence::Described(absence) = key.absence {
        description.push_str(&format!(" Default: {absence}."));
    }
    let mut keywords = vec![("description".to_owned(), Document::Text(description))];
    match &key.absence {
        Absence::Default(value) if key.value.section().is_none() => {
            keywords.push(("default".to_owned(), value.clone()));
        }
        Absence::Default(_) | Absence::Described(_) | Absence::Refused => {}
    }
    keywords.extend(value(&key.value));
    Document::Mapping(keywords)
}

/// Returns the keywords that bound a value.
fn value(value: &TypeInfo) -> Vec<(String, Document)> {
    match &value.shape {
        TypeShape::Scalar(Document::Mapping(keywords)) => keywords.clone(),
        TypeShape::Scalar(_) => Vec::new(),
        TypeShape::Mapping(section) => mapping(section),
        TypeShape::OneOrMore { item, most } => {
            let either = [self::value(item), list(item, 1, *most)].map(Document::Mapping);
            vec![("anyOf".to_owned(), Document::List(either.into()))]
        }
        TypeShape::List { item, least, most, instead } => {
            let list = list(item, *least, *most);
            // A single value stands for a list of itself, where the list may not be empty.
            match (&item.shape, least) {
                (TypeShape::Scalar(single), 1..) => {
                    let mut either = vec![Document::Mapping(list), single.clone()];
                    either.extend(words(instead));
                    vec![("anyOf".to_owned(), Document::List(either))]
                }
                _ => list,
            }
        }
    }
}

/// Returns the constraints of a word that stands for a whole list: alone, or as its only item.
fn words(words: &[&'static str]) -> Vec<Document> {
    if words.is_empty() {
        return Vec::new();
    }
    let word = Document::mapping([("enum", Document::texts(words.iter().copied()))]);
    let sole = Document::mapping([
        ("type", "array".into()),
        ("items", word.clone()),
        ("minItems", Document::Number(1)),
        ("maxItems", Document::Number(1)),
    ]);
    vec![word, sole]
}

fn list(item: &TypeInfo, least: usize, most: usize) -> Vec<(String, Document)> {
    let bound = |number: usize| Document::Number(number as u64);
    vec![
        ("type".to_owned(), "array".into()),
        ("items".to_owned(), Document::Mapping(self::value(item))),
        ("minItems".to_owned(), bound(least)),
        ("maxItems".to_owned(), bound(most)),
    ]
}
