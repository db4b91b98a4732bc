//! Keys and values that had another name before the first release.
//!
//! An old name is still an error. The error names the present one, which no edit distance would
//! find.

/// A key or a value that was renamed.
struct Renamed {
    /// Path of the section, without indices; empty for the root.
    section: &'static str,
    /// The key, for a renamed value; empty for a renamed key.
    key: &'static str,
    before: &'static str,
    now: &'static str,
}

/// Finds the present name of a key of the mapping at a path such as `uplinks[2].health`.
pub(in crate::config) fn key(path: &str, before: &str) -> Option<&'static str> {
    find(&without_indices(path), "", before)
}

/// Finds the present name of a value of the key at `path`, such as `uplinks[2].failback`.
pub(in crate::config) fn value(path: &str, before: &str) -> Option<&'static str> {
    let path = without_indices(path);
    let (section, key) = path.rsplit_once('.').unwrap_or(("", &path));
    find(section, key, before)
}

fn find(section: &str, key: &str, before: &str) -> Option<&'static str> {
    RENAMED
        .iter()
        .find(|renamed| {
            renamed.section == section && renamed.key == key && renamed.before == before
        })
        .map(|renamed| renamed.now)
}

/// Turns `uplinks[2].failback` into `uplinks[].failback`.
fn without_indices(path: &str) -> String {
    path.split('[')
        .map(|part| part.split_once(']').map_or(part.to_owned(), |(_, rest)| format!("]{rest}")))
        .collect::<Vec<_>>()
        .join("[")
}

const fn renamed(
    section: &'static str,
    key: &'static str,
    before: &'static str,
    now: &'static str,
) -> Renamed {
    Renamed { section, key, before, now }
}

static RENAMED: [Renamed; 17] = [
    renamed("", "", "exempt", "no_nat"),
    renamed("uplinks[].health", "", "lose", "fall"),
    renamed("uplinks[].health", "", "win", "rise"),
    renamed("uplinks[].health", "", "need", "quorum"),
    renamed("timeouts", "", "port_rest", "port_reuse_delay"),
    renamed("limits", "", "resting_ports", "delayed_ports"),
    renamed("nat", "", "refusal", "reject_with"),
    renamed("outbound[]", "", "balance", "hash_by"),
    renamed("dns.update", "", "records", "replace"),
    renamed("nat", "unsolicited_syn", "silent", "drop"),
    renamed("nat", "unsolicited_syn", "late-error", "delayed-reject"),
    renamed("nat", "address_pooling", "strict", "paired"),
    renamed("nat", "address_pooling", "soft", "paired-soft"),
    renamed("uplinks[]", "failback", "new-only", "new-sessions"),
    renamed("uplinks[]", "failback", "move", "reset"),
    renamed("outbound[]", "hash_by", "endpoint", "source-port"),
    renamed("outbound[]", "hash_by", "host", "source-address"),
];

#[cfg(test)]
mod tests {
    use crate::config::parse;

    use super::*;

    /// Returns the smallest file with `line` in `section`.
    fn file_with(section: &str, line: &str) -> String {
        let uplink = |more: &str| {
            format!("uplinks: [{{ name: isp1, interface: wan0, addresses: [203.0.113.10]{more} }}]")
        };
        let (uplinks, more) = match section {
            "" => (uplink(""), line.to_owned()),
            "uplinks[]" => (uplink(&format!(", {line}")), String::new()),
            "uplinks[].health" => {
                let health = format!(", health: {{ ping: [203.0.113.254], {line} }}");
                (uplink(&health), String::new())
            }
            "outbound[]" => (uplink(""), format!("outbound: [{{ from: 10.0.0.0/24, {line} }}]")),
            "dns.update" => (
                uplink(""),
                format!(
                    "dns: {{ zone: example.org, names: [{{ name: www }}], listen: false, update: \
                     {{ server: 192.0.2.53, key: k, secret_file: /etc/k, {line} }} }}"
                ),
            ),
            section => (uplink(""), format!("{section}: {{ {line} }}")),
        };
        format!("inside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}\n{uplinks}\n{more}\n")
    }

    #[test]
    fn every_old_name_is_answered_with_the_present_one() {
        for renamed in &RENAMED {
            let line = match renamed.key {
                "" if renamed.section.is_empty() => format!("{}: []", renamed.before),
                "" => format!("{}: 1", renamed.before),
                key => format!("{key}: {}", renamed.before),
            };
            let problems =
                parse("f.yaml", &file_with(renamed.section, &line)).unwrap_err().to_string();
            let wanted = format!("did you mean `{}`?", renamed.now);
            assert!(problems.contains(&wanted), "{line}: {problems}");
            let is_unknown_key = problems.contains("found an unknown key");
            assert_eq!(is_unknown_key, renamed.key.is_empty(), "{line}: {problems}");
        }
    }

    #[test]
    fn paths_lose_their_indices() {
        assert_eq!(without_indices("uplinks[12].failback"), "uplinks[].failback");
        assert_eq!(without_indices("nat.refusal"), "nat.refusal");
        assert_eq!(without_indices("a[0].b[1]"), "a[].b[]");
    }
}
