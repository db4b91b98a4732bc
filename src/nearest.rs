//! Finds the known word closest to an unknown one, for "did you mean".

/// Returns the candidate that takes the fewest single-character edits, at most a third of the
/// word's length.
pub(crate) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let word: Vec<char> = word.chars().take(MAX_CHARACTERS + 1).collect();
    if word.len() > MAX_CHARACTERS {
        return None;
    }
    let tolerated = word.len().div_ceil(3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        .filter(|(edits, _)| *edits <= tolerated)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Returns advice that names the nearest of the candidates, or else all of them.
pub(crate) fn advise<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str> + Clone,
) -> String {
    match nearest(word, candidates.clone()) {
        Some(candidate) => format!("did you mean `{candidate}`?"),
        None => format!("choose one of {}", list(candidates)),
    }
}

/// Returns the words in backticks, with commas. A long list is cut.
pub(crate) fn list<'c>(words: impl IntoIterator<Item = &'c str>) -> String {
    let mut words = words.into_iter();
    let mut shown: Vec<String> =
        words.by_ref().take(MAX_LISTED).map(|word| format!("`{word}`")).collect();
    if words.next().is_some() {
        shown.push("...".into());
    }
    shown.join(", ")
}

/// Returns the edit distance with insertions, deletions, replacements and swapped neighbours.
/// Letter case costs nothing.
fn distance(word: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().collect();
    let same = |row: usize, column: usize| word[row].eq_ignore_ascii_case(&candidate[column]);
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=candidate.len()).collect();
    for row in 0..word.len() {
        let mut current = vec![row + 1];
        for column in 0..candidate.len() {
            let replaced = above[column] + usize::from(!same(row, column));
            let mut edits = replaced.min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && same(row, column - 1) && same(row - 1, column) {
                edits = edits.min(before[column - 1] + 1);
            }
            current.push(edits);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[candidate.len()]
}

/// Longest word that is compared. Bounds the time of the distance.
const MAX_CHARACTERS: usize = 64;

/// Most choices that a message names.
const MAX_LISTED: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_their_word_and_strangers_do_not() {
        let known = ["uplinks", "forwards", "tun"];
        assert_eq!(nearest("uplink", known), Some("uplinks"));
        assert_eq!(nearest("Forwrads", known), Some("forwards"));
        assert_eq!(nearest("tnu", known), Some("tun"));
        assert_eq!(nearest("tunn", known), Some("tun"));
        assert_eq!(nearest("zebra", known), None);
        assert_eq!(nearest(&"u".repeat(100_000), known), None);
    }
}
