//! SECURITY.md names tests that exist.

use std::fs;

use super::markdown::{cells, code_spans};
use super::{documents, fail_with, files_below, relative, root};

/// Returns the sources as their paths, split at slashes, and their texts.
fn sources() -> Vec<(String, String)> {
    let folders = ["src", "netns-tests", "tests"];
    let files = folders.iter().flat_map(|folder| files_below(&root().join(folder), "rs"));
    files.map(|file| (relative(&file), fs::read_to_string(&file).unwrap())).collect()
}

/// Returns whether a test of this name is in a file or folder of this name.
fn exists(sources: &[(String, String)], place: &str, test: &str) -> bool {
    let head = format!("fn {test}(");
    let is_there = |path: &str| path.split('/').any(|part| part.trim_end_matches(".rs") == place);
    sources.iter().any(|(path, text)| is_there(path) && text.contains(&head))
}

#[test]
fn every_promise_has_tests_that_exist() {
    let sources = sources();
    let documents = documents();
    let page = documents.iter().find(|document| document.path == "SECURITY.md").unwrap();
    let (_, promises) = page.text.split_once("## What each layer promises").unwrap();
    let (promises, _) = promises.split_once("\n## ").unwrap();
    let mut complaints = Vec::new();
    let mut rows = 0;
    // The first two lines are the head.
    for line in promises.lines().filter(|line| line.starts_with('|')).skip(2) {
        rows += 1;
        let cells: Vec<&str> = cells(line).collect();
        let tests = code_spans(cells[2]);
        if tests.is_empty() {
            complaints.push(format!("no test: {}", cells[0]));
        }
        for name in tests {
            if !name.split_once("::").is_some_and(|(place, test)| exists(&sources, place, test)) {
                complaints.push(format!("no such test: {name}"));
            }
        }
    }
    fail_with(&complaints);
    assert!(rows > 10);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut before = "";
    let mut complaints = Vec::new();
    let mut dependencies = 0;
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]") && line.starts_with(char::is_alphanumeric) {
            dependencies += 1;
            if !before.starts_with("# ") {
                complaints.push(format!("Cargo.toml: no reason above: {line}"));
            }
        }
        before = line;
    }
    fail_with(&complaints);
    assert!(dependencies > 30);
}

#[test]
fn a_test_that_does_not_exist_is_found() {
    let sources = [("netns-tests/dns/answers.rs".to_owned(), "fn answers() {}".to_owned())];
    assert!(exists(&sources, "dns", "answers") && exists(&sources, "answers", "answers"));
    assert!(!exists(&sources, "dns", "answer") && !exists(&sources, "udp", "answers"));
}
