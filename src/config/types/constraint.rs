//! Keywords of JSON Schema that bound a single value.

use std::ops::RangeInclusive;

use crate::config::document::Document;

/// Returns the constraint of a text that matches a regular expression.
pub(in crate::config) fn pattern(regex: &str) -> Document {
    Document::mapping([("type", "string".into()), ("pattern", regex.into())])
}

/// Returns the constraint of a whole number within a range.
pub(in crate::config) fn integer(range: &RangeInclusive<u32>) -> Document {
    Document::mapping([
        ("type", "integer".into()),
        ("minimum", (*range.start()).into()),
        ("maximum", (*range.end()).into()),
    ])
}

/// Returns the constraint of a value that meets one of several.
pub(in crate::config) fn any_of(constraints: impl IntoIterator<Item = Document>) -> Document {
    Document::mapping([("anyOf", Document::List(constraints.into_iter().collect()))])
}
