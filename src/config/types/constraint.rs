//! Keywords of JSON Schema that bound a single value.

use std::ops::RangeInclusive;

use crate::config::document::Document;
use crate::config::reader::cursor::TRUTH_VALUES;

/// Returns the constraint of a text that matches a regular expression.
pub(in crate::config) fn pattern(regex: &str) -> Document {
    Document::mapping([("type", "string".into()), ("pattern", regex.into())])
}

/// Returns the constraint of a choice of words. A truth value stands for `on` or `off`.
pub(in crate::config) fn words(words: &[&str]) -> Document {
    let [truths, falsities] = TRUTH_VALUES;
    let truth = [("on", true, truths), ("off", false, falsities)].into_iter();
    let truth = truth.filter(|(word, ..)| words.contains(word));
    let truth = truth
        .flat_map(|(_, truth, texts)| texts.into_iter().map(Document::text).chain([truth.into()]));
    let words = words.iter().map(Document::text);
    Document::mapping([("enum", Document::List(words.chain(truth).collect()))])
}

/// Returns the constraint of a truth value, in quotes or not.
pub(in crate::config) fn truth_value() -> Document {
    let texts = Document::texts(TRUTH_VALUES.concat());
    any_of([Document::mapping([("type", "boolean".into())]), Document::mapping([("enum", texts)])])
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
