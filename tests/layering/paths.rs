//! Finds the paths that a file names, and the files in which the named items are defined.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, declared_module, is_word};

/// A path from the crate's root, and the offset at which a file names it.
pub(crate) struct NamedPath {
    pub(crate) offset: usize,
    pub(crate) segments: Vec<String>,
    /// Name that a `use` with `as` gives to the path.
    alias: Option<String>,
}

/// Returns every path in `code` that starts with `crate`, `natbox`, `super` or `self`.
pub(crate) fn named_paths(file: &Source, code: &str) -> Vec<NamedPath> {
    let mut found = Vec::new();
    for root in ["crate::", "natbox::", "super::", "self::"] {
        for (offset, _) in code.match_indices(root) {
            if !starts_a_path(code, offset) {
                continue;
            }
            let mut base = match root {
                "crate::" | "natbox::" => Vec::new(),
                _ => file.module.clone(),
            };
            let mut rest = &code[offset..];
            rest = rest.strip_prefix("crate::").unwrap_or(rest);
            rest = rest.strip_prefix("natbox::").unwrap_or(rest);
            rest = rest.strip_prefix("self::").unwrap_or(rest);
            while let Some(above) = rest.strip_prefix("super::") {
                base.pop();
                rest = above;
            }
            found.extend(paths(rest).into_iter().map(|path| NamedPath::new(offset, &base, &path)));
        }
    }
    found
}

impl NamedPath {
    fn new(offset: usize, base: &[String], path: &str) -> Self {
        let (path, alias) = match path.split_once(" as ") {
            Some((path, alias)) => (path, Some(alias.trim().to_owned())),
            None => (path, None),
        };
        let segments = path.split("::").map(str::trim);
        let segments = segments.filter(|segment| !segment.is_empty() && *segment != "self");
        let below = segments.map(str::to_owned);
        Self { offset, segments: base.iter().cloned().chain(below).collect(), alias }
    }

    /// The name that a `use` of this path brings into scope.
    fn name(&self) -> Option<&str> {
        self.alias.as_deref().or_else(|| self.segments.last().map(String::as_str))
    }
}

/// Returns the paths at the start of `code`: one, or each of a list in braces, to any depth.
fn paths(code: &str) -> Vec<String> {
    let end =
        code.find(|letter: char| !is_word(letter) && !":*".contains(letter)).unwrap_or(code.len());
    let (path, rest) = code.split_at(end);
    let Some(list) = rest.strip_prefix('{').filter(|_| path.is_empty() || path.ends_with("::"))
    else {
        let alias = rest.strip_prefix(" as ").map(|rest| {
            let end = rest.find(|letter| !is_word(letter)).unwrap_or(rest.len());
            format!(" as {}", &rest[..end])
        });
        return vec![format!("{}{}", path.trim_end_matches(':'), alias.unwrap_or_default())];
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

fn starts_a_path(code: &str, offset: usize) -> bool {
    !code[..offset].ends_with(|letter: char| is_word(letter) || letter == ':')
}

/// The library's files by module, with what each one imports and re-exports.
pub(crate) struct Library<'a> {
    files: BTreeMap<&'a [String], File<'a>>,
}

struct File<'a> {
    source: &'a Source,
    /// Names in scope of the module, and the paths they stand for.
    imports: BTreeMap<String, Vec<String>>,
    /// Names among them that other modules may use.
    exports: BTreeSet<String>,
    /// The code without its `use` items.
    body: String,
    /// The file holds `mod` and `use` items only.
    is_face: bool,
}

impl<'a> Library<'a> {
    pub(crate) fn new(sources: &'a [Source]) -> Self {
        let files = sources.iter().map(|source| (&source.module[..], File::new(source)));
        Self { files: files.collect() }
    }

    /// Returns for each file, by path, the files that define what its code names. Files that only
    /// declare and re-export modules are left out.
    pub(crate) fn edges(&self) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let files = self.files.values().filter(|file| !file.is_face);
        files.map(|file| (&file.source.path[..], self.targets(file))).collect()
    }

    fn targets(&self, file: &File<'a>) -> BTreeSet<&'a str> {
        let mut named = Vec::new();
        for (name, path) in &file.imports {
            // An import counts, as a trait is needed without being named. A re-export counts if the
            // body names it.
            if !file.exports.contains(name) {
                named.push(path.clone());
            }
            for (offset, _) in file.body.match_indices(&name[..]) {
                let after = &file.body[offset + name.len()..];
                if !starts_a_path(&file.body, offset) || after.starts_with(is_word) {
                    continue;
                }
                let below = after.strip_prefix("::").map(paths).unwrap_or_default();
                let below = below.first().map(|below| below.split("::").map(str::to_owned));
                named.push(path.iter().cloned().chain(below.into_iter().flatten()).collect());
            }
        }
        named.extend(named_paths(file.source, &file.body).into_iter().map(|path| path.segments));
        let defined = named.iter().filter_map(|path| self.definition(path, 0));
        defined.filter(|path| *path != file.source.path).collect()
    }

    /// Returns the file that defines the item at `path`. `None` for a path that ends at a module.
    fn definition(&self, path: &[String], followed: usize) -> Option<&'a str> {
        let depth =
            (0..=path.len()).rev().find(|depth| self.files.contains_key(&path[..*depth]))?;
        let file = &self.files[&path[..depth]];
        let name = path.get(depth)?;
        match file.imports.get(name) {
            // No chain of re-exports is this long.
            Some(target) if followed < 8 && target[..] != path[..=depth] => {
                let target = [&target[..], &path[depth + 1..]].concat();
                self.definition(&target, followed + 1)
            }
            Some(_) | None => (!file.is_face).then_some(&file.source.path[..]),
        }
    }
}

impl<'a> File<'a> {
    fn new(source: &'a Source) -> Self {
        let mut imports = BTreeMap::new();
        let child = |name: &str| [&source.module[..], &[name.to_owned()]].concat();
        for name in source.children() {
            imports.insert(name.to_owned(), child(name));
        }
        let (mut exports, mut body, mut is_face) = (BTreeSet::new(), String::new(), true);
        for item in items(&source.code) {
            let Some(path) = item.strip_use() else {
                is_face &= item.is_declaration();
                body.push_str(item.0);
                body.push('\n');
                continue;
            };
            // In a `use` a bare first name is a module declared here, or another crate.
            let mut named = named_paths(source, path);
            if named.is_empty() {
                named = paths(path)
                    .iter()
                    .filter(|path| source.children().iter().any(|name| first(path) == *name))
                    .map(|path| NamedPath::new(0, &source.module, path))
                    .collect();
            }
            for path in named {
                if let Some(name) = path.name() {
                    imports.insert(name.to_owned(), path.segments.clone());
                    if item.0.trim().starts_with("pub") {
                        exports.insert(name.to_owned());
                    }
                }
            }
        }
        Self { source, imports, exports, body, is_face }
    }
}

fn first(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

/// Code up to a line that ends a statement, an attribute or a block.
struct Item<'a>(&'a str);

impl<'a> Item<'a> {
    /// What a `use` item names.
    fn strip_use(&self) -> Option<&'a str> {
        let item = self.0.trim();
        let item = match item.strip_prefix("pub") {
            Some(rest) => rest
                .strip_prefix('(')
                .map_or(rest, |rest| rest.split_once(')').map_or(rest, |(_, rest)| rest)),
            None => item,
        };
        item.trim_start().strip_prefix("use ")
    }

    fn is_declaration(&self) -> bool {
        let item = self.0.trim();
        item.is_empty() || item.starts_with('#') || declared_module(item).is_some()
    }
}

fn items(code: &str) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in code.split_inclusive('\n') {
        at += line.len();
        let trimmed = line.trim_end();
        let in_use = Item(&code[start..at]).strip_use().is_some();
        if trimmed.ends_with(';') || !in_use && trimmed.ends_with([']', '{', '}', ',']) {
            items.push(Item(&code[start..at]));
            start = at;
        }
    }
    items.push(Item(&code[start..]));
    items
}

#[cfg(test)]
mod checks {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path, text);
        let named = named_paths(&source, &source.code);
        named.into_iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn every_way_to_name_a_path_is_found() {
        let table = "src/nat/table.rs";
        assert_eq!(found(table, "use crate::engine::Batch;"), ["engine::Batch"]);
        let twice = "    let x = crate::io::open(crate::time::now());";
        assert_eq!(found(table, twice), ["io::open", "time::now"]);
        let list = "use crate::{\n    io::{self, Tun},\n    time,\n};";
        assert_eq!(found(table, list), ["io", "io::Tun", "time"]);
        let above = "use super::super::control::{Config, run};";
        assert_eq!(found(table, above), ["control::Config", "control::run"]);
        assert_eq!(found("src/nat/mod.rs", "use super::engine::Batch;"), ["engine::Batch"]);
        assert_eq!(found(table, "use super::key as k;"), ["nat::key"]);
        assert_eq!(found(table, "use self::key::Key;"), ["nat::table::key::Key"]);
        let nested = "use crate::control::{config::{self, X}, run};";
        let expected = ["control::config", "control::config::X", "control::run"];
        assert_eq!(found(table, nested), expected);
        let none = "/// [`crate::nat`]\n// use crate::nat;\nuse mycrate::nat;";
        assert_eq!(found(table, none), [""; 0]);
    }

    /// The edges of `files`, as "from > to".
    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let edges = Library::new(&sources).edges();
        let lines = edges.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
        lines.map(|(from, to)| format!("{} > {}", &from[4..], &to[4..])).collect()
    }

    #[test]
    fn a_name_leads_through_re_exports_to_the_file_that_defines_it() {
        let lib = ("src/lib.rs", "pub mod nat;\nmod packet;\n");
        let face = ("src/nat/mod.rs", "mod key;\n\npub use key::{Key, hash as key_hash};\n");
        let key = ("src/nat/key.rs", "pub struct Key;\npub fn hash() {}\n");
        for user in [
            "use crate::nat::Key;\nfn f() {}\n",
            "use crate::nat;\nfn f(key: nat::Key) {}\n",
            "fn f() {\n    crate::nat::key_hash();\n}\n",
            "use super::nat::{self, key};\nfn f(key: key::Key) {}\n",
        ] {
            let files = [lib, face, key, ("src/packet.rs", user)];
            assert_eq!(edges(&files), ["packet.rs > nat/key.rs"], "{user}");
        }
        for user in ["use crate::nat;", "use crate::time::Key;", "fn nat(Key: u8) {}"] {
            let user = format!("{user}\nfn f() {{}}\n");
            assert_eq!(edges(&[lib, face, key, ("src/packet.rs", &user)]), [""; 0], "{user}");
        }
    }

    #[test]
    fn a_module_file_with_code_of_its_own_is_a_file_like_the_others() {
        let parent = "mod key;\npub use key::{Hash, Key};\npub struct Table(Key);\n";
        let key = "use super::Table;\npub struct Key(Table);\n";
        let both = ["table.rs > table/key.rs", "table/key.rs > table.rs"];
        let files = |parent, key| edges(&[("src/table.rs", parent), ("src/table/key.rs", key)]);
        assert_eq!(files(parent, key), both);
        let called = "mod key;\npub fn f() {\n    key::f();\n}\n";
        assert_eq!(files(called, "fn f() {\n    super::f();\n}\n"), both);
        let re_export_only = "mod key;\npub use key::Key;\npub struct Table;\n";
        assert_eq!(files(re_export_only, key), both[1..]);
    }
}
