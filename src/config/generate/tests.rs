//! The files of the repository equal the generated texts.

use std::fs;
use std::path::Path;

use super::manual::manual;
use super::*;

/// Compares a generated text with a file of the repository. `NATBOX_BLESS=1` writes the file
/// instead.
fn assert_generated(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("NATBOX_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == text, "{path} is out of date: NATBOX_BLESS=1 cargo test --lib generate");
}

#[test]
fn the_reference_file_is_up_to_date() {
    assert_generated("configs/reference.yaml", &reference());
}

#[test]
fn the_manual_is_up_to_date() {
    assert_generated("docs/reference/config.md", &manual());
}
