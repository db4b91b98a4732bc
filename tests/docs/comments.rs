//! Doc comments of the code use none of the words that the rules exclude.

use std::collections::BTreeSet;
use std::fs;

use super::banned::findings;
use super::markdown::plain;
use super::{blesses, fail_with, files_below, relative, root};

/// Files whose doc comments are not rewritten yet, one a line. The list only becomes shorter.
const UNFINISHED: &str = "tests/docs/unfinished.txt";

/// The doc comments of a file: one text for each run of lines that begin alike.
fn doc_comments(source: &str) -> Vec<(usize, String)> {
    let mut comments: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    let mut in_code = false;
    for (index, line) in source.lines().enumerate() {
        let line = line.trim_start();
        let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let Some(text) = text.filter(|text| !text.starts_with('/')) else {
            goes_on = false;
            in_code = false;
            continue;
        };
        in_code ^= text.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        match comments.last_mut() {
            Some((_, comment)) if goes_on => {
                comment.push(' ');
                comment.push_str(text.trim());
            }
            _ => comments.push((index + 1, text.trim().to_owned())),
        }
        goes_on = true;
    }
    comments
}

#[test]
fn doc_comments_use_none_of_the_words_that_the_rules_exclude() {
    let list = fs::read_to_string(root().join(UNFINISHED)).unwrap();
    let unfinished: BTreeSet<&str> = list.lines().collect();
    let mut dirty = BTreeSet::new();
    let mut complaints = Vec::new();
    let files = files_below(&root().join("src"), "rs");
    assert!(files.len() > 100);
    for file in &files {
        let path = relative(file);
        for (line, comment) in doc_comments(&fs::read_to_string(file).unwrap()) {
            for finding in findings(&plain(&comment)) {
                if !unfinished.contains(path.as_str()) {
                    complaints.push(format!("{path}:{line}: {finding}"));
                }
                dirty.insert(path.clone());
            }
        }
    }
    let remaining: Vec<&str> =
        unfinished.iter().copied().filter(|path| dirty.contains(*path)).collect();
    if blesses() {
        let text: String = remaining.iter().map(|path| format!("{path}\n")).collect();
        fs::write(root().join(UNFINISHED), text).unwrap();
    } else {
        for path in unfinished.iter().filter(|path| !remaining.contains(path)) {
            complaints.push(format!("{UNFINISHED} still lists {path}; run: just bless"));
        }
    }
    fail_with(&complaints);
}

#[test]
fn doc_comments_are_read_without_code_and_with_their_lines() {
    let source = "//! Module.\n//! More.\nuse x;\n/// One.\n/// ```\n/// nobody\n/// ```\n// nobody\n//// nobody\nfn f() {}\n";
    assert_eq!(doc_comments(source), [(1, "Module. More.".to_owned()), (4, "One. ```".to_owned())]);
}
