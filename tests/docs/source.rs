//! Reads the doc comments and the string literals of the sources.

/// Returns the doc comments of a file without code: one text for each run of lines that begin
/// alike, with the number of its first line.
pub(crate) fn doc_comments(source: &str) -> Vec<(usize, String)> {
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
                comment.push('\n');
                comment.push_str(text.strip_prefix(' ').unwrap_or(text));
            }
            _ => comments.push((index + 1, text.strip_prefix(' ').unwrap_or(text).to_owned())),
        }
        goes_on = true;
    }
    comments
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
fn doc_comments_are_read_without_code_and_with_their_lines() {
    let source = "//! Module.\n//! More.\nuse x;\n/// One.\n/// ```\n/// nobody\n/// ```\n// nobody\n//// nobody\nfn f() {}\n";
    assert_eq!(
        doc_comments(source),
        [(1, "Module.\nMore.".to_owned()), (4, "One.\n```".to_owned())]
    );
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
