//! Bounds on the length of sentences and of the README.

use super::markdown::{Block, blocks, plain};
use super::{documents, fail_with};

/// Longest sentence of the documentation, in words.
pub(crate) const MAX_SENTENCE_WORDS: usize = 40;

/// Longest README, in words of prose, tables and code.
const MAX_README_WORDS: usize = 1300;

/// Widest line of a document, in characters. Tables and code have no bound.
pub(crate) const MAX_COLUMNS: usize = 100;

/// Splits running text into sentences.
pub(crate) fn sentences(text: &str) -> Vec<String> {
    let text = plain(text);
    let mut sentences = vec![String::new()];
    for word in text.split_whitespace() {
        let last = sentences.last_mut().unwrap();
        last.push_str(word);
        last.push(' ');
        if word.trim_end_matches([')', '"', '*']).ends_with(['.', '!', '?']) {
            sentences.push(String::new());
        }
    }
    sentences.retain(|sentence| !sentence.is_empty());
    sentences
}

pub(crate) fn count(text: &str) -> usize {
    text.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count()
}

#[test]
fn no_sentence_is_longer_than_the_bound() {
    let mut complaints = Vec::new();
    for document in documents() {
        for block in blocks(&document.text) {
            let Block::Prose { line, text } = block else { continue };
            for sentence in sentences(&text) {
                let words = count(&sentence);
                if words > MAX_SENTENCE_WORDS {
                    complaints.push(format!("{}:{line}: {words} words: {sentence}", document.path));
                }
            }
        }
    }
    fail_with(&complaints);
}

#[test]
fn no_sentence_begins_as_a_riddle() {
    let mut complaints = Vec::new();
    for document in documents() {
        for block in blocks(&document.text) {
            let Block::Prose { line, text } = block else { continue };
            for sentence in sentences(&text) {
                let asks = sentence.trim().ends_with('?');
                let riddle =
                    ["What ", "Who ", "Whose "].iter().any(|word| sentence.starts_with(word));
                // A heading or a table's head such as "What it does" has no verb to wait for.
                if riddle && !asks && count(&sentence) > 6 {
                    complaints.push(format!("{}:{line}: {sentence}", document.path));
                }
            }
        }
    }
    fail_with(&complaints);
}

#[test]
fn the_readme_is_read_in_five_minutes() {
    let documents = documents();
    let readme = documents.iter().find(|document| document.path == "README.md").unwrap();
    let words = count(&readme.text);
    assert!(words <= MAX_README_WORDS, "README.md has {words} words, more than {MAX_README_WORDS}");
}

#[test]
fn lines_of_prose_end_at_the_column_of_the_style() {
    let mut complaints = Vec::new();
    let is_written = |path: &str| !path.starts_with("docs/reference/");
    for document in documents().iter().filter(|document| is_written(&document.path)) {
        let mut in_code = false;
        for (index, line) in document.text.lines().enumerate() {
            in_code ^= line.trim_start().starts_with("```");
            let unbounded = in_code || line.starts_with('|') || line.contains("](http");
            let columns = line.chars().count();
            if !unbounded && columns > MAX_COLUMNS {
                complaints.push(format!("{}:{}: {columns} columns", document.path, index + 1));
            }
        }
    }
    fail_with(&complaints);
}

#[test]
fn sentences_end_at_their_marks() {
    let text = "One `a.b c` two. Three (four.) Five [six seven](x.md)?";
    assert_eq!(sentences(text), ["One code two. ", "Three (four.) ", "Five six seven? "]);
    assert_eq!(count("one - two, three"), 3);
}
