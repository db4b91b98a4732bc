//! Numbers with their nouns, in messages.

use std::fmt::Display;

/// Returns a number with the noun that fits it: `1 session`, `2 sessions`.
pub(crate) fn counted<N: Display + PartialEq + From<u8>>(
    number: N,
    one: &str,
    many: &str,
) -> String {
    let noun = if number == N::from(1) { one } else { many };
    format!("{number} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_singular_and_any_other_number_plural() {
        let sessions = |number: usize| counted(number, "session", "sessions");
        assert_eq!(
            [0, 1, 2, 11].map(sessions),
            ["0 sessions", "1 session", "2 sessions", "11 sessions"]
        );
    }
}
