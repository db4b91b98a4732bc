//! Every key of the configuration that a message, a comment or a page names exists in the
//! schema.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::source::{is_test, literals, prose, without_tests};
use super::{documents, fail_with, files_below, relative, root};

/// Files that name old keys.
const OLD_KEYS: [&str; 2] = ["CHANGELOG.md", "src/config/reader/renamed.rs"];

/// What looks like a key and is none, with the page that names it.
const OTHER_PATHS: [(&str, &str); 1] = [("docs/guide/dns.md", "dns.counters")];

/// Endings of file names.
const FILES: [&str; 5] = ["md", "rs", "pcap", "yaml", "sock"];

fn schema() -> Value {
    let mut natbox = Command::new(env!("CARGO_BIN_EXE_natbox"));
    let output = natbox.args(["config", "--schema"]).output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns whether a value of this schema can have the key.
fn has(schema: &Value, key: &[&str]) -> bool {
    let Some((first, rest)) = key.split_first() else { return true };
    let choices =
        ["anyOf", "oneOf", "allOf"].into_iter().filter_map(|word| schema[word].as_array());
    schema["properties"].get(first).is_some_and(|inner| has(inner, rest))
        || schema.get("items").is_some_and(|items| has(items, key))
        || choices.flatten().any(|choice| has(choice, key))
}

/// Returns the dotted keys of a text whose first part is a key of the file.
fn keys<'t>(text: &'t str, schema: &Value) -> Vec<&'t str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "_.[]/-:".contains(letter);
    let words = text.split(|letter| !is_part(letter));
    let words = words.map(|word| word.trim_end_matches(['.', ':']));
    words
        .filter(|word| {
            let mut parts = word.split('.').map(|part| part.trim_end_matches("[]"));
            let is_key = |part: &str| {
                !part.is_empty()
                    && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            };
            let is_file = word.rsplit('.').next().is_some_and(|end| FILES.contains(&end));
            let begins = word.contains('.')
                && parts.next().is_some_and(|first| schema["properties"].get(first).is_some());
            begins && !is_file && parts.all(is_key)
        })
        .collect()
}

/// Returns the texts that users and developers read, with their places.
fn texts() -> Vec<(String, String)> {
    let pages = documents().into_iter().map(|document| (document.path, document.text));
    let sources = files_below(&root().join("src"), "rs").into_iter().flat_map(|file| {
        let path = relative(&file);
        let source = fs::read_to_string(&file).unwrap();
        let source = if is_test(&path) { "" } else { without_tests(&source) };
        let texts = prose(source).into_iter().chain(literals(source));
        texts.map(|(line, text)| (format!("{path}:{line}"), text)).collect::<Vec<_>>()
    });
    let is_new = |place: &str| !OLD_KEYS.iter().any(|old| place.starts_with(old));
    pages.chain(sources).filter(|(place, _)| is_new(place)).collect()
}

#[test]
fn every_key_that_a_message_or_a_page_names_exists() {
    let schema = schema();
    let mut complaints = Vec::new();
    let mut checked = 0;
    for (place, text) in texts() {
        for key in keys(&text, &schema) {
            checked += 1;
            let parts: Vec<&str> = key.split('.').map(|part| part.trim_end_matches("[]")).collect();
            if !has(&schema, &parts) && !OTHER_PATHS.contains(&(&place, key)) {
                complaints.push(format!("{place}: no such key: {key}"));
            }
        }
    }
    fail_with(&complaints);
    assert!(checked > 150, "only {checked} keys found");
}

#[test]
fn a_key_that_does_not_exist_is_found() {
    let schema = schema();
    let text = "If `limits.nothing` is set, uplinks[].health.fall (nat.rs, x.nat.mapping) and \
                dns.hook: docs/dns.md, state.keep.";
    let found = keys(text, &schema);
    assert_eq!(found, ["limits.nothing", "uplinks[].health.fall", "dns.hook", "state.keep"]);
    let exists = |key: &str| has(&schema, &key.split('.').collect::<Vec<_>>());
    assert!(exists("uplinks.health.fall") && exists("inside.prefixes") && exists("dns.names.name"));
    assert!(!exists("limits.nothing") && !exists("nat.mapping.mode"));
}
