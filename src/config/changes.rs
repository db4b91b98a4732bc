//! Differences between two configurations, and which of them a reload can apply.

use super::document::Document;
use super::file::File;
use super::model::Config;
use super::schema::{Section as _, SectionInfo};

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Key path. A list counts as one value, except the lists of [`ITEMIZED`].
    pub path: String,
    /// True: a reload can apply the new value.
    pub reloadable: bool,
}

/// Lists the keys whose values differ, sorted by their paths.
pub(crate) fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let fixed = fixed_keys();
    let mut comparison = Comparison { fixed: &fixed, paths: Vec::new() };
    comparison.compare("", Some(&File::from(before).emit()), Some(&File::from(after).emit()));
    let mut paths = comparison.paths;
    paths.sort();
    let change = |path: String| Change { reloadable: !needs_restart(&path, &fixed), path };
    paths.into_iter().map(change).collect()
}

/// Lists the keys that need a restart, in the order of the file. `[]` stands for every item of a
/// list. A key stands for all keys below it.
pub(crate) fn fixed_keys() -> Vec<String> {
    let mut paths = Vec::new();
    collect("", &File::describe(), &mut paths);
    paths
}

fn collect(path: &str, section: &SectionInfo, paths: &mut Vec<String>) {
    for key in &section.keys {
        let path = joined(path, key.name);
        if !key.reloadable {
            paths.push(path);
        } else if let Some(below) = key.value.section() {
            let items = if key.value.is_list() { "[]" } else { "" };
            collect(&format!("{path}{items}"), below, paths);
        }
    }
}

/// Returns true when a path is that of a fixed key, is below one, or is a list whose items have
/// one.
fn needs_restart(path: &str, fixed: &[String]) -> bool {
    let path = any_item(path);
    let is_below = |path: &str, above: &str| {
        let rest = path.strip_prefix(above);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    // A list of one item may be written as the item alone.
    let plain = |path: &str| path.replace("[]", "");
    let path = plain(&path);
    let is_list = ITEMIZED.contains(&path.as_str());
    let mut fixed = fixed.iter().map(|key| plain(key));
    fixed.any(|key| is_below(&path, &key) || is_list && is_below(&key, &path))
}

/// Lists whose items are compared one by one if the lists are equally long.
const ITEMIZED: [&str; 2] = ["inside", "uplinks"];

/// Collects the paths of different values.
struct Comparison<'f> {
    fixed: &'f [String],
    paths: Vec<String>,
}

impl Comparison<'_> {
    fn compare(&mut self, path: &str, before: Option<&Document>, after: Option<&Document>) {
        match (before, after) {
            (Some(Document::Mapping(before)), Some(Document::Mapping(after))) => {
                self.compare_entries(path, before, after);
            }
            (Some(Document::List(before)), Some(Document::List(after)))
                if before.len() == after.len() && ITEMIZED.contains(&path) =>
            {
                for (index, (before, after)) in before.iter().zip(after).enumerate() {
                    self.compare(&format!("{path}[{index}]"), Some(before), Some(after));
                }
            }
            (Some(Document::Mapping(one)), None) | (None, Some(Document::Mapping(one))) => {
                self.paths.push(path.to_owned());
                self.list_fixed(path, one);
            }
            (before, after) => {
                if before != after {
                    self.paths.push(path.to_owned());
                }
            }
        }
    }

    /// Lists the keys of a mapping that is new or gone, and that need a restart.
    fn list_fixed(&mut self, path: &str, entries: &[(String, Document)]) {
        let paths = entries.iter().map(|(key, _)| joined(path, key));
        self.paths.extend(paths.filter(|path| needs_restart(path, self.fixed)));
    }

    fn compare_entries(
        &mut self,
        path: &str,
        before: &[(String, Document)],
        after: &[(String, Document)],
    ) {
        fn value<'d>(entries: &'d [(String, Document)], key: &str) -> Option<&'d Document> {
            entries.iter().find(|(known, _)| known == key).map(|(_, value)| value)
        }
        for (key, old) in before {
            self.compare(&joined(path, key), Some(old), value(after, key));
        }
        for (key, new) in after.iter().filter(|(key, _)| value(before, key).is_none()) {
            self.compare(&joined(path, key), None, Some(new));
        }
    }
}

/// Replaces the index of each item in a path by that of every item: `uplinks[].tier` for
/// `uplinks[1].tier`.
fn any_item(path: &str) -> String {
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |path, part| {
        let (_, rest) = part.split_once(']').unwrap_or(("", part));
        format!("{path}[]{rest}")
    })
}

fn joined(path: &str, key: &str) -> String {
    let separator = if path.is_empty() { "" } else { "." };
    format!("{path}{separator}{key}")
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const FILE: &str = "name: a\n\
                        inside: { interface: lan0, prefixes: [10.0.0.0/24] }\n\
                        uplinks: [{ interface: wan0, addresses: [203.0.113.10] }]\n";

    fn config(more: &str) -> Config {
        parse("f.yaml", &format!("{FILE}{more}")).expect("a good file").config
    }

    fn paths(before: &Config, after: &Config) -> Vec<String> {
        changes(before, after).into_iter().map(|change| change.path).collect()
    }

    #[test]
    fn differences_are_named_by_their_keys() {
        let plain = config("");
        assert_eq!(paths(&plain, &config("")), [""; 0]);
        let forwards = config("forwards: [{ protocol: tcp, port: 80, to: '10.0.0.5:80' }]\n");
        assert_eq!(paths(&plain, &forwards), ["forwards"]);
        assert_eq!(paths(&forwards, &plain), ["forwards"]);
        let several = config(
            "nat: { hairpin: false }\ntun: { name: nb7 }\nadmin: { http: '127.0.0.1:9640' }\n",
        );
        assert_eq!(paths(&plain, &several), ["admin.http", "nat.hairpin", "tun.name"]);
        assert_eq!(paths(&several, &plain), ["admin.http", "nat.hairpin", "tun.name"]);
        let dns = "dns: { zone: a.org, names: [{ name: w }], listen: false, hook: /x, ttl: 1s }\n";
        assert_eq!(paths(&plain, &config(dns)), ["dns", "dns.hook"]);
        assert_eq!(paths(&config(&dns.replace("1s", "2s")), &config(dns)), ["dns.ttl"]);
    }

    #[test]
    fn only_these_keys_need_a_restart() {
        assert_eq!(
            fixed_keys(),
            [
                "name",
                "tun",
                "inside.interface",
                "nat.mapping",
                "nat.filtering",
                "nat.port_overlapping",
                "limits.sessions",
                "host.manage",
                "admin.group",
                "state.keep",
                "state.directory",
                "dns.hook",
            ]
        );
    }

    #[test]
    fn a_reload_applies_all_other_keys() {
        let reloadable = |before: &Config, after: &Config| -> Vec<(String, bool)> {
            let changes = changes(before, after).into_iter();
            changes.map(|change| (change.path, change.reloadable)).collect()
        };
        let uplinks = |second: &str| {
            let first = "{ interface: wan0, addresses: [203.0.113.10], gateway: 203.0.113.254 }";
            let file = FILE.split("uplinks").next().unwrap();
            parse("f.yaml", &format!("{file}uplinks: [{first}{second}]\n")).unwrap().config
        };
        let second = ", { name: b, interface: wan1, addresses: [198.51.100.10], gateway: 198.51.100.254, tier: 2 }";
        let both = uplinks(second);
        assert_eq!(
            reloadable(&both, &uplinks(&second.replace("wan1", "wan2").replace("tier: 2", ""))),
            [("uplinks[1].interface".into(), true), ("uplinks[1].tier".into(), true)]
        );
        assert_eq!(reloadable(&both, &uplinks("")), [("uplinks".into(), true)]);
        let changed = config(
            "nat: { hairpin: false, ports: 2000-3000 }\nlimits: { sessions: 9, fragments: 9 }\ntun: { workers: 2 }\n",
        );
        assert_eq!(
            reloadable(&config(""), &changed),
            [
                ("limits.fragments".into(), true),
                ("limits.sessions".into(), false),
                ("nat.hairpin".into(), true),
                ("nat.ports".into(), true),
                ("tun.workers".into(), false),
            ]
        );
        let inside = |inside: &str| {
            let rest = FILE.split("prefixes: [10.0.0.0/24] }").nth(1).unwrap();
            parse("f.yaml", &format!("name: a\ninside: {inside}{rest}")).unwrap().config
        };
        let one = "{ interface: lan0, prefixes: [10.0.0.0/24] }";
        let renamed = one.replace("lan0", "lan1");
        let wider = one.replace("/24", "/16");
        let two = format!("[{one}, {{ interface: lan1, prefixes: [10.1.0.0/24] }}]");
        let paths_of = |changed: &str| reloadable(&inside(one), &inside(changed));
        assert_eq!(paths_of(&renamed), [("inside.interface".into(), false)]);
        assert_eq!(paths_of(&wider), [("inside.prefixes".into(), true)]);
        assert_eq!(paths_of(&two), [("inside".into(), false)]);
        let dns = "dns: { zone: a.org, names: [{ name: w }], name_servers: [{ name: n, address: 203.0.113.10 }] }\n";
        assert_eq!(reloadable(&config(""), &config(dns)), [("dns".into(), true)]);
        let hook = dns.replace("zone", "hook: /x, zone");
        let expected = [("dns".into(), true), ("dns.hook".into(), false)];
        assert_eq!(reloadable(&config(""), &config(&hook)), expected);
        assert_eq!(reloadable(&config(&hook), &config("")), expected);
    }
}
