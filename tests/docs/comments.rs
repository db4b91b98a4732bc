//! Doc comments of the code use none of the words that the rules exclude.

use std::collections::BTreeSet;
use std::fs;

use super::banned::findings;
use super::markdown::plain;
use super::source::doc_comments;
use super::{blesses, fail_with, files_below, relative, root};

/// Files whose doc comments are not rewritten yet, one a line. The list only becomes shorter.
const UNFINISHED: &str = "tests/docs/unfinished.txt";

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
