//! Names, mail addresses and servers of the DNS.

use proptest::prelude::*;

use super::*;

#[test]
fn names_are_absolute_or_within_the_zone() {
    assert_eq!(parse_domain("Example.ORG").unwrap().to_ascii(), "example.org.");
    assert_eq!(parse_domain("example.org.").unwrap(), parse_domain("example.org").unwrap());
    assert_eq!(parse_relative("a.b").unwrap().to_ascii(), "a.b");
    assert_eq!(parse_relative("@").unwrap().num_labels(), 0);
    for text in [
        "",
        ".",
        "a..b",
        "-a",
        "a-",
        "*",
        "ä",
        "a b",
        "a/b",
        &"a".repeat(64),
        &"abcdefg.".repeat(32),
    ] {
        assert!(parse_domain(text).is_err(), "{text:?}");
        assert!(parse_relative(text).is_err(), "{text:?}");
    }
    assert!(
        parse_domain("192.0.2.1").is_err()
            && parse_domain("org").is_ok()
            && parse_relative("1").is_ok()
    );
    assert!(parse_relative("www.").is_err());
}

#[test]
fn mail_addresses_become_names() {
    assert_eq!(
        parse_mailbox("host.master@example.org").unwrap().to_ascii(),
        "host\\.master.example.org."
    );
    for text in ["hostmaster.example.org", "@example.org", "a@", "a b@example.org", "a@b@c"] {
        assert!(parse_mailbox(text).is_err(), "{text:?}");
    }
}

#[test]
fn servers_are_addresses() {
    assert_eq!(parse_name_server("192.0.2.53").unwrap(), ([192, 0, 2, 53], 53).into());
    assert_eq!(parse_name_server("127.0.0.1:5353").unwrap(), ([127, 0, 0, 1], 5353).into());
    for text in [
        "ns.example.org",
        "0.0.0.0",
        "192.0.2.53:0",
        "192.0.2.53:",
        "2001:db8::1",
        "[2001:db8::1]:53",
    ] {
        assert!(parse_name_server(text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,24}|[0-9a-z:.@_-]{0,24}") {
        let _ = (parse_domain(&text), parse_relative(&text), parse_mailbox(&text), parse_name_server(&text));
    }
}
