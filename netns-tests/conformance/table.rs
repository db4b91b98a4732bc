//! Makes CONFORMANCE.md of the rows and of the recorded outcomes.
//!
//! ```text
//!   cargo test --features netns --test conformance -- --write    writes the table
//!   cargo test --features netns --test conformance -- --check    fails when the table differs, or a row is open
//! ```

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command")]

mod rows;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use rows::{CHAPTERS, Row};

/// Tests by row id, and whether each passed in every variant.
type Proofs = BTreeMap<String, BTreeMap<String, bool>>;

fn main() -> ExitCode {
    let proofs = read(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance"));
    let (table, open) = table(&proofs);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("netns-tests/CONFORMANCE.md");
    match std::env::args().nth(1).as_deref() {
        Some("--write") => {
            fs::write(&path, table).expect("the table can be written");
            println!("{}: written; {} rows are open", path.display(), open.len());
            ExitCode::SUCCESS
        }
        Some("--check") => {
            let found = fs::read_to_string(&path).unwrap_or_default();
            for row in &open {
                eprintln!("open: {row}");
            }
            if found != table {
                eprintln!(
                    "{} is not what the tests say; run netns-tests/run --conformance",
                    path.display()
                );
            }
            if open.is_empty() && found == table { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        // `cargo test` runs every target, without these arguments.
        _ => ExitCode::SUCCESS,
    }
}

fn read(directory: &Path) -> Proofs {
    let mut proofs = Proofs::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        let mut lines = text.lines();
        let (Some(name), Some(outcome), Some(ids)) = (lines.next(), lines.next(), lines.next())
        else {
            continue;
        };
        for id in ids.split(' ') {
            let tests = proofs.entry(id.to_owned()).or_default();
            *tests.entry(name.to_owned()).or_insert(true) &= outcome == "pass";
        }
    }
    proofs
}

/// Returns the table, and the rows that are neither proven nor deliberate.
fn table(proofs: &Proofs) -> (String, Vec<String>) {
    let mut chapters = String::new();
    let (mut proven, mut deliberate, mut open) = (0, 0, Vec::new());
    for (title, rows) in CHAPTERS {
        let _ = write!(
            chapters,
            "\n## {title}\n\n| id | level | requirement | status | tests |\n|---|---|---|---|---|\n"
        );
        for row in *rows {
            let (status, tests) = status(row, proofs);
            match status.as_str() {
                "pass" => proven += 1,
                _ if row.deliberate.is_some() => deliberate += 1,
                _ => open.push(format!("{}: {status}", row.ids.join(", "))),
            }
            let _ = writeln!(
                chapters,
                "| {} | {} | {} | {status} | {tests} |",
                row.ids.join(", "),
                row.level,
                row.text
            );
        }
    }
    let text = format!(
        "# Conformance\n\n\
         What a correct NAT does, row by row, and the tests that show natbox doing it: on the real process, over a real TUN\n\
         device, with offload on and two workers and with offload off and one worker. UDP-n is RFC 4787 REQ-n, TCP-n RFC 5382,\n\
         ICMP-n RFC 5508, RFC7857-n section n of that RFC, RFC6888-n REQ-n; `(P)` marks rows of this project's own.\n\n\
         `netns-tests/run --conformance` runs the tests and writes this file; `netns-tests/run` fails when it is stale.\n\n\
         {proven} rows pass, {deliberate} deliberately do not, {} are open.\n{chapters}",
        open.len()
    );
    (text, open)
}

fn status(row: &Row, proofs: &Proofs) -> (String, String) {
    let mut tests: BTreeMap<&str, bool> = BTreeMap::new();
    let mut unproven = Vec::new();
    for id in row.ids {
        match proofs.get(*id) {
            Some(found) => {
                tests.extend(found.iter().map(|(name, passed)| (name.as_str(), *passed)))
            }
            None => unproven.push(*id),
        }
    }
    let names: Vec<String> = tests
        .keys()
        .map(|name| format!("`{}`", name.trim_start_matches("conformance::")))
        .collect();
    let status = match row.deliberate {
        _ if tests.values().any(|passed| !passed) => "fail".to_owned(),
        Some(reason) => format!("deliberate: {reason}"),
        None if unproven.is_empty() => "pass".to_owned(),
        None => format!("missing: {}", unproven.join(", ")),
    };
    (status, names.join(", "))
}
