//! Reads the Markdown that the documentation uses: paragraphs, lists, tables, headings, fenced
//! code.

/// A stretch of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    /// Running text: a paragraph, a list item, a heading or one table cell, on one line.
    Prose { line: usize, text: String },
    /// Fenced code with its language.
    Code { line: usize, language: String, text: String },
}

/// Splits a document into blocks, with the number of each block's first line.
pub(crate) fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut open: Option<(usize, String)> = None;
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim();
        if let Some(language) = trimmed.strip_prefix("```") {
            close(&mut open, &mut blocks);
            let code = lines.by_ref().map(|(_, line)| line);
            let indent = line.len() - line.trim_start().len();
            let code: Vec<&str> = code
                .take_while(|line| line.trim() != "```")
                .map(|line| line.get(indent..).unwrap_or(""))
                .collect();
            let text = code.join("\n") + "\n";
            blocks.push(Block::Code { line: number, language: language.to_owned(), text });
        } else if trimmed.starts_with('|') {
            close(&mut open, &mut blocks);
            for cell in cells(trimmed).filter(|cell| !is_rule(cell)) {
                blocks.push(Block::Prose { line: number, text: cell.to_owned() });
            }
        } else if trimmed.is_empty() {
            close(&mut open, &mut blocks);
        } else if let Some(text) = starts_block(trimmed) {
            close(&mut open, &mut blocks);
            open = Some((number, text.to_owned()));
            if trimmed.starts_with('#') {
                close(&mut open, &mut blocks);
            }
        } else if let Some((_, text)) = &mut open {
            text.push(' ');
            text.push_str(trimmed);
        } else {
            open = Some((number, trimmed.to_owned()));
        }
    }
    close(&mut open, &mut blocks);
    blocks
}

fn close(open: &mut Option<(usize, String)>, blocks: &mut Vec<Block>) {
    if let Some((line, text)) = open.take() {
        blocks.push(Block::Prose { line, text });
    }
}

/// The cells of a table row. An escaped `\|` does not end a cell.
pub(crate) fn cells(row: &str) -> impl Iterator<Item = &str> {
    let mut rest = row.trim().trim_start_matches('|');
    std::iter::from_fn(move || {
        let mut end = None;
        for (at, _) in rest.match_indices('|') {
            if !rest[..at].ends_with('\\') {
                end = Some(at);
                break;
            }
        }
        let end = end?;
        let cell = rest[..end].trim();
        rest = &rest[end + 1..];
        Some(cell)
    })
}

fn is_rule(cell: &str) -> bool {
    cell.contains("--") && cell.chars().all(|letter| "-: ".contains(letter))
}

/// The text behind the mark of a heading, a list item or a quote.
fn starts_block(line: &str) -> Option<&str> {
    if let Some(rest) = line.strip_prefix('#') {
        return Some(rest.trim_start_matches('#').trim());
    }
    if let Some(rest) = ["- ", "* ", "> "].iter().find_map(|mark| line.strip_prefix(mark)) {
        return Some(rest.trim());
    }
    let (number, rest) = line.split_once(". ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| rest.trim())
}

/// The code spans of a text, without their backticks.
pub(crate) fn code_spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The text with every code span replaced by the word `code` and every link by its label.
pub(crate) fn plain(text: &str) -> String {
    let mut result = String::new();
    for (index, part) in text.split('`').enumerate() {
        result.push_str(if index % 2 == 0 { part } else { "code" });
    }
    while let Some(middle) = result.find("](") {
        let end = result[middle..].find(')').map_or(result.len(), |at| middle + at + 1);
        result.replace_range(middle..end, "");
        if let Some(start) = result[..middle].rfind('[') {
            result.remove(start);
        }
    }
    result.replace("**", "")
}

/// The targets of the links and pictures of a text.
pub(crate) fn link_targets(text: &str) -> Vec<&str> {
    text.match_indices("](")
        .filter_map(|(at, mark)| {
            let rest = &text[at + mark.len()..];
            rest.find(')').map(|end| &rest[..end])
        })
        .collect()
}

#[test]
fn blocks_are_paragraphs_items_cells_and_code() {
    let prose = |line, text: &str| Block::Prose { line, text: text.to_owned() };
    let document = "# Head\ntext\ngoes on\n\n- one\n  more\n2. two\n\n| a | b \\| c |\n|---|--:|\n\n```sh\nls\n```\n";
    assert_eq!(
        blocks(document),
        [
            prose(1, "Head"),
            prose(2, "text goes on"),
            prose(5, "one more"),
            prose(7, "two"),
            prose(9, "a"),
            prose(9, "b \\| c"),
            Block::Code { line: 12, language: "sh".to_owned(), text: "ls\n".to_owned() },
        ]
    );
}

#[test]
fn spans_and_links_are_found() {
    let text = "Run `natbox check` as [the guide](docs/guide/dns.md#zone) says.";
    assert_eq!(code_spans(text), ["natbox check"]);
    assert_eq!(link_targets(text), ["docs/guide/dns.md#zone"]);
    assert_eq!(plain(text), "Run code as the guide says.");
}
