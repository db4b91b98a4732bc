//! A box under mixed traffic while everything around it goes wrong, in a random order: an uplink
//! fails, the process is killed, the device vanishes, the clock jumps, and so on.
//!
//! Throughout, no payload reaches another session than its own, no reply leaves by a wrong uplink,
//! and sessions live on wherever a session can. After each fault all traffic flows again. At the
//! end the counters add up, memory has not grown, and the host is as it was.
//!
//! `NATBOX_CHAOS_SECONDS=3600 netns-tests/run chaos` goes on for an hour, `NATBOX_CHAOS_SEED=7`
//! draws another order.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use natbox::api::Status;
use natbox::lab::boxes::NatBox;
use natbox::lab::capture::Capture;
use natbox::lab::interrupt::Interrupt;
use natbox::lab::topology::{ThreeLeggedPlan, TopologyUplink};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::lab::{BoxConfig, NATBOX, Site, wait_for};
use faults::Fault;
use traffic::Traffic;

mod faults;
mod traffic;

#[test]
fn traffic_goes_on_whatever_goes_wrong() -> Result<()> {
    let (seconds, seed) =
        (variable("NATBOX_CHAOS_SECONDS", 120)?, variable("NATBOX_CHAOS_SEED", 1)?);
    let mut random = StdRng::seed_from_u64(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut testbed = Testbed::new()?;
    let before = testbed.host_state()?;
    testbed.start()?;
    let traffic = Traffic::start(&testbed.site)?;
    let watches = [Watch::start(testbed.uplink(0))?, Watch::start(testbed.uplink(1))?];
    traffic.flows("at the start")?;
    // Each fault once, then any.
    let mut faults = Fault::ALL.to_vec();
    faults.shuffle(&mut random);
    let mut round = 0;
    while round < faults.len() || Instant::now() < end {
        let fault = faults.get(round).copied();
        let fault = fault.unwrap_or_else(|| Fault::ALL[random.random_range(0..Fault::ALL.len())]);
        let uplink = random.random_range(0..2);
        let context = || format!("round {round}, seed {seed}: {fault:?} at uplink {}", uplink + 1);
        let breaks = traffic.breaks();
        fault.inject(&mut testbed, uplink).with_context(context)?;
        traffic.flows("after it").with_context(context)?;
        ensure!(
            fault.may_break_sessions() || traffic.breaks() == breaks,
            "{}: sessions broke: {:?}",
            context(),
            traffic.last_break()
        );
        watches.iter().try_for_each(Watch::check).with_context(context)?;
        testbed.note_memory()?;
        round += 1;
    }
    traffic.stop()?;
    testbed.assert_counters_add_up()?;
    testbed.assert_memory_is_flat()?;
    testbed.stop()?;
    let after = testbed.host_state()?;
    let only = |one: &str, other: &str| {
        one.lines().filter(|line| !other.contains(line)).collect::<Vec<_>>().join("\n")
    };
    let (lost, left) = (only(&before, &after), only(&after, &before));
    ensure!(after == before, "the host has lost\n{lost}\nand has besides\n{left}");
    Ok(())
}

/// Looks at every packet that the box sends to an uplink.
struct Watch {
    /// Packets with the uplink's addresses, and a description of each other one.
    seen: Arc<Mutex<(u64, Vec<String>)>>,
    _capture: Capture,
}

impl Watch {
    fn start(uplink: &TopologyUplink) -> Result<Watch> {
        let seen = Arc::new(Mutex::new((0, Vec::new())));
        let shared = Arc::clone(&seen);
        let (sender, own) = (uplink.sender, [uplink.published, uplink.outside]);
        let capture = Capture::start(&uplink.provider, move |frame| {
            let Some(packet) = frame.ipv4().filter(|_| frame.sender() == sender) else { return };
            let mut seen = shared.lock();
            match own.contains(&packet.source()) {
                true => seen.0 += 1,
                false => seen.1.push(format!("{} > {}", packet.source(), packet.destination())),
            }
        })?;
        Ok(Watch { seen, _capture: capture })
    }

    /// Checks that no packet had the address of another uplink, or a private one.
    fn check(&self) -> Result<()> {
        let seen = self.seen.lock();
        ensure!(
            seen.1.is_empty(),
            "{} packets left by the wrong uplink: {:?}",
            seen.1.len(),
            &seen.1[..1]
        );
        ensure!(seen.0 > 0, "no packet was seen");
        Ok(())
    }
}

fn variable(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| name.to_owned()))
}

/// A box with two uplinks that keeps its sessions, and a hook.
struct Testbed {
    site: Site,
    config: BoxConfig,
    natbox: Option<NatBox>,
    /// Lowest and highest resident memory of a process under traffic, in KiB, by the way it logs.
    memory: BTreeMap<bool, (u64, u64)>,
    /// The process writes its log to a full disk.
    log_is_full: bool,
}

/// The next test with a namespace of the same inode must find no journal.
impl Drop for Testbed {
    fn drop(&mut self) {
        drop(self.natbox.take());
        let _ = self.site.down(&self.config);
    }
}

impl Testbed {
    fn new() -> Result<Testbed> {
        let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
        let directory = site.lab.directory();
        script(
            &hook(directory),
            &format!(
                "echo $PPID $NATBOX_UPLINK $NATBOX_STATE >>{}\n",
                hook_log(directory).display()
            ),
        )?;
        // A clock that jumps as the file says, for the process alone.
        let library = fs::read_dir("/usr/lib")?
            .flatten()
            .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.is_file())
            .context("this test needs libfaketime: netns-tests/run installs it")?;
        set_clock(directory, 0)?;
        let clock = format!(
            "export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1\n",
            library.display(),
            clock(directory).display()
        );
        script(&wrapper(directory, false), &format!("{clock}exec {NATBOX} \"$@\"\n"))?;
        script(
            &wrapper(directory, true),
            &format!("{clock}exec {NATBOX} \"$@\" >/dev/full 2>&1\n"),
        )?;
        let config = configuration(&site);
        Ok(Testbed { site, config, natbox: None, memory: BTreeMap::new(), log_is_full: false })
    }

    fn directory(&self) -> &Path {
        self.site.lab.directory()
    }

    fn uplink(&self, number: usize) -> &TopologyUplink {
        self.site.uplink(number)
    }

    fn natbox(&mut self) -> Result<&mut NatBox> {
        self.natbox.as_mut().context("natbox runs")
    }

    fn status(&self) -> Result<Status> {
        Ok(self.natbox.as_ref().context("natbox runs")?.status()?)
    }

    /// Starts the process and waits until it is ready.
    fn start(&mut self) -> Result<()> {
        let program = wrapper(self.directory(), self.log_is_full);
        let (host, text) = (&self.uplink(0).natbox, self.config.text());
        let mut natbox = NatBox::start(&program, host, self.directory(), NAME, &text)?;
        natbox.wait_ready(&Interrupt::default())?;
        self.natbox = Some(natbox);
        Ok(())
    }

    /// Stops the process for good, with everything that it keeps.
    fn stop(&mut self) -> Result<()> {
        let mut natbox = self.natbox.take().context("natbox runs")?;
        let status = natbox.process().terminate()?;
        ensure!(status.success(), "{status}: {}", natbox.process().log_tail(12));
        self.site.down(&self.config).map(drop)
    }

    /// Rules, routes, interfaces and settings of the box's host.
    fn host_state(&self) -> Result<String> {
        let host = &self.uplink(0).natbox;
        let mut state =
            host.ip_output(&["rule"])? + &host.ip_output(&["route", "show", "table", "all"])?;
        // Without indices and counters.
        state += &host.ip_output(&["-brief", "address"])?;
        for setting in [
            "ip_forward",
            "conf/all/rp_filter",
            "conf/lan0/rp_filter",
            "conf/lan0/forwarding",
            "icmp_msgs_per_sec",
        ] {
            state += &format!("{setting} {}\n", host.read_sysctl(&format!("net/ipv4/{setting}"))?);
        }
        Ok(state)
    }

    /// Notes the resident memory of the process.
    fn note_memory(&mut self) -> Result<()> {
        let now = resident(self.status()?.pid)?;
        let (low, high) = self.memory.entry(self.log_is_full).or_insert((now, now));
        (*low, *high) = ((*low).min(now), (*high).max(now));
        Ok(())
    }

    fn assert_memory_is_flat(&self) -> Result<()> {
        let allowed = |low: u64| low + low / 4 + 4096;
        let is_flat = self.memory.values().all(|(low, high)| *high <= allowed(*low));
        ensure!(is_flat, "resident memory in KiB, by a full log: {:?}", self.memory);
        Ok(())
    }

    /// Checks natbox's counters to the packet once all traffic has ended.
    fn assert_counters_add_up(&self) -> Result<()> {
        wait_for("every packet left, was dropped or was answered", || {
            let Status { totals, drops, .. } = self.status()?;
            let own = totals["icmp_errors_sent"] + totals["failover_notifications"];
            let ended = totals["packets_out"] + drops.values().sum::<u64>();
            Ok((totals["packets_in"] + own == ended).then_some(()))
        })
    }
}

/// Resident memory that belongs to one process, in KiB.
fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn configuration(site: &Site) -> BoxConfig {
    let (server, directory) = (site.server_address(0), site.lab.directory());
    let health = |uplink: usize| {
        let gateway = site.uplink(uplink).gateway;
        // Uplinks that fail again and again are not held out here.
        let hold = "hold: { max: 0s }";
        format!("health: {{ ping: [{gateway}], interval: 300ms, fall: 2, rise: 1, {hold} }}")
    };
    let config = site.three_legged_over(0..2).keeping(&directory.join("state"));
    let config = (0..2).fold(config, |config, uplink| config.uplink(uplink, &health(uplink)));
    let config = config
        .forward("tcp", traffic::PUBLISHED[0], server, traffic::PUBLISHED[0])
        .forward("udp", traffic::PUBLISHED[1], server, traffic::PUBLISHED[1]);
    config.extra(&format!(
        "dns: {{ zone: example.org, names: [{{ name: www }}], listen: false, hook: \"{}\" }}",
        hook(directory).display()
    ))
}

/// Writes a script that can be run.
fn script(path: &Path, commands: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{commands}"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o700))?)
}

fn hook(directory: &Path) -> PathBuf {
    directory.join("hook")
}

fn hook_log(directory: &Path) -> PathBuf {
    directory.join("hook.log")
}

/// The program that runs natbox.
fn wrapper(directory: &Path, log_is_full: bool) -> PathBuf {
    directory.join(if log_is_full { "natbox-full" } else { "natbox" })
}

/// The file that says by how much the process's clock is off.
fn clock(directory: &Path) -> PathBuf {
    directory.join("clock")
}

/// Moves the clock of the process by some days.
fn set_clock(directory: &Path, days: i32) -> Result<()> {
    // A reader never sees half of the file.
    let new = directory.join("clock.new");
    fs::write(&new, format!("{days:+}d\n"))?;
    fs::rename(new, clock(directory))?;
    thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Name of the box.
const NAME: &str = "natbox1";
