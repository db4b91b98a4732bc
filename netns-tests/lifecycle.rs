//! A box from its start to its end, as seen by other processes.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use natbox::api::Status;
use rustix::process::Signal;
use serde_json::Value;

use crate::single_box::{Config, Published, RunningBox, SingleBox, eventually, seconds};

#[test]
fn status_is_shown_as_text_and_as_json() {
    for workers in ["1", "2"] {
        let testbed = SingleBox::new(Published::OnLink);
        let _server = testbed.serve();
        let mut natbox = testbed.start(&Config { workers: workers.into(), ..testbed.config() });
        for _ in 0..5 {
            testbed.assert_traffic();
        }
        let socket = natbox.socket().to_str().unwrap().to_owned();
        let json = testbed.natbox(&[], &["status", "--socket", &socket, "--json"]);
        assert_eq!((json.code, json.stderr.as_str()), (Some(0), ""));
        let status: Status = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!(status.name, "natbox");
        assert_eq!(status.pid, natbox.process.pid());
        assert_eq!(status.workers.len().to_string(), workers);
        assert_eq!(status.tun.name, "nb0");
        assert_eq!(status.sessions.capacity, 64_000);
        assert_eq!(status.sessions.created, 10, "five in, five out");
        let sum =
            |name: &str| -> u64 { status.workers.iter().map(|worker| worker.counters[name]).sum() };
        assert!(sum("packets_in") > 0);
        for name in ["packets_in", "packets_out", "translated_inbound", "translated_outbound"] {
            assert_eq!(sum(name), status.totals[name], "{name}");
        }

        let text = testbed.natbox(&[], &["status", "--socket", &socket]);
        assert_eq!(text.code, Some(0));
        for words in ["natbox (natbox ", &format!("nb0 ({workers} worker"), "of 64000 (10 created"]
        {
            assert!(text.stdout.contains(words), "{words:?} is missing in {}", text.stdout);
        }
        assert!(natbox.process.ended().unwrap().is_none());
    }
}

#[test]
fn sessions_are_listed_as_text_and_as_json() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    let socket = natbox.socket().display().to_string();
    let list = |more: &[&str]| {
        let listed = testbed.natbox(&[], &[&["sessions", "--socket", &socket], more].concat());
        assert_eq!(listed.code, Some(0), "{listed:?}");
        listed.stdout
    };
    let json = || -> Vec<Value> { serde_json::from_str(&list(&["--json"])).unwrap() };
    assert_eq!((list(&[]).as_str(), json()), ("", vec![]));
    let _connection = testbed.connect(seconds(2)).unwrap();
    let of_the_client = testbed.fetch().unwrap();
    let sessions = json();
    assert_eq!(sessions.len(), 2, "{sessions:?}");
    let open =
        sessions.iter().find(|session| session["state"] == "established").expect("it is open");
    assert_eq!(
        (&open["protocol"], &open["origin"], &open["uplink"]),
        (&"tcp".into(), &"forward".into(), &"isp".into())
    );
    assert!(open["original"]["source"].as_str().unwrap().starts_with(&of_the_client));
    assert_eq!(open["original"]["destination"], format!("{}:80", testbed.published));
    assert_eq!(open["reply"]["source"], "10.0.0.101:80");
    let text = list(&[]);
    assert_eq!(text.lines().filter(|line| line.contains("10.0.0.101:80")).count(), 2, "{text}");
}

#[test]
fn missing_instance_is_an_environment_error() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let socket = natbox.socket().to_str().unwrap().to_owned();
    natbox.kill();
    for path in [&socket, "/run/natbox/nobody-has-this-name.sock"] {
        testbed
            .natbox(&[], &["status", "--socket", path])
            .assert_says(2, &[path, "no natbox answers", "start the instance"]);
    }
}

#[test]
fn deleted_tun_ends_the_box_with_a_message_and_restores_the_host() {
    for workers in ["1", "2"] {
        let testbed = SingleBox::new(Published::OnLink);
        let _server = testbed.serve();
        let before = testbed.host_state();
        let mut natbox = testbed.start(&Config { workers: workers.into(), ..testbed.config() });
        testbed.assert_traffic();
        testbed.natbox.ip(&["link", "del", "nb0"]).unwrap();
        let status = natbox.process.wait(seconds(5)).unwrap().expect("the box ends");
        let log = natbox.process.log();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains("the TUN device nb0 is gone"), "{log}");
        assert!(
            !log.contains("could not be removed") && !log.contains("stays on the host"),
            "{log}"
        );
        before.assert_same(&testbed.host_state(), "after the device was deleted");
        // The box can start again.
        let natbox = testbed.start(&Config { workers: workers.into(), ..testbed.config() });
        testbed.assert_traffic();
        natbox.stop(Signal::TERM);
    }
}

/// The host reaches the target of the new forward by another interface.
#[test]
fn reload_and_status_say_what_of_the_host_does_not_fit() {
    let testbed = SingleBox::new(Published::OnLink);
    let config = testbed.config();
    let whole = config.to_string();
    let without = whole.lines().filter(|line| !line.contains("name: dead"));
    let path =
        testbed.write("natbox", &without.map(|line| format!("{line}\n")).collect::<String>());
    testbed.lab.veth(7, (&testbed.natbox, "dmz0"), (&testbed.net, "eth7")).unwrap();
    testbed.natbox.address("dmz0", Ipv4Addr::new(10, 0, 0, 193), 26).unwrap();
    let natbox = RunningBox::launch(&testbed.natbox, "natbox", &path, &config.socket);
    assert_eq!(natbox.status().warnings, []);

    testbed.write("natbox", &whole);
    let words = "forwards: dead leads to 10.0.0.199, which this host reaches by dmz0";
    let socket = natbox.socket().to_str().unwrap();
    let reloaded = testbed.natbox(&[], &["reload", "--socket", socket]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    assert!(reloaded.stderr.contains(&format!("warning: {words}")), "{reloaded:?}");
    let found = || natbox.status().warnings.into_iter().map(|warning| warning.found);
    eventually("the warning", || found().any(|found| found.starts_with(words)).then_some(()));
    testbed.natbox.ip(&["link", "del", "dmz0"]).unwrap();
    eventually("the end of the warning", || found().next().is_none().then_some(()));
    natbox.stop(Signal::TERM);
}

#[test]
fn sigusr1_logs_counters_and_sighup_reloads() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let mut natbox = testbed.start(&testbed.config());
    testbed.assert_traffic();
    natbox.process.signal(Signal::HUP).unwrap();
    natbox.wait_for_log("configuration reloaded");
    natbox.process.signal(Signal::USR1).unwrap();
    natbox.wait_for_log("packets_in=");
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
}

#[test]
fn many_starts_and_stops_restore_the_host() {
    let testbed = SingleBox::new(Published::Owned);
    let _server = testbed.serve();
    let before = testbed.host_state();
    for round in 0..30 {
        let natbox = testbed.start(&testbed.config());
        if round % 10 == 0 {
            testbed.assert_traffic();
        }
        natbox.stop(if round % 2 == 0 { Signal::TERM } else { Signal::INT });
    }
    before.assert_same(&testbed.host_state(), "after 30 rounds");
    assert_eq!(
        fs::read_dir(testbed.lab.directory()).unwrap().count(),
        2,
        "only this test's own configuration and log"
    );
}

#[test]
fn signal_during_the_start_restores_the_host() {
    let testbed = SingleBox::new(Published::Owned);
    let before = testbed.host_state();
    let path = testbed.write("early", &testbed.config().to_string());
    for delay in (0..40).step_by(4) {
        let mut command = testbed.natbox.command(crate::single_box::NATBOX);
        command.arg("run").arg("--config").arg(&path);
        let mut child = testbed.natbox.spawn("early", command).unwrap();
        eventually("natbox is executed", || {
            let name = fs::read_to_string(format!("/proc/{}/comm", child.pid())).ok()?;
            (name.trim() == "natbox").then_some(())
        });
        std::thread::sleep(Duration::from_millis(delay));
        let _ = child.signal(Signal::TERM);
        let status = child.wait(seconds(10)).unwrap().expect("it ends");
        // Before the process handles signals, a signal kills it. It has changed nothing by then.
        assert!(status.success() || status.code().is_none(), "{status}: {}", child.log());
        eventually("the kernel has closed what it had open", || {
            testbed.natbox.ip(&["link", "show", "nb0"]).is_err().then_some(())
        });
        before.assert_same(&testbed.host_state(), &format!("TERM {delay} ms after the start"));
    }
}

#[test]
fn logs_are_text_or_one_json_object_per_line() {
    let testbed = SingleBox::new(Published::OnLink);
    for format in ["text", "json"] {
        let config =
            Config { log_format: format.into(), name: format!("box-{format}"), ..testbed.config() };
        let mut natbox = testbed.start(&config);
        natbox.process.signal(Signal::USR1).unwrap();
        natbox.wait_for_log("packets_in");
        let log = natbox.process.log();
        natbox.stop(Signal::TERM);
        assert!(!log.contains('\u{1b}'), "no colours in a file");
        for line in log.lines() {
            let (timestamp, level) = match format {
                "json" => {
                    let value: Value = serde_json::from_str(line).unwrap();
                    assert!(value["message"].is_string(), "{line}");
                    let text = |key: &str| value[key].as_str().unwrap().to_owned();
                    (text("timestamp"), text("level"))
                }
                _ => {
                    let mut words = line.split_whitespace();
                    (words.next().unwrap().to_owned(), words.next().unwrap().to_owned())
                }
            };
            assert!(timestamp.starts_with("20") && timestamp.ends_with('Z'), "{line}");
            assert!(["INFO", "WARN", "DEBUG"].contains(&level.as_str()), "{line}");
        }
    }
}

#[test]
fn idle_box_uses_no_cpu_time() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    // With and without sessions that may expire.
    for round in 0..2 {
        // Work that has just ended must settle first.
        std::thread::sleep(Duration::from_millis(300));
        let ticks = || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", natbox.process.pid())).unwrap();
            let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
            // utime and stime are fields 14 and 15; the first field here is field 3.
            fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
        };
        let before = ticks();
        std::thread::sleep(seconds(2));
        let used = ticks() - before;
        assert!(used <= 2, "{used} ticks in two seconds (round {round})");
        if round == 0 {
            testbed.assert_traffic();
            assert!(natbox.status().sessions.now > 0);
        }
    }
}
