//! Measures functions and `select!` blocks.

use crate::source::{Source, is_word};

/// A function or block with its size.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) name: String,
    /// Number of its first line.
    pub(crate) line: usize,
    pub(crate) size: usize,
}

/// Returns every function outside of tests with its lines, from `fn` to the closing brace.
pub(crate) fn functions(source: &Source) -> Vec<Measured> {
    let code = &source.code;
    let starts = code.match_indices("fn ").filter(|(at, _)| !code[..*at].ends_with(is_word));
    let measured = starts.filter_map(|(at, _)| {
        let name: String = code[at + 3..].chars().take_while(|letter| is_word(*letter)).collect();
        let body = at + body_start(&code[at..])?;
        let size = code[at..body + block(&code[body..])].matches('\n').count() + 1;
        (!name.is_empty()).then(|| Measured { name, line: source.line_at(at), size })
    });
    measured.collect()
}

/// Returns every `select!` outside of tests with its number of arms, named by the function around
/// it.
pub(crate) fn selects(source: &Source) -> Vec<Measured> {
    let code = &source.code;
    let functions = functions(source);
    let starts = code.match_indices("select!").filter(|(at, _)| !code[..*at].ends_with(is_word));
    let measured = starts.filter_map(|(at, _)| {
        let open = at + code[at..].find(['{', '('])?;
        let arms = at_depth_one(&code[open..open + block(&code[open..])]).matches("=>").count();
        let line = source.line_at(at);
        let around = functions.iter().rev().find(|function| function.line <= line);
        let name = around.map_or_else(String::new, |function| function.name.clone());
        Some(Measured { name, line, size: arms })
    });
    measured.collect()
}

/// Returns the offset of the brace that opens the body of the function at the start of `code`;
/// `None` without a body.
fn body_start(code: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, letter) in code.char_indices() {
        match letter {
            '{' if depth == 0 => return Some(at),
            ';' if depth == 0 => return None,
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Returns the length of the block that starts with an opening bracket.
fn block(code: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in code.char_indices() {
        depth += step(letter);
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

fn at_depth_one(block: &str) -> String {
    let mut depth = 0;
    let kept = block.chars().filter(|letter| {
        depth += step(*letter);
        depth == 1
    });
    kept.collect()
}

fn step(letter: char) -> i32 {
    match letter {
        '{' | '(' | '[' => 1,
        '}' | ')' | ']' => -1,
        _ => 0,
    }
}

#[cfg(test)]
mod checks {
    use super::*;

    fn measured(found: Vec<Measured>) -> Vec<(String, usize, usize)> {
        found.into_iter().map(|found| (found.name, found.line, found.size)).collect()
    }

    #[test]
    fn functions_are_measured_from_their_name_to_their_brace() {
        let text = "trait T {\n    fn declared(&self) -> [u8; 2];\n}\nfn one() {}\n\nfn long(\n    at: [u8; { N }],\n) {\n    \
                    let text = \"}\";\n    fn inner() {\n    }\n}\n#[cfg(test)]\nfn test() {\n}\n";
        let source = Source::new("src/a.rs", text);
        let expected = [("one", 4, 1), ("long", 6, 7), ("inner", 10, 2)];
        let expected = expected.map(|(name, line, size)| (name.to_owned(), line, size));
        assert_eq!(measured(functions(&source)), expected);
    }

    #[test]
    fn arms_of_a_select_are_counted_without_those_inside_them() {
        let text = "async fn run() {\n    tokio::select! {\n        a = b() => match a {\n            1 => 2,\n            \
                    _ => 3,\n        },\n        (c, d) = e(|f| { f }) => {}\n        else => {}\n    }\n}\n";
        let source = Source::new("src/a.rs", text);
        assert_eq!(measured(selects(&source)), [("run".to_owned(), 2, 3)]);
    }
}
