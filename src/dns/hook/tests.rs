//! Hooks that are shell scripts, with a runner on a thread of the test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use super::super::testing::{set_up, states, uplinks};
use super::*;
use crate::uplinks::Uplinks;

struct Fixture {
    directory: tempfile::TempDir,
    hook: PathBuf,
}

impl Fixture {
    /// Makes a hook that runs these commands in its directory.
    fn new(commands: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hook = directory.path().join("hook");
        let text = format!("#!/bin/sh\ncd {}\n{commands}\n", directory.path().display());
        fs::write(&hook, text).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o700)).unwrap();
        Self { directory, hook }
    }

    /// Starts a runner. Returns natbox's ends of its pipes.
    fn run(&self) -> (OwnedFd, OwnedFd, JoinHandle<io::Result<()>>) {
        let (events, to_runner) = io::pipe().unwrap();
        let (from_runner, outcomes) = io::pipe().unwrap();
        let hook = self.hook.clone();
        let runner = thread::spawn(move || run_events(&hook, events, outcomes, false));
        (to_runner.into(), from_runner.into(), runner)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    fn wait_for(&self, name: &str, wanted: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.text(name) != wanted {
            assert!(
                Instant::now() < deadline,
                "{name}: {:?} instead of {wanted:?}",
                self.text(name)
            );
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Sends one event and reads its outcome.
fn send_one(events: &OwnedFd, outcomes: &OwnedFd) -> HookOutcome {
    let event = next_event(&SentEvents::new(), &states(), 1).unwrap();
    let mut events = fs::File::from(events.try_clone().unwrap());
    writeln!(events, "{}", serde_json::to_string(&event).unwrap()).unwrap();
    let mut answer = String::new();
    BufReader::new(fs::File::from(outcomes.try_clone().unwrap())).read_line(&mut answer).unwrap();
    let RunnerAnswer::Ended { number: 1, outcome } = serde_json::from_str(&answer).unwrap() else {
        panic!("{answer}")
    };
    outcome
}

#[test]
fn a_hook_runs_for_every_uplink_at_the_start_and_at_each_change() {
    let fixture = Fixture::new(
        "echo \"$NATBOX_UPLINK $NATBOX_ADDRESS $NATBOX_STATE\" $NATBOX_UP_UPLINKS \"/ $NATBOX_UP_ADDRESSES\" >>log\n\
         echo noise\n",
    );
    let (events, outcomes, runner) = fixture.run();
    let uplinks = uplinks();
    let mut follower = uplinks.watch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sender = thread::spawn(move || {
        runtime.block_on(send_events(events, outcomes, &mut follower, &LastError::default()))
    });
    let all = "isp1 isp2 isp3 / 203.0.113.1 203.0.113.2 203.0.113.3";
    let start = format!(
        "isp1 203.0.113.1 up {all}\nisp2 203.0.113.2 up {all}\nisp3 203.0.113.3 up {all}\n"
    );
    fixture.wait_for("log", &start);
    set_up(&uplinks, 1, false);
    let down = format!("{start}isp2 203.0.113.2 down isp1 isp3 / 203.0.113.1 203.0.113.3\n");
    fixture.wait_for("log", &down);
    set_up(&uplinks, 1, true);
    fixture.wait_for("log", &format!("{down}isp2 203.0.113.2 up {all}\n"));
    drop(uplinks);
    sender.join().unwrap().unwrap();
    runner.join().unwrap().unwrap();
}

#[test]
fn the_runner_reports_how_a_hook_ended() {
    for (commands, wanted) in [
        ("exit 0", HookOutcome::Done),
        ("exit 3", HookOutcome::Failed("exit code 3".to_owned())),
        ("kill -9 $$", HookOutcome::Failed("signal 9".to_owned())),
    ] {
        let fixture = Fixture::new(commands);
        let (events, outcomes, _helper) = fixture.run();
        assert_eq!(send_one(&events, &outcomes), wanted);
    }
    let mut fixture = Fixture::new("");
    fixture.hook = "/nowhere/hook".into();
    let (events, outcomes, _helper) = fixture.run();
    let outcome = send_one(&events, &outcomes);
    assert!(
        matches!(&outcome, HookOutcome::NotStarted(error) if error.contains("No such file")),
        "{outcome:?}"
    );
}

#[test]
fn a_hook_that_hangs_is_killed_with_all_processes_that_it_started() {
    let fixture = Fixture::new("sleep 600 &\necho $! >sleeper\nwait");
    let (events, outcomes, _helper) = fixture.run();
    let start = Instant::now();
    assert_eq!(send_one(&events, &outcomes), HookOutcome::TookTooLong);
    assert!(start.elapsed() >= TIMEOUT, "{:?}", start.elapsed());
    assert_sleeper_ends(&fixture);
}

#[test]
fn a_running_hook_is_killed_when_natbox_ends() {
    let fixture = Fixture::new("sleep 600 &\necho $! >sleeper\nwait");
    let (events, _outcomes, runner) = fixture.run();
    let event = next_event(&SentEvents::new(), &states(), 1).unwrap();
    let mut pipe = fs::File::from(events);
    writeln!(pipe, "{}", serde_json::to_string(&event).unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while fixture.text("sleeper").is_empty() {
        assert!(Instant::now() < deadline, "the hook does not run");
        thread::sleep(Duration::from_millis(10));
    }
    drop(pipe);
    let start = Instant::now();
    runner.join().unwrap().unwrap();
    assert!(start.elapsed() < TIMEOUT / 2, "{:?}", start.elapsed());
    assert_sleeper_ends(&fixture);
}

fn assert_sleeper_ends(fixture: &Fixture) {
    let sleeper = fixture.text("sleeper").trim().to_owned();
    let deadline = Instant::now() + Duration::from_secs(20);
    // The process has lost its parent. The process that inherited it may take a moment to wait for
    // it.
    let runs = || {
        fs::read_to_string(format!("/proc/{sleeper}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    while runs() {
        assert!(Instant::now() < deadline, "process {sleeper} still runs");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn no_hook_runs_for_a_change_that_was_undone_before_the_hook_could_run() {
    let mut now = states();
    let sent = |last| -> SentEvents {
        let up = [true, true, last];
        let uplinks = states().uplinks;
        let sent = uplinks.iter().zip(up);
        sent.map(|(uplink, up)| (uplink.name.clone(), Sent { up, ..Sent::of(uplink) })).collect()
    };
    assert_eq!(next_event(&sent(true), &now, 1), None);
    now.uplinks[2].up = false;
    let event = next_event(&sent(true), &now, 1).unwrap();
    assert_eq!((event.uplink.as_str(), event.up), ("isp3", false));
    assert_eq!(event.all_up.len(), 2);
    assert_eq!(next_event(&sent(false), &now, 1), None);
    now.uplinks[0].address = None;
    let event = next_event(&sent(false), &now, 1).unwrap();
    assert_eq!(event.uplink, "isp1", "another address is a change");
}

#[test]
fn the_uplinks_that_are_up_are_those_of_the_lowest_tier() {
    let mut now = states();
    now.uplinks[1].tier = 2;
    now.uplinks[2].tier = 2;
    let uplinks = states().uplinks;
    let sent: SentEvents =
        uplinks.iter().map(|uplink| (uplink.name.clone(), Sent::of(uplink))).collect();
    let event = next_event(&sent, &now, 1).unwrap();
    assert_eq!((&*event.uplink, event.tier), ("isp2", 2), "another tier is a change");
    let names = |event: &HookEvent| -> Vec<String> {
        event.all_up.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&event), ["isp1"]);
    now.uplinks[0].up = false;
    let event = next_event(&sent, &now, 1).unwrap();
    assert_eq!((&*event.uplink, event.up), ("isp1", false));
    assert_eq!(names(&event), ["isp2", "isp3"]);
}

/// Without this, the end of the runner would be noticed hours later, when an uplink changes.
#[test]
fn the_end_of_the_runner_is_noticed_at_once() {
    let mut command = Command::new("sleep");
    command.arg("600");
    let runner = HookRunner::start(command).unwrap();
    let group = Pid::from_raw(i32::try_from(runner.process.id()).unwrap()).unwrap();
    // Without an uplink there is no event.
    let uplinks = Uplinks::new(Vec::new());
    let errors = Arc::new(LastErrors::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (follower, told) = (uplinks.watch(), Arc::clone(&errors));
    let follower = thread::spawn(move || runtime.block_on(runner.follow(follower, told)));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(errors.hook.text(), None);
    kill_process_group(group, Signal::KILL).unwrap();
    follower.join().unwrap();
    assert!(errors.hook.text().is_some_and(|text| text.contains("restart natbox")), "{errors:?}");
    assert!(rustix::process::test_kill_process(group).is_err(), "it is a zombie");
}

#[test]
fn an_event_whose_runner_was_replaced_is_sent_again() {
    let fixture = Fixture::new("echo $NATBOX_UPLINK $NATBOX_STATE >>log");
    let (events, to_runner) = io::pipe().unwrap();
    let (from_runner, mut outcomes) = io::pipe().unwrap();
    let mut only = states().uplinks;
    only.truncate(1);
    let uplinks = Uplinks::new(only);
    let mut follower = uplinks.watch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let sender = thread::spawn(move || {
        let pipes = (to_runner.into(), from_runner.into());
        runtime.block_on(send_events(pipes.0, pipes.1, &mut follower, &LastError::default()))
    });
    // The first runner reads the event and ends.
    let mut event = String::new();
    BufReader::new(events.try_clone().unwrap()).read_line(&mut event).unwrap();
    let hook = fixture.hook.clone();
    let answers = outcomes.try_clone().unwrap();
    let second = thread::spawn(move || run_events(&hook, events, answers, true));
    fixture.wait_for("log", "isp1 up\n");
    // A late answer of the first runner does not matter.
    let late = RunnerAnswer::Ended { number: 1, outcome: HookOutcome::Done };
    write_line(&mut outcomes, &late).unwrap();
    set_up(&uplinks, 0, false);
    fixture.wait_for("log", "isp1 up\nisp1 down\n");
    drop(uplinks);
    sender.join().unwrap().unwrap();
    second.join().unwrap().unwrap();
}

#[test]
fn the_error_of_a_hook_that_cannot_run_lasts_until_it_can() {
    let fixture = Fixture::new("echo $NATBOX_UPLINK $NATBOX_STATE >>log");
    let away = fixture.directory.path().join("away");
    fs::rename(&fixture.hook, &away).unwrap();
    let (events, outcomes, runner) = fixture.run();
    let mut only = states().uplinks;
    only.truncate(1);
    let uplinks = Uplinks::new(only);
    let (mut follower, errors) = (uplinks.watch(), Arc::new(LastErrors::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = Arc::clone(&errors);
    let sender = thread::spawn(move || {
        runtime.block_on(send_events(events, outcomes, &mut follower, &told.hook))
    });
    let wait_for = |wanted: &dyn Fn(Option<String>) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !wanted(errors.hook.text()) {
            assert!(Instant::now() < deadline, "{errors:?}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    wait_for(&|text| text.is_some_and(|text| text.contains("No such file")));
    fs::rename(&away, &fixture.hook).unwrap();
    set_up(&uplinks, 0, false);
    wait_for(&|text| text.is_none());
    drop(uplinks);
    sender.join().unwrap().unwrap();
    runner.join().unwrap().unwrap();
}

#[test]
fn a_hook_that_cannot_run_is_refused_at_the_start() {
    let fixture = Fixture::new("");
    assert!(check_hook(&fixture.hook).is_ok());
    let text = |path: &Path| check_hook(path).unwrap_err().to_string();
    let directory = fixture.directory.path();
    assert!(
        text(directory).contains("found a directory, wanted an executable program"),
        "{}",
        text(directory)
    );
    let missing = directory.join("missing");
    assert!(text(&missing).contains("missing: found nothing that can be examined (No such file"));
    fs::set_permissions(&fixture.hook, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        text(&fixture.hook).contains("found a file that is not executable"),
        "{}",
        text(&fixture.hook)
    );
}
