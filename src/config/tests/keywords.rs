//! Keywords are the same with and without quotes: JSON and many programs write every text in
//! quotes.

use serde_json::{Map, Value};

use super::properties;
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
            // Ports overlap only with another mapping behaviour than that of the reference file.
            Err(_) if key == "nat.port_overlapping" => {}
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

/// Replaces every scalar of a document by its text.
fn quote_all(value: &mut Value) {
    match value {
        Value::Null | Value::String(_) => {}
        Value::Bool(_) | Value::Number(_) => *value = value.to_string().into(),
        Value::Array(items) => items.iter_mut().for_each(quote_all),
        Value::Object(keys) => keys.values_mut().for_each(quote_all),
    }
}

/// Collects the JSON pointers of the truth values and numbers of a document.
fn scalars(value: &Value, pointer: &str, found: &mut Vec<String>) {
    match value {
        Value::Null | Value::String(_) => {}
        Value::Bool(_) | Value::Number(_) => found.push(pointer.to_owned()),
        Value::Array(items) => {
            let items = items.iter().enumerate();
            items.for_each(|(index, item)| scalars(item, &format!("{pointer}/{index}"), found));
        }
        Value::Object(keys) => {
            keys.iter().for_each(|(key, item)| scalars(item, &format!("{pointer}/{key}"), found));
        }
    }
}

/// Regression: `hairpin: "true"`, as JSON and Ansible write it, was refused, and so was
/// `port_preservation: True`.
#[test]
fn every_truth_value_and_number_is_accepted_with_quotes_and_in_each_case() {
    let reference: Value = serde_yaml_ng::from_str(REFERENCE).unwrap();
    let mut pointers = Vec::new();
    scalars(&reference, "", &mut pointers);
    pointers.push("/nat/port_preservation".into());
    for expected in ["/nat/hairpin", "/state/keep", "/limits/delayed_ports", "/tun/busy_poll"] {
        let known = pointers.iter().any(|pointer| pointer == expected);
        assert!(known || reference.pointer(expected).is_some_and(Value::is_string), "{expected}");
    }
    assert!(pointers.len() > 20, "{pointers:?}");
    for pointer in &pointers {
        let mark = format!("\"{MARK}\"");
        let text = with_mark(pointer);
        let old = reference.pointer(pointer).unwrap();
        let forms: Vec<[String; 3]> = match old {
            Value::Number(number) => vec![[number.to_string(), String::new(), String::new()]],
            Value::Bool(_) | Value::String(_) => vec![
                ["true", "True", "TRUE"].map(String::from),
                ["false", "False", "FALSE"].map(String::from),
            ],
            Value::Null | Value::Array(_) | Value::Object(_) => unreachable!("{pointer}: {old}"),
        };
        for [first, others @ ..] in forms {
            let wanted = outcome(&text.replace(&mark, &first));
            // Ports overlap only with another mapping behaviour than that of the reference file.
            let contradicts = pointer == "/nat/port_overlapping" && first == "true";
            assert!(wanted.is_ok() || contradicts, "{pointer}: {first}: {wanted:?}");
            assert_eq!(outcome(&text.replace(&mark, &format!("'{first}'"))), wanted, "{pointer}");
            for other in others.iter().filter(|other| !other.is_empty()) {
                for form in [other.clone(), format!("'{other}'"), format!("\"{other}\"")] {
                    assert_eq!(outcome(&text.replace(&mark, &form)), wanted, "{pointer}: {form}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_with_quotes_around_every_scalar_means_the_same(config in properties::config()) {
        let mut value: Value = serde_json::from_str(&to_json(&config)).unwrap();
        quote_all(&mut value);
        let text = value.to_string();
        let read = parse("f.yaml", &text).map(|loaded| loaded.config);
        prop_assert_eq!(read.map_err(|problems| problems.to_string()), Ok(config), "{}", text);
        let schema: Value = serde_json::from_str(&json_schema()).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        prop_assert_eq!(errors, [""; 0], "{}", text);
    }
}
