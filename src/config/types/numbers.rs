//! Numbers, counts, shares and durations.
//!
//! * A duration is made of whole numbers with units, the longest first and each at most once:
//!   `2h4m`, `100ms`, `50us`. Zero needs no unit.
//! * A count may end in `k` (1000) or `M` (1,000,000).
//! * A share is a whole number of percent: `40%`.
//! * All numbers are decimal.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::document::Document;
use crate::config::problem::ValueError;
use crate::config::schema::TypeInfo;

use super::constraint::{any_of, integer, pattern};
use super::scalar::Scalar;

/// The type of whole numbers within a range.
pub(in crate::config) struct Number(RangeInclusive<u32>);

/// Returns the type of whole numbers within a range.
pub(in crate::config) fn number(range: RangeInclusive<u32>) -> Number {
    Number(range)
}

impl Scalar for Number {
    type Value = u32;

    fn parse(&self, text: &str) -> Result<u32, ValueError> {
        let wanted = || format!("a whole number from {} to {}", self.0.start(), self.0.end());
        let number = plain_digits(text).ok_or_else(|| {
            let advice = match text.starts_with('0') && digits(text).is_some() {
                true => "leave out the zeros in front",
                false => "write decimal digits only",
            };
            ValueError::new(wanted(), advice)
        })?;
        within(number, &self.0).map_err(|advice| ValueError::new(wanted(), advice))
    }

    fn emit(&self, value: &u32) -> Document {
        (*value).into()
    }

    fn describe(&self) -> TypeInfo {
        let name = format!("number from {} to {}", self.0.start(), self.0.end());
        TypeInfo::scalar(name, integer(&self.0))
    }
}

/// The type of counts within a range.
pub(in crate::config) struct Count(RangeInclusive<u32>);

/// Returns the type of counts, such as `4096`, `64k` or `4M`, within a range.
pub(in crate::config) fn count(range: RangeInclusive<u32>) -> Count {
    Count(range)
}

impl Scalar for Count {
    type Value = u32;

    fn parse(&self, text: &str) -> Result<u32, ValueError> {
        let (least, most) = (self.0.start(), self.0.end());
        let examples = examples(&COUNT_EXAMPLES, &self.0);
        let wanted = || format!("a count from {least} to {most}{examples}");
        let (head, factor) = match text.strip_suffix(['k', 'M']) {
            Some(head) if text.ends_with('k') => (head, 1000),
            Some(head) => (head, 1_000_000),
            None => (text, 1),
        };
        let number = plain_digits(head).and_then(|number| number.checked_mul(factor));
        let number = number.ok_or_else(|| {
            let advice = match text.ends_with(['K', 'm']) {
                true => "`k` is thousand, `M` is million",
                false if digits(head).is_some() && head.starts_with('0') => {
                    "leave out the zeros in front"
                }
                false => "write digits, then k or M",
            };
            ValueError::new(wanted(), advice)
        })?;
        within(number, &self.0).map_err(|advice| ValueError::new(wanted(), advice))
    }

    fn emit(&self, value: &u32) -> Document {
        (*value).into()
    }

    fn emit_short(&self, value: &u32) -> Document {
        match Rounded(*value).to_string() {
            short if short.ends_with(['k', 'M']) => Document::Text(short),
            _ => Scalar::emit(self, value),
        }
    }

    fn describe(&self) -> TypeInfo {
        let name = format!("count from {} to {}", Rounded(*self.0.start()), Rounded(*self.0.end()));
        TypeInfo::scalar(name, any_of([integer(&self.0), pattern("^(0|[1-9][0-9]{0,17})[kM]?$")]))
    }
}

/// A count with the unit that shortens it, if one does.
struct Rounded(u32);

impl fmt::Display for Rounded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => formatter.write_str("0"),
            number if number % 1_000_000 == 0 => write!(formatter, "{}M", number / 1_000_000),
            number if number % 1000 == 0 => write!(formatter, "{}k", number / 1000),
            number => write!(formatter, "{number}"),
        }
    }
}

/// The type of shares of a whole, within a range of percent.
pub(in crate::config) struct Percent(RangeInclusive<u32>);

/// Returns the type of shares such as `40%`, within a range of percent.
pub(in crate::config) fn percent(range: RangeInclusive<u32>) -> Percent {
    Percent(range)
}

impl Scalar for Percent {
    type Value = u32;

    fn parse(&self, text: &str) -> Result<u32, ValueError> {
        let wanted = || format!("a share from {}% to {}%", self.0.start(), self.0.end());
        let number = text.strip_suffix('%').and_then(digits).ok_or_else(|| {
            let advice = match digits(text) {
                Some(_) => "add the sign: %",
                None => "write a whole number and the sign %",
            };
            ValueError::new(wanted(), advice)
        })?;
        within(number, &self.0).map_err(|advice| ValueError::new(wanted(), advice))
    }

    fn emit(&self, value: &u32) -> Document {
        Document::text(format!("{value}%"))
    }

    fn describe(&self) -> TypeInfo {
        let name = format!("share from {}% to {}%", self.0.start(), self.0.end());
        TypeInfo::scalar(name, pattern("^[0-9]{1,3}%$"))
    }
}

fn within(number: u64, range: &RangeInclusive<u32>) -> Result<u32, &'static str> {
    let fits = u32::try_from(number).ok().filter(|number| range.contains(number));
    fits.ok_or(if number > u64::from(*range.end()) { "lower it" } else { "raise it" })
}

/// The type of durations within a range.
pub(in crate::config) struct DurationWithin {
    range: RangeInclusive<Duration>,
    whole_seconds: bool,
}

/// Returns the type of durations within a range.
pub(in crate::config) fn duration(range: RangeInclusive<Duration>) -> DurationWithin {
    DurationWithin { range, whole_seconds: false }
}

/// Returns the type of durations of whole seconds within a range.
pub(in crate::config) fn whole_seconds(range: RangeInclusive<Duration>) -> DurationWithin {
    DurationWithin { range, whole_seconds: true }
}

impl Scalar for DurationWithin {
    type Value = Duration;

    fn parse(&self, text: &str) -> Result<Duration, ValueError> {
        let (least, most) = (DurationText(*self.range.start()), DurationText(*self.range.end()));
        let examples = examples(&DURATION_EXAMPLES, &self.range);
        let wanted = || format!("a duration from {least} to {most}{examples}");
        let duration = any_duration(text).map_err(|advice| ValueError::new(wanted(), advice))?;
        if !self.range.contains(&duration) {
            let advice = match duration > most.0 {
                true => "shorten it",
                false => "lengthen it",
            };
            return Err(ValueError::new(wanted(), advice));
        }
        if self.whole_seconds && duration.subsec_nanos() != 0 {
            return Err(ValueError::new("whole seconds", "leave out the fraction of a second"));
        }
        Ok(duration)
    }

    fn emit(&self, value: &Duration) -> Document {
        Document::text(DurationText(*value))
    }

    fn describe(&self) -> TypeInfo {
        let kind = if self.whole_seconds { "duration in whole seconds" } else { "duration" };
        let (least, most) = (DurationText(*self.range.start()), DurationText(*self.range.end()));
        const TEXT: &str = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?$";
        let mut text = pattern(TEXT);
        if let Document::Mapping(keywords) = &mut text {
            keywords.push(("minLength".to_owned(), 2.into()));
        }
        let zero = Document::mapping([(
            "enum",
            Document::List(vec![Document::Number(0), Document::text(0)]),
        )]);
        let constraint = match self.range.start().is_zero() {
            true => any_of([zero, text]),
            false => text,
        };
        TypeInfo::scalar(format!("{kind} from {least} to {most}"), constraint)
    }
}

/// A duration as the file writes it, down to microseconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct DurationText(pub Duration);

impl fmt::Display for DurationText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_micros();
        if rest == 0 {
            return formatter.write_str("0");
        }
        for (unit, microseconds) in UNITS {
            let times = rest / u128::from(microseconds);
            rest %= u128::from(microseconds);
            if times > 0 {
                write!(formatter, "{times}{unit}")?;
            }
        }
        Ok(())
    }
}

fn any_duration(text: &str) -> Result<Duration, &'static str> {
    const MALFORMED: &str =
        "write whole numbers with units (d, h, m, s, ms, us), the longest first";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if digits(text).is_some() {
        return Err("add a unit: s for seconds, ms for milliseconds");
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (head, tail) =
            rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len()));
        let (name, tail) =
            tail.split_at(tail.find(|letter: char| letter.is_ascii_digit()).unwrap_or(tail.len()));
        // The iterator yields each unit once, which rules out a wrong order and repeats.
        let (_, microseconds) = units.find(|(unit, _)| *unit == name).ok_or(MALFORMED)?;
        let too_long = head.len() > 18 && head.bytes().all(|byte| byte.is_ascii_digit());
        let times = digits(head).ok_or(if too_long { "shorten it" } else { MALFORMED })?;
        total = times
            .checked_mul(*microseconds)
            .and_then(|part| total.checked_add(part))
            .ok_or("shorten it")?;
        rest = tail;
    }
    if text.is_empty() { Err(MALFORMED) } else { Ok(Duration::from_micros(total)) }
}

/// Reads a decimal number without sign, of at most 18 digits.
pub(in crate::config) fn digits(text: &str) -> Option<u64> {
    let fits = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// Reads a number like [`digits`], without zeros in front: YAML 1.1 takes such a number as octal.
pub(in crate::config) fn plain_digits(text: &str) -> Option<u64> {
    digits(text).filter(|_| text.len() == 1 || !text.starts_with('0'))
}

/// Lists the examples that lie in a range, for a message; empty if none does.
fn examples<T: PartialOrd>(all: &[(&str, T)], range: &RangeInclusive<T>) -> String {
    let fitting: Vec<&str> =
        all.iter().filter(|(_, value)| range.contains(value)).map(|(text, _)| *text).collect();
    match fitting.as_slice() {
        [] => String::new(),
        [only] => format!(", such as {only}"),
        [some @ .., last] => format!(", such as {} or {last}", some.join(", ")),
    }
}

/// Units of a duration in microseconds, longest first.
const UNITS: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1000),
    ("us", 1),
];

const DURATION_EXAMPLES: [(&str, Duration); 4] = [
    ("50us", Duration::from_micros(50)),
    ("100ms", Duration::from_millis(100)),
    ("30s", Duration::from_secs(30)),
    ("2h4m", Duration::from_secs(7440)),
];

const COUNT_EXAMPLES: [(&str, u32); 3] = [("4096", 4096), ("64k", 64_000), ("4M", 4_000_000)];

#[cfg(test)]
mod tests;
