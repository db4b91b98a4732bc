//! Packets on random queues: the worst case of the kernel's flow steering.

#![allow(unsafe_code, reason = "BPF and the TUN ioctl that takes it have no safe interface")]

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Makes a random worker read each packet of the TUN device of this process.
pub(crate) fn spray(pid: u32) {
    let device = tun_of(pid);
    let program = random_queue();
    let descriptor = program.as_raw_fd();
    // SAFETY: the request reads one int behind the pointer, which lives through the call.
    let outcome =
        unsafe { libc::ioctl(device.as_raw_fd(), TUNSETSTEERINGEBPF, &raw const descriptor) };
    assert_eq!(outcome, 0, "TUNSETSTEERINGEBPF: {}", std::io::Error::last_os_error());
}

/// Returns a queue of the TUN device that a process owns.
///
/// The kernel writes the interface of a queue into `fdinfo`. While natbox starts, it also has the
/// driver's path open for Landlock; that descriptor is no queue.
fn tun_of(pid: u32) -> OwnedFd {
    let directory = PathBuf::from(format!("/proc/{pid}/fdinfo"));
    let is_queue = |number: &OsString| {
        let facts = fs::read_to_string(directory.join(number));
        facts.is_ok_and(|facts| facts.lines().any(|line| line.starts_with("iff:")))
    };
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let number = entries.map(|entry| entry.file_name()).find(is_queue).expect("a queue");
    let pid = Pid::from_raw(pid as i32).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    pidfd_getfd(&process, number.to_str().unwrap().parse().unwrap(), PidfdGetfdFlags::empty())
        .unwrap()
}

/// Loads a BPF program that returns a random number. The kernel takes it modulo the number of
/// queues.
fn random_queue() -> OwnedFd {
    // struct bpf_insn, two of them: call bpf_get_prandom_u32; exit.
    let code: [[u8; 8]; 2] = [[0x85, 0, 0, 0, 7, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let attributes = ProgramLoad {
        program_type: BPF_PROG_TYPE_SOCKET_FILTER,
        count: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        rest: [0; 4],
    };
    let size = size_of::<ProgramLoad>();
    // SAFETY: the kernel reads `size` bytes of a structure that begins like its own, and the memory
    // that its pointers name. All of it lives through the call.
    let descriptor =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size) };
    assert!(descriptor >= 0, "loading a BPF program: {}", std::io::Error::last_os_error());
    // SAFETY: the call has just made this descriptor, and no other code has it.
    unsafe { OwnedFd::from_raw_fd(descriptor as i32) }
}

/// The beginning of the kernel's `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    count: u32,
    code: u64,
    license: u64,
    rest: [u32; 4],
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
/// _IOR('T', 224, int), linux/if_tun.h.
const TUNSETSTEERINGEBPF: libc::Ioctl = 0x8004_54e0;
