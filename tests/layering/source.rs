//! Reads the project's sources and separates code from comments, strings and tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// A source file.
#[derive(Clone)]
pub(crate) struct Source {
    /// Path below the project's root, with `/`.
    pub(crate) path: String,
    /// Modules from the crate's root to this file's; empty for `src/lib.rs`.
    pub(crate) module: Vec<String>,
    /// The file with blanks for comments and for the contents of strings. Offsets are those of the
    /// file.
    pub(crate) masked: String,
    /// [`Source::masked`] with blanks for items under `#[cfg(test)]`.
    pub(crate) code: String,
    /// Number of lines outside of items under `#[cfg(test)]`, comments included.
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let masked = mask(text);
        let (code, lines) = without_tests(&masked);
        Self { path: path.to_owned(), module: module_of(path), masked, code, lines }
    }

    /// The same file, with its tests as part of the code.
    pub(crate) fn with_tests(&self) -> Self {
        Self { code: self.masked.clone(), ..self.clone() }
    }

    /// Number of the line, from 1, that holds the byte at `offset`.
    pub(crate) fn line_at(&self, offset: usize) -> usize {
        self.code[..offset].matches('\n').count() + 1
    }

    /// Names of the modules that this file declares in files of their own.
    pub(crate) fn children(&self) -> Vec<&str> {
        self.code.lines().filter_map(declared_module).collect()
    }

    /// Modules that this file declares under `#[cfg(test)]`.
    fn test_modules(&self) -> Vec<Vec<String>> {
        let lines: Vec<_> = self.masked.lines().collect();
        let pairs = lines.windows(2).filter(|pair| pair[0].trim() == "#[cfg(test)]");
        pairs
            .filter_map(|pair| declared_module(pair[1]))
            .map(|name| [&self.module[..], &[name.to_owned()]].concat())
            .collect()
    }
}

/// Every file below `src/` except modules declared under `#[cfg(test)]`.
pub(crate) static LIBRARY: LazyLock<Vec<Source>> = LazyLock::new(|| {
    let sources = below("src");
    assert!(sources.len() > 30, "only {} files found below src", sources.len());
    without_test_files(sources)
});

/// Every file below `benches/`.
pub(crate) static BENCHES: LazyLock<Vec<Source>> = LazyLock::new(|| below("benches"));

/// Every file below `examples/`.
pub(crate) static EXAMPLES: LazyLock<Vec<Source>> = LazyLock::new(|| below("examples"));

/// The fuzz targets and their bodies.
pub(crate) static FUZZ: LazyLock<Vec<Source>> =
    LazyLock::new(|| [below("fuzz/src"), below("fuzz/fuzz_targets")].concat());

/// Reads every file of Rust in the project, tests included.
pub(crate) fn every_file() -> Vec<Source> {
    ["src", "benches", "examples", "fuzz/src", "fuzz/fuzz_targets", "netns-tests", "tests"]
        .into_iter()
        .flat_map(below)
        .collect()
}

/// Drops the modules that another file declares under `#[cfg(test)]`, and the modules below them.
pub(crate) fn without_test_files(sources: Vec<Source>) -> Vec<Source> {
    let tests: BTreeSet<_> = sources.iter().flat_map(Source::test_modules).collect();
    let is_test = |source: &Source| tests.iter().any(|test| source.module.starts_with(test));
    sources.into_iter().filter(|source| !is_test(source)).collect()
}

fn below(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join(folder), &mut files);
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("the project's sources can be read");
            let path = file.strip_prefix(root).expect("the file was found below the root");
            Source::new(&path.to_string_lossy(), &text)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the project's sources can be listed") {
        let path = entry.expect("the project's sources can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_prefix("src/").unwrap_or(path);
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}

/// The name in a line like `pub(crate) mod name;`.
pub(crate) fn declared_module(line: &str) -> Option<&str> {
    let (before, name) = line.trim().strip_suffix(';')?.rsplit_once("mod ")?;
    let before = before.trim_end();
    (before.is_empty() || before.starts_with("pub")).then_some(name)
}

/// Blanks every item under `#[cfg(test)]` and counts the remaining lines. rustfmt ends an item at
/// its own indentation.
fn without_tests(masked: &str) -> (String, usize) {
    let mut code = String::with_capacity(masked.len());
    let mut kept = 0;
    let mut lines = masked.split_inclusive('\n');
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push_str(line);
            kept += 1;
            continue;
        }
        blank(line, &mut code);
        let indentation = &line[..line.len() - line.trim_start().len()];
        for line in lines.by_ref() {
            blank(line, &mut code);
            let Some(item) = line.trim_end().strip_prefix(indentation) else { continue };
            let ends =
                item.starts_with('}') || !item.starts_with(' ') && item.ends_with([';', '}', ',']);
            if ends && !item.starts_with("#[") {
                break;
            }
        }
    }
    (code, kept)
}

fn blank(text: &str, into: &mut String) {
    into.extend(text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
}

/// Replaces comments and the contents of string and character literals by blanks. Keeps length and
/// line breaks.
pub(crate) fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        let token = literal_or_comment(rest, after_word);
        after_word = is_word(first);
        if token == 0 {
            masked.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            blank(&rest[..token], &mut masked);
            rest = &rest[token..];
        }
    }
    // A character of several bytes outside of literals and comments is copied, so the length is
    // kept.
    assert_eq!(masked.len(), text.len());
    masked
}

pub(crate) fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// Returns the length in bytes of the comment or literal at the start of `text`, 0 if another token
/// starts there.
fn literal_or_comment(text: &str, after_word: bool) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if text.starts_with('"') {
        return quoted(text, '"');
    }
    if text.starts_with('\'') {
        return character(text);
    }
    let raw = text.strip_prefix('b').unwrap_or(text);
    match raw.strip_prefix('r') {
        Some(raw) if !after_word && raw.trim_start_matches('#').starts_with('"') => {
            let hashes = raw.len() - raw.trim_start_matches('#').len();
            let end = format!("\"{}", "#".repeat(hashes));
            let start = text.len() - raw.len() + hashes + 1;
            text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
        }
        Some(_) | None => 0,
    }
}

/// Returns the length of a literal that starts and ends with `quote`.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        if !escaped && letter == quote {
            return at + 1;
        }
        escaped = !escaped && letter == '\\';
    }
    text.len()
}

/// Returns the length of a character literal, 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut letters = text.char_indices().skip(1);
    match (letters.next(), letters.next()) {
        (Some((_, '\\')), _) => quoted(text, '\''),
        (_, Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn masking_removes_comments_and_literals_and_keeps_lifetimes() {
        let text = "a(\"x { \\\" }\", '}', '\\'', b\"{\") // { é\n<'a> r#\"\"{\"# /* {\n */ b";
        let masked = mask(text);
        assert_eq!(masked.len(), text.len());
        assert!(!masked.contains(['{', '}', 'é', 'x']), "{masked}");
        assert!(masked.contains("<'a>") && masked.ends_with(" b"), "{masked}");
        assert_eq!(masked.matches('\n').count(), 2);
    }

    #[test]
    fn items_under_cfg_test_are_neither_code_nor_counted() {
        let module = "#[cfg(test)]\nmod tests {\n    fn f() {\n    }\n}\nuse io::y;\n";
        let source = Source::new("src/nat/table.rs", module);
        assert_eq!((source.code.trim(), source.lines), ("use io::y;", 1));
        assert_eq!(source.line_at(source.code.find("use").unwrap()), 6);
        let method =
            "impl A {\n    #[cfg(test)]\n    fn f() {\n        x();\n    }\n    fn g() {}\n}\n";
        let source = Source::new("src/nat/table.rs", method);
        assert!(!source.code.contains("x()") && source.code.contains("fn g()"));
        assert_eq!(source.lines, 3);
    }

    #[test]
    fn files_declared_under_cfg_test_are_left_out() {
        let sources = vec![
            Source::new("src/nat/mod.rs", "#[cfg(test)]\npub(crate) mod model;\nmod key;\n"),
            Source::new("src/nat/model.rs", ""),
            Source::new("src/nat/model/deep.rs", ""),
            Source::new("src/nat/key.rs", ""),
        ];
        assert_eq!(sources[0].children(), ["key"]);
        let kept: Vec<_> = without_test_files(sources).into_iter().map(|file| file.path).collect();
        assert_eq!(kept, ["src/nat/mod.rs", "src/nat/key.rs"]);
    }

    #[test]
    fn files_have_the_module_path_of_the_compiler() {
        assert_eq!(module_of("src/lib.rs"), [""; 0]);
        assert_eq!(module_of("src/nat/mod.rs"), ["nat"]);
        assert_eq!(module_of("src/nat/table/key.rs"), ["nat", "table", "key"]);
    }
}
