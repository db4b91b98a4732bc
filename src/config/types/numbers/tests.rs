//! Numbers, counts and durations.

use proptest::prelude::*;

use super::*;

const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

#[test]
fn durations_add_their_units() {
    let read = |text| duration(ANY).parse(text).unwrap();
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
        assert!(duration(ANY).parse(text).is_err(), "{text:?}");
    }
    assert_eq!(
        duration(ANY).parse("5").unwrap_err().advice,
        "add a unit: s for seconds, ms for milliseconds"
    );
    assert_eq!(duration(ANY).parse("300000000000d").unwrap_err().advice, "shorten it");
}

#[test]
fn counts_are_decimal() {
    let range = count(1..=512_000_000);
    let read = |text| range.parse(text);
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
        prop_assert_eq!(super::duration(ANY).parse(&DurationText(duration).to_string()), Ok(duration));
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,24}|[0-9a-z:./%-]{0,24}") {
        let _ = (duration(ANY).parse(&text), count(0..=9).parse(&text), number(1..=7).parse(&text));
        let _ = whole_seconds(ANY).parse(&text);
    }
}
