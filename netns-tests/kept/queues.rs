//! Packets that arrive while no process of a box runs (`state.keep`) wait in the queues of the TUN
//! device, and the next process translates them.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use natbox::lab::boxes::NatBox;
use natbox::lab::topology::{CLIENTS, ThreeLeggedPlan};

use crate::lab::{BoxConfig, NATBOX, Site, datagrams, output, wait_for};

const PORT: u16 = 9000;
/// Time without a process: longer than a supervisor needs.
const GAP: Duration = Duration::from_millis(300);
/// Packets that a process has read and not written when it is killed: one batch and what the ring
/// has read ahead.
const IN_FLIGHT: usize = 128;

/// The TUN device of a box.
#[derive(Clone, Copy, Debug)]
struct Tun {
    io: &'static str,
    workers: u16,
    offload: &'static str,
}

impl Tun {
    const fn new(io: &'static str, workers: u16) -> Tun {
        Tun { io, workers, offload: "auto" }
    }
}

/// A box that keeps its sessions, with a published UDP port.
struct Testbed {
    site: Site,
    config: BoxConfig,
    sink: UdpSocket,
}

impl Testbed {
    fn new(tun: Tun) -> Result<Testbed> {
        let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
        let server = site.server_address(0);
        let sink = datagrams(site.server(), server, PORT)?;
        sink.set_read_timeout(Some(Duration::from_millis(300)))?;
        let config = Self::config(&site, tun);
        Ok(Testbed { site, config, sink })
    }

    fn config(site: &Site, Tun { io, workers, offload }: Tun) -> BoxConfig {
        let to = site.server_address(0);
        let forward = format!("name: flow, uplink: isp1, protocol: udp, port: {PORT}, to: {to}");
        let directory = site.lab.directory().join("state");
        let mut config = site.three_legged_config().keeping(&directory).forward_as(&forward);
        (config.io, config.workers, config.offload) = (io, workers.to_string(), offload);
        config
    }

    fn start(&self) -> Result<NatBox> {
        self.site.start(0, &self.config)
    }

    /// Sends numbers to the published port until the flow is stopped.
    fn flow(&self) -> Result<Flow> {
        let socket = datagrams(self.site.client(), CLIENTS[0], 0)?;
        socket.connect((self.site.uplink(0).published, PORT))?;
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU32::new(0));
        let (flag, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let sender = thread::spawn(move || -> Result<u32> {
            while !flag.load(Ordering::Relaxed) {
                socket.send(&count.load(Ordering::Relaxed).to_be_bytes())?;
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(200));
            }
            Ok(count.load(Ordering::Relaxed))
        });
        Ok(Flow { stop, sent, sender })
    }

    /// Stops a flow. Returns how many of its numbers have not arrived.
    fn lost(&self, flow: Flow) -> Result<usize> {
        flow.stop.store(true, Ordering::Relaxed);
        let sent = flow.sender.join().map_err(|_| anyhow!("the sender panicked"))??;
        let mut missing: BTreeSet<u32> = (0..sent).collect();
        let mut number = [0; 4];
        while self.sink.recv(&mut number).is_ok() {
            missing.remove(&u32::from_be_bytes(number));
        }
        ensure!(sent > 100, "only {sent} datagrams were sent");
        Ok(missing.len())
    }
}

/// The keeper must not outlive the test.
impl Drop for Testbed {
    fn drop(&mut self) {
        let _ = self.site.down(&self.config);
    }
}

struct Flow {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    sender: JoinHandle<Result<u32>>,
}

fn packets_wait_for_the_next_process(tun: Tun) -> Result<()> {
    let testbed = Testbed::new(tun)?;
    let mut natbox = testbed.start()?;
    for round in 0..3 {
        let flow = testbed.flow()?;
        thread::sleep(Duration::from_millis(100));
        natbox.process().kill()?;
        thread::sleep(GAP);
        natbox = testbed.start()?;
        let lost = testbed.lost(flow)?;
        ensure!(lost <= IN_FLIGHT, "kill {round}: {lost} are lost");

        let flow = testbed.flow()?;
        thread::sleep(Duration::from_millis(100));
        natbox.process().terminate()?;
        thread::sleep(GAP);
        natbox = testbed.start()?;
        let lost = testbed.lost(flow)?;
        ensure!(lost == 0, "restart {round}: {lost} are lost");
    }
    Ok(())
}

#[test]
fn packets_wait_for_the_next_process_with_io_uring() -> Result<()> {
    packets_wait_for_the_next_process(Tun::new("uring", 2))
}

#[test]
fn packets_wait_for_the_next_process_with_poll() -> Result<()> {
    packets_wait_for_the_next_process(Tun::new("poll", 1))
}

/// The next process may have more or fewer queues, another backend and other offloads.
#[test]
fn kept_queues_serve_another_configuration() -> Result<()> {
    let mut testbed = Testbed::new(Tun::new("uring", 2))?;
    let mut natbox = testbed.start()?;
    let without_offload = Tun { offload: "none", ..Tun::new("uring", 1) };
    for tun in [Tun::new("poll", 4), without_offload, Tun::new("poll", 2)] {
        natbox.process().terminate()?;
        testbed.config = Testbed::config(&testbed.site, tun);
        natbox = testbed.start()?;
        let flow = testbed.flow()?;
        thread::sleep(Duration::from_millis(400));
        let lost = testbed.lost(flow)?;
        ensure!(lost == 0, "{tun:?}: {lost} are lost");
    }
    Ok(())
}

/// Returns the process that holds the queues of a testbed's box.
fn keeper(testbed: &Testbed) -> Result<Option<i32>> {
    process(testbed, "keep-descriptors")
}

/// Returns a process of a testbed's box whose command line has these words.
fn process(testbed: &Testbed, words: &str) -> Result<Option<i32>> {
    let mut list = std::process::Command::new("ip");
    list.args(["netns", "pids", testbed.site.uplink(0).natbox.name()]);
    let has_words = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        // Not a process that is about to become natbox.
        (line.starts_with(NATBOX) || line.starts_with("natbox")) && line.contains(words)
    };
    Ok(output(list)?.lines().filter_map(|pid| pid.trim().parse().ok()).find(has_words))
}

/// Without its keeper a box loses the packets of the gap, and nothing else. The next process has a
/// keeper again.
#[test]
fn a_killed_keeper_is_replaced_at_the_next_start() -> Result<()> {
    let testbed = Testbed::new(Tun::new("auto", 2))?;
    let mut natbox = testbed.start()?;
    let first = keeper(&testbed)?.ok_or_else(|| anyhow!("no keeper runs"))?;
    let pid = rustix::process::Pid::from_raw(first).ok_or_else(|| anyhow!("{first}"))?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
    natbox.process().kill()?;
    natbox = testbed.start()?;
    let second = wait_for("the keeper", || keeper(&testbed))?;
    ensure!(second != first);
    let flow = testbed.flow()?;
    thread::sleep(Duration::from_millis(100));
    natbox.process().terminate()?;
    thread::sleep(GAP);
    let _natbox = testbed.start()?;
    let lost = testbed.lost(flow)?;
    ensure!(lost == 0, "{lost} are lost");
    Ok(())
}

/// The network namespace of a container is another one after each start.
#[test]
fn a_process_in_another_network_namespace_makes_a_device_of_its_own() -> Result<()> {
    let first = Testbed::new(Tun::new("auto", 2))?;
    first.start()?.process().kill()?;
    let mut second = Testbed::new(Tun::new("auto", 2))?;
    second.config = second.config.clone().keeping(&first.site.lab.directory().join("state"));
    let mut natbox = second.start()?;
    for _ in 0..2 {
        let flow = second.flow()?;
        wait_for("the flow", || Ok((flow.sent.load(Ordering::Relaxed) > 200).then_some(())))?;
        let lost = second.lost(flow)?;
        ensure!(lost == 0, "{lost} are lost");
        // From here on the kept queues are those of the second namespace.
        natbox.process().terminate()?;
        natbox = second.start()?;
    }
    Ok(())
}

/// A start without `state.keep` removes what a process with it has left.
#[test]
fn a_start_without_keep_removes_what_is_kept() -> Result<()> {
    let testbed = Testbed::new(Tun::new("auto", 2))?;
    testbed.start()?.process().terminate()?;
    ensure!(keeper(&testbed)?.is_some(), "no keeper runs");
    let state = testbed.site.lab.directory().join("state");
    let without = format!("state: {{ keep: false, directory: {} }}", state.display());
    let mut natbox = testbed.site.start(0, &testbed.site.three_legged_config().extra(&without))?;
    ensure!(keeper(&testbed)?.is_none(), "the keeper runs");
    ensure!(!state.join("natbox1").exists());
    natbox.process().terminate()?;
    let links = testbed.site.uplink(0).natbox.ip_output(&["link"])?;
    ensure!(!links.contains("nb1"), "{links}");
    Ok(())
}

/// natbox mounts a file system with huge pages on a directory that it makes, if the mount is
/// visible to the next process. Here natbox is process 1 of a container.
#[test]
fn a_new_directory_is_a_file_system_with_huge_pages() -> Result<()> {
    let testbed = Testbed::new(Tun::new("auto", 1))?;
    let directory = testbed.site.lab.directory();
    std::fs::remove_dir(directory.join("state"))?;
    let file = directory.join("container.yaml");
    let socket = directory.join("container.sock").display().to_string();
    let text = testbed.config.text().replace("sessions: 20000", "sessions: 200000");
    std::fs::write(&file, format!("{text}admin: {{ socket: {socket} }}\n"))?;
    let host = &testbed.site.uplink(0).natbox;
    let mut command = host.command("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(NATBOX).arg("run").arg("-c").arg(&file);
    let _container = host.spawn("container", command)?;
    let pid = wait_for("natbox", || process(&testbed, "natbox run"))?;
    wait_for("the session files", || {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
        Ok(maps.contains("/state/natbox1/records").then_some(()))
    })?;
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mounts"))?;
    let ours = format!(" {} tmpfs ", directory.join("state").display());
    let mount = mounts.lines().find(|line| line.contains(&ours)).unwrap_or_default();
    ensure!(mount.starts_with("natbox ") && mount.contains("huge=within_size"), "{mounts}");
    // The records alone have 12 MiB. No page of them is mapped yet.
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let huge = memory.lines().find(|line| line.starts_with("ShmemHugePages:")).unwrap_or_default();
    let kilobytes = huge.split_whitespace().nth(1).unwrap_or("0").parse::<u64>()?;
    ensure!(kilobytes >= 8192, "{huge}");
    Ok(())
}
