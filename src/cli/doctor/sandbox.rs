//! Checks which privileges an instance has left.

use crate::api::{SandboxStatus, SystemCallFilter};
use crate::cli::status::sandbox_text;
use crate::host::doctor::Finding;

/// Reports privileges that the instance could not drop.
pub(super) fn sandbox(found: &SandboxStatus) -> Vec<Finding> {
    let mut findings = Vec::new();
    if found.landlock.is_none() {
        let why = "a fault in natbox could reach every file of its user";
        let advice = "use a kernel that has landlock in /sys/kernel/security/lsm (Linux 5.13, boot \
                      option lsm=), and let the unit or the container permit the landlock system \
                      calls";
        let no_landlock = "the kernel does not limit the files that natbox opens (Landlock)";
        findings.push(Finding::warning("sandbox", no_landlock, why).advice(advice));
    }
    let SandboxStatus { control, workers, other_threads, no_new_privs, .. } = found;
    let is_filtered =
        [control, other_threads].iter().all(|threads| threads.seccomp != SystemCallFilter::None)
            && workers.seccomp == SystemCallFilter::AllowList;
    let is_small = workers.capabilities.is_empty() && other_threads.capabilities.is_empty();
    if !(is_filtered && is_small && *no_new_privs) {
        let why = "a thread has more privileges than its work needs";
        let advice = "this is a bug, or another program changed the process; report it with the output \
                      of natbox status --json";
        findings.push(Finding::warning("sandbox", sandbox_text(found), why).advice(advice));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("sandbox", sandbox_text(found)));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ThreadPrivileges;
    use crate::host::doctor::Severity;

    fn good() -> SandboxStatus {
        let threads = |seccomp| ThreadPrivileges { capabilities: Vec::new(), seccomp };
        SandboxStatus {
            control: ThreadPrivileges {
                capabilities: vec!["CAP_NET_ADMIN".into()],
                ..threads(SystemCallFilter::DenyList)
            },
            workers: threads(SystemCallFilter::AllowList),
            other_threads: threads(SystemCallFilter::DenyList),
            no_new_privs: true,
            landlock: Some(6),
        }
    }

    #[test]
    fn each_missing_part_is_a_warning() {
        let of = |found: &SandboxStatus| sandbox(found).into_iter().map(|finding| finding.severity);
        assert_eq!(of(&good()).collect::<Vec<_>>(), [Severity::Ok]);
        let mut with_capability = good();
        with_capability.workers.capabilities = vec!["CAP_NET_RAW".into()];
        let mut unfiltered = good();
        unfiltered.other_threads.seccomp = SystemCallFilter::None;
        let mut with_deny_list = good();
        with_deny_list.workers.seccomp = SystemCallFilter::DenyList;
        let gains = SandboxStatus { no_new_privs: false, ..good() };
        let old_kernel = SandboxStatus { landlock: None, ..good() };
        for weak in [with_capability, unfiltered, with_deny_list, gains, old_kernel] {
            assert_eq!(of(&weak).collect::<Vec<_>>(), [Severity::Warning], "{weak:?}");
        }
    }

    #[test]
    fn the_line_names_every_part() {
        assert_eq!(
            sandbox_text(&good()),
            "control CAP_NET_ADMIN, deny-list; workers no capability, allow-list; others no \
             capability, deny-list; files limited by Landlock 6; no_new_privs"
        );
    }
}
