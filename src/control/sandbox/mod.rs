//! Drops privileges before the first packet.
//!
//! natbox needs only CAP_NET_ADMIN: for devices, routes, rules and `/proc/sys/net`. Its own files
//! belong to root. natbox drops all other capabilities permanently, even for programs that an
//! attacker could make the process run. A seccomp filter blocks system calls that no part of natbox
//! makes.

use caps::{CapSet, Capability, CapsHashSet};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Drops the privileges that natbox does not need. Call it while the process has one thread,
/// because later threads inherit the result.
///
/// # Errors
/// A sentence about the step that failed.
pub(super) fn enter() -> Result<(), String> {
    enter_with(&CapsHashSet::from([Capability::CAP_NET_ADMIN]))
}

/// Drops all privileges, for a process that keeps what it has open.
///
/// # Errors
/// A sentence about the step that failed.
pub(super) fn enter_without_capabilities() -> Result<(), String> {
    enter_with(&CapsHashSet::new())
}

fn enter_with(kept: &CapsHashSet) -> Result<(), String> {
    drop_capabilities(kept).map_err(|error| format!("dropping capabilities: {error}"))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| format!("setting no_new_privs: {error}"))?;
    let filter = filter().map_err(|error| format!("building the system call filter: {error}"))?;
    seccompiler::apply_filter(&filter)
        .map_err(|error| format!("setting the system call filter: {error}"))
}

fn drop_capabilities(kept: &CapsHashSet) -> Result<(), caps::errors::CapsError> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    // Not more than the process has. Without CAP_NET_ADMIN, opening the TUN device reports what is
    // missing.
    let permitted = caps::read(None, CapSet::Permitted)?.intersection(kept).copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &permitted)?;
    caps::set(None, CapSet::Permitted, &permitted)?;
    caps::clear(None, CapSet::Inheritable)
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let refused = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        refused,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        std::env::consts::ARCH.try_into()?,
    )?;
    filter.try_into()
}

/// System calls that run programs, reach into other processes, change mounts or change the kernel.
/// The list names the blocked calls and not the allowed ones, so that natbox runs with any C
/// library and kernel.
const DENIED: [i64; 31] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_acct,
    libc::SYS_open_by_handle_at,
];
