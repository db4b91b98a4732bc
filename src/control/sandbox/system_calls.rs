//! The filters of system calls (seccomp). The kernel runs all filters of a thread, and the
//! strictest answer counts.
//!
//! Both filters refuse a call with EPERM. They do not end the process: a C library may make a call
//! in some version that no list has foreseen, and an instance that carries traffic must survive
//! this. A refused call costs nothing else, and EPERM gives an attacker nothing.
//!
//! The price of the filters: from Linux 5.11 on, the kernel remembers which system calls a filter
//! allows whatever their arguments are, and runs no filter for them. `read`, `write`, `ppoll`,
//! `futex` and `io_uring_enter` are such calls.

use std::collections::BTreeMap;

use libc::{PROT_EXEC, c_int};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use crate::io::ISSUERS_REGISTRATIONS;

/// The permitted arguments of each system call; none: all arguments.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Refuses the system calls that no part of natbox makes, for this thread and those that it starts.
///
/// # Errors
/// A sentence about the step that failed.
pub(super) fn refuse_denied() -> Result<(), String> {
    let denied = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    apply(filter(denied, SeccompAction::Allow, refuse()))
}

/// Refuses all system calls except those of a worker, for this thread.
///
/// # Errors
/// A sentence about the step that failed.
pub(super) fn refuse_all_but_a_workers() -> Result<(), String> {
    let of_worker = || filter(of_worker()?, refuse(), SeccompAction::Allow);
    apply(of_worker())
}

fn refuse() -> SeccompAction {
    SeccompAction::Errno(libc::EPERM as u32)
}

fn filter(
    listed: Rules,
    others: SeccompAction,
    answer: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    SeccompFilter::new(listed, others, answer, std::env::consts::ARCH.try_into()?)?.try_into()
}

fn apply(filter: Result<BpfProgram, BackendError>) -> Result<(), String> {
    let filter = filter.map_err(|error| format!("building the system call filter: {error}"))?;
    seccompiler::apply_filter(&filter)
        .map_err(|error| format!("setting the system call filter: {error}"))
}

/// Returns the system calls of a worker with their permitted arguments.
fn of_worker() -> Result<Rules, BackendError> {
    let mut rules: Rules = OF_WORKER.iter().map(|call| (*call, Vec::new())).collect();
    // Memory of the heap, but none that can be executed.
    let not_executable = || {
        let mask = SeccompCmpOp::MaskedEq(PROT_EXEC as u64);
        SeccompRule::new(vec![SeccompCondition::new(2, SeccompCmpArgLen::Dword, mask, 0)?])
    };
    rules.insert(libc::SYS_mmap, vec![not_executable()?]);
    rules.insert(libc::SYS_mprotect, vec![not_executable()?]);
    // The flags of the queue: blocking or not.
    let flags = [libc::F_GETFD, libc::F_GETFL, libc::F_SETFL].map(c_int::cast_unsigned);
    rules.insert(libc::SYS_fcntl, second_argument(flags)?);
    rules.insert(libc::SYS_io_uring_register, second_argument(ISSUERS_REGISTRATIONS)?);
    Ok(rules)
}

/// Permits some values of the second argument.
fn second_argument<const N: usize>(values: [u32; N]) -> Result<Vec<SeccompRule>, BackendError> {
    let equal = |value: u32| {
        let (length, value) = (SeccompCmpArgLen::Dword, u64::from(value));
        SeccompRule::new(vec![SeccompCondition::new(1, length, SeccompCmpOp::Eq, value)?])
    };
    values.into_iter().map(equal).collect()
}

/// System calls that a worker may make with any arguments.
const OF_WORKER: &[i64] = &[
    // Packets, and the wait for them.
    libc::SYS_read,
    libc::SYS_write,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_io_uring_enter,
    libc::SYS_restart_syscall,
    // Time, other threads, random ports.
    libc::SYS_clock_gettime,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_getrandom,
    // Memory. The allocator of glibc asks for the number of processors.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_sched_getaffinity,
    // The end of the thread: a stop, a panic with its message, a crash.
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_writev,
];

/// System calls that run programs, reach into other processes, change mounts or change the kernel.
/// The list names the refused calls and not the permitted ones: the control side uses many
/// libraries, whose calls differ between versions.
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
