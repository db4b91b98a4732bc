//! Finds circles among files that need each other.

use std::collections::{BTreeMap, BTreeSet};

type Edges<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// Returns the sets of two files or more in which every file needs every other one, directly or
/// through others.
pub(crate) fn circles<'a>(edges: &Edges<'a>) -> Vec<BTreeSet<&'a str>> {
    let reachable: BTreeMap<_, _> = edges.keys().map(|file| (*file, reach(edges, file))).collect();
    let circles: BTreeSet<BTreeSet<&str>> = reachable
        .iter()
        .map(|(file, reached)| {
            let back =
                |other: &&&str| reachable.get(**other).is_some_and(|from| from.contains(file));
            reached.iter().filter(back).copied().collect()
        })
        .filter(|circle: &BTreeSet<_>| circle.len() > 1)
        .collect();
    circles.into_iter().collect()
}

fn reach<'a>(edges: &Edges<'a>, from: &str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<_> = edges.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = waiting.pop() {
        if reached.insert(file) {
            waiting.extend(edges.get(file).into_iter().flatten().copied());
        }
    }
    reached
}

#[cfg(test)]
mod checks {
    use super::*;

    #[test]
    fn a_circle_is_found_at_any_length_and_a_diamond_is_none() {
        let edges = |list: &[(&'static str, &[&'static str])]| -> Edges<'static> {
            list.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect()
        };
        let diamond = edges(&[("a", &["b", "c"]), ("b", &["d"]), ("c", &["d"]), ("d", &[])]);
        assert!(circles(&diamond).is_empty());
        let two = edges(&[
            ("a", &["b"]),
            ("b", &["a"]),
            ("c", &["a", "d"]),
            ("d", &["e"]),
            ("e", &["c"]),
        ]);
        assert_eq!(circles(&two), [BTreeSet::from(["a", "b"]), BTreeSet::from(["c", "d", "e"])]);
    }
}
