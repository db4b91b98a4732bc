//! Words, brackets and comparison signs, each with its place.

/// A part of the text of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token<'t> {
    /// Place of the first character, counted from 1.
    pub(super) column: usize,
    pub(super) text: &'t str,
}

/// Splits a text. Blanks separate words; brackets and signs also stand without them.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut column = 1;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if first.is_whitespace() => first.len_utf8(),
            '(' | ')' => 1,
            _ if SIGNS.contains(first) => length_while(rest, |c| SIGNS.contains(c)),
            _ => length_while(rest, |c| {
                !c.is_whitespace() && !"()".contains(c) && !SIGNS.contains(c)
            }),
        };
        let (token, after) = rest.split_at(length);
        if !first.is_whitespace() {
            tokens.push(Token { column, text: token });
        }
        column += token.chars().count();
        rest = after;
    }
    tokens
}

fn length_while(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// Characters of comparisons.
const SIGNS: &str = "<>=";
