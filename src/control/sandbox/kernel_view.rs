//! What the kernel says about the privileges of this process (`/proc/self/task/*/status`).

use std::fs;
use std::path::Path;

use crate::api::{SandboxStatus, SystemCallFilter, ThreadPrivileges};

/// The privileges of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Thread {
    id: String,
    name: String,
    /// The effective and the permitted set together.
    capabilities: u64,
    no_new_privs: bool,
    /// The kernel runs filters for the thread's system calls.
    is_filtered: bool,
    /// Number of filters; 0 before Linux 5.10, which does not show it.
    filters: u64,
}

/// Returns the privileges of the threads of this process. `worker`: start of the workers' names.
/// `landlock`: the version whose rules hold.
pub(super) fn status(worker: &str, landlock: Option<u32>) -> SandboxStatus {
    let control = read(Path::new("/proc/thread-self")).unwrap_or_default();
    let all: Vec<Thread> = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        // A thread may end meanwhile.
        .filter_map(|entry| read(&entry.path()))
        .collect();
    summary(&control, &all, worker, landlock)
}

fn summary(control: &Thread, all: &[Thread], worker: &str, landlock: Option<u32>) -> SandboxStatus {
    let (workers, others): (Vec<&Thread>, Vec<&Thread>) =
        all.iter().partition(|thread| thread.name.starts_with(worker));
    let others: Vec<&Thread> =
        others.into_iter().filter(|thread| thread.id != control.id).collect();
    SandboxStatus {
        control: privileges(&[control], control),
        workers: privileges(&workers, control),
        other_threads: privileges(&others, control),
        no_new_privs: !all.is_empty() && all.iter().all(|thread| thread.no_new_privs),
        landlock,
    }
}

/// Returns the capabilities that any of the threads has, and the filter that all of them have.
fn privileges(threads: &[&Thread], control: &Thread) -> ThreadPrivileges {
    let filter = |thread: &&Thread| match (thread.is_filtered, thread.filters > control.filters) {
        (false, _) => SystemCallFilter::None,
        (true, false) => SystemCallFilter::DenyList,
        // The workers alone have a filter more than the control thread.
        (true, true) => SystemCallFilter::AllowList,
    };
    let capabilities = threads.iter().fold(0, |all, thread| all | thread.capabilities);
    ThreadPrivileges {
        capabilities: names(capabilities),
        seccomp: threads.iter().map(filter).min().unwrap_or(SystemCallFilter::None),
    }
}

/// Returns the names of capabilities, by number.
fn names(set: u64) -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_by_key(|capability| capability.index());
    let held = all.into_iter().filter(|capability| set & capability.bitmask() != 0);
    held.map(|capability| capability.to_string()).collect()
}

/// Reads the status of a thread.
fn read(thread: &Path) -> Option<Thread> {
    Some(parse(&fs::read_to_string(thread.join("status")).ok()?))
}

fn parse(status: &str) -> Thread {
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim()
    };
    let set = |name| u64::from_str_radix(field(name), 16).unwrap_or(0);
    Thread {
        id: field("Pid").to_owned(),
        name: field("Name").to_owned(),
        capabilities: set("CapEff") | set("CapPrm"),
        no_new_privs: field("NoNewPrivs") == "1",
        is_filtered: field("Seccomp") == "2",
        filters: field("Seccomp_filters").parse().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::SystemCallFilter::{AllowList, DenyList};
    use super::*;

    const STATUS: &str = "Name:\tnatbox-w0\nTgid:\t70\nPid:\t77\nCapInh:\t0000000000000000\n\
                          CapPrm:\t0000000000003000\nCapEff:\t0000000000001000\nNoNewPrivs:\t1\n\
                          Seccomp:\t2\nSeccomp_filters:\t2\n";

    #[test]
    fn the_status_of_a_thread_is_read() {
        let thread = parse(STATUS);
        assert_eq!((thread.id.as_str(), thread.name.as_str()), ("77", "natbox-w0"));
        assert_eq!((thread.no_new_privs, thread.is_filtered, thread.filters), (true, true, 2));
        assert_eq!(names(thread.capabilities), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(parse(""), Thread::default());
    }

    #[test]
    fn each_kind_of_thread_is_as_weak_as_its_weakest() {
        let name = "natbox".to_owned();
        let control = Thread { id: "70".into(), name, filters: 1, ..parse(STATUS) };
        let worker = Thread { capabilities: 0, ..parse(STATUS) };
        let other = Thread { id: "71".into(), name: "log".into(), ..control.clone() };
        let all = [control.clone(), worker.clone(), other];
        let found = summary(&control, &all, "natbox-w", Some(6));
        let kinds = [&found.control, &found.workers, &found.other_threads];
        assert_eq!(kinds.map(|kind| kind.seccomp), [DenyList, AllowList, DenyList]);
        assert_eq!(kinds.map(|kind| kind.capabilities.len()), [2, 0, 2]);
        assert!(found.no_new_privs);

        let weak = Thread { filters: 1, no_new_privs: false, ..worker };
        let all = [&all[..], &[weak]].concat();
        let found = summary(&control, &all, "natbox-w", None);
        assert_eq!((found.workers.seccomp, found.no_new_privs), (DenyList, false));
    }
}
