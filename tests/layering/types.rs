//! Finds public types.

use std::collections::BTreeMap;

use crate::source::{Source, is_word};

/// Returns for each public type the top-level modules of its definitions. A type is public if other
/// files of the crate can name it.
pub(crate) fn public_types(sources: &[Source]) -> BTreeMap<String, Vec<&str>> {
    let mut types: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for source in sources {
        for name in source.code.lines().filter_map(public_type) {
            let module = source.module.first().map_or("lib", String::as_str);
            types.entry(name.to_owned()).or_default().push(module);
        }
    }
    types
}

fn public_type(line: &str) -> Option<&str> {
    let mut rest = line.trim_start().strip_prefix("pub")?;
    if let Some(restricted) = rest.strip_prefix('(') {
        rest = restricted.split_once(')')?.1;
    }
    let (kind, name) = rest.trim_start().split_once(' ')?;
    let end = name.find(|letter| !is_word(letter)).unwrap_or(name.len());
    ["struct", "enum", "trait", "type", "union"].contains(&kind).then_some(&name[..end])
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn every_kind_of_public_type_is_found() {
        let text = "pub struct A<T>(T);\n    pub(crate) enum B {\n}\npub(in crate::nat) trait C: D {}\npub type E = F;\n\
                    struct G;\npub fn h() {}\npub use i::J;\n/// pub struct K;\n";
        let sources = [Source::new("src/a.rs", text), Source::new("src/b.rs", "pub struct A;\n")];
        let types = public_types(&sources);
        assert_eq!(types.keys().collect::<Vec<_>>(), ["A", "B", "C", "E"]);
        assert_eq!(types["A"], ["a", "b"]);
    }
}
