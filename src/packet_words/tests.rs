//! Words that describe packets, and words that describe none.

use proptest::prelude::*;

use super::*;
use crate::packet::{ChecksumMode, Payload, builder};

fn tuple_of(text: &str) -> String {
    let bytes = parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).bytes();
    builder::verify(&bytes, ChecksumMode::Complete).expect("correct checksums");
    let parsed = crate::packet::parse(&bytes, ChecksumMode::Complete).expect("well-formed");
    parsed.tuple().expect("a tuple").to_string()
}

fn error_of(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn a_description_becomes_the_packet_that_it_says() {
    for text in [
        "tcp 192.0.2.7:4242 -> 203.0.113.10:80",
        "tcp 192.0.2.7:4242->203.0.113.10:80 ack psh",
        "tcp 192.0.2.7:4242 > 203.0.113.10:80",
        "  tcp 192.0.2.7:4242  to  203.0.113.10:80  seq 7 from wan0 ",
    ] {
        assert_eq!(tuple_of(text), "tcp 192.0.2.7:4242 > 203.0.113.10:80", "{text}");
    }
    let udp = "udp 10.0.0.5:5000 -> 192.0.2.1:53";
    assert_eq!(tuple_of(udp), "udp 10.0.0.5:5000 > 192.0.2.1:53");
    let request = "icmp 10.0.0.5 -> 192.0.2.1 id 7";
    assert_eq!(tuple_of(request), "icmp 10.0.0.5:7 > 192.0.2.1:0");
    let reply = "icmp 192.0.2.1 -> 10.0.0.5 reply id 7";
    assert_eq!(tuple_of(reply), "icmp 192.0.2.1:0 > 10.0.0.5:7");
    assert_eq!(tuple_of("gre 10.0.0.5 -> 192.0.2.1"), "ip-47 10.0.0.5:0 > 192.0.2.1:0");
    assert_eq!(tuple_of("ip-99 10.0.0.5 -> 192.0.2.1"), "ip-99 10.0.0.5:0 > 192.0.2.1:0");
}

#[test]
fn flags_length_and_df_are_in_the_packet() {
    let text = "tcp 192.0.2.7:4242 -> 203.0.113.10:80 length 1500 df fin ack from inside";
    let packet = parse(text).expect(text);
    assert_eq!(packet.from.as_deref(), Some("inside"));
    let bytes = packet.bytes();
    let parsed = crate::packet::parse(&bytes, ChecksumMode::Complete).expect("well-formed");
    assert!(bytes.len() == 1500 && parsed.dont_fragment());
    let Payload::Tcp(tcp) = parsed.payload() else { panic!("no segment") };
    assert_eq!(tcp.flags, TcpFlags(0x11));
}

#[test]
fn a_wrong_word_is_named_with_its_place_and_the_nearest_one() {
    for (text, message) in [
        ("", "packet, column 1: found the end, wanted a protocol, such as `tcp`"),
        (
            "tpc 192.0.2.7:1 -> 203.0.113.10:80",
            "packet, column 1: found `tpc`, wanted a protocol or `ip-NUMBER`; did you mean `tcp`?",
        ),
        ("tcp 192.0.2.7", "packet, column 5: found `192.0.2.7`, wanted ADDRESS:PORT"),
        (
            "tcp 192.0.2.7:1 203.0.113.10:80",
            "packet, column 17: found `203.0.113.10:80`, wanted `->`",
        ),
        (
            "tcp 192.0.2.7:1 -> 203.0.113.10:80 sny",
            "packet, column 36: found `sny`, wanted a word of a packet; did you mean `syn`?",
        ),
        (
            "udp 192.0.2.7:1 -> 203.0.113.10:80 syn",
            "packet, column 36: found `syn`, wanted a word of a packet; choose one of `length`, \
             `df`, `from`",
        ),
        (
            "icmp 192.0.2.7:1 -> 203.0.113.10",
            "packet, column 6: found `192.0.2.7:1`, wanted an IPv4 address without a port",
        ),
        (
            "udp 192.0.2.7:1 -> 203.0.113.10:80 length 20",
            "packet, column 43: found `20`, wanted at least 28, the length of the headers",
        ),
        (
            "udp 192.0.2.7:1 -> 203.0.113.10:80 length",
            "packet, column 42: found the end, wanted bytes up to 65535",
        ),
    ] {
        assert_eq!(error_of(text), message);
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,80}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_words_give_a_packet_or_an_error(
        words in proptest::collection::vec(prop::sample::select(vec![
            "tcp", "udp", "icmp", "gre", "10.0.0.5:5", "192.0.2.1:9", "10.0.0.5", "->", "to", "syn",
            "ack", "length", "20", "60", "70000", "id", "df", "from", "reply", "seq",
        ]), 0..12),
    ) {
        if let Ok(packet) = parse(&words.join(" ")) {
            prop_assert!(crate::packet::parse(&packet.bytes(), ChecksumMode::Complete).is_ok());
        }
    }
}
