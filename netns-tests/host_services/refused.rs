//! Forwards that cannot work on this host.

use std::net::Ipv4Addr;
use std::process::Output;

use natbox::cli::doctor::{Finding, Severity};
use rustix::process::Signal;
use serde::Deserialize;

use super::{INSIDE, SSH};
use crate::single_box::{NATBOX, Published, RunningBox, SERVER, SingleBox, serve};

/// The findings of doctor.
#[derive(Deserialize)]
pub(super) struct Report {
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(testbed: &SingleBox, natbox: &RunningBox) -> Self {
        let mut command = testbed.natbox.command(NATBOX);
        command.args(["doctor", "--json", "--socket"]).arg(natbox.socket());
        let Output { stdout, .. } = command.output().unwrap();
        serde_json::from_slice(&stdout).unwrap()
    }

    /// Lists what the errors found.
    pub(super) fn errors(&self) -> Vec<&str> {
        self.of(Severity::Error)
    }

    /// Lists what the warnings found.
    pub(super) fn warnings(&self) -> Vec<&str> {
        self.of(Severity::Warning)
    }

    /// Returns the finding of a check.
    pub(super) fn finding(&self, id: &str) -> Option<Finding> {
        self.findings.iter().find(|finding| finding.id == id).cloned()
    }

    fn of(&self, severity: Severity) -> Vec<&str> {
        let found = self.findings.iter().filter(|finding| finding.severity == severity);
        found.map(|finding| finding.found.as_str()).collect()
    }
}

/// Starts a box with more forwards and with wider prefixes.
fn start(testbed: &SingleBox, forwards: &[&str], prefixes: &str) -> RunningBox {
    let config = testbed.config();
    let lines: String = forwards.iter().map(|forward| format!("  - {{ {forward} }}\n")).collect();
    let text = config
        .to_string()
        .replace("outbound:\n", &format!("{lines}outbound:\n"))
        .replace("prefixes: [10.0.0.0/24]", &format!("prefixes: [{prefixes}]"));
    let path = testbed.write("more", &text);
    RunningBox::launch(&testbed.natbox, "more", &path, &config.socket)
}

/// The file alone does not show these faults. The start and doctor say how to fix them.
#[test]
fn targets_that_this_host_cannot_reach_from_inside_are_named() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let other = testbed.lab.namespace("other").unwrap();
    testbed.lab.veth(9, (&testbed.natbox, "dmz0"), (&other, "eth0")).unwrap();
    testbed.natbox.address("dmz0", Ipv4Addr::new(10, 3, 0, 1), 24).unwrap();
    let forwards = [
        "name: broadcast, protocol: tcp, port: 1001, to: '10.0.0.255:80'",
        "name: elsewhere, protocol: tcp, port: 1002, to: '10.3.0.7:80'",
        "name: nowhere, protocol: tcp, port: 1003, to: '10.4.0.7:80'",
    ];
    let natbox = start(&testbed, &forwards, "10.0.0.0/16, 10.3.0.0/16, 10.4.0.0/16");
    let log = natbox.process.log();
    let errors = Report::new(&testbed, &natbox);
    for words in [
        "broadcast leads to 10.0.0.255, the network or broadcast address",
        "elsewhere leads to 10.3.0.7, which this host reaches by dmz0 and not by lan0",
        "nowhere leads to 10.4.0.7, to which this host has no route by lan0",
    ] {
        assert!(log.contains(words), "{words:?} in the log:\n{log}");
        assert!(errors.errors().iter().any(|found| found.contains(words)), "{:?}", errors.errors());
    }
    assert!(!log.contains(&format!("leads to {SERVER}")), "{log}");
    natbox.stop(Signal::TERM);
}

#[test]
fn doctor_names_a_service_of_the_host_that_does_not_listen() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let forward = format!("name: ssh, protocol: tcp, port: {SSH}, to: '{INSIDE}:{SSH}'");
    let natbox = start(&testbed, &[&forward], "10.0.0.0/24");
    let words = format!("no program listens at {INSIDE}:{SSH} (tcp), the target of ssh");
    let named = |report: &Report| report.errors().iter().any(|found| found.contains(&words));
    assert!(named(&Report::new(&testbed, &natbox)));
    let _elsewhere = serve(&testbed.natbox, Ipv4Addr::LOCALHOST, SSH);
    assert!(named(&Report::new(&testbed, &natbox)), "a service at 127.0.0.1 gets no request");
    let _ssh = serve(&testbed.natbox, INSIDE, SSH);
    let report = Report::new(&testbed, &natbox);
    let own = |found: &&&str| found.contains("ssh") || found.contains("path");
    assert_eq!(report.errors().iter().filter(own).count(), 0, "{:?}", report.errors());

    // The plan has no server for the host itself.
    let plan = testbed.natbox(&[], &["plan", "--config", natbox.path.to_str().unwrap()]);
    assert!(plan.stdout.contains(&format!("ip address replace {SERVER}/24")), "{plan:?}");
    assert!(!plan.stdout.contains(&format!("ip address replace {INSIDE}/24")), "{plan:?}");
    natbox.stop(Signal::TERM);
}

/// The file alone shows these faults.
#[test]
fn check_refuses_targets_that_no_inside_host_can_have() {
    let testbed = SingleBox::new(Published::OnLink);
    for (to, words) in [
        (testbed.published.to_string(), "for a service of the box itself"),
        ("127.0.0.1".into(), "for a service of the box itself"),
        ("203.0.113.254".into(), "an address within `10.0.0.0/24`"),
        ("169.254.71.1".into(), "an address within `10.0.0.0/24`"),
        ("224.0.0.5".into(), "multicast addresses cannot be used here"),
        ("10.0.0.255".into(), "the network or broadcast address of 10.0.0.0/24"),
        ("10.0.0.0".into(), "the network or broadcast address of 10.0.0.0/24"),
    ] {
        let forward = format!("  - {{ name: x, protocol: tcp, port: 99, to: '{to}:99' }}\n");
        let text = testbed.config().to_string().replace("outbound:\n", &(forward + "outbound:\n"));
        let path = testbed.write("refused", &text);
        let ended = testbed.natbox(&[], &["check", "--config", path.to_str().unwrap()]);
        ended.assert_says(1, &["forwards[3].to", words]);
    }
    let forward = format!("  - {{ name: x, protocol: tcp, port: 99, to: '{INSIDE}:99' }}\n");
    let text = testbed.config().to_string().replace("outbound:\n", &(forward + "outbound:\n"));
    let path = testbed.write("accepted", &text);
    let ended = testbed.natbox(&[], &["check", "--config", path.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
