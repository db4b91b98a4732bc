//! The reference file: every key, with its meaning, and with its default where it has one.

use crate::config::file::File;
use crate::config::schema::{Absence, KeyInfo, Section as _, SectionInfo, TypeInfo};

use super::text::{capitalised, value_type, wrap, yaml};

/// Returns the reference file.
pub(crate) fn reference() -> String {
    let mut text = HEAD.to_owned();
    for key in &File::describe().keys {
        text.push('\n');
        write_key(key, 0, &mut text);
    }
    text
}

const HEAD: &str = "\
# Every key of natbox's configuration, with its default. A key without a default shows an example.
# A file needs only `inside` and `uplinks`. `natbox config --schema` prints the JSON Schema.
#
# * A duration is made of whole numbers with the units d, h, m, s, ms, us, the longest first: 2h4m,
#   100ms. Zero needs no unit.
# * A count may end in k (1000) or M (1,000,000): 4096, 64k, 4M.
# * Unknown and repeated keys are errors. So are YAML anchors, aliases and tags.
# * `natbox reload` applies a change of every key, except those marked \"Restart\" and the keys
#   below them.
";

fn write_key(key: &KeyInfo, depth: usize, text: &mut String) {
    let indentation = "  ".repeat(depth);
    let width = WIDTH - indentation.len() - 2;
    for line in wrap(&key.doc, width).into_iter().chain(wrap(&facts(key), width)) {
        text.push_str(&format!("{indentation}# {line}\n"));
    }
    for word in &key.value.words {
        let lines = wrap(&format!("{}: {}", word.word, word.meaning), width - 2);
        for (index, line) in lines.iter().enumerate() {
            let mark = if index == 0 { "*" } else { " " };
            text.push_str(&format!("{indentation}# {mark} {line}\n"));
        }
    }
    match key.value.section() {
        None => text.push_str(&format!("{indentation}{}: {}\n", key.name, shown(key))),
        Some(section) => {
            text.push_str(&format!("{indentation}{}:\n", key.name));
            write_section(section, &key.value, depth + 1, text);
        }
    }
}

/// Returns the type of a key's value, and the effect of leaving the key out.
fn facts(key: &KeyInfo) -> String {
    let mut facts = Vec::new();
    if let Some(value) = value_type(key).filter(|_| key.value.words.is_empty()) {
        facts.push(format!("{}.", capitalised(value)));
    }
    match key.absence {
        Absence::Refused => facts.push("Required.".to_owned()),
        Absence::Described(words) => facts.push(format!("Default: {words}.")),
        Absence::Default(_) => {}
    }
    if !key.reloadable {
        facts.push("Restart.".to_owned());
    }
    facts.join(" ")
}

fn write_section(section: &SectionInfo, value: &TypeInfo, depth: usize, text: &mut String) {
    if !value.is_list() {
        return section.keys.iter().for_each(|key| write_key(key, depth, text));
    }
    // One item: its first key bears the dash, and the comment of that key stands above the dash.
    let mut item = String::new();
    section.keys.iter().for_each(|key| write_key(key, depth + 1, &mut item));
    let mut lines = item.lines();
    for line in lines.by_ref() {
        let (_, line) = line.split_at(2);
        if line.trim_start().starts_with('#') {
            text.push_str(&format!("{line}\n"));
        } else {
            text.push_str(&format!("{}- {}\n", "  ".repeat(depth), line.trim_start()));
            break;
        }
    }
    lines.for_each(|line| text.push_str(&format!("{line}\n")));
}

/// Returns the default as YAML, or else the example.
fn shown(key: &KeyInfo) -> String {
    match (&key.absence, key.example) {
        (_, Some(example)) => example.to_owned(),
        (Absence::Default(value), None) => yaml(value),
        (Absence::Refused | Absence::Described(_), None) => {
            unreachable!("`{}` has neither a default nor an example", key.name)
        }
    }
}

/// Most columns of a line.
const WIDTH: usize = 100;
