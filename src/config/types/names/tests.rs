//! Names and paths.

use proptest::prelude::*;

use super::*;

#[test]
fn paths_are_absolute_and_name_a_file() {
    assert!(parse_absolute_path("/a").is_ok() && parse_absolute_path("/usr/bin/x y").is_ok());
    for text in ["", "/", "a", "a/b", "/a/", "/a\0", &"/a".repeat(2048)] {
        assert!(parse_absolute_path(text).is_err(), "{text:?}");
    }
    assert!(parse_socket_path(&format!("/{}", "a".repeat(106))).is_ok());
    assert!(parse_socket_path(&format!("/{}", "a".repeat(107))).is_err());
}

#[test]
fn groups_are_names_or_numbers() {
    for text in ["adm", "_ops", "4711", "a.b-c_d", &"a".repeat(32)] {
        assert_eq!(parse_group(text).expect("a group"), text);
    }
    for text in ["", "-a", "a b", "a:b", "a\n", &"a".repeat(33)] {
        assert!(parse_group(text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,24}|[0-9a-z:./%-]{0,24}") {
        let _ = (parse_instance_name(&text), parse_label(&text), parse_socket_path(&text));
        let _ = (parse_absolute_path(&text), parse_group(&text));
    }
}
