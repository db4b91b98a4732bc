//! `uplinks[].health.expect`: which answers to an HTTP probe count.

use std::fmt;

use crate::config::document::Document;
use crate::config::problem::ValueError;
use crate::config::schema::{Unresolved, ValueType, ValueTypeExt as _, section};
use crate::config::types::{Format, Items, boolean, pattern, some};

/// The answers to an HTTP probe that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expectation {
    /// Statuses, at least one range.
    pub status: Vec<StatusRange>,
    /// Text that the page must contain.
    pub body: Option<String>,
    /// Whether a redirect to another host counts.
    pub foreign_redirect: bool,
}

section! {
    /// The answers to an HTTP probe that count. Other answers prove only that something answers,
    /// for example the login page of a provider.
    #[derive(Debug)]
    pub(in crate::config) struct FileExpectation {
        /// Statuses that count: `200`, `2xx` or `200-299`.
        pub status: Unresolved<Items<StatusRange>> = statuses()
            .optional("`[2xx, 3xx]`, or with `body` `[2xx]`")
            .example("[2xx, 3xx]"),
        /// Text that the page must contain, in the same letter case. natbox then requests the page
        /// with GET and reads its first 64 KiB.
        pub body: Unresolved<String> = text()
            .optional("natbox requests the page with HEAD and reads no text")
            .example("Example Domain"),
        /// Whether a redirect to another host counts, by `Location` or by `Refresh`. A redirect to
        /// the same host always counts, if its status does: another page, `https` instead of
        /// `http`, or `www.` before the name.
        pub foreign_redirect: bool = boolean().default(false),
    }
}

/// A range of HTTP statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StatusRange {
    /// First status.
    pub first: u16,
    /// Last status, at least the first.
    pub last: u16,
}

impl StatusRange {
    /// Returns the statuses of a class: 2 for 200 to 299.
    const fn class(digit: u16) -> Self {
        Self { first: digit * 100, last: digit * 100 + 99 }
    }

    /// Returns whether a status is in the range.
    pub(crate) fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last {
            write!(formatter, "{first}")
        } else if *self == Self::class(first / 100) {
            write!(formatter, "{}xx", first / 100)
        } else {
            write!(formatter, "{first}-{last}")
        }
    }
}

impl Expectation {
    /// Returns the expectation that applies without the key.
    pub(crate) fn usual() -> Self {
        let status = vec![StatusRange::class(2), StatusRange::class(3)];
        Self { status, body: None, foreign_redirect: false }
    }
}

impl FileExpectation {
    /// Returns the effective value; None if a part could not be read.
    pub(crate) fn whole(&self) -> Option<Expectation> {
        let body = self.body.clone().into_option()?;
        let status = match &self.status {
            Unresolved::Unreadable => return None,
            Unresolved::Given(status) => status.value.values()?,
            // A redirect has no page that could contain the text.
            Unresolved::Absent if body.is_some() => vec![StatusRange::class(2)],
            Unresolved::Absent => Expectation::usual().status,
        };
        Some(Expectation { status, body, foreign_redirect: self.foreign_redirect })
    }
}

impl From<&Expectation> for FileExpectation {
    fn from(expected: &Expectation) -> Self {
        Self {
            status: Unresolved::from_option(Some(Items::of(expected.status.iter().copied()))),
            body: Unresolved::from_option(expected.body.clone()),
            foreign_redirect: expected.foreign_redirect,
        }
    }
}

fn statuses() -> impl ValueType<Value = Items<StatusRange>> {
    let item = Format::new("status, class or range such as `200`, `2xx`, `200-299`", parse, || {
        let number = Document::mapping([
            ("type", "integer".into()),
            ("minimum", u32::from(FIRST).into()),
            ("maximum", u32::from(LAST).into()),
        ]);
        crate::config::types::any_of([number, pattern("^[1-5]([0-9][0-9](-[1-5][0-9][0-9])?|xx)$")])
    });
    some(item, MAX_STATUSES, "statuses")
}

fn parse(text: &str) -> Result<StatusRange, ValueError> {
    let wanted = "an HTTP status from 100 to 599, a class or a range, such as 200, 2xx or 200-299";
    let error = |advice| ValueError::new(wanted, advice);
    let status = |text: &str| -> Option<u16> {
        text.parse().ok().filter(|status| text.len() == 3 && (FIRST..=LAST).contains(status))
    };
    if let Some(digit) = text.strip_suffix("xx") {
        let digit = digit.parse().ok().filter(|digit| (1..=5).contains(digit));
        return digit.map(StatusRange::class).ok_or_else(|| error("write a class from 1xx to 5xx"));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = status(first).zip(status(last)).ok_or_else(|| error("write three digits"))?;
    match range {
        (first, last) if first <= last => Ok(StatusRange { first, last }),
        _ => Err(error("write the smaller status first")),
    }
}

/// Returns the type of the text of a page.
fn text() -> Format<String> {
    Format::text("text of 1 to 1024 bytes", parse_text, crate::config::types::shown).bounded(|| {
        Document::mapping([
            ("type", "string".into()),
            ("minLength", 1.into()),
            ("maxLength", (MAX_TEXT as u32).into()),
        ])
    })
}

fn parse_text(text: &str) -> Result<String, ValueError> {
    let breaks_lines =
        |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
    let advice = match text.len() {
        0 => "write the text",
        1..=MAX_TEXT if text.contains(breaks_lines) => "write a part of one line",
        1..=MAX_TEXT => return Ok(text.to_owned()),
        _ => "shorten it",
    };
    Err(ValueError::new("a text of 1 to 1024 bytes in one line", advice))
}

const FIRST: u16 = 100;
const LAST: u16 = 599;
/// Most ranges of statuses.
const MAX_STATUSES: usize = 16;
/// Most bytes of the text.
const MAX_TEXT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_number_a_class_or_a_range() {
        for (text, first, last) in
            [("200", 200, 200), ("2xx", 200, 299), ("204-206", 204, 206), ("599", 599, 599)]
        {
            let range = parse(text).unwrap();
            assert_eq!((range.first, range.last, range.to_string().as_str()), (first, last, text));
        }
        for text in ["", "20", "0200", "600", "6xx", "2x", "xx", "+99", "300-200", "2xx-3xx"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(parse("200-299").unwrap().to_string(), "2xx");
    }
}
