//! Single values: read from their text, and written back. Those of the network are in [`super::network`].
//!
//! Durations are whole numbers with units, longest first, each at most once: `2h4m`, `100ms`, `50us`; zero needs no
//! unit. Counts may end in `k` (1000) or `M` (1,000,000). Numbers are decimal.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::words::ConfigEnum;
use crate::config::model::{MssClamp, Workers};
use crate::config::reader::nearest;

/// What a value should have been.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::config) struct ValueError {
    /// What is wanted.
    pub wanted: String,
    /// What to do.
    pub advice: String,
}

impl ValueError {
    pub fn new(wanted: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { wanted: wanted.into(), advice: advice.into() }
    }
}

/// One of an enum's words.
pub(in crate::config) fn word<W: ConfigEnum>(text: &str) -> Result<W, ValueError> {
    let words = W::ALL.iter().map(|value| value.word());
    let wanted = || format!("one of {}", nearest::list(words.clone()));
    W::ALL.iter().copied().find(|value| value.word() == text).ok_or_else(|| {
        let advice = nearest::nearest(text, words.clone()).map_or_else(
            || "choose one of them".into(),
            |candidate| format!("did you mean `{candidate}`?"),
        );
        ValueError::new(wanted(), advice)
    })
}

/// A whole number within the range.
pub(in crate::config) fn number(
    range: RangeInclusive<u32>,
) -> impl Fn(&str) -> Result<u32, ValueError> {
    move |text| {
        let wanted = || format!("a whole number from {} to {}", range.start(), range.end());
        let number =
            digits(text).ok_or_else(|| ValueError::new(wanted(), "write decimal digits only"))?;
        u32::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(|| {
            ValueError::new(
                wanted(),
                if number > u64::from(*range.end()) { "lower it" } else { "raise it" },
            )
        })
    }
}

/// A count such as `4096`, `64k` or `4M` within the range.
pub(in crate::config) fn count(
    range: RangeInclusive<u32>,
) -> impl Fn(&str) -> Result<u32, ValueError> {
    move |text| {
        let wanted = || {
            format!("a count from {} to {}, such as 4096, 64k or 4M", range.start(), range.end())
        };
        let (head, factor) = match text.strip_suffix(['k', 'M']) {
            Some(head) if text.ends_with('k') => (head, 1000),
            Some(head) => (head, 1_000_000),
            None => (text, 1),
        };
        let number =
            digits(head).and_then(|number| number.checked_mul(factor)).ok_or_else(|| {
                let advice = if text.ends_with(['K', 'm']) {
                    "`k` is thousand, `M` is million"
                } else {
                    "write digits, then k or M"
                };
                ValueError::new(wanted(), advice)
            })?;
        u32::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(|| {
            ValueError::new(
                wanted(),
                if number > u64::from(*range.end()) { "lower it" } else { "raise it" },
            )
        })
    }
}

/// A duration within the range.
pub(in crate::config) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&str) -> Result<Duration, ValueError> {
    move |text| {
        let wanted = || {
            format!(
                "a duration from {} to {}, such as {DURATION_EXAMPLES}",
                Span(*range.start()),
                Span(*range.end())
            )
        };
        let duration = any_duration(text).map_err(|advice| ValueError::new(wanted(), advice))?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        Err(ValueError::new(
            wanted(),
            if duration > *range.end() { "shorten it" } else { "lengthen it" },
        ))
    }
}

/// A duration as the file writes it; what is shorter than a microsecond is left out.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Span(pub Duration);

impl fmt::Display for Span {
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
        // Units already passed are gone from the iterator, which rules out a wrong order and repeats.
        let (_, microseconds) = units.find(|(unit, _)| *unit == name).ok_or(MALFORMED)?;
        let times = digits(head).ok_or(MALFORMED)?;
        total = times
            .checked_mul(*microseconds)
            .and_then(|part| total.checked_add(part))
            .ok_or("shorten it")?;
        rest = tail;
    }
    if text.is_empty() { Err(MALFORMED) } else { Ok(Duration::from_micros(total)) }
}

/// `auto` or 1 to 256.
pub(in crate::config) fn workers(text: &str) -> Result<Workers, ValueError> {
    if text == "auto" {
        return Ok(Workers::Auto);
    }
    match number(1..=256)(text) {
        Ok(number) => Ok(Workers::Count(number as u16)),
        Err(error) => {
            Err(ValueError::new("`auto` or a number of threads from 1 to 256", error.advice))
        }
    }
}

/// `auto`, `off` or 88 to 65495 bytes.
pub(in crate::config) fn mss_clamp(text: &str) -> Result<MssClamp, ValueError> {
    match text {
        "auto" => Ok(MssClamp::Auto),
        "off" => Ok(MssClamp::Off),
        _ => match number(88..=65495)(text) {
            Ok(number) => Ok(MssClamp::To(number as u16)),
            Err(error) => Err(ValueError::new(
                "`auto`, `off` or a number of bytes from 88 to 65495",
                error.advice,
            )),
        },
    }
}

/// The box's name, which becomes part of file names.
pub(in crate::config) fn box_name(text: &str) -> Result<String, ValueError> {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    if (1..=MAX_NAME).contains(&text.len())
        && text.chars().all(plain)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
    {
        return Ok(text.into());
    }
    let wanted = format!(
        "a name of 1 to {MAX_NAME} letters, digits, `-`, `_`, `.`, beginning with a letter or digit"
    );
    Err(ValueError::new(wanted, "choose another name"))
}

/// The name of an uplink or a forward, for listings.
pub(in crate::config) fn label(text: &str) -> Result<String, ValueError> {
    // The separators of lines and paragraphs break lines, though Unicode does not count them as control characters.
    let breaks_listings =
        |letter: char| letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}');
    if (1..=MAX_NAME).contains(&text.len())
        && !text.contains(breaks_listings)
        && text.trim() == text
    {
        return Ok(text.into());
    }
    let wanted = format!("a name of 1 to {MAX_NAME} bytes in one line");
    Err(ValueError::new(wanted, "shorten it, without blanks at its ends"))
}

/// An absolute path that fits a Unix socket's address.
pub(in crate::config) fn socket_path(text: &str) -> Result<PathBuf, ValueError> {
    let wanted = || format!("an absolute path of at most {MAX_SOCKET_PATH} bytes");
    if !text.starts_with('/') || text.ends_with('/') || text.contains(char::is_control) {
        return Err(ValueError::new(
            wanted(),
            "write it from the root, such as /run/natbox/natbox1.sock",
        ));
    }
    if text.len() > MAX_SOCKET_PATH {
        return Err(ValueError::new(wanted(), "choose a shorter directory or name"));
    }
    Ok(text.into())
}

/// A decimal number without sign, of at most 18 digits.
pub(in crate::config) fn digits(text: &str) -> Option<u64> {
    let fits = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
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

const DURATION_EXAMPLES: &str = "30s, 2h4m or 50us";

/// Bytes of a name.
const MAX_NAME: usize = 63;

/// Bytes of a Unix socket's path: `sun_path` less its final zero (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

    #[test]
    fn durations_add_their_units() {
        let read = |text| duration(ANY)(text).unwrap();
        assert_eq!(read("2h4m"), Duration::from_secs(7440));
        assert_eq!(read("50us"), Duration::from_micros(50));
        assert_eq!(read("100ms"), Duration::from_millis(100));
        assert_eq!(read("0"), Duration::ZERO);
        assert_eq!(read("0s"), Duration::ZERO);
        assert_eq!(read("1d1s"), Duration::from_secs(86_401));
    }

    #[test]
    fn durations_in_other_forms_are_refused() {
        for text in [
            "",
            "5",
            "s",
            "4m2h",
            "1s1s",
            "1.5s",
            "-1s",
            "+1s",
            " 1s",
            "1 s",
            "1y",
            "9999999999999999999s",
        ] {
            assert!(duration(ANY)(text).is_err(), "{text:?}");
        }
        assert_eq!(
            duration(ANY)("5").unwrap_err().advice,
            "add a unit: s for seconds, ms for milliseconds"
        );
        assert_eq!(duration(ANY)("300000000000d").unwrap_err().advice, "shorten it");
    }

    #[test]
    fn counts_are_decimal() {
        let read = count(1..=512_000_000);
        assert_eq!(read("4M"), Ok(4_000_000));
        assert_eq!(read("64k"), Ok(64_000));
        assert_eq!(read("4096"), Ok(4096));
        for text in
            ["", "k", "0", "-1", "1.5M", "4G", "4m", "513M", "4 M", "99999999999999999999", "0x10"]
        {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn durations_read_back_as_written(microseconds in 0..=u64::MAX / 2) {
            let duration = Duration::from_micros(microseconds);
            prop_assert_eq!(super::duration(ANY)(&Span(duration).to_string()), Ok(duration));
        }

        #[test]
        fn no_text_makes_a_reader_panic(text in "\\PC{0,24}|[0-9a-z:./%-]{0,24}") {
            let _ = (duration(ANY)(&text), count(0..=9)(&text), box_name(&text), label(&text), socket_path(&text));
            let _ = (workers(&text), mss_clamp(&text), word::<crate::config::LogLevel>(&text));
        }
    }
}
