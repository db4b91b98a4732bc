//! Keywords of JSON Schema that bound a single value.

use std::ops::RangeInclusive;

use crate::config::document::Document;

/// Returns the constraint of a text that matches a regular expression.
pub(in crate::config) fn pattern(regex: &str) -> Document {
    Document::mapping([("type", "string".into()), ("pattern", regex.into())])
}

/// Returns the constraint of a choice of words. A truth value stands for `on` or `off`.
pub(in crate::config) fn words(words: &[&str]) -> Document {
    let truth = [("on", true), ("off", false)].into_iter();
    let truth = truth.filter(|(word, _)| words.contains(word)).map(|(_, truth)| truth.into());
    let words = words.iter().map(Document::text);
    Document::mapping([("enum", Document::List(words.chain(truth).collect()))])
}

/// Returns the constraint of a whole number within a range. In quotes it may have any size.
pub(in crate::config) fn integer(range: &RangeInclusive<u32>) -> Document {
    let number = Document::mapping([
        ("type", "integer".into()),
        ("minimum", (*range.start()).into()),
        ("maximum", (*range.end()).into()),
    ]);
    any_of([number, pattern(DIGITS)])
}

/// A number without zeros in front.
const DIGITS: &str = "^(0|[1-9][0-9]{0,17})$";

/// Returns the constraint of a value that meets one of several.
pub(in crate::config) fn any_of(constraints: impl IntoIterator<Item = Document>) -> Document {
    Document::mapping([("anyOf", Document::List(constraints.into_iter().collect()))])
}
