//! Reads the comments and the string literals of the sources.

use super::markdown::{Block, blocks};

/// Returns the comments of a file that have lines of their own: one text for each run of lines that
/// begin alike, without the marks, with the number of its first line.
pub(crate) fn comments(source: &str) -> Vec<(usize, String)> {
    let mut comments: Vec<(usize, String)> = Vec::new();
    let mut last = None;
    for (index, line) in source.lines().enumerate() {
        let line = line.trim_start();
        let marks = ["///", "//!", "//"];
        let mark = marks.into_iter().find(|mark| line.starts_with(mark));
        let mark = mark.filter(|_| !line.starts_with("////"));
        if let Some(mark) = mark {
            let text = &line[mark.len()..];
            let text = text.strip_prefix(' ').unwrap_or(text);
            match comments.last_mut() {
                Some((_, comment)) if last == Some(mark) => {
                    comment.push('\n');
                    comment.push_str(text);
                }
                _ => comments.push((index + 1, text.to_owned())),
            }
        }
        last = mark;
    }
    comments
}

/// Returns the paragraphs, items and cells of a file's comments, with their lines.
pub(crate) fn prose(source: &str) -> Vec<(usize, String)> {
    let texts = comments(source).into_iter().flat_map(|(start, comment)| {
        blocks(&comment).into_iter().filter_map(move |block| match block {
            Block::Prose { line, text } => Some((start + line - 1, text)),
            Block::Code { .. } => None,
        })
    });
    texts.collect()
}

/// Returns the string literals of a file, each with the number of its first line. An escaped line
/// break joins two lines, as in the program.
pub(crate) fn literals(source: &str) -> Vec<(usize, String)> {
    let mut literals = Vec::new();
    let mut rest = source;
    let mut line = 1;
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        let (length, literal) = token(rest, after_word);
        literals.extend(literal.map(|literal| (line, literal)));
        line += rest[..length].matches('\n').count();
        after_word = first.is_alphanumeric() || first == '_';
        rest = &rest[length..];
    }
    literals
}

/// Returns the length of the comment, the literal or the letter at the start of `text`, and the
/// text of a string literal.
fn token(text: &str, after_word: bool) -> (usize, Option<String>) {
    let end = |mark: &str| text[1..].find(mark).map_or(text.len(), |at| at + 1 + mark.len());
    let first = text.chars().next().map_or(0, char::len_utf8);
    if text.starts_with("//") {
        return (end("\n"), None);
    }
    if text.starts_with("/*") {
        return (end("*/"), None);
    }
    if text.starts_with('"') {
        return quoted(text);
    }
    if text.starts_with('\'') {
        let mut letters = text.char_indices().skip(1);
        return match (letters.next(), letters.next()) {
            (Some((_, '\\')), Some((at, letter))) => {
                let behind = at + letter.len_utf8();
                (text[behind..].find('\'').map_or(text.len(), |at| behind + at + 1), None)
            }
            (_, Some((at, '\''))) => (at + 1, None),
            _ => (first, None),
        };
    }
    match text.strip_prefix('r') {
        Some(raw) if !after_word && raw.trim_start_matches('#').starts_with('"') => {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            let start = 2 + hashes;
            let mark = format!("\"{}", "#".repeat(hashes));
            let length = text[start..].find(&mark).unwrap_or(text.len() - start);
            let literal = text[start..start + length].to_owned();
            ((start + length + mark.len()).min(text.len()), Some(literal))
        }
        Some(_) | None => (first, None),
    }
}

/// Reads the literal at the start of `text`.
fn quoted(text: &str) -> (usize, Option<String>) {
    let mut literal = String::new();
    let mut letters = text.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (at + 1, Some(literal)),
            '\\' => match letters.next() {
                Some((_, '\n')) => {
                    while letters.next_if(|(_, letter)| letter.is_whitespace()).is_some() {}
                }
                Some((_, 'n')) => literal.push('\n'),
                Some((_, escaped)) => literal.push(escaped),
                None => {}
            },
            letter => literal.push(letter),
        }
    }
    (text.len(), Some(literal))
}

/// Returns a file up to its module of tests.
pub(crate) fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]\nmod ").next().unwrap_or(source)
}

/// Returns whether a file of the library holds tests alone.
pub(crate) fn is_test(path: &str) -> bool {
    path.split('/').any(|part| {
        let name = part.trim_end_matches(".rs");
        name == "tests" || name.ends_with("_tests") || name == "scenarios" || name == "testing"
    })
}

#[test]
fn comments_are_read_with_their_lines() {
    let source = "//! Module.\n//! More.\nuse x;\n/// One.\n/// ```\n/// code\n/// ```\n///\n/// - Two.\n// three\n//// no\nf(); // no\n";
    let expected = [(1, "Module. More."), (4, "One."), (9, "Two."), (10, "three")];
    assert_eq!(prose(source), expected.map(|(line, text)| (line, text.to_owned())));
}

#[test]
fn literals_are_read_with_their_lines_and_without_comments() {
    let source =
        "a(\"one \\\n     two\", '\"', '\\'', 'b'); // \"no\"\nr#\"th\"ree\"#; <'a> b\"\\n\\\"\"";
    assert_eq!(
        literals(source),
        [(1, "one two".to_owned()), (3, "th\"ree".to_owned()), (3, "\n\"".to_owned())]
    );
}
