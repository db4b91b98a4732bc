//! Every configuration in the documentation is read by the program itself.

use std::fs;
use std::process::Command;

use super::markdown::{Block, blocks};
use super::{documents, fail_with};

/// Sections that a snippet leaves out because the text around it does not need them.
const SECTIONS: &[(&str, &str)] = &[
    ("inside:", "inside: { interface: lan0, address: 10.0.0.1, prefixes: [10.0.0.0/24] }\n"),
    (
        "uplinks:",
        "uplinks:\n  - { name: isp1, interface: wan0, addresses: [203.0.113.10], gateway: 203.0.113.254 }\n  - { name: isp2, interface: wan1, addresses: [198.51.100.10], gateway: 198.51.100.254 }\n",
    ),
];

/// Adds the required sections that the snippet leaves out.
fn complete(snippet: &str) -> String {
    let mut file = String::new();
    for (key, section) in SECTIONS {
        if !snippet.lines().any(|line| line.starts_with(key)) {
            file.push_str(section);
        }
    }
    file + snippet
}

#[test]
fn every_configuration_in_the_documentation_passes_natbox_check() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("natbox.yaml");
    let mut checked = 0;
    let mut complaints = Vec::new();
    for document in documents() {
        for block in blocks(&document.text) {
            let Block::Code { line, language, text } = block else { continue };
            if language != "yaml" {
                continue;
            }
            fs::write(&file, complete(&text)).unwrap();
            let mut check = Command::new(env!("CARGO_BIN_EXE_natbox"));
            let output = check.args(["check", "--config"]).arg(&file).output().unwrap();
            if !output.status.success() || !output.stderr.is_empty() {
                let message = String::from_utf8(output.stderr).unwrap();
                complaints.push(format!("{}:{line}: {message}", document.path));
            }
            checked += 1;
        }
    }
    fail_with(&complaints);
    assert!(checked >= 5, "only {checked} configurations found in the documentation");
}

#[test]
fn a_snippet_gets_only_the_sections_that_it_lacks() {
    assert!(complete("nat: { hairpin: false }\n").contains("inside:"));
    assert_eq!(complete("inside: {}\nuplinks: []\n"), "inside: {}\nuplinks: []\n");
}
