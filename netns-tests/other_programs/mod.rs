//! Other programs change the host: natbox sets its settings again, and the host stays reachable.

mod dependents;
mod own_addresses;
mod removed;
mod tables;
mod tun_name;
mod vpn;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use natbox::api::{Event, EventKind, HostStatus};
use natbox::lab::{Namespace, http};

use crate::single_box::{CLIENT, RunningBox, SingleBox, seconds};

/// Time within which natbox sets a setting again.
const SOON: Duration = Duration::from_secs(2);
/// Port of a service of the host itself.
const OWN_PORT: u16 = 8022;

/// Runs a script of another program.
#[track_caller]
pub(crate) fn shell(namespace: &Namespace, script: &str) {
    let output = namespace.command("sh").args(["-ec", script]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {errors}");
}

/// Waits until `ask` returns a value, for [`SOON`] at most.
#[track_caller]
fn soon<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {SOON:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns true when the client reaches a TCP service at the published address.
fn reaches(testbed: &SingleBox, port: u16) -> bool {
    reaches_from(testbed, CLIENT, port)
}

/// Returns true when a host outside reaches a TCP service at the published address.
fn reaches_from(testbed: &SingleBox, from: Ipv4Addr, port: u16) -> bool {
    let to = testbed.endpoint(port);
    let connect = || http::connect(Some(from), to, Duration::from_millis(400));
    testbed.net.enter(connect).unwrap().is_ok()
}

/// Starts a service of the host at every address.
fn own_service(testbed: &SingleBox) -> http::HttpServer {
    crate::single_box::serve(&testbed.natbox, Ipv4Addr::UNSPECIFIED, OWN_PORT)
}

/// Returns the output of `ip rule` and `ip route`, sorted.
fn rules_and_routes(testbed: &SingleBox) -> Vec<String> {
    let questions: [&[&str]; 5] = [
        &["-4", "rule"],
        &["-4", "route", "show", "table", "all"],
        &["-4", "neigh", "show", "proxy"],
        &["-4", "-brief", "address"],
        &["-brief", "link"],
    ];
    let texts = questions.map(|question| testbed.natbox.ip_output(question).unwrap());
    let mut lines: Vec<String> =
        texts.iter().flat_map(|text| text.lines().map(String::from)).collect();
    lines.sort();
    lines
}

/// Returns the events so far.
fn events(testbed: &SingleBox, natbox: &RunningBox) -> Vec<EventKind> {
    let socket = natbox.socket().to_str().unwrap();
    let ended = testbed.natbox(&[], &["events", "--json", "--socket", socket]);
    let event = |line: &str| serde_json::from_str::<Event>(line).unwrap().kind;
    ended.stdout.lines().map(event).collect()
}

/// Returns the settings that natbox has set again, as commands.
fn restored(testbed: &SingleBox, natbox: &RunningBox) -> Vec<String> {
    let restored = events(testbed, natbox).into_iter().filter_map(|event| {
        if let EventKind::HostRestored { changed } = event { Some(changed) } else { None }
    });
    restored.flatten().collect()
}

fn host_status(natbox: &RunningBox) -> HostStatus {
    natbox.status().host.expect("the box manages its host")
}

/// Waits until the host looks as after the start.
#[track_caller]
fn settled(testbed: &SingleBox, wanted: &[String], after: &str) {
    let mut last = Vec::new();
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        last = rules_and_routes(testbed);
        if last == wanted {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let lost: Vec<&String> = wanted.iter().filter(|line| !last.contains(line)).collect();
    let more: Vec<&String> = last.iter().filter(|line| !wanted.contains(line)).collect();
    panic!("after `{after}`: lost {lost:#?}, more {more:#?}");
}

/// Waits until natbox has looked at its own changes.
fn pause() {
    std::thread::sleep(seconds(1) / 5);
}
