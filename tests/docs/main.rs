//! Tests of the documentation: its English, its links, its commands, its configuration files, and
//! the pages that are made from the code.
//!
//! `NATBOX_BLESS=1` rewrites the generated pages.

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

mod banned;
mod commands;
mod comments;
mod keys;
mod links;
mod map;
mod markdown;
mod reference;
mod security;
mod sentences;
mod snippets;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

/// Root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One Markdown file of the documentation.
pub struct Document {
    /// Path from the root of the repository.
    pub path: String,
    /// Content of the file.
    pub text: String,
}

/// Reads every document that people read: the pages at the root, and `docs/`.
pub fn documents() -> Vec<Document> {
    let mut files: Vec<PathBuf> = files_below(&root().join("docs"), "md");
    files.extend(files_in(root(), "md"));
    files.push(root().join("benches/README.md"));
    let documents: Vec<Document> = files
        .iter()
        .map(|file| Document { path: relative(file), text: fs::read_to_string(file).unwrap() })
        .collect();
    assert!(documents.iter().any(|document| document.path == "README.md"));
    assert!(documents.iter().any(|document| document.path.starts_with("docs/guide/")));
    documents
}

/// Path from the root of the repository.
pub fn relative(file: &Path) -> String {
    file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

/// Files of one folder with an extension, sorted.
pub fn files_in(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// Folders below a folder, the folder itself included, sorted.
pub fn folders_below(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            folders.extend(folders_below(&path));
        }
    }
    folders.sort();
    folders
}

/// Files below a folder with an extension, sorted.
pub fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    folders_below(folder).iter().flat_map(|folder| files_in(folder, extension)).collect()
}

/// True when the run rewrites generated files instead of comparing them.
pub fn blesses() -> bool {
    std::env::var_os("NATBOX_BLESS").is_some_and(|value| value == "1")
}

/// Fails with all complaints of a check, one a line.
#[track_caller]
pub fn fail_with(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}
