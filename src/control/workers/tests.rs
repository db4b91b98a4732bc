//! What a worker's thread can still do, as the start of an instance leaves it.

use std::fs::{File, OpenOptions};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::*;
use crate::io::{Flushed, FrameBuffers, MemoryIo, PacketIo};

/// A queue whose first read tries everything that an attacker would.
struct Intruder {
    memory: MemoryIo,
    results: Option<Sender<Attempts>>,
    /// A file that was open before.
    open: File,
}

/// Attempts that must fail, with their errors; None: success.
type Attempts = Vec<(&'static str, Option<std::io::Error>)>;

impl Intruder {
    fn attempts(&mut self) -> Attempts {
        let mut open = OpenOptions::new();
        let open_ring = io_uring::IoUring::new(2).err();
        vec![
            ("read a file", File::open("/etc/passwd").err()),
            ("write a file", open.write(true).open("/dev/null").err()),
            ("list a directory", std::fs::read_dir("/").err()),
            ("remove a file", std::fs::remove_file("/does/not/exist").err()),
            ("open a UDP socket", std::net::UdpSocket::bind("127.0.0.1:0").err()),
            ("open a TCP socket", std::net::TcpListener::bind("127.0.0.1:0").err()),
            ("open a Unix socket", UnixStream::pair().err()),
            ("open a ring", open_ring),
            ("replace the program", Some(Command::new("/bin/true").exec())),
            ("start a program", Command::new("/bin/true").spawn().err()),
            ("start a thread", thread::Builder::new().spawn(|| {}).err()),
            ("signal a process", signal().err()),
            ("execute memory", crate::io::map_executable_page().err().map(Into::into)),
            ("duplicate a descriptor", self.open.try_clone().err()),
        ]
    }
}

fn signal() -> std::io::Result<()> {
    Ok(rustix::process::test_kill_process(rustix::process::getpid())?)
}

impl PacketIo for Intruder {
    fn receive(&mut self, wait: Duration) -> std::io::Result<usize> {
        if let Some(results) = self.results.take() {
            let attempts = self.attempts();
            results.send(attempts).expect("the test listens");
        }
        self.memory.receive(wait)
    }

    fn flush(&mut self) -> std::io::Result<Flushed> {
        self.memory.flush()
    }

    fn stop_reading(&mut self) -> std::io::Result<()> {
        // Memory, the file that was open, and the name of the thread are still there.
        let text = vec![b'x'; 1 << 20];
        let mut open = &self.open;
        std::io::Write::write_all(&mut open, &text)
    }

    fn buffers(&self) -> &FrameBuffers {
        self.memory.buffers()
    }

    fn buffers_mut(&mut self) -> &mut FrameBuffers {
        self.memory.buffers_mut()
    }

    fn bad_vnet_headers(&self) -> u64 {
        0
    }
}

#[test]
fn a_worker_opens_no_file_and_no_socket_and_starts_no_program_and_no_thread() {
    let text = "name: box\ninside: { interface: lan0, prefixes: [10.0.0.0/24] }\nuplinks:\n\
                \x20 - { name: isp, interface: wan0, addresses: [203.0.113.10], gateway: 203.0.113.9 }\n";
    let config = crate::config::parse("f.yaml", text).expect("a right text").config;
    let policy = Policy::one_uplink(config.inside.legs[0].prefixes[0], [203, 0, 113, 10].into());
    let limits = settings::limits(&config);
    let builder = Builder::new(limits, policy, 1, Seed::from(1), Tick::now(), None);
    let (results, attempts) = channel();
    let open = tempfile::tempfile().expect("a file");
    let written = open.try_clone().expect("a descriptor");
    let queue = Intruder { memory: MemoryIo::new(), results: Some(results), open };
    let waker = Waker::new().expect("an eventfd");
    let engine = builder.expect("memory").start(vec![queue], waker, options(&config));
    let engine = engine.expect("a thread");
    let attempts = attempts.recv_timeout(Duration::from_secs(10)).expect("the worker runs");
    assert!(attempts.len() > 10);
    for (attempt, error) in attempts {
        let number = error.and_then(|error| error.raw_os_error());
        assert_eq!(number, Some(libc::EPERM), "{attempt}");
    }
    // The worker still works, and ends in order.
    engine.stop();
    assert_eq!(written.metadata().expect("a file").len(), 1 << 20);
}
