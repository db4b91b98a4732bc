//! `TESTING.md` names every folder of the code and every file of tests, and nothing that is gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::markdown::{cells, code_spans};
use super::{fail_with, files_below, files_in, folders_below, relative, root};

/// A row of the tables in TESTING.md: a path, and how it is covered.
struct Row {
    path: String,
    kinds: String,
    namespaces: Vec<String>,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("TESTING.md")).unwrap();
    // The first table names commands.
    let is_path = |line: &&str| code_spans(line)[0].contains('/') && !line.starts_with("| `just");
    let rows = text.lines().filter(|line| line.starts_with("| `")).filter(is_path);
    rows.map(|line| {
        let cells: Vec<&str> = cells(line).collect();
        let spans = |cell: &str| code_spans(cell).into_iter().map(str::to_owned).collect();
        Row {
            path: code_spans(cells[0])[0].to_owned(),
            kinds: cells[1].to_owned(),
            namespaces: cells.get(2).map(|cell| spans(cell)).unwrap_or_default(),
        }
    })
    .collect()
}

/// True for a folder that holds nothing but the tests of the file it is named after.
fn holds_only_tests(folder: &Path) -> bool {
    let files = files_below(folder, "rs");
    let is_test = |file: &PathBuf| {
        file.ends_with("tests.rs")
            || file.ends_with("tests/mod.rs")
            || file.parent().is_some_and(|parent| parent.ends_with("tests"))
    };
    !files.is_empty() && files.iter().all(is_test)
}

/// Folders of the code, with a slash at the end.
fn code_folders() -> Vec<String> {
    folders_below(&root().join("src"))
        .into_iter()
        .filter(|folder| !holds_only_tests(folder))
        .map(|folder| relative(&folder) + "/")
        .collect()
}

/// Files and folders of tests, benches, examples and fuzz targets.
fn test_files() -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["tests", "netns-tests", "benches", "examples", "fuzz/fuzz_targets"] {
        let folder = root().join(folder);
        if !folder.exists() {
            continue;
        }
        found.extend(files_in(&folder, "rs").iter().map(|file| relative(file)));
        for below in folders_below(&folder).iter().filter(|below| below.parent() == Some(&folder)) {
            if !files_in(below, "rs").is_empty() {
                found.push(relative(below) + "/");
            }
        }
    }
    found
}

/// The code of a folder: its own files and the tests in folders of their own.
fn code_of(folder: &Path) -> String {
    let mut files = files_in(folder, "rs");
    for below in folders_below(folder).iter().filter(|below| holds_only_tests(below)) {
        files.extend(files_in(below, "rs"));
    }
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn the_map_of_tests_names_every_folder_and_every_file_of_tests() {
    let rows = rows();
    let named: BTreeSet<&str> = rows.iter().map(|row| row.path.as_str()).collect();
    let mut complaints = Vec::new();
    for path in code_folders().iter().chain(&test_files()) {
        if !named.contains(path.as_str()) {
            complaints.push(format!("TESTING.md lacks a row for `{path}`"));
        }
    }
    for row in rows.iter().filter(|row| !root().join(&row.path).exists()) {
        complaints.push(format!("TESTING.md names `{}`, which does not exist", row.path));
    }
    fail_with(&complaints);
}

/// Names in the first column of the tables of ARCHITECTURE.md below a heading.
fn architecture_names() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, modules) = text.split_once("## Modules").unwrap();
    let (modules, _) = modules.split_once("\n## ").unwrap();
    let rows = modules.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| code_spans(line)[0].to_owned()).collect()
}

#[test]
fn the_map_of_modules_names_every_module_and_its_folders() {
    let source = root().join("src");
    let mut present: BTreeSet<String> = files_in(&source, "rs")
        .iter()
        .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "lib" && name != "main")
        .collect();
    for folder in code_folders() {
        let folder = folder.trim_start_matches("src/").trim_end_matches('/').to_owned();
        let depth = folder.split('/').count();
        // The order of the folders inside these two is part of the architecture.
        let is_ordered = folder.starts_with("nat/") || folder.starts_with("host/");
        if !folder.is_empty() && (depth == 1 || depth == 2 && is_ordered) {
            present.insert(folder);
        }
    }
    assert_eq!(architecture_names(), present);
}

#[test]
fn no_module_of_the_packet_side_writes_log_lines() {
    for module in ["packet", "io", "nat", "engine"] {
        for file in files_below(&root().join("src").join(module), "rs") {
            let code = fs::read_to_string(&file).unwrap();
            assert!(!code.contains("tracing::"), "{} writes log lines", relative(&file));
        }
    }
}

#[test]
fn the_map_of_tests_promises_only_what_is_there() {
    let mut complaints = Vec::new();
    for row in rows().iter().filter(|row| row.path.starts_with("src/")) {
        let folder = root().join(&row.path);
        if !folder.is_dir() {
            continue;
        }
        let code = code_of(&folder);
        for (kind, mark) in [("unit", "#[test]"), ("property", "proptest!")] {
            if row.kinds.contains(kind) && !code.contains(mark) {
                complaints.push(format!("`{}` has no {kind} tests", row.path));
            }
        }
        for name in &row.namespaces {
            let file = root().join("netns-tests").join(name);
            if !file.with_extension("rs").exists() && !file.join("mod.rs").exists() {
                complaints.push(format!("`{}`: netns-tests has no `{name}`", row.path));
            }
        }
    }
    fail_with(&complaints);
}
