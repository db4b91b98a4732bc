//! Relative links lead to files that exist, and their anchors to headings.

use std::fs;

use super::markdown::{Block, blocks, link_targets, plain};
use super::{documents, fail_with, root};

/// The anchor that a forge makes of a heading.
fn anchor(heading: &str) -> String {
    plain(&heading.replace('`', ""))
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

fn has_heading(text: &str, wanted: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| line.trim_start_matches('#').trim()).any(|line| anchor(line) == wanted)
}

#[test]
fn relative_links_lead_to_files_and_headings_that_exist() {
    let mut complaints = Vec::new();
    for document in documents() {
        let folder = root().join(&document.path);
        let folder = folder.parent().unwrap();
        for block in blocks(&document.text) {
            let Block::Prose { line, text } = block else { continue };
            for target in link_targets(&text).into_iter().filter(|target| !target.contains("://")) {
                let (file, heading) = target.split_once('#').unwrap_or((target, ""));
                let path =
                    if file.is_empty() { root().join(&document.path) } else { folder.join(file) };
                let leads = path.exists()
                    && (heading.is_empty()
                        || has_heading(&fs::read_to_string(&path).unwrap(), heading));
                if !leads {
                    complaints.push(format!("{}:{line}: {target}", document.path));
                }
            }
        }
    }
    fail_with(&complaints);
}

#[test]
fn every_page_of_docs_can_be_reached_from_the_readme() {
    let documents = documents();
    let readme = documents.iter().find(|document| document.path == "README.md").unwrap();
    let mut complaints = Vec::new();
    for document in documents.iter().filter(|document| document.path.starts_with("docs/")) {
        if !link_targets(&readme.text).iter().any(|target| *target == document.path) {
            complaints.push(format!("README.md has no link to {}", document.path));
        }
    }
    fail_with(&complaints);
}

#[test]
fn anchors_are_those_of_the_forge() {
    assert_eq!(
        anchor("DNS that follows the `uplinks`, again"),
        "dns-that-follows-the-uplinks-again"
    );
    assert!(has_heading("# One\n\n## Two words\n", "two-words"));
    assert!(!has_heading("text two-words\n", "two-words"));
}
