//! Differences between two configurations, and which of them a reload can apply.

use super::document::Document;
use super::file::File;
use super::model::Config;
use super::schema::{Section as _, SectionInfo};

/// A key whose value differs between two configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// Key path. A list counts as one value.
    pub path: String,
    /// True: a reload can apply the new value.
    pub reloadable: bool,
}

/// Lists the keys whose values differ, sorted by their paths.
pub(crate) fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let mut paths = Vec::new();
    compare("", Some(&File::from(before).emit()), Some(&File::from(after).emit()), &mut paths);
    paths.sort();
    let reloadable = reloadable_keys();
    let change = |path| Change { reloadable: reloadable.contains(&path), path };
    paths.into_iter().map(change).collect()
}

/// Lists the keys that a reload can change, in the order of the file.
pub(crate) fn reloadable_keys() -> Vec<String> {
    let mut paths = Vec::new();
    collect("", &File::describe(), &mut paths);
    paths
}

fn collect(path: &str, section: &SectionInfo, paths: &mut Vec<String>) {
    for key in &section.keys {
        let path = joined(path, key.name);
        if key.reloadable {
            paths.push(path);
        } else if let Some(below) = key.value.section()
            && !key.value.is_list()
        {
            collect(&path, below, paths);
        }
    }
}

fn compare(
    path: &str,
    before: Option<&Document>,
    after: Option<&Document>,
    paths: &mut Vec<String>,
) {
    let (Some(Document::Mapping(before)), Some(Document::Mapping(after))) = (before, after) else {
        if before != after {
            paths.push(path.to_owned());
        }
        return;
    };
    fn value<'d>(entries: &'d [(String, Document)], key: &str) -> Option<&'d Document> {
        entries.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }
    for (key, old) in before {
        compare(&joined(path, key), Some(old), value(after, key), paths);
    }
    for (key, new) in after.iter().filter(|(key, _)| value(before, key).is_none()) {
        compare(&joined(path, key), None, Some(new), paths);
    }
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
        assert_eq!(paths(&plain, &config(dns)), ["dns"]);
        assert_eq!(paths(&config(&dns.replace("1s", "2s")), &config(dns)), ["dns.ttl"]);
    }

    #[test]
    fn a_running_box_takes_in_only_what_the_declaration_says() {
        assert_eq!(
            reloadable_keys(),
            [
                "forwards",
                "outbound",
                "nat.hairpin",
                "nat.port_preservation",
                "nat.mss_clamp",
                "nat.reject_with",
                "nat.unsolicited_syn"
            ]
        );
        let changed =
            config("nat: { hairpin: false, ports: 2000-3000 }\noutbound: [{ from: 10.0.0.0/24 }]");
        let reloadable: Vec<_> = changes(&config(""), &changed)
            .into_iter()
            .map(|change| (change.path, change.reloadable))
            .collect();
        assert_eq!(
            reloadable,
            [("nat.hairpin".into(), true), ("nat.ports".into(), false), ("outbound".into(), true)]
        );
    }
}
