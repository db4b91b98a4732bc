//! Comments and messages of the code follow the rules that a test can check.

use std::fs;

use super::banned::findings;
use super::markdown::plain;
use super::sentences::{MAX_COLUMNS, MAX_SENTENCE_WORDS, count, sentences};
use super::source::{is_test, literals, prose, without_tests};
use super::{fail_with, files_below, relative, root};

/// Folders with code.
const FOLDERS: [&str; 7] =
    ["src", "benches", "examples", "fuzz/src", "fuzz/fuzz_targets", "netns-tests", "tests"];

/// The file that holds the excluded words, and those that read them from samples.
const SAMPLES: [&str; 3] =
    ["tests/docs/banned.rs", "tests/docs/source.rs", "tests/docs/comments.rs"];

/// Fewest words of a literal that is a sentence. A shorter one may be a name or a keyword.
const MIN_WORDS: usize = 4;

/// Every file with code: its path and its text.
fn sources() -> Vec<(String, String)> {
    let files = FOLDERS.iter().flat_map(|folder| files_below(&root().join(folder), "rs"));
    let sources = files.map(|file| (relative(&file), fs::read_to_string(&file).unwrap()));
    let sources: Vec<_> = sources.filter(|(path, _)| !SAMPLES.contains(&&path[..])).collect();
    assert!(sources.len() > 400);
    sources
}

/// Literals of a file that are sentences, with their lines.
fn messages(source: &str) -> Vec<(usize, String)> {
    let mut messages = literals(source);
    messages.retain(|(_, text)| count(text) >= MIN_WORDS);
    messages
}

/// Names the texts that have an excluded word.
fn words(path: &str, texts: &[(usize, String)]) -> Vec<String> {
    let found = texts.iter().flat_map(|(line, text)| {
        findings(&plain(text)).into_iter().map(move |finding| format!("{path}:{line}: {finding}"))
    });
    found.collect()
}

/// Names the sentences that are too long.
fn lengths(path: &str, texts: &[(usize, String)]) -> Vec<String> {
    let sentences = texts
        .iter()
        .flat_map(|(line, text)| sentences(text).into_iter().map(move |one| (line, one)));
    let long = sentences.filter(|(_, sentence)| count(sentence) > MAX_SENTENCE_WORDS);
    long.map(|(line, sentence)| format!("{path}:{line}: {} words: {sentence}", count(&sentence)))
        .collect()
}

#[test]
fn comments_follow_the_rules() {
    let mut complaints = Vec::new();
    for (path, source) in sources() {
        let prose = prose(&source);
        complaints.extend(words(&path, &prose));
        complaints.extend(lengths(&path, &prose));
    }
    fail_with(&complaints);
}

/// Literals of tests and benches hold whole configurations and commands, whose length has no bound.
#[test]
fn messages_follow_the_rules() {
    let mut complaints = Vec::new();
    for (path, source) in sources() {
        complaints.extend(words(&path, &messages(&source)));
        if path.starts_with("src/") && !is_test(&path) {
            complaints.extend(lengths(&path, &messages(without_tests(&source))));
        }
    }
    fail_with(&complaints);
}

#[test]
fn comments_end_at_the_column_of_the_style() {
    let mut complaints = Vec::new();
    for (path, source) in sources() {
        let mut in_code = false;
        for (index, line) in source.lines().enumerate() {
            let Some(text) = line.trim_start().strip_prefix("//") else {
                in_code = false;
                continue;
            };
            let text = text.trim_start_matches(['/', '!']).trim_start();
            in_code ^= text.starts_with("```");
            let columns = line.chars().count();
            if columns > MAX_COLUMNS && !in_code && !text.starts_with('|') {
                complaints.push(format!("{path}:{}: {columns} columns", index + 1));
            }
        }
    }
    fail_with(&complaints);
}

#[test]
fn a_comment_and_a_message_that_break_the_rules_are_found() {
    let long = "word ".repeat(41);
    let source = format!("//! Anew.\n\n/// | a | {long} |\nf(\"it is {long}anew\", \"anew\");\n");
    let (prose, messages) = (prose(&source), messages(&source));
    assert_eq!(words("a.rs", &prose), ["a.rs:1: \"anew\" (instead: again)"]);
    assert_eq!(words("a.rs", &messages), ["a.rs:4: \"anew\" (instead: again)"]);
    assert_eq!((lengths("a.rs", &prose).len(), lengths("a.rs", &messages).len()), (1, 1));
}
