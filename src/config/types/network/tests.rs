//! Addresses, prefixes, ports and interfaces.

use proptest::prelude::*;

use super::*;

#[test]
fn addresses_come_as_one_a_range_or_a_block() {
    let last_octets = |text| {
        parse_addresses(text).map(|all| all.iter().map(|a| a.octets()[3]).collect::<Vec<_>>())
    };
    assert_eq!(last_octets("203.0.113.10").unwrap(), [10]);
    assert_eq!(last_octets("203.0.113.10-12").unwrap(), [10, 11, 12]);
    assert_eq!(last_octets("203.0.113.10-203.0.113.12").unwrap(), [10, 11, 12]);
    assert_eq!(last_octets("203.0.112.255-203.0.113.1").unwrap(), [255, 0, 1]);
    assert_eq!(last_octets("203.0.113.4/30").unwrap(), [4, 5, 6, 7]);
    for text in [
        "203.0.113.12-10",
        "203.0.113.5/30",
        "203.0.113.1-",
        "203.0.113.1-+5",
        "203.0.0.0/16",
        "0.0.0.0/0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "169.254.1.1",
        "223.255.255.250-224.0.0.3",
        "::1",
        "",
    ] {
        assert!(last_octets(text).is_err(), "{text:?}");
    }
}

#[test]
fn host_bits_are_refused_with_both_readings() {
    let error = parse_prefix("10.0.0.1/24").unwrap_err();
    assert_eq!(error.advice, "write 10.0.0.0/24 for the network, or 10.0.0.1/32 for the one host");
}

#[test]
fn inside_prefixes_keep_off_reserved_ranges() {
    for text in [
        "0.0.0.0/0",
        "127.0.0.0/8",
        "127.1.0.0/16",
        "224.0.0.0/4",
        "192.0.0.0/2",
        "169.254.0.0/16",
        "169.254.71.0/24",
        "255.255.255.255/32",
    ] {
        assert!(parse_unicast_prefix(text).is_err(), "{text:?}");
    }
    assert!(
        parse_unicast_prefix("10.0.0.0/8").is_ok()
            && parse_unicast_prefix("192.168.1.7/32").is_ok()
    );
}

#[test]
fn ports_start_at_one_and_ranges_run_upwards() {
    assert_eq!(parse_ports("80"), Ok(PortRange { first: 80, last: 80 }));
    assert_eq!(parse_ports("8000-8099"), Ok(PortRange { first: 8000, last: 8099 }));
    for text in ["0", "0-10", "65536", "90-80", "80-", "-80", "http", "80-90-99", "+80", ""] {
        assert!(parse_ports(text).is_err(), "{text:?}");
    }
}

#[test]
fn interface_names_are_what_the_kernel_allows() {
    assert!(parse_interface("wan0.100").is_ok() && parse_interface("a23456789012345").is_ok());
    for text in ["", "a234567890123456", "a/b", "a b", "a:b", ".", "..", "a\tb", "a\0b"] {
        assert!(parse_interface(text).is_err(), "{text:?}");
    }
    assert!(parse_tun_interface("tun%d").is_err());
}

proptest! {
    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,24}|[0-9a-z:./%-]{0,24}") {
        let _ = (parse_addresses(&text), parse_unicast_prefix(&text), parse_ports(&text), parse_target(&text));
        let _ = (parse_interface(&text), parse_tun_interface(&text), parse_listener(&text));
    }
}
