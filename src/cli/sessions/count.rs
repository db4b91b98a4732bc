//! Numbers of sessions, in all and by group.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::api::{Request, SessionCount, SessionCursor, SessionGroup};
use crate::cli::exit::Failure;
use crate::cli::target::InstanceSelector;

/// Numbers of the sessions that match a filter.
pub(in crate::cli) struct CountedSessions {
    /// All of them.
    pub(in crate::cli) sessions: u64,
    groups: HashMap<String, u64>,
    /// Sessions of groups beyond [`MAX_GROUPS`].
    ungrouped: u64,
}

/// Counts the sessions of an instance, part by part.
///
/// # Errors
/// An environment error when no instance answers. A user error when several run and none is named,
/// or when the filter is wrong.
pub(in crate::cli) fn count_matching(
    instance: &InstanceSelector,
    filter: &str,
    group_by: Option<SessionGroup>,
) -> Result<CountedSessions, Failure> {
    let mut counted = CountedSessions { sessions: 0, groups: HashMap::new(), ungrouped: 0 };
    let mut next = Some(SessionCursor::default());
    while let Some(from) = next {
        let filter = filter.to_owned();
        let part: SessionCount =
            instance.ask(&Request::CountSessions { from, filter, group_by })?;
        next = part.next;
        counted.add(part);
    }
    Ok(counted)
}

impl CountedSessions {
    fn add(&mut self, part: SessionCount) {
        self.sessions += part.sessions;
        for (group, sessions) in part.groups {
            let is_full = self.groups.len() >= MAX_GROUPS;
            match self.groups.get_mut(&group) {
                Some(sum) => *sum += sessions,
                None if is_full => self.ungrouped += sessions,
                None => {
                    self.groups.insert(group, sessions);
                }
            }
        }
    }

    /// The largest groups, and the number of sessions in the others.
    fn largest(&self, limit: usize) -> (Vec<(&str, u64)>, u64) {
        let mut groups: Vec<(&str, u64)> =
            self.groups.iter().map(|(group, sessions)| (group.as_str(), *sessions)).collect();
        groups.sort_unstable_by(|(first, larger), (second, other)| {
            other.cmp(larger).then(first.cmp(second))
        });
        let beyond = groups.iter().skip(limit).map(|(_, sessions)| sessions).sum::<u64>();
        groups.truncate(limit);
        (groups, beyond + self.ungrouped)
    }

    pub(super) fn to_json(&self, group_by: Option<SessionGroup>, limit: usize) -> Value {
        let Some(group_by) = group_by else { return json!({ "sessions": self.sessions }) };
        let (groups, others) = self.largest(limit);
        let groups: Vec<Value> = groups
            .into_iter()
            .map(|(value, sessions)| json!({ "value": value, "sessions": sessions }))
            .collect();
        json!({
            "sessions": self.sessions, "group_by": group_by, "groups": groups,
            "in_other_groups": others
        })
    }

    pub(super) fn to_text(&self, limit: usize) -> String {
        if self.groups.is_empty() {
            return self.sessions.to_string();
        }
        let (groups, others) = self.largest(limit);
        let row = |sessions: u64, group: &str| format!("{sessions:>10}  {group}");
        let rows = groups.iter().map(|(group, sessions)| match *group {
            "" => row(*sessions, "-"),
            group => row(*sessions, group),
        });
        let mut lines: Vec<String> = rows.collect();
        if others != 0 {
            lines.push(row(others, "(other groups)"));
        }
        lines.push(row(self.sessions, "in all"));
        lines.join("\n")
    }
}

/// Most groups that are counted each. They take about 50 MB.
const MAX_GROUPS: usize = 500_000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn parts_add_up_and_the_largest_groups_come_first() {
        let mut counted = CountedSessions { sessions: 0, groups: HashMap::new(), ungrouped: 0 };
        for (first, second) in [(3, 1), (4, 9)] {
            let groups = BTreeMap::from([("10.0.0.1".to_owned(), first), (String::new(), second)]);
            counted.add(SessionCount { sessions: first + second, groups, next: None });
        }
        assert_eq!(
            counted.to_text(usize::MAX),
            "        10  -\n         7  10.0.0.1\n        17  in all"
        );
        let json = counted.to_json(Some(SessionGroup::Client), 1);
        assert_eq!(
            json,
            json!({ "sessions": 17, "group_by": "client",
                    "groups": [{ "value": "", "sessions": 10 }], "in_other_groups": 7 })
        );
    }
}
