//! The manual of the configuration file, in Markdown.

use crate::config::document::Document;
use crate::config::file::File;
use crate::config::schema::{Absence, KeyInfo, Section as _, SectionInfo};

use super::text::{value_type, wrap, yaml};

/// Returns the manual.
pub(super) fn manual() -> String {
    let mut text = HEAD.to_owned();
    write_section("", &File::describe(), &mut text);
    text
}

const HEAD: &str = "\
# Configuration file

This page is made from the source code. [`configs/reference.yaml`](../../configs/reference.yaml)
shows the same keys in one file. `natbox check --config FILE` checks a file, `natbox config --config
FILE` prints it with all defaults, and `natbox config --schema` prints the JSON Schema.

* The file is YAML without anchors, aliases and tags. Unknown and repeated keys are errors.
* A duration is made of whole numbers with the units `d`, `h`, `m`, `s`, `ms`, `us`, the longest
  first: `2h4m`, `100ms`. Zero needs no unit.
* A count may end in `k` (1000) or `M` (1,000,000): `4096`, `64k`, `4M`.
* A list that must not be empty may be written as its only item: `addresses: 203.0.113.10`.
* `natbox reload` applies a change of every key, except those marked *restart* and the keys below
  them. A change of such a key needs a restart. Until then the box keeps its old configuration.
";

/// Writes a mapping, then the mappings below it.
fn write_section(path: &str, section: &SectionInfo, text: &mut String) {
    let heading = if path.is_empty() { "Top level".to_owned() } else { format!("`{path}`") };
    text.push_str(&format!("\n## {heading}\n\n"));
    push_wrapped("", &section.doc, text);
    text.push('\n');
    for key in &section.keys {
        write_key(path, key, text);
    }
    for key in &section.keys {
        if let Some(below) = key.value.section() {
            write_section(&path_of(path, key), below, text);
        }
    }
}

fn write_key(path: &str, key: &KeyInfo, text: &mut String) {
    let mut facts: Vec<String> = Vec::new();
    let value = value_type(key).filter(|_| key.value.words.is_empty());
    facts.extend(value.map(str::to_owned));
    if key.absence == Absence::Refused {
        facts.push("required".to_owned());
    }
    facts.extend(default(key).map(|default| format!("default: {default}")));
    if !key.reloadable {
        facts.push("*restart*".to_owned());
    }
    let facts = match facts.is_empty() {
        true => String::new(),
        false => format!(" ({})", facts.join("; ")),
    };
    let more = match key.value.section() {
        Some(_) => {
            let path = path_of(path, key);
            format!(" See [`{path}`](#{}).", anchor(&path))
        }
        None => String::new(),
    };
    push_wrapped("* ", &format!("`{}`{facts}. {}{more}", key.name, key.doc), text);
    for word in &key.value.words {
        push_wrapped("  * ", &format!("`{}`: {}", word.word, word.meaning), text);
    }
}

/// Returns the default of a key in words; None if the keys below have defaults of their own.
fn default(key: &KeyInfo) -> Option<String> {
    match &key.absence {
        Absence::Refused => None,
        Absence::Described(words) => Some((*words).to_owned()),
        Absence::Default(Document::Mapping(_)) => None,
        Absence::Default(value) => Some(format!("`{}`", yaml(value))),
    }
}

fn path_of(path: &str, key: &KeyInfo) -> String {
    let separator = if path.is_empty() { "" } else { "." };
    let items = if key.value.is_list() { "[]" } else { "" };
    format!("{path}{separator}{}{items}", key.name)
}

/// Returns the anchor of a heading: its letters, digits, `_` and `-`.
fn anchor(path: &str) -> String {
    path.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-')).collect()
}

/// Writes a text behind a mark. Further lines have the same indentation.
fn push_wrapped(mark: &str, words: &str, text: &mut String) {
    for (index, line) in wrap(words, WIDTH - mark.len()).iter().enumerate() {
        let blank = " ".repeat(mark.len());
        text.push_str(&format!("{}{line}\n", if index == 0 { mark } else { &blank }));
    }
}

/// Most columns of a line.
const WIDTH: usize = 100;
