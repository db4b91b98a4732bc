//! The layers of the code map (src/lib.rs), checked: who may import whom, where `unsafe` may be, how long a file may be.
//!
//! Not to be edited to make a change fit. It reads the sources as rustfmt lays them out; items under `#[cfg(test)]` and
//! comments do not count.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What each room may name of ours, besides itself. A path allows everything below it.
const LAYERS: [(&str, &[&str]); 12] = [
    ("io", &[]),
    ("packet", &[]),
    ("dns", &[]),
    ("time", &[]),
    ("nat", &["packet", "time"]),
    ("engine", &["io", "packet", "nat", "time"]),
    ("config", &["dns"]),
    ("host", &["config"]),
    ("api", &["config", "host"]),
    ("control", &["io", "packet", "dns", "time", "nat", "engine", "config", "host", "api"]),
    ("lab", &["api"]),
    (
        "cli",
        &[
            "io", "packet", "dns", "time", "nat", "engine", "config", "host", "api", "control",
            "lab",
        ],
    ),
];

/// The files that may contain unsafe code.
const UNSAFE: [&str; 3] = ["io/sys.rs", "io/uring.rs", "nat/table/region.rs"];

/// Lines of a file that are not test code.
const LONGEST: usize = 600;

#[test]
fn no_room_imports_from_above() {
    let mut wrong = Vec::new();
    for file in sources() {
        let room = file.room();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == room) else {
            assert!(
                ["lib", "main"].contains(&room.as_str()),
                "{} is in no layer: say in which",
                file.path.display()
            );
            continue;
        };
        for (line, path) in file.named_paths() {
            if !is_allowed(&path, &room, allowed) {
                wrong.push(format!(
                    "src/{}:{line}: {room} may not know crate::{path}",
                    file.path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_allowed_in_three_files_only() {
    for file in sources() {
        let path = file.path.to_str().expect("our own names are UTF-8");
        // In tests too: they are no excuse. The lint in Cargo.toml denies unsafe code wherever this word is not.
        let lifts =
            file.text.lines().position(|line| !is_comment(line) && line.contains("unsafe_code"));
        if let Some(line) = lifts.filter(|_| !UNSAFE.contains(&path)) {
            panic!("src/{path}:{}: unsafe code may be allowed only in {UNSAFE:?}", line + 1);
        }
    }
}

#[test]
fn no_file_is_longer_than_it_may_be() {
    let long: Vec<_> = sources()
        .iter()
        .map(|file| (file.path.display().to_string(), file.lines.len()))
        .filter(|(_, lines)| *lines > LONGEST)
        .collect();
    assert!(
        long.is_empty(),
        "split these, they have more than {LONGEST} lines without tests: {long:?}"
    );
}

fn is_allowed(path: &str, room: &str, allowed: &[&str]) -> bool {
    allowed.iter().copied().chain([room]).any(|prefix| {
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

/// A source file without its tests.
struct Source {
    /// Below src/.
    path: PathBuf,
    text: String,
    /// Numbered from 1.
    lines: Vec<(usize, String)>,
}

impl Source {
    fn new(path: &Path, text: String) -> Self {
        let lines = without_tests(&text);
        Self { path: path.to_owned(), text, lines }
    }

    /// The top-level module that the file belongs to.
    fn room(&self) -> String {
        let first = self.path.iter().next().expect("a file has a name");
        Path::new(first).file_stem().expect("a file has a name").to_string_lossy().into_owned()
    }

    /// Modules from the crate's root to this file's.
    fn modules(&self) -> Vec<String> {
        let path = self.path.with_extension("");
        let mut names: Vec<_> =
            path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        if names.last().is_some_and(|name| name == "mod") {
            names.pop();
        }
        names
    }

    /// Everything of this crate that is named from its root, or by enough `super` to get out of the room.
    fn named_paths(&self) -> Vec<(usize, String)> {
        // One string, as a list in braces may span lines; `at` finds the line again.
        let mut code = String::new();
        let mut starts = Vec::new();
        for (number, line) in self.lines.iter().filter(|(_, line)| !is_comment(line)) {
            starts.push((code.len(), *number));
            code.push_str(line);
            code.push('\n');
        }
        let line_of = |at: usize| starts[starts.partition_point(|(start, _)| *start <= at) - 1].1;
        let mut found = Vec::new();
        for root in ["crate::", "natbox::"] {
            for (at, _) in code.match_indices(root).filter(|(at, _)| starts_a_word(&code, *at)) {
                found.extend(
                    paths(&code[at + root.len()..]).into_iter().map(|path| (line_of(at), path)),
                );
            }
        }
        let modules = self.modules();
        for (at, _) in code.match_indices("super::").filter(|(at, _)| starts_a_word(&code, *at)) {
            if code[..at].ends_with("super::") {
                continue;
            }
            let mut rest = &code[at..];
            let mut ups = 0;
            while let Some(shorter) = rest.strip_prefix("super::") {
                rest = shorter;
                ups += 1;
            }
            if ups >= modules.len() {
                found.extend(paths(rest).into_iter().map(|path| (line_of(at), path)));
            }
        }
        found
    }
}

/// The paths at the start of `code`: one, or each of a list in braces, to any depth.
fn paths(code: &str) -> Vec<String> {
    let end = code
        .find(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter))
        .unwrap_or(code.len());
    let (path, rest) = code.split_at(end);
    let Some(list) = rest.strip_prefix('{') else {
        return vec![path.trim_end_matches(':').to_owned()];
    };
    let mut depth = 0;
    let mut items = vec![String::new()];
    for letter in list.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(String::new()),
            letter => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                items.last_mut().expect("there is always one").push(letter);
            }
        }
    }
    let named = items.iter().map(|item| item.trim()).filter(|item| !item.is_empty());
    named.flat_map(paths).map(|below| format!("{path}{below}")).collect()
}

fn starts_a_word(code: &str, at: usize) -> bool {
    !code[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_')
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Drops every item under `#[cfg(test)]`. rustfmt ends an item at its own indentation.
fn without_tests(text: &str) -> Vec<(usize, String)> {
    let mut kept = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push((number + 1, line.to_owned()));
            continue;
        }
        let indentation = &line[..line.len() - line.trim_start().len()];
        for (_, line) in lines.by_ref() {
            let Some(item) = line.strip_prefix(indentation) else { continue };
            let ends =
                item.starts_with('}') || !item.starts_with(' ') && item.ends_with([';', '}', ',']);
            if ends && !item.starts_with("#[") {
                break;
            }
        }
    }
    kept
}

/// Every file below src/ that is not itself a test: a module that its parent declares under `#[cfg(test)]`.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 30, "only {} files found below {}", files.len(), root.display());
    let sources: Vec<_> = files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("our own sources can be read");
            Source::new(file.strip_prefix(&root).expect("it was found below the root"), text)
        })
        .collect();
    let tests: BTreeSet<Vec<String>> = sources.iter().flat_map(test_modules).collect();
    let is_test = |source: &Source| {
        let modules = source.modules();
        tests.iter().any(|test| modules.starts_with(test))
    };
    sources.into_iter().filter(|source| !is_test(source)).collect()
}

fn test_modules(source: &Source) -> Vec<Vec<String>> {
    let mut parent = source.modules();
    if parent == ["lib"] || parent == ["main"] {
        parent.clear();
    }
    let lines: Vec<_> = source.text.lines().collect();
    let pairs = lines.windows(2).filter(|pair| pair[0].trim() == "#[cfg(test)]");
    pairs
        .filter_map(|pair| {
            pair[1].trim().strip_suffix(';')?.rsplit_once("mod ").map(|(_, name)| name)
        })
        .map(|name| [&parent[..], &[name.to_owned()]].concat())
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("our own sources can be listed") {
        let path = entry.expect("our own sources can be listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn the_check_itself_sees_every_way_to_name_another_room() {
    let found = |path: &str, text: &str| -> Vec<String> {
        Source::new(Path::new(path), text.to_owned())
            .named_paths()
            .into_iter()
            .map(|(_, path)| path)
            .collect()
    };
    assert_eq!(found("nat/table.rs", "use crate::engine::Batch;"), ["engine::Batch"]);
    assert_eq!(
        found("nat/table.rs", "    let x = crate::io::open(crate::time::now());"),
        ["io::open", "time::now"]
    );
    assert_eq!(
        found("nat/table.rs", "use crate::{\n    io::{self, Tun},\n    time,\n};"),
        ["io::self", "io::Tun", "time"]
    );
    assert_eq!(
        found("nat/table.rs", "use super::super::control::{Config, run};"),
        ["control::Config", "control::run"]
    );
    assert_eq!(found("nat/mod.rs", "use super::engine::Batch;"), ["engine::Batch"]);
    assert_eq!(found("nat/table.rs", "use super::engine::Batch;"), [""; 0]);
    assert_eq!(
        found("host/mod.rs", "use crate::control::{config::{self, X}, run};"),
        ["control::config::self", "control::config::X", "control::run"]
    );
    assert_eq!(
        found("packet/mod.rs", "/// [`crate::nat`]\n// use crate::nat;\nuse mycrate::nat;"),
        [""; 0]
    );
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::engine::x;\n\n    fn f() {\n    }\n}\nuse crate::io::y;";
    assert_eq!(found("nat/table.rs", tests), ["io::y"]);
    let helper = "impl A {\n    #[cfg(test)]\n    fn f() {\n        crate::engine::x();\n    }\n    fn g() { crate::io::z() }\n}";
    assert_eq!(found("nat/table.rs", helper), ["io::z"]);
    assert!(is_allowed("config::Config", "host", &["config"]));
    assert!(is_allowed("host::plan", "host", &["config"]));
    for path in ["configuration", "control", "hosts"] {
        assert!(!is_allowed(path, "host", &["config"]), "{path}");
    }
}
