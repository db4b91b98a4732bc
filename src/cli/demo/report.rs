//! The report of the demo, as text and as JSON.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::Serialize;

use super::failover_report::FailoverReport;

/// Least ratio at which the bandwidths of the uplinks count as added up.
pub(super) const RATIO_WANTED: f64 = 1.95;

/// Share of its rate that an uplink must reach alone to count as the bottleneck.
const BUSY_SHARE: f64 = 0.85;

/// The report. The field names are the keys of `--json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DemoReport {
    /// Uplinks, in order.
    #[serde(rename = "lines")]
    pub uplinks: Vec<UplinkReport>,
    /// Goodput of all uplinks at once, in Mbit/s.
    pub together_mbit: f64,
    /// [`DemoReport::together_mbit`] over the mean of the single uplinks. The number of uplinks
    /// would be perfect.
    pub ratio: f64,
    /// Packets on an uplink that were no replies from the published endpoint of that uplink.
    #[serde(rename = "wrong_line_replies")]
    pub wrong_uplink_replies: u64,
    /// Whether the server saw each client by its own address. [`DemoReport::finish`] also compares
    /// the two sets.
    pub client_addresses_preserved: bool,
    /// Addresses of the clients.
    pub client_addresses: BTreeSet<Ipv4Addr>,
    /// Addresses that the server saw.
    pub client_addresses_seen: BTreeSet<Ipv4Addr>,
    /// Sessions that the instances created.
    pub sessions: u64,
    /// Frames that crossed the uplinks but escaped the capture. Only 0 makes the count of replies a
    /// proof.
    pub capture_missed: u64,
    /// Rate limit of each uplink, in Mbit/s, link-layer headers included.
    pub rate_mbit: u32,
    /// Length of each measurement, in seconds.
    pub seconds: u32,
    /// Whether every expectation was met.
    pub passed: bool,
    /// Unmet expectations, one sentence each.
    pub problems: Vec<String>,
}

/// The report of a named scenario, with the keys that only such a report has.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ScenarioReport<'a> {
    /// Name of the scenario.
    #[serde(rename = "story")]
    pub scenario: &'a str,
    /// Number of uplinks.
    #[serde(rename = "lines_count")]
    pub uplinks_count: usize,
    /// Results of an uplink's failure, if the scenario has one.
    #[serde(flatten)]
    pub failover: Option<&'a FailoverReport>,
    /// The common report.
    #[serde(flatten)]
    pub report: &'a DemoReport,
}

/// One uplink.
#[derive(Clone, Debug, Serialize)]
pub(super) struct UplinkReport {
    /// `uplink 1`, ...
    pub name: String,
    /// Published endpoint.
    pub published: SocketAddrV4,
    /// Private address of the server that belongs to the uplink.
    pub server: Ipv4Addr,
    /// Private address of the box.
    pub inside: Ipv4Addr,
    /// Goodput in Mbit/s while the other uplinks were idle.
    pub alone_mbit: f64,
    /// Goodput in Mbit/s while all uplinks were busy.
    pub together_mbit: f64,
    /// [`UplinkReport::together_mbit`] over the sum of all uplinks, 0 to 1.
    pub share_together: f64,
    /// Sessions that the uplink's instance created, if the instance has only this uplink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u64>,
    /// Reply packets (and super-packets) on the uplink.
    pub replies: u64,
    /// See [`DemoReport::wrong_uplink_replies`].
    #[serde(rename = "wrong_line_replies")]
    pub wrong_uplink_replies: u64,
    /// Description of the first wrong packet.
    pub first_wrong: Option<String>,
}

impl DemoReport {
    /// Computes the sums, the ratio and the verdict.
    pub(super) fn finish(mut self) -> DemoReport {
        let alone: f64 = self.uplinks.iter().map(|uplink| uplink.alone_mbit).sum();
        let mean = alone / self.uplinks.len() as f64;
        self.together_mbit = self.uplinks.iter().map(|uplink| uplink.together_mbit).sum();
        // Without any traffic the quotient is 0 rather than not-a-number.
        let quotient = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        self.ratio = quotient(self.together_mbit, mean);
        for uplink in &mut self.uplinks {
            uplink.share_together = quotient(uplink.together_mbit, self.together_mbit);
        }
        self.wrong_uplink_replies =
            self.uplinks.iter().map(|uplink| uplink.wrong_uplink_replies).sum();
        self.client_addresses_preserved &= self.client_addresses == self.client_addresses_seen;
        self.problems = self.find_problems(mean);
        self.passed = self.problems.is_empty();
        self
    }

    /// Adds further unmet expectations.
    pub(super) fn add_problems(&mut self, problems: impl Iterator<Item = String>) {
        self.problems.extend(problems);
        self.passed = self.problems.is_empty();
    }

    fn find_problems(&self, mean: f64) -> Vec<String> {
        let mut problems = Vec::new();
        // The ratio is never NaN: see quotient.
        if self.ratio < RATIO_WANTED {
            let mut text = format!(
                "all uplinks together carried {:.2} times one uplink; at least {RATIO_WANTED} is expected",
                self.ratio
            );
            let saturated = self
                .uplinks
                .iter()
                .all(|uplink| uplink.together_mbit >= BUSY_SHARE * uplink.alone_mbit);
            if mean < BUSY_SHARE * f64::from(self.rate_mbit) || !saturated {
                text.push_str(" (if this machine is the bottleneck, use a lower --rate)");
            }
            problems.push(text);
        }
        if self.wrong_uplink_replies > 0 {
            let example = self
                .uplinks
                .iter()
                .find_map(|uplink| uplink.first_wrong.as_deref())
                .unwrap_or("unknown");
            problems.push(format!(
                "{} packets used the wrong uplink, first {example}",
                self.wrong_uplink_replies
            ));
        }
        if let Some(uplink) = self.uplinks.iter().find(|uplink| uplink.replies == 0) {
            problems.push(format!("the capture saw no reply at all on {}", uplink.name));
        }
        if self.capture_missed > 0 {
            problems.push(format!(
                "the capture missed {} frames and proves nothing about the wrong uplink; use a lower --rate",
                self.capture_missed
            ));
        }
        if !self.client_addresses_preserved {
            problems.push(format!(
                "client addresses were not preserved: the server saw {}, the clients have {}",
                list(&self.client_addresses_seen),
                list(&self.client_addresses)
            ));
        }
        problems
    }

    /// Formats the report as text. `colour`: with terminal control codes.
    pub(super) fn text(&self, colour: bool) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_table(&mut text);
        let paint = |code: &str, words: &str| match colour {
            true => format!("\x1b[{code}m{words}\x1b[0m"),
            false => words.to_owned(),
        };
        if self.passed {
            let _ = write!(
                text,
                "{} Both uplinks together carried {:.2} times one uplink ({:.1} Mbit/s; {:.1} would be perfect).\n\
                 Every reply used the uplink of its request. The server saw all {} clients by their own addresses.\n",
                paint("1;32", "It works."),
                self.ratio,
                self.together_mbit,
                self.uplinks.iter().map(|uplink| uplink.alone_mbit).sum::<f64>(),
                self.client_addresses.len(),
            );
        } else {
            for problem in &self.problems {
                let _ = writeln!(text, "{} {problem}.", paint("1;31", "Failed:"));
            }
        }
        text
    }

    fn write_table(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "  {:8} {:>14} {:>16} {:>8} {:>9} {:>9} {:>11}",
            "", "alone", "together", "share", "sessions", "replies", "wrong"
        )?;
        for uplink in &self.uplinks {
            writeln!(
                text,
                "  {:8} {:>7.1} Mbit/s {:>9.1} Mbit/s {:>6.1} % {:>9} {:>9} {:>11}",
                uplink.name,
                uplink.alone_mbit,
                uplink.together_mbit,
                uplink.share_together * 100.0,
                uplink.sessions.map_or_else(|| "-".to_owned(), |sessions| sessions.to_string()),
                uplink.replies,
                uplink.wrong_uplink_replies
            )?;
        }
        writeln!(
            text,
            "  {:8} {:>14} {:>9.1} Mbit/s {:>8} {:>9} {:>9} {:>11}\n",
            "both",
            "",
            self.together_mbit,
            format!("x {:.2}", self.ratio),
            self.sessions,
            self.uplinks.iter().map(|uplink| uplink.replies).sum::<u64>(),
            self.wrong_uplink_replies
        )?;
        let bar =
            |mbit: f64| "█".repeat((mbit / f64::from(self.rate_mbit) * BAR_WIDTH).round() as usize);
        for uplink in &self.uplinks {
            writeln!(text, "  {:8} {}", uplink.name, bar(uplink.alone_mbit))?;
        }
        let both: Vec<_> = self.uplinks.iter().map(|uplink| bar(uplink.together_mbit)).collect();
        writeln!(text, "  {:8} {}\n", "both", both.join("▏"))
    }
}

/// Width in characters of an uplink at its full rate.
const BAR_WIDTH: f64 = 32.0;

fn list(addresses: &BTreeSet<Ipv4Addr>) -> String {
    addresses.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(together: [f64; 2]) -> DemoReport {
        let uplink = |number: u8, together_mbit| UplinkReport {
            name: format!("uplink {number}"),
            published: SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, number), 80),
            server: Ipv4Addr::new(10, 0, 0, 100 + number),
            inside: Ipv4Addr::new(10, 0, 0, number),
            alone_mbit: 95.0,
            together_mbit,
            share_together: 0.0,
            sessions: Some(20),
            replies: 1000,
            wrong_uplink_replies: 0,
            first_wrong: None,
        };
        let clients = BTreeSet::from([Ipv4Addr::new(192, 0, 2, 11), Ipv4Addr::new(192, 0, 2, 12)]);
        DemoReport {
            uplinks: vec![uplink(1, together[0]), uplink(2, together[1])],
            together_mbit: 0.0,
            ratio: 0.0,
            wrong_uplink_replies: 0,
            client_addresses_preserved: true,
            client_addresses: clients.clone(),
            client_addresses_seen: clients,
            sessions: 40,
            capture_missed: 0,
            rate_mbit: 100,
            seconds: 4,
            passed: false,
            problems: Vec::new(),
        }
    }

    #[test]
    fn two_full_uplinks_pass() {
        let report = report([95.0, 94.0]).finish();
        assert!(report.passed, "{:?}", report.problems);
        assert!((report.ratio - 189.0 / 95.0).abs() < 1e-9);
        assert!(
            (report.uplinks.iter().map(|uplink| uplink.share_together).sum::<f64>() - 1.0).abs()
                < 1e-9
        );
    }

    #[test]
    fn low_ratio_is_a_problem_with_a_hint_when_the_machine_may_be_the_bottleneck() {
        let report = report([70.0, 60.0]).finish();
        assert_eq!(report.problems.len(), 1);
        assert!(report.problems[0].contains("1.37 times") && report.problems[0].contains("--rate"));
    }

    #[test]
    fn no_traffic_at_all_is_a_ratio_of_zero() {
        let mut report = report([0.0, 0.0]);
        report.uplinks.iter_mut().for_each(|uplink| uplink.alone_mbit = 0.0);
        let report = report.finish();
        assert_eq!((report.ratio, report.passed), (0.0, false));
    }

    #[test]
    fn wrong_replies_missed_frames_missing_replies_and_foreign_addresses_are_problems() {
        let mut report = report([95.0, 95.0]);
        report.uplinks[1].wrong_uplink_replies = 3;
        report.uplinks[1].first_wrong = Some("10.0.0.101 > 192.0.2.11 protocol 6".into());
        report.uplinks[0].replies = 0;
        report.capture_missed = 1;
        report.client_addresses_seen = BTreeSet::from([Ipv4Addr::new(10, 0, 0, 100)]);
        let report = report.finish();
        assert_eq!((report.problems.len(), report.passed), (4, false));
        assert!(report.problems[0].contains("10.0.0.101 > 192.0.2.11"));
    }

    #[test]
    fn plain_text_has_no_control_codes_and_json_has_the_agreed_keys() {
        let report = report([95.0, 95.0]).finish();
        assert!(!report.text(false).contains('\x1b') && report.text(true).contains('\x1b'));
        let json = serde_json::to_value(&report).unwrap();
        for key in [
            "together_mbit",
            "ratio",
            "wrong_line_replies",
            "client_addresses_preserved",
            "sessions",
        ] {
            assert!(!json[key].is_null(), "{key}");
        }
        for key in ["name", "alone_mbit", "share_together", "sessions"] {
            assert!(!json["lines"][0][key].is_null(), "{key}");
        }
    }

    #[test]
    fn named_scenario_adds_its_name_to_the_report() {
        let mut report = report([95.0, 95.0]).finish();
        report.uplinks.iter_mut().for_each(|uplink| uplink.sessions = None);
        let scenario = ScenarioReport {
            scenario: "three-legged",
            uplinks_count: report.uplinks.len(),
            failover: None,
            report: &report,
        };
        let json = serde_json::to_value(&scenario).unwrap();
        assert_eq!((&json["story"], &json["lines_count"]), (&"three-legged".into(), &2.into()));
        assert_eq!((&json["ratio"], &json["wrong_line_replies"]), (&2.0.into(), &0.into()));
        assert!(json["lines"][0].get("sessions").is_none() && json["sessions"] == 40);
        assert!(report.text(false).contains(" - "));
    }
}
