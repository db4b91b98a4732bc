//! The privileges of a running box, thread by thread, and the users of its admin socket.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use natbox::api::SystemCallFilter;
use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::single_box::{Config, NATBOX, Published, RunningBox, SingleBox, eventually};

/// CAP_NET_ADMIN is number 12.
const NET_ADMIN: u64 = 1 << 12;

/// A thread, as `/proc` shows it.
#[derive(Debug)]
struct Thread(BTreeMap<String, String>);

impl Thread {
    fn all(pid: u32) -> Vec<Self> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        // A thread may end meanwhile.
        let statuses = threads
            .filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).ok());
        let fields = |status: String| {
            let fields = status.lines().filter_map(|line| line.split_once(':'));
            Self(fields.map(|(name, value)| (name.into(), value.trim().into())).collect())
        };
        statuses.map(fields).collect()
    }

    fn name(&self) -> &str {
        &self.0["Name"]
    }

    fn set(&self, name: &str) -> u64 {
        u64::from_str_radix(&self.0[name], 16).unwrap()
    }

    fn filters(&self) -> u64 {
        self.0["Seccomp_filters"].parse().unwrap()
    }
}

/// Starts a box with every kind of thread: name server, mapping log, kept sessions.
fn start_all(testbed: &SingleBox, config: &Config) -> RunningBox {
    let directory = testbed.lab.directory().join("state");
    let extra = format!(
        "state: {{ keep: true, directory: {} }}\n\
         dns: {{ zone: example.org, names: [{{ name: www }}], name_servers: [{{ name: ns1, address: {} }}] }}\n",
        directory.display(),
        testbed.published
    );
    let text = Config { extra, ..config.clone() }.to_string();
    let text = text.replace("log: { ", "log: { mappings: true, ");
    let path = testbed.write(&config.name, &text);
    RunningBox::launch(&testbed.natbox, &config.name, &path, &config.socket)
}

#[test]
fn no_thread_has_more_than_its_work_needs() {
    for (io, manage) in [("uring", true), ("poll", true), ("uring", false), ("poll", false)] {
        let testbed = SingleBox::new(Published::Owned);
        let _server = testbed.serve();
        let natbox = start_all(&testbed, &Config { io: io.into(), manage, ..testbed.config() });
        if manage {
            testbed.assert_traffic();
            natbox.try_reload().unwrap();
            natbox.sessions();
        }
        let pid = natbox.process.pid();
        let threads = Thread::all(pid);
        let names: Vec<&str> = threads.iter().map(Thread::name).collect();
        for name in ["natbox-w0", "natbox-w1", "natbox-policy", "natbox-dns", "natbox-mappings"] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        let control = threads.iter().find(|thread| thread.0["Pid"] == pid.to_string()).unwrap();
        let left = if manage { NET_ADMIN } else { 0 };
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(control.set(set), left, "{set} of the control thread, manage: {manage}");
        }
        for thread in &threads {
            let is_control = thread.0["Pid"] == pid.to_string();
            for set in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                assert!(is_control || thread.set(set) == 0, "{set} of {thread:?}");
            }
            assert_eq!(thread.set("CapBnd") & !NET_ADMIN, 0, "{thread:?}");
            assert_eq!((&*thread.0["NoNewPrivs"], &*thread.0["Seccomp"]), ("1", "2"), "{thread:?}");
            let more = u64::from(thread.name().starts_with("natbox-w"));
            assert_eq!(thread.filters(), control.filters() + more, "{thread:?}");
        }
        let sandbox = natbox.status().sandbox.unwrap();
        let wanted = if manage { vec!["CAP_NET_ADMIN".to_owned()] } else { Vec::new() };
        assert_eq!(sandbox.control.capabilities, wanted);
        assert_eq!(sandbox.workers.capabilities, [""; 0]);
        assert_eq!(sandbox.workers.seccomp, SystemCallFilter::AllowList);
        assert_eq!(sandbox.other_threads.capabilities, [""; 0]);
        assert_eq!(sandbox.other_threads.seccomp, SystemCallFilter::DenyList);
        assert!(sandbox.no_new_privs && sandbox.landlock.is_some(), "{sandbox:?}");
        natbox.stop(Signal::TERM);
    }
}

/// The box changes routes, writes its journal and its session files, and reads its configuration
/// from another file than at its start.
#[test]
fn a_box_without_privileges_still_follows_its_host_and_its_file() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let natbox = start_all(&testbed, &testbed.config());
    testbed.natbox.ip(&["address", "add", "203.0.113.77/24", "dev", "wan0"]).unwrap();
    let before = testbed.host_state().rules().to_owned();
    testbed.natbox.ip(&["rule", "del", "iif", "lan0"]).unwrap();
    let rules = || (testbed.host_state().rules() == before).then_some(());
    eventually("the rules are back", rules);
    eventually("traffic", || testbed.fetch().ok());
    let text = fs::read_to_string(&natbox.path).unwrap();
    let new = natbox.path.with_extension("new");
    fs::write(&new, text.replace("name: dead", "name: changed")).unwrap();
    fs::rename(&new, &natbox.path).unwrap();
    assert_eq!(natbox.try_reload().unwrap().changed, ["forwards"]);
    testbed.assert_traffic();

    // A link to a directory that natbox does not know.
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("natbox.yaml");
    fs::write(&file, text).unwrap();
    fs::remove_file(&natbox.path).unwrap();
    std::os::unix::fs::symlink(&file, &natbox.path).unwrap();
    let error = natbox.try_reload().unwrap_err().to_string();
    let lab = testbed.lab.directory().display().to_string();
    for words in ["Permission denied", &lab, "restart natbox"] {
        assert!(error.contains(words), "{words} is missing in {error}");
    }
    natbox.stop(Signal::TERM);
}

/// The filter of systemd, which natbox gets before its own.
#[test]
fn natbox_runs_under_the_system_calls_of_its_unit() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let config = testbed.config();
    let path = testbed.write("unit", &config.to_string());
    let allowed = system_calls_of_the_unit();
    assert!(allowed.len() > 200, "{}", allowed.len());
    let launched = testbed.natbox.enter(|| {
        let refuse = SeccompAction::Errno(libc::EPERM as u32);
        let rules = allowed.into_iter().map(|call| (call, Vec::new())).collect();
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture);
        let program: BpfProgram = filter.unwrap().try_into().unwrap();
        rustix::thread::set_no_new_privs(true).unwrap();
        seccompiler::apply_filter(&program).unwrap();
        let mut natbox = Command::new(NATBOX);
        natbox.args(["run", "--config"]).arg(&path).process_group(0).spawn().unwrap()
    });
    let mut natbox = launched.unwrap();
    eventually("traffic", || testbed.fetch().ok());
    testbed.assert_traffic();
    let pid = rustix::process::Pid::from_child(&natbox);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(natbox.wait().unwrap().success());
}

/// Returns the numbers of the system calls in the unit file, as systemd resolves their groups.
fn system_calls_of_the_unit() -> Vec<i64> {
    let unit = include_str!("../configs/natbox@.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("SystemCallFilter=")).unwrap();
    let mut wanted: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut numbers = Vec::new();
    while let Some(name) = wanted.pop() {
        if name.starts_with('@') {
            let mut analyze = Command::new("systemd-analyze");
            let group = analyze.args(["syscall-filter", "--no-pager", &name]).output().unwrap();
            assert!(group.status.success(), "{name}");
            let lines = String::from_utf8(group.stdout).unwrap();
            let members = lines.lines().skip(1).map(|line| line.trim().to_owned());
            wanted.extend(members.filter(|member| !member.starts_with('#') && !member.is_empty()));
        } else {
            numbers.extend(number(&name));
        }
    }
    numbers
}

/// Returns the number of a system call on this architecture, from the headers of the C library.
fn number(name: &str) -> Option<i64> {
    static NUMBERS: std::sync::LazyLock<BTreeMap<String, i64>> = std::sync::LazyLock::new(|| {
        let mut cc = Command::new("cc");
        let output =
            cc.args(["-E", "-dM", "-include", "asm/unistd.h", "-x", "c", "/dev/null"]).output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let rows = text.lines().filter_map(|line| {
            let (name, number) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
            Some((name.to_owned(), number.parse().ok()?))
        });
        rows.collect()
    });
    NUMBERS.get(name).copied()
}

/// Groups of no user. The tests use their numbers.
const READERS: &str = "47110";

/// Starts a box whose socket a group may use, in a directory that every user may enter.
fn start_with_group(testbed: &SingleBox, group: &str) -> RunningBox {
    let directory = testbed.lab.directory().join("open");
    fs::create_dir(&directory).unwrap();
    for path in [testbed.lab.directory(), &directory] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let config = Config { socket: directory.join("natbox.sock"), ..testbed.config() };
    let text = config.to_string().replace("admin: { ", &format!("admin: {{ group: '{group}', "));
    let path = testbed.write("natbox", &text);
    RunningBox::launch(&testbed.natbox, "natbox", &path, &config.socket)
}

#[test]
fn the_group_reads_root_changes_and_others_do_nothing() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = start_with_group(&testbed, READERS);
    let socket = natbox.socket().to_str().unwrap();
    let metadata = fs::metadata(socket).unwrap();
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (0, 47_110, 0o660));
    let by = |user: &[&str], command: &[&str]| {
        let user = [&["setpriv", "--reuid=1000"], user].concat();
        testbed.natbox(&user, &[command, &["--socket", socket]].concat())
    };
    let primary = ["--regid=47110", "--clear-groups"];
    let supplementary = ["--regid=1000", "--groups=9,47110"];
    for user in [primary, supplementary] {
        for command in [&["status", "--json"][..], &["sessions"], &["events"]] {
            let read = by(&user, command);
            assert_eq!(read.code, Some(0), "{command:?}: {read:?}");
        }
        by(&user, &["reload"]).assert_says(
            1,
            &["user 1000 may only read, as a member of admin.group `47110`", "as root"],
        );
    }
    let other = ["--regid=1000", "--groups=9"];
    for command in ["status", "reload"] {
        by(&other, &[command]).assert_says(2, &["Permission denied", "admin.group"]);
    }
    // The mode of the file is not the only lock.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).unwrap();
    for command in ["status", "reload"] {
        by(&other, &[command])
            .assert_says(1, &["user 1000 may not use the admin socket", "the group `47110`"]);
    }
    assert_eq!(testbed.natbox(&[], &["reload", "--socket", socket]).code, Some(0));
    natbox.stop(Signal::TERM);
}

#[test]
fn without_a_group_only_root_uses_the_socket_and_an_unknown_group_is_named() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    assert_eq!(fs::metadata(natbox.socket()).unwrap().mode() & 0o7777, 0o600);
    natbox.stop(Signal::TERM);
    let text = testbed.config().to_string().replace("admin: { ", "admin: { group: no-such-group, ");
    let path = testbed.write("unknown", &text);
    testbed
        .refused(&[], &path)
        .assert_says(2, &["admin.group: no-such-group is unknown", "/etc/group", "its number"]);
}
