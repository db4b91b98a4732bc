//! `natbox reload --confirm`, `natbox confirm`, `natbox diff` and `natbox check --against-running`:
//! a changed configuration stays only if it is confirmed, also across a kill.

use std::fs;
use std::net::SocketAddrV4;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use natbox::api::{
    Difference, Event, EventKind, InstanceState, PendingReload, PendingState, Reloaded, Request,
    RevertReason, client,
};
use natbox::lab::http;
use rustix::process::Signal;
use serde_json::Value;

use crate::boot_order::start_and_lose;
use crate::single_box::{
    CLIENT, Config, Ended, Published, RunningBox, SingleBox, eventually, seconds,
};

/// Port of a forward that only the new configuration has.
const NEW: u16 = 8088;

/// A box whose file can change, and a web server behind it.
struct Site {
    testbed: SingleBox,
    _server: http::HttpServer,
    /// Text of the first configuration.
    old: String,
    path: PathBuf,
    state: PathBuf,
}

impl Site {
    fn new() -> Self {
        let testbed = SingleBox::new(Published::OnLink);
        let server = testbed.serve();
        let old = testbed.config().to_string();
        let path = testbed.write("natbox", &old);
        let state = testbed.lab.directory().join("state");
        fs::create_dir(&state).unwrap();
        Self { testbed, _server: server, old, path, state }
    }

    /// Starts the box as a service manager does, which keeps a directory for its state.
    fn start(&self) -> RunningBox {
        let mut running = self.spawn();
        running.wait_to_answer();
        running
    }

    fn spawn(&self) -> RunningBox {
        let state = format!("STATE_DIRECTORY={}", self.state.display());
        let before = ["env", &state];
        let socket = self.testbed.config().socket;
        RunningBox::spawn_behind(&before, &self.testbed.natbox, "natbox", &self.path, &socket)
    }

    /// Writes a file with a forward of port [`NEW`], without that of the dead server, and with
    /// `more`.
    fn edit(&self, more: &str) {
        let kept = self.old.lines().filter(|line| !line.contains("name: dead"));
        let text: String = kept.map(|line| format!("{line}\n")).collect();
        let new = format!(
            "forwards:\n  - {{ name: new, protocol: tcp, port: {NEW}, to: '10.0.0.101:80' }}"
        );
        self.testbed.write("natbox", &(text.replace("forwards:", &new) + more));
    }

    fn command(&self, arguments: &[&str]) -> Ended {
        let socket = self.testbed.config().socket.display().to_string();
        self.testbed.natbox(&[], &[arguments, &["--socket", &socket]].concat())
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let ended = self.command(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.stdout
    }

    /// Connects through the forward of the new configuration.
    fn connect_new(&self) -> std::io::Result<http::Connection> {
        let to = SocketAddrV4::new(self.testbed.published, NEW);
        self.testbed.net.enter(|| http::connect(Some(CLIENT), to, seconds(1))).unwrap()
    }

    #[track_caller]
    fn assert_new(&self) {
        let mut connection = self.connect_new().expect("the new configuration is in use");
        assert_eq!(connection.get("/").unwrap().text().trim(), CLIENT.to_string());
    }

    #[track_caller]
    fn assert_old(&self) {
        assert!(self.connect_new().is_err(), "the configuration before is in use");
        self.testbed.assert_traffic();
    }

    /// Waits until the box goes back by itself.
    fn wait_for_the_end(&self, running: &RunningBox) -> PendingReload {
        eventually("the box goes back", || {
            pending(running).filter(|reload| reload.state == PendingState::Reverted)
        })
    }
}

fn pending(running: &RunningBox) -> Option<PendingReload> {
    running.status().pending_reload
}

#[track_caller]
fn unconfirmed(running: &RunningBox) -> PendingReload {
    let reload = pending(running).expect("a reload waits");
    assert_eq!(reload.state, PendingState::Unconfirmed);
    reload
}

fn events(running: &RunningBox) -> Vec<EventKind> {
    let mut events = Vec::new();
    let recent = Request::Events { follow: false };
    let flow = client::follow(running.socket(), &recent, |event: Event| {
        events.push(event.kind);
        ControlFlow::<()>::Continue(())
    });
    let _ = flow.unwrap();
    events
}

fn reverted(events: &[EventKind]) -> Option<(RevertReason, usize)> {
    events.iter().find_map(|event| {
        let EventKind::ReloadReverted { reason, sessions_ended, .. } = event else { return None };
        Some((*reason, *sessions_ended))
    })
}

/// Waits until a deadline of some seconds after `since` has passed.
fn wait_past(since: SystemTime, time: Duration) {
    eventually("the deadline", || (since.elapsed().unwrap() > time).then_some(()));
}

#[test]
fn without_a_confirmation_the_box_goes_back_and_keeps_the_sessions_of_before() {
    let site = Site::new();
    let natbox = site.start();
    let mut kept = site.testbed.connect(seconds(2)).unwrap();
    kept.get("/").unwrap();
    site.edit("nat: { hairpin: false }\n");
    let said = site.succeeds(&["reload", "--confirm", "3s"]);
    assert!(said.contains("forwards, nat.hairpin") && said.contains("goes back in 3 s"), "{said}");
    let reload = unconfirmed(&natbox);
    assert_eq!(
        (reload.changed, reload.confirm_seconds),
        (vec!["forwards".into(), "nat.hairpin".into()], 3)
    );
    assert!((1..=3).contains(&reload.seconds_left.unwrap()));
    let text = site.succeeds(&["status"]);
    assert!(text.contains("goes back in") && text.contains("forwards, nat.hairpin"), "{text}");
    let mut of_the_new = site.connect_new().unwrap();
    of_the_new.get("/").unwrap();
    kept.get("/").unwrap();

    let reload = site.wait_for_the_end(&natbox);
    assert_eq!(reload.seconds_left, None);
    assert_eq!(reverted(&events(&natbox)), Some((RevertReason::NotConfirmed, 1)));
    kept.get("/").expect("the session of the configuration before");
    assert!(of_the_new.get("/").is_err(), "its forward is gone");
    site.assert_old();
    let text = site.succeeds(&["status"]);
    assert!(text.contains("went back at 20"), "{text}");
    // The file still has the new text, and an explicit reload uses it.
    site.succeeds(&["reload"]);
    site.assert_new();
    assert_eq!(pending(&natbox), None);
    natbox.stop(Signal::TERM);
}

#[test]
fn a_killed_box_continues_the_countdown_and_goes_back() {
    let site = Site::new();
    let natbox = site.start();
    site.edit("");
    let before = SystemTime::now();
    site.succeeds(&["reload", "--confirm", "6s"]);
    assert!(fs::read_dir(&site.state).unwrap().count() == 1, "the record is in the directory");
    natbox.kill();
    wait_past(before, seconds(2));
    let natbox = site.start();
    let left = unconfirmed(&natbox).seconds_left.unwrap();
    assert!((1..=4).contains(&left), "{left}");
    site.assert_new();
    assert!(events(&natbox).iter().any(|event| matches!(event, EventKind::ReloadPending { .. })));
    site.wait_for_the_end(&natbox);
    assert!(before.elapsed().unwrap() > seconds(5), "not before the deadline");
    site.assert_old();
    natbox.stop(Signal::TERM);
}

#[test]
fn a_box_that_starts_after_the_deadline_uses_the_configuration_before() {
    let site = Site::new();
    let natbox = site.start();
    site.edit("");
    site.succeeds(&["reload", "--confirm", "1s"]);
    let since = SystemTime::now();
    natbox.kill();
    wait_past(since, seconds(1));
    let natbox = site.start();
    assert_eq!(reverted(&events(&natbox)), Some((RevertReason::NotConfirmed, 0)));
    assert_eq!(pending(&natbox).unwrap().state, PendingState::Reverted);
    site.assert_old();
    // As long as the file has the text of the reload, no start uses it.
    natbox.stop(Signal::TERM);
    let natbox = site.start();
    assert_eq!(reverted(&events(&natbox)), None, "only once");
    site.assert_old();
    // An edited file counts again.
    natbox.kill();
    site.edit("nat: { hairpin: false }\n");
    let natbox = site.start();
    site.assert_new();
    assert_eq!(pending(&natbox), None);
    natbox.stop(Signal::TERM);
}

#[test]
fn a_confirmed_reload_stays_also_across_a_kill() {
    let site = Site::new();
    let natbox = site.start();
    site.command(&["confirm"]).assert_says(1, &["no reload waits for its confirmation"]);
    site.edit("");
    site.succeeds(&["reload", "--confirm", "2s"]);
    let since = SystemTime::now();
    assert_eq!(site.succeeds(&["confirm"]), "confirmed: forwards\n");
    assert_eq!(pending(&natbox), None);
    assert!(matches!(events(&natbox).last(), Some(EventKind::ReloadConfirmed { .. })));
    wait_past(since, Duration::from_millis(2500));
    site.assert_new();
    natbox.kill();
    let natbox = site.start();
    site.assert_new();
    assert_eq!(reverted(&events(&natbox)), None);
    natbox.stop(Signal::TERM);
}

#[test]
fn while_a_reload_waits_a_plain_one_is_refused_and_cancel_goes_back_at_once() {
    let site = Site::new();
    let mut natbox = site.start();
    site.edit("");
    site.succeeds(&["reload", "--confirm", "10m"]);
    site.command(&["reload"]).assert_says(1, &["natbox confirm", "natbox reload --cancel"]);
    natbox.process.signal(Signal::HUP).unwrap();
    eventually("the refused reload of the signal", || {
        let failed = |event: &EventKind| matches!(event, EventKind::ReloadFailed { .. });
        (events(&natbox).into_iter().filter(failed).count() == 2).then_some(())
    });
    site.assert_new();
    // A second one begins the time again.
    site.edit("nat: { hairpin: false }\n");
    site.succeeds(&["reload", "--confirm", "20m"]);
    let reload = unconfirmed(&natbox);
    assert!(reload.seconds_left.unwrap() > 1100, "{reload:?}");
    let cancelled: Value =
        serde_json::from_str(&site.succeeds(&["reload", "--cancel", "--json"])).unwrap();
    assert_eq!(cancelled["changed"], serde_json::json!(["forwards", "nat.hairpin"]));
    assert_eq!(reverted(&events(&natbox)), Some((RevertReason::Cancelled, 1)));
    site.assert_old();
    let bad = site.command(&["reload", "--confirm", "0s", "--json"]);
    let error: Value = serde_json::from_str(&bad.stdout).unwrap();
    assert!(error["error"].as_str().unwrap().contains("wanted 1 s to 24 h"), "{bad:?}");
    assert_eq!((bad.code, bad.stderr.as_str()), (Some(1), ""));
    natbox.stop(Signal::TERM);
}

/// The box is killed, and its interface vanishes: it must not wait for the interface for ever with
/// the unconfirmed configuration.
#[test]
fn a_box_that_waits_for_an_interface_goes_back_while_it_waits() {
    let site = Site::new();
    let natbox = site.start();
    site.edit("");
    site.succeeds(&["reload", "--confirm", "5s"]);
    natbox.kill();
    let wan = |up: &str| site.testbed.natbox.ip(&["link", "set", "wan0", up]).unwrap();
    wan("down");
    let natbox = site.start();
    assert_eq!(natbox.status().state, InstanceState::Waiting);
    unconfirmed(&natbox);
    site.wait_for_the_end(&natbox);
    assert_eq!(natbox.status().state, InstanceState::Waiting);
    assert_eq!(reverted(&events(&natbox)), Some((RevertReason::NotConfirmed, 0)));
    wan("up");
    eventually("the box runs", || (natbox.status().state == InstanceState::Running).then_some(()));
    eventually("traffic passes", || site.testbed.fetch().ok());
    site.assert_old();
    natbox.stop(Signal::TERM);
}

/// The workers have begun with the new configuration, so the process cannot go back. It ends, and
/// the service manager starts the next one.
#[test]
fn a_box_that_loses_its_interface_while_it_starts_ends_and_goes_back_at_the_next_start() {
    let scene = SingleBox::new(Published::OnLink);
    let _server = scene.serve();
    let natbox = scene.start(&scene.config());
    let extra = "nat: { hairpin: false }\n".to_owned();
    let changed = Config { extra, ..scene.config() };
    scene.write("natbox", &changed.to_string());
    let request = Request::ReloadUnconfirmed { confirm_seconds: 8 };
    let reloaded: Reloaded = client::request(natbox.socket(), &request).unwrap();
    assert_eq!(reloaded.confirm_seconds, Some(8));
    natbox.kill();
    eventually("the device of the killed box is gone", || {
        scene.natbox.ip(&["link", "show", "nb0"]).is_err().then_some(())
    });
    let wan = |up: &str| scene.natbox.ip(&["link", "set", "wan0", up]).unwrap();
    let mut natbox = start_and_lose(&scene, &changed, || wan("down"));
    assert_eq!(natbox.status().state, InstanceState::Waiting);
    unconfirmed(&natbox);
    let status = natbox.process.wait(seconds(20)).unwrap().expect("the process ends");
    let log = natbox.process.log();
    assert_eq!(status.code(), Some(2), "so that it starts again: {log}");
    assert!(log.contains("the next start of natbox goes back from the reload"), "{log}");
    wan("up");
    scene.natbox.ip(&["route", "replace", "default", "via", "203.0.113.254"]).unwrap();
    let socket = scene.config().socket;
    let natbox = RunningBox::launch(&scene.natbox, "natbox", &natbox.path, &socket);
    assert_eq!(reverted(&events(&natbox)), Some((RevertReason::NotConfirmed, 0)));
    eventually("traffic passes", || scene.fetch().ok());
    natbox.stop(Signal::TERM);
}

#[test]
fn diff_counts_the_sessions_that_the_reload_then_ends() {
    let site = Site::new();
    let natbox = site.start();
    let difference = || -> Difference {
        let ended = site.command(&["diff", "--json"]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), ""), "{ended:?}");
        serde_json::from_str(&ended.stdout).unwrap()
    };
    let same = site.command(&["diff"]);
    assert_eq!((same.code, same.stdout.contains("change nothing")), (Some(0), true), "{same:?}");

    // Three sessions of the forward of port 80, and one of the new forward.
    let mut connections: Vec<_> =
        (0..3).map(|_| site.testbed.connect(seconds(2)).unwrap()).collect();
    site.edit("");
    site.succeeds(&["reload"]);
    connections.push(site.connect_new().unwrap());
    for connection in &mut connections {
        connection.get("/").unwrap();
    }
    let before = natbox.sessions().len();
    let text = fs::read_to_string(&site.path).unwrap();
    let moved = text.replace("port: 80, to: '10.0.0.101:80'", "port: 80, to: '10.0.0.199:80'");
    site.testbed.write("natbox", &moved);
    let found = difference();
    let counted = found.sessions_ended.unwrap();
    assert_eq!((counted.total, counted.by_reason["policy-changed"]), (3, 3));
    assert_eq!(found.changes.len(), 1);
    let change = &found.changes[0];
    assert_eq!((change.key.as_str(), change.needs_restart), ("forwards", false));
    let text = site.command(&["diff"]).stdout;
    assert!(text.contains("forwards\n  - {") && text.contains("10.0.0.199:80"), "{text}");
    assert!(text.contains("would end 3 sessions (3 policy-changed)"), "{text}");
    assert_eq!(natbox.sessions().len(), before, "diff ends none");
    for connection in &mut connections {
        connection.get("/").unwrap();
    }
    assert_eq!(natbox.reload().sessions_ended, counted.total);
    assert_eq!(site.command(&["diff"]).code, Some(0));
    connections.pop().unwrap().get("/").expect("the other forward's session");

    site.testbed.write("natbox", "name: 7");
    let bad = site.command(&["diff", "--json"]);
    let error: Value = serde_json::from_str(&bad.stdout).unwrap();
    assert_eq!((bad.code, error["exit_code"].as_u64()), (Some(2), Some(2)), "as diff does");
    natbox.stop(Signal::TERM);
}

#[test]
fn a_key_that_needs_a_restart_is_named_before_a_reload_refuses_it() {
    let site = Site::new();
    let natbox = site.start();
    let file = site.path.to_str().unwrap();
    let check = |more: &[&str]| {
        let arguments = ["check", "--config", file, "--against-running"];
        site.testbed.natbox(&[], &[&arguments, more].concat())
    };
    let same = check(&[]);
    assert_eq!(same.code, Some(0), "{same:?}");
    assert!(same.stdout.contains("uses this configuration"), "{same:?}");
    site.edit("nat: { hairpin: false }\n");
    let reloadable = check(&[]);
    assert_eq!(reloadable.code, Some(0), "{reloadable:?}");
    let words = "changed by a reload: forwards, nat.hairpin\n";
    assert!(reloadable.stdout.ends_with(words), "{reloadable:?}");

    let text = fs::read_to_string(&site.path).unwrap();
    site.testbed.write("natbox", &text.replace("name: nb0", "name: nb9"));
    let refused = check(&["--json"]);
    assert_eq!((refused.code, refused.stderr.as_str()), (Some(1), ""), "{refused:?}");
    let report: Value = serde_json::from_str(&refused.stdout).unwrap();
    let running = &report["against_running"];
    assert_eq!(running["needs_restart"], serde_json::json!(["tun.name"]));
    assert_eq!(running["reloadable"], serde_json::json!(["forwards", "nat.hairpin"]));
    let diff = site.command(&["diff"]);
    assert_eq!(diff.code, Some(1), "{diff:?}");
    assert!(diff.stdout.contains("tun.name (needs a restart)\n"), "{diff:?}");
    assert!(diff.stdout.contains("would be refused and change nothing"), "{diff:?}");
    site.command(&["reload"]).assert_says(1, &["tun.name changed; restart natbox"]);
    natbox.stop(Signal::TERM);
    let silent = check(&["--json"]);
    let error: Value = serde_json::from_str(&silent.stdout).unwrap();
    assert_eq!((silent.code, error["exit_code"].as_u64()), (Some(2), Some(2)), "{silent:?}");
}
