//! What the process of a box gives up before it touches a packet.
//!
//! All it ever needs is CAP_NET_ADMIN: devices, routes, rules and `/proc/sys/net` go by it, and its own files belong to
//! root. Whatever else it was started with goes, for good: no program that it could be made to run would have it either.
//! System calls that no part of natbox makes are refused.

use caps::{CapSet, Capability, CapsHashSet};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Gives up what is not needed. Call it while the process has one thread: the others inherit.
///
/// # Errors
/// A sentence that says what the system refused.
pub(super) fn enter() -> Result<(), String> {
    drop_capabilities().map_err(|error| format!("giving up capabilities: {error}"))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| format!("setting no_new_privs: {error}"))?;
    let filter =
        filter().map_err(|error| format!("building the filter of system calls: {error}"))?;
    seccompiler::apply_filter(&filter)
        .map_err(|error| format!("setting the filter of system calls: {error}"))
}

fn drop_capabilities() -> Result<(), caps::errors::CapsError> {
    let kept = CapsHashSet::from([Capability::CAP_NET_ADMIN]);
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    // No more than there is: without CAP_NET_ADMIN the TUN device says what is missing.
    let permitted = caps::read(None, CapSet::Permitted)?.intersection(&kept).copied().collect();
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

/// Calls that run programs, reach into other processes, change what is mounted or change the kernel itself. The list names
/// what is refused and not what is allowed, so that another C library or kernel does not stop a box.
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
