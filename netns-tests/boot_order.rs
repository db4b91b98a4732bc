//! The order of a boot: interfaces that are absent or down at the start. The box waits for them,
//! and meanwhile nothing on the host changes.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use natbox::api::{Event, EventKind, InstanceState, Request, Status, client};
use natbox::lab::boxes::NatBox;
use natbox::lab::http::{HttpServer, connect};
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan, TopologyUplink};
use rustix::process::Signal;
use tun_tap::{Iface, Mode};

use crate::lab::{self, Site, TIMEOUT, listen, wait_for};
use crate::single_box::{
    BOX_INSIDE, Config, HostState, Published, RunningBox, SingleBox, eventually, seconds,
};

/// Published port of the web server.
const WEB: u16 = 80;

/// Makes an interface of the box absent: renames it. Its addresses stay.
fn hide(testbed: &SingleBox, interface: &str) {
    testbed.natbox.ip(&["link", "set", interface, "down"]).unwrap();
    testbed.natbox.ip(&["link", "set", interface, "name", &hidden(interface)]).unwrap();
}

/// Makes a hidden interface appear.
fn show(testbed: &SingleBox, interface: &str) {
    testbed.natbox.ip(&["link", "set", &hidden(interface), "name", interface, "up"]).unwrap();
}

fn hidden(interface: &str) -> String {
    format!("later-{interface}")
}

fn events(running: &RunningBox) -> Vec<EventKind> {
    let mut events = Vec::new();
    let recent = Request::Events { follow: false };
    let flow = client::follow(running.socket(), &recent, |event: Event| {
        events.push(event.kind);
        std::ops::ControlFlow::<()>::Continue(())
    });
    let _ = flow.unwrap();
    events
}

/// Returns the log lines that say that the box waits.
fn waiting_lines(running: &RunningBox) -> Vec<String> {
    let log = running.process.log();
    log.lines().filter(|line| line.contains("natbox waits")).map(str::to_owned).collect()
}

/// Asserts that the box waits for the interfaces of these keys, and that status, log and events say
/// so.
#[track_caller]
fn assert_waits(running: &RunningBox, keys: &[&str]) {
    let status = running.status();
    assert_eq!(status.state, InstanceState::Waiting, "{status:?}");
    assert_eq!(status.waiting_for.len(), keys.len(), "{status:?}");
    for (said, key) in status.waiting_for.iter().zip(keys) {
        assert!(said.starts_with(key), "{said}");
    }
    let lines = waiting_lines(running);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(keys.iter().all(|key| lines[0].contains(key)), "{lines:?}");
    assert_eq!(events(running), [EventKind::Waiting { missing: status.waiting_for }]);
}

/// Asserts that nothing but the admin socket is new on the host.
#[track_caller]
fn assert_unchanged(before: &HostState, testbed: &SingleBox, when: &str) {
    before.clone().without_sockets().assert_same(&testbed.host_state().without_sockets(), when);
}

#[track_caller]
fn wait_to_run(running: &RunningBox) {
    eventually("the box runs", || (running.status().state == InstanceState::Running).then_some(()));
}

#[track_caller]
fn wait_for_traffic(testbed: &SingleBox) {
    eventually("traffic", || testbed.fetch().ok());
    testbed.assert_traffic();
}

#[test]
fn box_waits_for_its_absent_inside_and_serves_when_it_appears() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    hide(&testbed, "lan0");
    let before = testbed.host_state();
    let running = testbed.start(&testbed.config());
    assert_waits(&running, &["inside.interface: interface \"lan0\" does not exist"]);
    assert_unchanged(&before, &testbed, "while it waits");
    let socket = running.socket().to_str().unwrap();
    let status = testbed.natbox(&[], &["status", "--socket", socket]);
    assert_eq!(status.code, Some(0), "{status:?}");
    let row = "waits for inside.interface: interface \"lan0\" does not exist";
    assert!(status.stdout.contains(row) && !status.stdout.contains("sessions"), "{status:?}");
    let doctor = testbed.natbox(&[], &["doctor", "--socket", socket]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(doctor.stdout.contains("waits: inside.interface") && doctor.stderr.is_empty());

    show(&testbed, "lan0");
    wait_to_run(&running);
    wait_for_traffic(&testbed);
    assert_eq!(waiting_lines(&running).len(), 1);
    let ready = EventKind::Ready { name: "natbox".into() };
    assert_eq!(events(&running).iter().filter(|kind| **kind == ready).count(), 1);
    running.stop(Signal::TERM);
    hide(&testbed, "lan0");
    before.assert_same(&testbed.host_state(), "after the stop");
}

#[test]
fn box_waits_for_an_interface_that_is_down_whether_or_not_it_manages_the_host() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    for (interface, key) in [("lan0", "inside.interface: "), ("wan0", "uplinks[0].interface: ")] {
        for manage in [false, true] {
            let config =
                Config { manage, name: format!("{interface}-{manage}"), ..testbed.config() };
            testbed.natbox.ip(&["link", "set", interface, "down"]).unwrap();
            let running = testbed.start(&config);
            let down = format!("{key}interface {interface} is down; bring the interface up");
            assert_waits(&running, &[&down]);
            testbed.natbox.ip(&["link", "set", interface, "up"]).unwrap();
            wait_to_run(&running);
            if manage {
                wait_for_traffic(&testbed);
            }
            running.stop(Signal::TERM);
        }
    }
}

#[test]
fn stop_or_kill_of_a_waiting_box_leaves_nothing() {
    let testbed = SingleBox::new(Published::Owned);
    hide(&testbed, "wan0");
    let before = testbed.host_state();
    for signal in [Signal::TERM, Signal::INT] {
        let running = testbed.start(&testbed.config());
        let began = Instant::now();
        running.stop(signal);
        assert!(began.elapsed() < seconds(1), "a signal ends the wait at once");
        before.assert_same(&testbed.host_state(), "after a signal");
    }
    testbed.start(&testbed.config()).kill();
    assert_unchanged(&before, &testbed, "after a kill");
    // The file of the dead process's socket is replaced.
    let running = testbed.start(&testbed.config());
    running.stop(Signal::TERM);
    before.assert_same(&testbed.host_state(), "after the next box");
}

/// A killed box has left its changes. The next one cannot start yet, and restores the host.
#[test]
fn waiting_box_restores_what_a_killed_box_left() {
    let testbed = SingleBox::new(Published::Owned);
    testbed.natbox.ip(&["link", "set", "lan0", "down"]).unwrap();
    let before = testbed.host_state().without("lan0");
    testbed.natbox.ip(&["link", "set", "lan0", "up"]).unwrap();
    testbed.start(&testbed.config()).kill();
    testbed.natbox.ip(&["link", "set", "lan0", "down"]).unwrap();
    let running = testbed.start(&testbed.config());
    assert_waits(&running, &["inside.interface: "]);
    let now = testbed.host_state().without("lan0").without_sockets();
    before.without_sockets().assert_same(&now, "while it waits");
    running.stop(Signal::TERM);
}

#[test]
fn reload_of_a_waiting_box_can_name_other_interfaces() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let wrong = Config { inside: "lan7".into(), outside: "wan7".into(), ..testbed.config() };
    let running = testbed.start(&wrong);
    assert_waits(&running, &["inside.interface: ", "uplinks[0].interface: "]);

    let refused = |text: &str, words: &str| {
        testbed.write("natbox", text);
        let error = running.try_reload().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(running.status().state, InstanceState::Waiting);
    };
    refused("inside: 7\n", "inside: found");
    refused(
        &testbed.config().to_string().replace("level: debug", "level: info"),
        "log.level changed",
    );

    testbed.write("natbox", &testbed.config().to_string());
    let changed = running.reload().changed;
    assert_eq!(changed, ["inside.interface", "uplinks[0].interface"]);
    wait_to_run(&running);
    wait_for_traffic(&testbed);
    running.stop(Signal::TERM);

    // By a signal.
    let mut running = testbed.start(&wrong);
    testbed.write("natbox", &testbed.config().to_string());
    running.process.signal(Signal::HUP).unwrap();
    wait_to_run(&running);
    running.stop(Signal::TERM);
}

/// A wrong file is an error at once, and a retry does not help. A file that names a missing hook is
/// an error at once as well, so that a person who starts the box sees it. But the hook may be on a
/// file system that is mounted later, so the exit code lets the unit try again.
#[test]
fn wrong_configuration_does_not_wait() {
    let testbed = SingleBox::new(Published::OnLink);
    hide(&testbed, "lan0");
    let config = Config { workers: "two".into(), ..testbed.config() };
    let path = testbed.write("refused", &config.to_string());
    testbed.refused(&[], &path).assert_says(1, &["tun.workers: found `two`"]);
    let dns = "dns: { zone: example.org, names: [{ name: www }], listen: false, hook: /no/hook }\n";
    let config = Config { extra: dns.into(), ..testbed.config() };
    let path = testbed.write("refused", &config.to_string());
    testbed.refused(&[], &path).assert_says(2, &["dns.hook", "/no/hook"]);
    let update = "update: { server: 192.0.2.53, key: box, secret_file: /no/secret }";
    let dns = format!(
        "dns: {{ zone: example.org, names: [{{ name: www }}], listen: false, {update} }}\n"
    );
    let config = Config { extra: dns, ..testbed.config() };
    let path = testbed.write("refused", &config.to_string());
    testbed.refused(&[], &path).assert_says(2, &["dns.update.secret_file", "/no/secret"]);
}

/// Reads the reports that a box sends to its service manager until one contains `words`.
fn wait_for_report(manager: &UnixDatagram, words: &str) -> String {
    let mut buffer = [0; 1024];
    loop {
        let length = manager.recv(&mut buffer).unwrap();
        let report = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if report.contains(words) {
            return report;
        }
    }
}

#[test]
fn service_manager_learns_that_the_box_waits_runs_and_stops() {
    let testbed = SingleBox::new(Published::OnLink);
    hide(&testbed, "wan0");
    let path = testbed.lab.directory().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(seconds(10))).unwrap();
    let config = testbed.config();
    let file = testbed.write("natbox", &config.to_string());
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    let before = ["env", variable.as_str()];
    let running =
        RunningBox::launch_behind(&before, &testbed.natbox, "natbox", &file, &config.socket);
    let report = wait_for_report(&manager, "waiting: uplinks[0].interface");
    assert!(report.starts_with("READY=1\nSTATUS="), "{report}");
    show(&testbed, "wan0");
    wait_for_report(&manager, "READY=1\nSTATUS=running");
    running.stop(Signal::TERM);
    wait_for_report(&manager, "STOPPING=1");
}

/// Another program has the name and is about to end, like a killed box whose device the kernel has
/// not removed yet.
#[test]
fn name_of_the_tun_that_becomes_free_is_taken() {
    let testbed = SingleBox::new(Published::OnLink);
    let foreign = testbed.natbox.enter(|| Iface::new("nb0", Mode::Tun)).unwrap().unwrap();
    let ending = thread::spawn(move || {
        thread::sleep(Duration::from_millis(700));
        drop(foreign);
    });
    let running = testbed.start(&testbed.config());
    ending.join().unwrap();
    assert_eq!(running.status().state, InstanceState::Running);
    running.stop(Signal::TERM);
}

/// Starts a box that has read the host, and then an interface vanishes or goes down. The name of
/// the TUN is taken meanwhile, so the box has not set up the host yet.
pub(crate) fn start_and_lose(
    scene: &SingleBox,
    config: &Config,
    lose: impl FnOnce(),
) -> RunningBox {
    let foreign = scene.natbox.enter(|| Iface::new("nb0", Mode::Tun)).unwrap().unwrap();
    let path = scene.write("natbox", &config.to_string());
    let mut running = RunningBox::spawn(&scene.natbox, "natbox", &path, &config.socket);
    running.wait_for_log("TUN device is taken");
    lose();
    drop(foreign);
    running.wait_to_answer();
    running
}

/// Regression: the process ended with exit code 2.
#[test]
fn box_waits_again_for_an_interface_that_it_loses_while_it_starts() {
    for (interface, key) in [("lan0", "inside.interface"), ("wan0", "uplinks[0].interface")] {
        for is_down in [false, true] {
            let scene = SingleBox::new(Published::OnLink);
            let _server = scene.serve();
            let before = scene.host_state();
            let running = start_and_lose(&scene, &scene.config(), || match is_down {
                true => scene.natbox.ip(&["link", "set", interface, "down"]).unwrap(),
                false => hide(&scene, interface),
            });
            let status = running.status();
            assert_eq!(status.state, InstanceState::Waiting, "{}", running.process.log());
            assert!(status.waiting_for[0].starts_with(key), "{status:?}");
            let rules = scene.natbox.ip_output(&["rule"]).unwrap();
            assert!(!rules.contains("nb0") && !rules.contains("110"), "{rules}");
            // The workers have begun with the configuration.
            let text = scene.config().to_string().replace("sessions: 64k", "sessions: 32k");
            scene.write("natbox", &text);
            let refused = running.try_reload().unwrap_err().to_string();
            assert!(refused.contains("limits.sessions changed"), "{refused}");
            match is_down {
                true => scene.natbox.ip(&["link", "set", interface, "up"]).unwrap(),
                false => show(&scene, interface),
            }
            if interface == "wan0" {
                // The kernel has dropped the default route.
                let route = ["route", "replace", "default", "via", "203.0.113.254"];
                scene.natbox.ip(&route).unwrap();
            }
            wait_to_run(&running);
            wait_for_traffic(&scene);
            running.stop(Signal::TERM);
            before.assert_same(&scene.host_state(), &format!("{interface}, down: {is_down}"));
        }
    }
}

#[test]
fn box_that_loses_one_uplink_while_it_starts_serves_the_other() {
    let scene = SingleBox::new(Published::OnLink);
    let _server = scene.serve();
    let peer = scene.lab.namespace("peer").unwrap();
    scene.lab.veth(3, (&scene.natbox, "wan1"), (&peer, "eth0")).unwrap();
    let second = "gateway: 203.0.113.254 }\n  \
        - { name: second, interface: wan1, addresses: [198.18.1.10], gateway: 198.18.1.254 }";
    let text = scene.config().to_string().replace("gateway: 203.0.113.254 }", second);
    let foreign = scene.natbox.enter(|| Iface::new("nb0", Mode::Tun)).unwrap().unwrap();
    let path = scene.write("natbox", &text);
    let socket = scene.config().socket;
    let mut running = RunningBox::spawn(&scene.natbox, "natbox", &path, &socket);
    running.wait_for_log("TUN device is taken");
    hide(&scene, "wan1");
    drop(foreign);
    running.wait_to_answer();
    running.wait_for_log("interface wan1 vanished or went down while natbox set up the host");
    wait_to_run(&running);
    wait_for_traffic(&scene);
    eventually("the state of the lost uplink", || {
        let uplinks = running.status().uplinks;
        (uplinks[0].healthy && !uplinks[1].healthy && !uplinks[1].link_ready).then_some(())
    });
    running.stop(Signal::TERM);
}

/// A signal ends the second wait as it ends the first.
#[test]
fn a_signal_ends_the_wait_for_a_lost_interface() {
    let scene = SingleBox::new(Published::OnLink);
    let before = scene.host_state();
    let running = start_and_lose(&scene, &scene.config(), || hide(&scene, "lan0"));
    assert_eq!(running.status().state, InstanceState::Waiting);
    running.stop(Signal::TERM);
    show(&scene, "lan0");
    before.assert_same(&scene.host_state(), "after the stop");
}

/// The interfaces are there and up, and get their addresses later.
#[test]
fn addresses_may_come_after_the_start() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    for interface in ["lan0", "wan0"] {
        testbed.natbox.ip(&["address", "flush", "dev", interface]).unwrap();
    }
    let running = testbed.start(&testbed.config());
    assert_eq!(running.status().state, InstanceState::Running);
    testbed.natbox.address("wan0", testbed.outside, 24).unwrap();
    testbed.natbox.address("lan0", BOX_INSIDE, 24).unwrap();
    wait_for_traffic(&testbed);
    running.stop(Signal::TERM);
}

fn link(uplink: &TopologyUplink, words: &str) -> Result<()> {
    Ok(uplink.natbox.ip(&words.split(' ').collect::<Vec<_>>())?)
}

/// Starts a box that cannot start yet.
fn start_waiting(site: &Site, config: &lab::BoxConfig) -> Result<NatBox> {
    let (program, namespace) = (Path::new(lab::NATBOX), &site.uplink(0).natbox);
    let text = config.text();
    let natbox = NatBox::start(program, namespace, site.lab.directory(), "natbox1", &text)?;
    wait_for("the box to wait", || {
        let waits = |status: &Status| status.state == InstanceState::Waiting;
        Ok(natbox.status().ok().filter(waits))
    })?;
    Ok(natbox)
}

#[test]
fn box_serves_each_uplink_as_it_appears() -> Result<()> {
    let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
    let web = listen(site.server(), site.server_address(0), WEB)?;
    let _web = HttpServer::start(vec![web], None)?;
    let config = site.three_legged_config().forward("tcp", WEB, site.server_address(0), WEB);
    for uplink in &site.topology.uplinks {
        link(uplink, &format!("link set {0} down name later-{0}", uplink.interface))?;
    }
    let natbox = start_waiting(&site, &config)?;
    let waits = natbox.status()?.waiting_for;
    ensure!(waits.len() == 2 && waits[1].contains("uplinks[1].interface"), "{waits:?}");
    for uplink in [site.uplink(1), site.uplink(0)] {
        link(uplink, &format!("link set later-{0} name {0} up", uplink.interface))?;
        let fetch = || connect(Some(CLIENTS[1]), uplink.endpoint(WEB), TIMEOUT / 10)?.get("/");
        wait_for(&format!("the page over {}", uplink.name), || {
            Ok(site.client().enter(fetch)?.ok())
        })?;
        ensure!(natbox.status()?.state == InstanceState::Running);
    }
    Ok(())
}

/// Returns a copy of the unit file that runs the program under test.
fn unit_file(directory: &Path) -> Result<PathBuf> {
    let path = directory.join("natbox@.service");
    let unit = include_str!("../configs/natbox@.service");
    std::fs::write(&path, unit.replace("/usr/local/bin/natbox", lab::NATBOX))?;
    Ok(path)
}

#[test]
fn unit_file_is_correct_and_never_gives_up() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = unit_file(directory.path())?;
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").arg(&path);
    let said = verify.output().context("systemd-analyze (Debian package systemd)")?;
    ensure!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    let text = std::fs::read_to_string(&path)?;
    for line in ["StartLimitIntervalSec=0", "Restart=on-failure", "RestartPreventExitStatus=1"] {
        ensure!(text.lines().any(|found| found == line), "{line}");
    }
    Ok(())
}
