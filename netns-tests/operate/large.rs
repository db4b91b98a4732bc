//! A large table: listed, counted, grouped and ended in part while packets flow.
//!
//! `NATBOX_SESSIONS=10000000` makes the table as large as that. The test prints what it measured.

#![allow(clippy::print_stdout, reason = "the figures are for a person")]

use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use natbox::api::BatchTimesStatus;
use natbox::packet::{Protocol, builder};

use super::site::Operated;
use crate::single_box::{DATAGRAMS, Injector, seconds};

/// Sessions without [`SESSIONS`].
const DEFAULT: u64 = 40_000;
/// Variable with another number of sessions.
const SESSIONS: &str = "NATBOX_SESSIONS";
/// Clients, each with a session from each of its ports.
const CLIENTS: u64 = 250;
/// Most memory of a listing, in kilobytes.
const MOST_MEMORY: i64 = 64 << 10;
/// Longest round trip of a packet during a command, on a busy machine.
const LONGEST: Duration = Duration::from_millis(500);

/// Round trips of a conversation through the box.
#[derive(Default)]
struct RoundTrips {
    answered: AtomicU64,
    lost: AtomicU64,
    longest: AtomicU64,
}

impl RoundTrips {
    /// Starts a new period, and returns the losses and the longest round trip of the one before.
    fn take(&self) -> (u64, Duration) {
        let longest = self.longest.swap(0, Ordering::Relaxed);
        (self.lost.swap(0, Ordering::Relaxed), Duration::from_micros(longest))
    }

    /// Exchanges datagrams until `stop`.
    fn exchange(&self, socket: &UdpSocket, stop: &AtomicBool) {
        for number in 0_u32.. {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let sent = Instant::now();
            socket.send(&number.to_be_bytes()).unwrap();
            // A late answer to an earlier datagram is no answer to this one.
            let mut answer = [0; 4];
            let is_answered = loop {
                match socket.recv(&mut answer) {
                    Ok(_) if answer == number.to_be_bytes() => break true,
                    Ok(_) => {}
                    Err(_) => break false,
                }
            };
            let counter = if is_answered { &self.answered } else { &self.lost };
            counter.fetch_add(1, Ordering::Relaxed);
            self.longest.fetch_max(sent.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_large_table_is_listed_and_ended_in_part_while_packets_flow() {
    let wanted = std::env::var(SESSIONS).map_or(DEFAULT, |text| text.parse().unwrap());
    assert!(wanted / CLIENTS < 60_000, "{SESSIONS}: too many for the ports of {CLIENTS} clients");
    let operated = Operated::start_with(&format!("{}", wanted + 1000), "timeouts: { udp: 2h }\n");
    fill(&operated, wanted);
    let (trips, stop) = (RoundTrips::default(), AtomicBool::new(false));
    let socket = operated.datagram();
    socket.set_read_timeout(Some(seconds(1))).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| operated.answer_datagrams(&stop));
        scope.spawn(|| trips.exchange(&socket, &stop));
        // The checks run in a function, so that a failure also stops the threads.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            commands(&operated, &trips, wanted);
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs each command and compares packets and batches with the time before.
fn commands(operated: &Operated, trips: &RoundTrips, wanted: u64) {
    let times = || operated.running.status().batch_times;
    let before = times();
    trips.take();
    std::thread::sleep(seconds(2));
    let (lost, longest) = trips.take();
    report("before", lost, longest, &before, &times(), None);
    let third = format!("to :{DATAGRAMS} client 198.18.0.0/26");
    let all = wanted + 1;
    let steps: [(&[&str], Option<u64>); 5] = [
        (&["sessions", "--json-lines"], Some(all)),
        (&["sessions", "--count", &third], None),
        (&["sessions", "--group-by", "client", "--top", "5"], None),
        (&["sessions", "--top", "10", "--sort", "idle"], None),
        (&["kill", "--yes", &third], None),
    ];
    for (arguments, lines) in steps {
        let before = times();
        let (found, memory, took) = run(operated, arguments);
        let (lost, longest) = trips.take();
        report(&arguments.join(" "), lost, longest, &before, &times(), Some((memory, took)));
        assert!(lines.is_none_or(|wanted| found == wanted), "{arguments:?}: {found} lines");
        assert!(memory <= MOST_MEMORY, "{arguments:?}: {memory} kB");
        assert!(lost == 0 && longest < LONGEST, "{arguments:?}: {lost} lost, {longest:?}");
    }
    let ended = (0..wanted).filter(|number| number % CLIENTS < 64).count() as u64;
    assert_eq!(operated.count(""), all - ended);
    assert!(trips.answered.load(Ordering::Relaxed) > 100);
}

/// Opens the sessions: one datagram of each tuple, again for those that were lost.
fn fill(operated: &Operated, wanted: u64) {
    let injector = Injector::new(&operated.site);
    let now = || u64::from(operated.running.status().sessions.now);
    let started = Instant::now();
    for _ in 0..20 {
        for number in 0..wanted {
            let client = Ipv4Addr::new(198, 18, 0, (number % CLIENTS) as u8);
            let port = 1024 + (number / CLIENTS) as u16;
            let published = operated.site.endpoint(DATAGRAMS);
            let tuple = builder::tuple(
                Protocol::UDP,
                (client.octets(), port),
                (published.ip().octets(), published.port()),
            );
            injector.send(&builder::udp(tuple, b"x"));
        }
        if now() >= wanted {
            println!("{wanted} sessions open after {:.1?}", started.elapsed());
            return;
        }
    }
    panic!("{} sessions of {wanted}", now());
}

/// Runs a command. Returns the lines of its output, its memory in kilobytes, and its time.
#[allow(clippy::zombie_processes, reason = "`wait` waits, and learns the memory as well")]
fn run(operated: &Operated, arguments: &[&str]) -> (u64, i64, Duration) {
    let started = Instant::now();
    let mut command: Command = operated.command(arguments);
    let mut child = command.stderr(Stdio::inherit()).spawn().unwrap();
    let mut output = std::io::BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
    let mut lines = 0;
    let mut line = Vec::new();
    while std::io::BufRead::read_until(&mut output, b'\n', &mut line).unwrap() != 0 {
        lines += 1;
        line.clear();
    }
    let (code, memory) = wait(child.id());
    assert_eq!(code, 0, "{arguments:?}");
    (lines, memory, started.elapsed())
}

/// Waits for a child process. Returns its wait status and its largest resident size in kilobytes.
#[allow(unsafe_code, reason = "wait4 has no safe interface")]
fn wait(pid: u32) -> (i32, i64) {
    let mut status = 0;
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers lead to locals that live through the call.
    let waited = unsafe { libc::wait4(pid as i32, &raw mut status, 0, &raw mut usage) };
    assert_eq!(waited, pid as i32);
    (status, usage.ru_maxrss)
}

fn report(
    what: &str,
    lost: u64,
    longest: Duration,
    before: &BatchTimesStatus,
    after: &BatchTimesStatus,
    command: Option<(i64, Duration)>,
) {
    let mut batches = before.buckets.iter().zip(&after.buckets);
    let slowest = batches.rfind(|(before, after)| before.batches != after.batches);
    let slowest = slowest.map(|(_, after)| after.up_to_microseconds);
    let command = command
        .map_or_else(String::new, |(memory, took)| format!("; took {took:.2?}, {memory} kB"));
    println!(
        "{what}: longest round trip {longest:.2?}, {lost} lost, longest batch at most {slowest:?} \
         us{command}"
    );
}
