//! Wrong input: one message that names the remedy, the right exit code, and an unchanged host.

use std::fs;

use rustix::process::Signal;
use tun_tap::{Iface, Mode};

use crate::single_box::{Config, Published, SingleBox, eventually};

/// Exit codes of a user error and of an environment error.
const USER: i32 = 1;
const ENVIRONMENT: i32 = 2;

/// Runs a configuration behind a command. Asserts the exit code, the words of the message, and an
/// unchanged host.
#[track_caller]
fn assert_refused(
    testbed: &SingleBox,
    before: &[&str],
    config: &Config,
    code: i32,
    words: &[&str],
) {
    let state = testbed.host_state();
    let path = testbed.write("refused", &config.to_string());
    testbed.refused(before, &path).assert_says(code, words);
    state.assert_same(&testbed.host_state(), &format!("after an error about {words:?}"));
}

#[test]
fn every_configuration_error_is_named_with_line_and_column() {
    let testbed = SingleBox::new(Published::OnLink);
    let before = testbed.host_state();
    let text = testbed
        .config()
        .to_string()
        .replace("workers: 2", "workers: two")
        .replace("tcp+udp", "tcpip");
    let path = testbed.write("wrong", &text);
    let name = path.to_str().unwrap();
    for command in ["run", "check", "plan", "config"] {
        let ended = testbed.natbox(&[], &[command, "--config", name]);
        assert_eq!(ended.code, Some(USER), "{ended:?}");
        let lines: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{command}: {}", ended.stderr);
        assert!(
            lines[0].starts_with(&format!("{name}:2:28: tun.workers: found `two`")),
            "{}",
            lines[0]
        );
        assert!(
            lines[1].starts_with(&format!("{name}:9:29: forwards[2].protocol: found `tcpip`")),
            "{}",
            lines[1]
        );
    }
    before.assert_same(&testbed.host_state(), "after a configuration error");
}

/// A file that cannot be read may be readable later: its file system may be mounted after the start
/// of the unit. So the unit tries again.
#[test]
fn unreadable_configuration_files_are_environment_errors_and_wrong_arguments_user_errors() {
    let testbed = SingleBox::new(Published::OnLink);
    let missing = testbed.lab.directory().join("missing.yaml");
    testbed.refused(&[], &missing).assert_says(ENVIRONMENT, &["missing.yaml", "No such file"]);
    let directory = testbed.lab.directory().to_owned();
    testbed.refused(&[], &directory).assert_says(ENVIRONMENT, &[directory.to_str().unwrap()]);
    for arguments in [
        &["run"] as &[&str],
        &["run", "--config"],
        &["run", "--bogus"],
        &["fly"],
        &["status", "--name", "a", "--socket", "/b"],
    ] {
        let ended = testbed.natbox(&[], arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(USER), ""), "{ended:?}");
        assert!(ended.stderr.contains("error: "), "{ended:?}");
    }
}

/// The other instance may be about to end, as at a restart under another name. So the unit tries
/// again.
#[test]
fn resources_of_another_instance_are_refused_and_it_continues() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    // Two further interfaces, free of other instances.
    testbed.lab.veth(7, (&testbed.natbox, "wan1"), (&testbed.net, "eth1")).unwrap();
    testbed.lab.veth(8, (&testbed.natbox, "lan1"), (&testbed.net, "eth2")).unwrap();
    let running = testbed.start(&testbed.config());
    let pid = running.process.pid().to_string();
    let free = Config {
        tun: "nb1".into(),
        socket: testbed.lab.directory().join("other.sock"),
        inside: "lan1".into(),
        outside: "wan1".into(),
        ..testbed.config()
    };
    let socket = Config { socket: testbed.config().socket, ..free.clone() };
    assert_refused(
        &testbed,
        &[],
        &socket,
        ENVIRONMENT,
        &["admin.socket: ", "in use by another natbox"],
    );
    let tun = Config { tun: "nb0".into(), ..free.clone() };
    assert_refused(&testbed, &[], &tun, ENVIRONMENT, &["tun.name: nb0", "taken", &pid]);
    let tun = Config { manage: false, ..tun };
    assert_refused(&testbed, &[], &tun, ENVIRONMENT, &["tun.name: nb0", "taken"]);
    for (key, name) in [("inside", "lan0"), ("outside", "wan0")] {
        let mut config = free.clone();
        match key {
            "inside" => config.inside = name.into(),
            _ => config.outside = name.into(),
        }
        assert_refused(&testbed, &[], &config, ENVIRONMENT, &[name, "taken by natbox", &pid]);
    }
    // The first instance still works.
    testbed.assert_traffic();
    running.stop(Signal::TERM);
}

#[test]
fn tun_name_used_by_another_program_is_refused() {
    let testbed = SingleBox::new(Published::OnLink);
    // A program attached to the device.
    let foreign = testbed.natbox.enter(|| Iface::new("nb0", Mode::Tun)).unwrap().unwrap();
    assert_refused(
        &testbed,
        &[],
        &testbed.config(),
        ENVIRONMENT,
        &["tun.name", "nb0", "taken", "choose another"],
    );
    drop(foreign);
    // A persistent device without a program, and a device that is no TUN.
    for (workers, multi_queue) in [("1", &[] as &[&str]), ("2", &["multi_queue"])] {
        let add = [&["tuntap", "add", "dev", "nb0", "mode", "tun"], multi_queue].concat();
        // A child that another test started at the wrong moment may still hold the foreign
        // program's file.
        eventually("the name is free again", || testbed.natbox.ip(&add).ok());
        let config = Config { workers: workers.into(), ..testbed.config() };
        assert_refused(&testbed, &[], &config, ENVIRONMENT, &["tun.name", "nb0", "taken"]);
        let delete = [&["tuntap", "del", "dev", "nb0", "mode", "tun"], multi_queue].concat();
        testbed.natbox.ip(&delete).unwrap();
    }
    testbed.natbox.ip(&["link", "add", "nb0", "type", "bridge"]).unwrap();
    assert_refused(&testbed, &[], &testbed.config(), ENVIRONMENT, &["tun.name", "nb0", "taken"]);
}

#[test]
fn without_privilege_the_message_says_which_is_needed() {
    let testbed = SingleBox::new(Published::OnLink);
    let unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let capability = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    // A directory that is writable for everyone, so that the socket does not fail first.
    let open = testbed.lab.directory().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let config = Config { socket: open.join("natbox.sock"), ..testbed.config() };
    assert_refused(
        &testbed,
        &unprivileged,
        &config,
        ENVIRONMENT,
        &["permission", "CAP_NET_ADMIN", "root"],
    );
    // Root without the capability.
    assert_refused(
        &testbed,
        &capability,
        &config,
        ENVIRONMENT,
        &["permission", "CAP_NET_ADMIN", "root"],
    );
    let unmanaged = Config { manage: false, ..config };
    assert_refused(
        &testbed,
        &unprivileged,
        &unmanaged,
        ENVIRONMENT,
        &["permission", "CAP_NET_ADMIN", "root"],
    );
}

#[test]
fn without_the_driver_the_message_says_how_to_get_it() {
    let testbed = SingleBox::new(Published::OnLink);
    let script = testbed.write("hide", "mount -t tmpfs none /dev/net && exec \"$@\"\n");
    let hidden = ["unshare", "-m", "--propagation", "private", "sh", script.to_str().unwrap()];
    assert_refused(
        &testbed,
        &hidden,
        &testbed.config(),
        ENVIRONMENT,
        &["/dev/net/tun: missing", "modprobe tun"],
    );
    // A device node without a driver.
    let script = testbed.write(
        "fake",
        "mount -t tmpfs none /dev/net && mknod /dev/net/tun c 10 254 && exec \"$@\"\n",
    );
    let fake = ["unshare", "-m", "--propagation", "private", "sh", script.to_str().unwrap()];
    assert_refused(
        &testbed,
        &fake,
        &testbed.config(),
        ENVIRONMENT,
        &["/dev/net/tun: missing", "modprobe tun"],
    );
}

#[test]
fn an_unusable_socket_path_is_named() {
    let testbed = SingleBox::new(Published::OnLink);
    // Even root cannot make files there.
    let config = Config { socket: "/proc/natbox.sock".into(), ..testbed.config() };
    assert_refused(
        &testbed,
        &[],
        &config,
        ENVIRONMENT,
        &["admin.socket", "/proc/natbox.sock", "must be writable"],
    );
    let config = Config { socket: "/proc/natbox/natbox.sock".into(), ..testbed.config() };
    assert_refused(
        &testbed,
        &[],
        &config,
        ENVIRONMENT,
        &["admin.socket", "/proc/natbox", "must be writable"],
    );
    let unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    assert_refused(
        &testbed,
        &unprivileged,
        &testbed.config(),
        ENVIRONMENT,
        &["admin.socket", "must be writable"],
    );
    let file = testbed.write("a-file", "");
    let config = Config { socket: file.clone(), ..testbed.config() };
    assert_refused(&testbed, &[], &config, USER, &["admin.socket", "not a socket"]);
    assert!(file.exists());
}

#[test]
fn an_unwritable_journal_stops_the_start() {
    let testbed = SingleBox::new(Published::OnLink);
    let script =
        testbed.write("read-only", "mount -t tmpfs -o ro none /run/natbox && exec \"$@\"\n");
    let read_only = ["unshare", "-m", "--propagation", "private", "sh", script.to_str().unwrap()];
    // The lab's own configuration lies below /run/natbox, which the mount hides.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("natbox.yaml");
    let config = Config { socket: directory.path().join("natbox.sock"), ..testbed.config() };
    fs::write(&path, config.to_string()).unwrap();
    fs::copy(&script, directory.path().join("script")).unwrap();
    let state = testbed.host_state();
    testbed.refused(&read_only, &path).assert_says(ENVIRONMENT, &["/run/natbox", "writable"]);
    state.assert_same(&testbed.host_state(), "without a journal");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn read_only_sysctls_stop_the_start_and_restore_the_host() {
    let testbed = SingleBox::new(Published::OnLink);
    let script = testbed.write("read-only", "mount -o remount,ro,bind /proc/sys /proc/sys 2>/dev/null || mount --bind -o ro /proc/sys /proc/sys; exec \"$@\"\n");
    let read_only = ["unshare", "-m", "--propagation", "private", "sh", script.to_str().unwrap()];
    assert_refused(
        &testbed,
        &read_only,
        &testbed.config(),
        ENVIRONMENT,
        &["/proc/sys/net", "wanted", "read-only"],
    );
}

#[test]
fn too_many_sessions_for_the_memory_are_refused_before_any_change() {
    let testbed = SingleBox::new(Published::OnLink);
    let config = Config { sessions: "500M".into(), ..testbed.config() };
    let limited = ["prlimit", "--as=4000000000"];
    assert_refused(
        &testbed,
        &limited,
        &config,
        ENVIRONMENT,
        &["limits.sessions: ", "no memory for 500000000 sessions", "smaller number"],
    );
}

#[test]
fn conflicting_route_of_the_host_is_not_touched() {
    let testbed = SingleBox::new(Published::OnLink);
    testbed
        .natbox
        .ip(&["route", "add", &format!("{}/32", testbed.published), "dev", "lan0"])
        .unwrap();
    assert_refused(
        &testbed,
        &[],
        &testbed.config(),
        ENVIRONMENT,
        &[&testbed.published.to_string(), "ip route del", "host.manage: false"],
    );
}
