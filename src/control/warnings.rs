//! Conditions of the host that a person should look at, for `natbox status`.

use std::cell::RefCell;
use std::rc::Rc;

use super::events::Events;
use crate::api::EventKind;
use crate::host::doctor::{Finding, Severity};

/// The present warnings. An error appears in the events when it begins and when it ends.
pub(super) struct Warnings {
    present: RefCell<Vec<(&'static str, Finding)>>,
    events: Rc<Events>,
}

impl Warnings {
    pub(super) fn new(events: Rc<Events>) -> Self {
        Self { present: RefCell::default(), events }
    }

    /// Replaces the warnings of one source.
    pub(super) fn set(&self, source: &'static str, findings: Vec<Finding>) {
        let mut present = self.present.borrow_mut();
        let before: Vec<Finding> =
            present.extract_if(.., |(of, _)| *of == source).map(|(_, finding)| finding).collect();
        for Finding { found, why, .. } in errors_beyond(&findings, &before) {
            let (found, why) = (found.clone(), why.clone());
            self.events.emit(EventKind::HostWarning { found, why });
        }
        for Finding { found, .. } in errors_beyond(&before, &findings) {
            self.events.emit(EventKind::HostWarningEnded { found: found.clone() });
        }
        present.extend(findings.into_iter().map(|finding| (source, finding)));
    }

    /// Returns the present warnings.
    pub(super) fn all(&self) -> Vec<Finding> {
        self.present.borrow().iter().map(|(_, finding)| finding.clone()).collect()
    }
}

/// Lists the errors of `findings` that `others` does not contain.
fn errors_beyond<'f>(
    findings: &'f [Finding],
    others: &'f [Finding],
) -> impl Iterator<Item = &'f Finding> {
    let is_known = |finding: &Finding| others.iter().any(|other| other.found == finding.found);
    findings.iter().filter(move |finding| finding.severity == Severity::Error && !is_known(finding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_an_event_when_it_begins_and_when_it_ends() {
        let events = Rc::new(Events::new());
        let warnings = Warnings::new(Rc::clone(&events));
        let drops = Finding::error("firewall", "`a` drops", "lost");
        let unknown = Finding::warning("firewall", "not readable", "unknown");
        let other = Finding::error("rules", "gone", "lost");
        warnings.set("firewall", vec![drops.clone(), unknown.clone()]);
        warnings.set("firewall", vec![unknown.clone(), drops.clone()]);
        warnings.set("rules", vec![other.clone()]);
        assert_eq!(warnings.all(), [unknown, drops, other.clone()]);
        warnings.set("firewall", Vec::new());
        assert_eq!(warnings.all(), [other]);
        let kinds: Vec<EventKind> = events.follow().0.into_iter().map(|event| event.kind).collect();
        let began =
            |found: &str| EventKind::HostWarning { found: found.into(), why: "lost".into() };
        let ended = EventKind::HostWarningEnded { found: "`a` drops".into() };
        assert_eq!(kinds, [began("`a` drops"), began("gone"), ended]);
    }
}
