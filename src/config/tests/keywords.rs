//! Keywords are the same with and without quotes: JSON and many programs write every text in
//! quotes.

use serde_json::{Map, Value};

use super::*;

/// Text that stands for the keyword under test.
const MARK: &str = "@@";

/// Collects the keywords of a schema, each with the JSON pointer of its key.
fn collect(schema: &Value, pointer: &str, found: &mut Vec<(String, String)>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (key, schema) in properties {
            collect(schema, &format!("{pointer}/{key}"), found);
        }
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{pointer}/0"), found);
    }
    for schema in schema["anyOf"].as_array().into_iter().flatten() {
        collect(schema, pointer, found);
    }
    let words = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
    found.extend(words.map(|word| (pointer.to_owned(), word.to_owned())));
}

/// Returns the reference file with a mark in the place of one value.
fn with_mark(pointer: &str) -> String {
    let mut file: Value = serde_yaml_ng::from_str(REFERENCE).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = file.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} has no parent"));
    match parent {
        Value::Array(items) if items.is_empty() => items.push(MARK.into()),
        Value::Array(items) => items[0] = MARK.into(),
        Value::Object(keys) => {
            keys.insert(key.to_owned(), MARK.into());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *parent = match key {
                "0" => Value::Array(vec![MARK.into()]),
                _ => Value::Object(Map::from_iter([(key.to_owned(), MARK.into())])),
            };
        }
    }
    file.to_string()
}

/// Returns the configuration, or the keys of all problems.
fn outcome(text: &str) -> Result<Config, Vec<String>> {
    let keys = |problems: Problems| problems.iter().map(|problem| problem.key.clone()).collect();
    parse("f.yaml", text).map(|loaded| loaded.config).map_err(keys)
}

#[test]
fn every_keyword_is_accepted_with_and_without_quotes() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let mut keywords = Vec::new();
    collect(&schema, "", &mut keywords);
    for expected in [
        ("/uplinks/0/addresses", "interface"),
        ("/uplinks/0/addresses", "dhcp"),
        ("/tun/workers", "auto"),
        ("/nat/mss_clamp", "off"),
        ("/log/level", "info"),
    ] {
        let (pointer, word) = expected;
        assert!(keywords.contains(&(pointer.into(), word.into())), "{expected:?} in {keywords:?}");
    }
    let mut accepted = 0;
    for (pointer, word) in &keywords {
        let text = with_mark(pointer);
        let mark = format!("\"{MARK}\"");
        assert!(text.contains(&mark), "{pointer}");
        let plain = outcome(&text.replace(&mark, word));
        for quoted in [format!("\"{word}\""), format!("'{word}'")] {
            assert_eq!(outcome(&text.replace(&mark, &quoted)), plain, "{pointer}: {quoted}");
        }
        // Some words contradict other keys of the reference file.
        let key = pointer.trim_start_matches('/').replace('/', ".").replace(".0", "[0]");
        match plain {
            Ok(_) => accepted += 1,
            Err(problems) => assert!(!problems.contains(&key), "{pointer}: {word}: {problems:?}"),
        }
    }
    assert!(accepted * 10 > keywords.len() * 8, "{accepted} of {}", keywords.len());
}

/// Programs that read `off` by YAML 1.1 write `false`.
#[test]
fn truth_value_stands_for_on_or_off() {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    let mut keywords = Vec::new();
    collect(&schema, "", &mut keywords);
    keywords.retain(|(_, word)| matches!(word.as_str(), "on" | "off"));
    assert!(keywords.contains(&("/nat/mss_clamp".into(), "off".into())), "{keywords:?}");
    for (pointer, word) in &keywords {
        let text = with_mark(pointer);
        let mark = format!("\"{MARK}\"");
        let truth = if word == "on" { "true" } else { "false" };
        let plain = outcome(&text.replace(&mark, word));
        assert!(plain.is_ok(), "{pointer}: {word}");
        assert_eq!(outcome(&text.replace(&mark, truth)), plain, "{pointer}: {truth}");
    }
    let refused = outcome(&with_mark("/nat/mss_clamp").replace(&format!("\"{MARK}\""), "true"));
    assert_eq!(refused, Err(vec!["nat.mss_clamp".to_owned()]), "there is no `on`");
}
