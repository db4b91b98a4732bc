//! Numbers of sessions, in all and by group.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::api::{GroupTotals, Request, SessionCount, SessionCursor, SessionGroup};
use crate::cli::exit::Failure;
use crate::cli::target::InstanceSelector;

/// Numbers of the sessions that match a filter.
pub(in crate::cli) struct CountedSessions {
    /// All of them.
    pub(in crate::cli) sessions: u64,
    pub(in crate::cli) groups: HashMap<String, GroupTotals>,
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
        for (group, totals) in part.groups {
            let is_full = self.groups.len() >= MAX_GROUPS;
            match self.groups.get_mut(&group) {
                Some(sum) => *sum += totals,
                None if is_full => self.ungrouped += totals.sessions,
                None => {
                    self.groups.insert(group, totals);
                }
            }
        }
    }

    /// The largest groups, and the number of sessions in the others.
    fn largest(&self, limit: usize) -> (Vec<(&str, GroupTotals)>, u64) {
        let mut groups: Vec<(&str, GroupTotals)> =
            self.groups.iter().map(|(group, totals)| (group.as_str(), *totals)).collect();
        groups.sort_unstable_by(|(first, larger), (second, other)| {
            other.sessions.cmp(&larger.sessions).then(first.cmp(second))
        });
        let beyond = groups.iter().skip(limit).map(|(_, totals)| totals.sessions).sum::<u64>();
        groups.truncate(limit);
        (groups, beyond + self.ungrouped)
    }

    pub(super) fn to_json(&self, group_by: Option<SessionGroup>, limit: usize) -> Value {
        let Some(group_by) = group_by else { return json!({ "sessions": self.sessions }) };
        let (groups, others) = self.largest(limit);
        let groups: Vec<Value> = groups
            .into_iter()
            .map(|(value, GroupTotals { sessions, bytes })| {
                json!({ "value": value, "sessions": sessions, "bytes": bytes })
            })
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
        let rows = groups.iter().map(|(group, GroupTotals { sessions, .. })| match *group {
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
            let totals = |sessions| GroupTotals { sessions, bytes: 5 };
            let groups = [("10.0.0.1".to_owned(), totals(first)), (String::new(), totals(second))];
            let groups = BTreeMap::from(groups);
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
                    "groups": [{ "value": "", "sessions": 10, "bytes": 10 }], "in_other_groups": 7 })
        );
    }
}
