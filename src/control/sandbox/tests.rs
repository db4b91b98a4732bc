//! Each test drops the privileges of a thread that it starts, because they do not come back.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::thread;

use super::*;
use crate::api::SystemCallFilter;

/// Runs a test in a thread of its own.
fn in_a_thread(work: impl FnOnce() + Send) {
    thread::scope(|scope| scope.spawn(work).join().expect("no panic"));
}

fn is_refused<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[test]
fn an_instance_opens_only_the_files_of_its_rules() {
    let [open, closed] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    fs::write(open.path().join("old"), "text").expect("a file");
    in_a_thread(|| {
        let mut rules = FileRules::default();
        rules.allow("/proc", FileAccess::Read);
        rules.allow(open.path(), FileAccess::Change);
        rules.allow("/dev/null", FileAccess::Device);
        rules.allow("/does/not/exist", FileAccess::Read);
        let sandbox = Sandbox::enter(rules).expect("the kernel has seccomp");
        assert_eq!(fs::read_to_string(open.path().join("old")).expect("it is open"), "text");
        fs::write(open.path().join("new"), "text").expect("it is open");
        fs::rename(open.path().join("new"), open.path().join("old")).expect("it is open");
        fs::remove_file(open.path().join("old")).expect("it is open");
        assert!(OpenOptions::new().write(true).open("/dev/null").is_ok());
        for path in ["/etc/passwd", "/etc/shadow", "/dev/zero"] {
            assert!(is_refused(File::open(path)), "{path}");
        }
        let unwritable = OpenOptions::new().write(true).open("/proc/self/comm");
        assert!(is_refused(unwritable));
        assert!(is_refused(fs::read_dir(closed.path())));
        assert!(is_refused(fs::write(closed.path().join("new"), "text")));
        assert!(is_refused(fs::create_dir(open.path().join("directory"))));
        // Sockets are no files.
        assert!(UdpSocket::bind("127.0.0.1:0").is_ok());
        assert!(sandbox.status().landlock.is_some());
    });
}

/// The rules of a real configuration. They leave out the files with the secrets of the host.
#[test]
fn a_reload_can_read_the_configuration_and_its_link_and_nothing_else_of_the_host() {
    let [links, files] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let (link, file) = (links.path().join("box.yaml"), files.path().join("box.yaml"));
    let text = "name: box\ninside: { interface: lan0, prefixes: [10.0.0.0/24] }\nuplinks:\n\
                \x20 - { name: isp, interface: wan0, addresses: [203.0.113.10], gateway: 203.0.113.9 }\n";
    fs::write(&file, text).expect("a file");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    let mut config = crate::config::load(&link).expect("a right file").config;
    config.admin.socket = links.path().join("box.sock");
    in_a_thread(|| {
        let rules = crate::control::needed_files::needed_files(&link, &config);
        Sandbox::enter(rules).expect("the kernel has seccomp");
        // An editor replaces the file.
        assert!(crate::config::load(&link).is_ok());
        assert!(is_refused(fs::write(&file, "")));
        fs::write(links.path().join("box.sock"), "").expect("the socket's directory is open");
        assert!(File::open("/proc/net/udp").is_ok() && fs::read_dir("/sys/class/net").is_ok());
        for path in ["/etc/passwd", "/etc/shadow", "/", "/bin/sh", "/var/log"] {
            assert!(is_refused(File::open(path)), "{path}");
        }
    });
}

/// `resolv.conf` is replaced whenever DHCP brings another name server.
#[test]
fn a_health_check_by_name_may_read_what_the_resolver_reads() {
    let text = "name: box\ninside: { interface: lan0, prefixes: [10.0.0.0/24] }\nuplinks:\n\
                \x20 - { name: isp, interface: wan0, addresses: [203.0.113.10], gateway: 203.0.113.9,\n\
                \x20     health: { http: ['https://example.org/'] } }\n";
    let config = crate::config::parse("f.yaml", text).expect("a right text").config;
    in_a_thread(|| {
        let rules = crate::control::needed_files::needed_files(Path::new("f.yaml"), &config);
        Sandbox::enter(rules).expect("the kernel has seccomp");
        for path in ["/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf"] {
            assert!(!is_refused(File::open(path)), "{path}");
        }
        assert!(is_refused(File::open("/var/log")));
    });
}

#[test]
fn a_thread_without_files_writes_what_is_open_and_starts_threads() {
    in_a_thread(|| {
        let mut open = tempfile::tempfile().expect("a file");
        enter_without_files().expect("the kernel has seccomp");
        io::Write::write_all(&mut open, b"line").expect("it is open");
        for path in ["/etc/passwd", "/proc/self/status", "/dev/null"] {
            assert!(is_refused(File::open(path)), "{path}");
        }
        let inherits = thread::spawn(|| is_refused(File::open("/etc/passwd")));
        assert!(inherits.join().expect("no panic"));
    });
}

#[test]
fn the_status_is_that_of_the_kernel() {
    in_a_thread(|| {
        let mut rules = FileRules::default();
        rules.allow("/proc", FileAccess::Read);
        let sandbox = Sandbox::enter(rules).expect("the kernel has seccomp");
        drop_capabilities();
        let control = sandbox.status().control;
        assert_eq!(control.capabilities, [""; 0]);
        assert_eq!(control.seccomp, SystemCallFilter::DenyList);
    });
    // The other threads of this process have all privileges of the user.
    let none = kernel_view::status("no thread", None);
    assert_eq!((none.control.seccomp, none.landlock), (SystemCallFilter::None, None));
    assert!(!none.no_new_privs);
}
