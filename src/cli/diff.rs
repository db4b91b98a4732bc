//! `natbox diff`: shows what a reload of the file would change.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::exit::{DONE, Failure, USER};
use super::output;
use super::stderr::warn;
use super::target::InstanceQuery;
use crate::api::{ChangedKey, Difference, EndingSessions, Request};
use crate::config::counted;

/// Arguments of `natbox diff`.
#[derive(Debug, Args)]
pub(super) struct DiffArguments {
    #[command(flatten)]
    query: InstanceQuery,
}

/// Prints the keys that a reload would change, and the sessions that it would end. Exit code: 0 if
/// nothing would change, 1 if something would.
///
/// # Errors
/// An environment error when no instance answers, when several run and none is named, or when the
/// file has problems: as with diff, the exit code is 2.
pub(super) fn run(arguments: &DiffArguments) -> Result<ExitCode, Failure> {
    let InstanceQuery { instance, json } = &arguments.query;
    let asked = instance.ask(&Request::Difference);
    let difference: Difference = asked.map_err(Failure::into_environment)?;
    for warning in &difference.warnings {
        warn(&format!("warning: {warning}"));
    }
    output::show(*json, &difference, text)?;
    Ok(ExitCode::from(if difference.changes.is_empty() { DONE } else { USER }))
}

fn text(difference: &Difference) -> String {
    let Difference { file, changes, sessions_ended, warnings: _ } = difference;
    if changes.is_empty() {
        return format!("{file}: a reload would change nothing");
    }
    let mut lines: Vec<String> = changes.iter().flat_map(change_lines).collect();
    lines.push(match sessions_ended {
        Some(sessions) => format!("a reload would end {}", ending(sessions)),
        None => {
            let fixed = changes.iter().filter(|change| change.needs_restart);
            let fixed: Vec<&str> = fixed.map(|change| change.key.as_str()).collect();
            let keys = fixed.join(", ");
            format!("a reload would be refused and change nothing: {keys} needs a restart")
        }
    });
    lines.join("\n")
}

fn change_lines(change: &ChangedKey) -> Vec<String> {
    let ChangedKey { key, before, after, needs_restart } = change;
    let note = if *needs_restart { " (needs a restart)" } else { "" };
    let (removed, added) = sides(before.as_ref(), after.as_ref());
    let line = |sign: char, value: &Value| format!("  {sign} {value}");
    let removed = removed.into_iter().map(|value| line('-', value));
    let added = added.into_iter().map(|value| line('+', value));
    [format!("{key}{note}")].into_iter().chain(removed).chain(added).collect()
}

/// Returns the values that vanish and those that appear. Of two lists, these are the items that the
/// other has not.
fn sides<'v>(
    before: Option<&'v Value>,
    after: Option<&'v Value>,
) -> (Vec<&'v Value>, Vec<&'v Value>) {
    if let (Some(Value::Array(before)), Some(Value::Array(after))) = (before, after) {
        let removed: Vec<_> = before.iter().filter(|item| !after.contains(item)).collect();
        let added: Vec<_> = after.iter().filter(|item| !before.contains(item)).collect();
        if !removed.is_empty() || !added.is_empty() {
            return (removed, added);
        }
    }
    // Another order of the same items, or no lists.
    (before.into_iter().collect(), after.into_iter().collect())
}

fn ending(sessions: &EndingSessions) -> String {
    let total = counted(sessions.total, "session", "sessions");
    let reasons = sessions.by_reason.iter().map(|(reason, count)| format!("{count} {reason}"));
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    if reasons.is_empty() { total } else { format!("{total} ({reasons})") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(key: &str, before: Value, after: Value) -> ChangedKey {
        ChangedKey {
            key: key.to_owned(),
            before: Some(before).filter(|value| !value.is_null()),
            after: Some(after).filter(|value| !value.is_null()),
            needs_restart: key.starts_with("tun"),
        }
    }

    fn difference(changes: Vec<ChangedKey>, sessions_ended: Option<EndingSessions>) -> Difference {
        Difference { file: "a.yaml".to_owned(), changes, sessions_ended, warnings: Vec::new() }
    }

    #[test]
    fn values_and_items_of_lists_are_shown_with_their_side() {
        let forwards = changed("forwards", json!([{ "port": 80 }, 2]), json!([2, { "port": 81 }]));
        let changes = vec![
            changed("dns", Value::Null, json!({ "ttl": "1s" })),
            forwards,
            changed("nat.hairpin", json!(true), json!(false)),
            changed("outbound", json!([1, 2]), json!([2, 1])),
        ];
        let ends =
            EndingSessions { total: 3, by_reason: [("policy-changed".to_owned(), 3)].into() };
        assert_eq!(
            text(&difference(changes, Some(ends))),
            "dns\n  + {\"ttl\":\"1s\"}\n\
             forwards\n  - {\"port\":80}\n  + {\"port\":81}\n\
             nat.hairpin\n  - true\n  + false\n\
             outbound\n  - [1,2]\n  + [2,1]\n\
             a reload would end 3 sessions (3 policy-changed)"
        );
    }

    #[test]
    fn a_refused_reload_and_an_equal_file_are_named() {
        let refused = text(&difference(vec![changed("tun.name", json!("a"), json!("b"))], None));
        assert!(refused.starts_with("tun.name (needs a restart)\n  - \"a\"\n  + \"b\"\n"));
        assert!(refused.ends_with("change nothing: tun.name needs a restart"), "{refused}");
        let equal = difference(Vec::new(), Some(EndingSessions::default()));
        assert_eq!(text(&equal), "a.yaml: a reload would change nothing");
    }
}
