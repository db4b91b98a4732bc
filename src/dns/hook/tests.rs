//! Hooks that are shell scripts, run by a helper on a thread of the test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use super::super::Uplinks;
use super::super::testing::lines;
use super::*;

struct Scene {
    directory: tempfile::TempDir,
    hook: PathBuf,
}

impl Scene {
    /// A hook that runs these commands in its directory.
    fn new(commands: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hook = directory.path().join("hook");
        let text = format!("#!/bin/sh\ncd {}\n{commands}\n", directory.path().display());
        fs::write(&hook, text).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o700)).unwrap();
        Self { directory, hook }
    }

    /// A helper, and the box's ends of its pipes.
    fn help(&self) -> (OwnedFd, OwnedFd, JoinHandle<io::Result<()>>) {
        let (events, to_helper) = io::pipe().unwrap();
        let (from_helper, outcomes) = io::pipe().unwrap();
        let hook = self.hook.clone();
        let helper = thread::spawn(move || run_events(&hook, events, outcomes));
        (to_helper.into(), from_helper.into(), helper)
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

/// Sends one event by hand and reads its outcome.
fn tell_one(events: &OwnedFd, outcomes: &OwnedFd) -> Outcome {
    let (_, event) = next_event(&[], &lines()).unwrap();
    let mut events = fs::File::from(events.try_clone().unwrap());
    writeln!(events, "{}", serde_json::to_string(&event).unwrap()).unwrap();
    let mut answer = String::new();
    BufReader::new(fs::File::from(outcomes.try_clone().unwrap())).read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn a_hook_runs_for_every_line_at_the_start_and_at_each_change() {
    let scene = Scene::new(
        "echo \"$NATBOX_UPLINK $NATBOX_ADDRESS $NATBOX_STATE\" $NATBOX_UP_UPLINKS \"/ $NATBOX_UP_ADDRESSES\" >>log\n\
         echo noise\n",
    );
    let (events, outcomes, helper) = scene.help();
    let lines = Uplinks::new(lines().lines);
    let mut listener = lines.watch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let teller = thread::spawn(move || {
        runtime.block_on(tell(events, outcomes, &mut listener, &LastError::default()))
    });
    let all = "isp1 isp2 isp3 / 203.0.113.1 203.0.113.2 203.0.113.3";
    let start = format!(
        "isp1 203.0.113.1 up {all}\nisp2 203.0.113.2 up {all}\nisp3 203.0.113.3 up {all}\n"
    );
    scene.wait_for("log", &start);
    lines.set_up(1, false);
    let down = format!("{start}isp2 203.0.113.2 down isp1 isp3 / 203.0.113.1 203.0.113.3\n");
    scene.wait_for("log", &down);
    lines.set_up(1, true);
    scene.wait_for("log", &format!("{down}isp2 203.0.113.2 up {all}\n"));
    drop(lines);
    teller.join().unwrap().unwrap();
    helper.join().unwrap().unwrap();
}

#[test]
fn the_outcome_of_a_hook_is_told() {
    for (commands, wanted) in [
        ("exit 0", Outcome::Done),
        ("exit 3", Outcome::Failed("exit code 3".to_owned())),
        ("kill -9 $$", Outcome::Failed("signal 9".to_owned())),
    ] {
        let scene = Scene::new(commands);
        let (events, outcomes, _helper) = scene.help();
        assert_eq!(tell_one(&events, &outcomes), wanted);
    }
    let mut scene = Scene::new("");
    scene.hook = "/nowhere/hook".into();
    let (events, outcomes, _helper) = scene.help();
    let outcome = tell_one(&events, &outcomes);
    assert!(
        matches!(&outcome, Outcome::NotStarted(error) if error.contains("No such file")),
        "{outcome:?}"
    );
}

#[test]
fn a_hook_that_hangs_is_ended_with_all_that_it_started() {
    let scene = Scene::new("sleep 600 &\necho $! >sleeper\nwait");
    let (events, outcomes, _helper) = scene.help();
    let start = Instant::now();
    assert_eq!(tell_one(&events, &outcomes), Outcome::TookTooLong);
    assert!(start.elapsed() >= LIMIT, "{:?}", start.elapsed());
    assert_sleeper_ends(&scene);
}

#[test]
fn the_end_of_the_box_is_the_end_of_a_running_hook() {
    let scene = Scene::new("sleep 600 &\necho $! >sleeper\nwait");
    let (events, _outcomes, helper) = scene.help();
    let (_, event) = next_event(&[], &lines()).unwrap();
    let mut pipe = fs::File::from(events);
    writeln!(pipe, "{}", serde_json::to_string(&event).unwrap()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while scene.text("sleeper").is_empty() {
        assert!(Instant::now() < deadline, "the hook does not run");
        thread::sleep(Duration::from_millis(10));
    }
    drop(pipe);
    let start = Instant::now();
    helper.join().unwrap().unwrap();
    assert!(start.elapsed() < LIMIT / 2, "{:?}", start.elapsed());
    assert_sleeper_ends(&scene);
}

fn assert_sleeper_ends(scene: &Scene) {
    let sleeper = scene.text("sleeper").trim().to_owned();
    let deadline = Instant::now() + Duration::from_secs(20);
    // It is nobody's child any more: whoever inherited it may take a moment to wait for it.
    let runs = || {
        fs::read_to_string(format!("/proc/{sleeper}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    };
    while runs() {
        assert!(Instant::now() < deadline, "process {sleeper} still runs");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_changed_back_before_it_could_be_told_is_not_told() {
    let mut now = lines();
    let told = |last| -> Vec<Option<Sent>> {
        let usable = [true, true, last];
        lines()
            .lines
            .iter()
            .zip(usable)
            .map(|(line, usable)| Some((usable, line.address)))
            .collect()
    };
    assert_eq!(next_event(&told(true), &now), None);
    now.lines[2].up = false;
    let (number, event) = next_event(&told(true), &now).unwrap();
    assert_eq!((number, event.line.as_str(), event.usable), (2, "isp3", false));
    assert_eq!(event.all_usable.len(), 2);
    assert_eq!(next_event(&told(false), &now), None);
    now.lines[0].address = None;
    assert_eq!(next_event(&told(false), &now).unwrap().0, 0, "another address is news, too");
}

/// A helper that somebody kills may be missed for hours, until a line changes.
#[test]
fn the_end_of_the_helper_is_noticed_at_once() {
    let mut command = Command::new("sleep");
    command.arg("600");
    let helper = HookRunner::start(command).unwrap();
    let group = Pid::from_raw(i32::try_from(helper.process.id()).unwrap()).unwrap();
    // No line, so there is nothing to tell.
    let lines = Uplinks::new(Vec::new());
    let troubles = Arc::new(LastErrors::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (listener, told) = (lines.watch(), Arc::clone(&troubles));
    let follower = thread::spawn(move || runtime.block_on(helper.follow(listener, told)));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(troubles.hook.text(), None);
    kill_process_group(group, Signal::KILL).unwrap();
    follower.join().unwrap();
    assert!(
        troubles.hook.text().is_some_and(|text| text.contains("restart natbox")),
        "{troubles:?}"
    );
    assert!(rustix::process::test_kill_process(group).is_err(), "it is a zombie");
}

#[test]
fn a_hook_that_cannot_be_run_is_a_trouble_until_it_can() {
    let scene = Scene::new("echo $NATBOX_UPLINK $NATBOX_STATE >>log");
    let away = scene.directory.path().join("away");
    fs::rename(&scene.hook, &away).unwrap();
    let (events, outcomes, helper) = scene.help();
    let mut only = lines().lines;
    only.truncate(1);
    let lines = Uplinks::new(only);
    let (mut listener, troubles) = (lines.watch(), Arc::new(LastErrors::default()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let told = Arc::clone(&troubles);
    let teller =
        thread::spawn(move || runtime.block_on(tell(events, outcomes, &mut listener, &told.hook)));
    let wait_for = |wanted: &dyn Fn(Option<String>) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !wanted(troubles.hook.text()) {
            assert!(Instant::now() < deadline, "{troubles:?}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    wait_for(&|text| text.is_some_and(|text| text.contains("No such file")));
    fs::rename(&away, &scene.hook).unwrap();
    lines.set_up(0, false);
    wait_for(&|text| text.is_none());
    drop(lines);
    teller.join().unwrap().unwrap();
    helper.join().unwrap().unwrap();
}

#[test]
fn a_hook_that_cannot_be_run_is_refused_beforehand() {
    let scene = Scene::new("");
    assert!(check_hook(&scene.hook).is_ok());
    let text = |path: &Path| check_hook(path).unwrap_err().to_string();
    let directory = scene.directory.path();
    assert!(text(directory).contains("found a directory, wanted a program"), "{}", text(directory));
    let missing = directory.join("missing");
    assert!(text(&missing).contains("missing: found nothing that can be looked at (No such file"));
    fs::set_permissions(&scene.hook, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        text(&scene.hook).contains("found a file that may not be run"),
        "{}",
        text(&scene.hook)
    );
}
