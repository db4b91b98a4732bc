//! Findings as text for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::counted;
use crate::host::doctor::{Finding, Severity};

/// All findings.
#[derive(Debug, Serialize)]
pub(super) struct DoctorReport {
    /// True when no finding is an error.
    pub(super) healthy: bool,
    /// Findings by severity, errors first.
    findings: Vec<Finding>,
}

impl DoctorReport {
    /// Sorts the findings.
    pub(super) fn new(mut findings: Vec<Finding>) -> Self {
        // The sort is stable: within a severity the checks keep their order.
        findings.sort_by_key(|finding| finding.severity);
        let healthy = findings.iter().all(|finding| finding.severity != Severity::Error);
        Self { healthy, findings }
    }

    /// Formats the findings for people.
    pub(super) fn text(&self, title: &str) -> String {
        let of =
            |severity| self.findings.iter().filter(move |finding| finding.severity == severity);
        let (errors, warnings, good) =
            (of(Severity::Error).count(), of(Severity::Warning).count(), of(Severity::Ok).count());
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{title}: {}, {}, {} passed",
            counted(errors, "error", "errors"),
            counted(warnings, "warning", "warnings"),
            counted(good, "check", "checks")
        );
        for (word, severity) in [("ERROR", Severity::Error), ("WARNING", Severity::Warning)] {
            for finding in of(severity) {
                let _ = writeln!(text, "\n{word} {}: {}", finding.id, finding.found);
                for line in
                    [&finding.why, &finding.advice].into_iter().filter(|line| !line.is_empty())
                {
                    let _ = writeln!(text, "  {line}");
                }
                for command in &finding.fix {
                    let _ = writeln!(text, "    {command}");
                }
            }
        }
        if good > 0 {
            text.push('\n');
        }
        for finding in of(Severity::Ok) {
            let _ = writeln!(text, "ok {}: {}", finding.id, finding.found);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_first_with_their_fix() {
        let report = DoctorReport::new(vec![
            Finding::ok("path", "all paths are right"),
            Finding::warning("mtu", "wan0 has MTU 900", "small").advice("think"),
            Finding::error("rules", "one is missing", "lost").fix(["ip rule add x".into()]),
        ]);
        assert!(!report.healthy);
        assert_eq!(
            report.text("instance a"),
            "instance a: 1 error, 1 warning, 1 check passed\n\nERROR rules: one is missing\n  lost\n    ip rule add x\n\n\
             WARNING mtu: wan0 has MTU 900\n  small\n  think\n\nok path: all paths are right\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(
            (&json["healthy"], &json["findings"][0]["severity"]),
            (&false.into(), &"error".into())
        );
    }

    #[test]
    fn a_warning_leaves_the_report_healthy() {
        assert!(DoctorReport::new(vec![Finding::warning("mtu", "small", "slow")]).healthy);
    }
}
