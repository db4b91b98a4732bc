//! What the kernel's devices and natbox count.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use natbox::api::Status;
use natbox::lab::Namespace;

use super::flows::Way;
use super::testbed::Testbed;

/// The queue of the TUN device: packets that the kernel has routed to natbox and natbox has not
/// read.
pub(crate) struct TunQueue {
    table: File,
    /// Difference between the counters while the queue was empty: frames that are not for natbox.
    offset: i64,
}

impl TunQueue {
    /// Opens the counters of a box at a moment at which no packet waits.
    pub(crate) fn open(middle: &Namespace) -> Result<TunQueue> {
        // /proc/net would show the namespace of the main thread.
        let table = middle.enter(|| File::open("/proc/thread-self/net/dev"))??;
        let mut queue = TunQueue { table, offset: 0 };
        queue.offset = queue.waiting()?;
        Ok(queue)
    }

    /// Waits until at most `max_queued` packets wait.
    pub(crate) fn wait_for_space(&mut self, max_queued: i64) -> Result<()> {
        let started = Instant::now();
        while self.waiting()? > max_queued {
            if started.elapsed() > READ_TIMEOUT {
                // The kernel has dropped frames before they reached the queue.
                self.offset += self.waiting()?;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Packets that the interfaces have received, less those that have left the queue.
    fn waiting(&self) -> Result<i64> {
        let mut table = [0; 4096];
        let length = self.table.read_at(&mut table, 0)?;
        let table = std::str::from_utf8(&table[..length])?;
        let found = |device| figures(table, device).context("an interface of the box is gone");
        let (wan, lan, tun) = (found("wan0")?, found("lan0")?, found(TUN)?);
        let came = i64::try_from(wan.received + lan.received)?;
        let left = i64::try_from(tun.sent + tun.lost)?;
        Ok(came - left - self.offset)
    }
}

/// Packets that a device has received, has sent, and has lost because the queue of the receiver was
/// full. A TUN device sends to natbox.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub received: u64,
    pub sent: u64,
    pub lost: u64,
}

impl Figures {
    fn since(self, before: Figures) -> Figures {
        Figures {
            received: self.received - before.received,
            sent: self.sent - before.sent,
            lost: self.lost - before.lost,
        }
    }

    fn loss(self) -> f64 {
        self.lost as f64 / (self.sent + self.lost).max(1) as f64
    }
}

/// The devices on the ways of the flows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Devices {
    client: Figures,
    server: Figures,
    wan: Figures,
    lan: Figures,
    /// All zeros without natbox.
    pub tun: Figures,
}

impl Devices {
    pub(crate) fn read(testbed: &Testbed) -> Result<Devices> {
        let table = |namespace: &Namespace| -> Result<String> {
            Ok(namespace.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??)
        };
        let (client, middle, server) =
            (table(&testbed.client)?, table(&testbed.middle)?, table(&testbed.server)?);
        let found = |table, device| figures(table, device).context("an interface of the testbed");
        Ok(Devices {
            client: found(&client, "eth0")?,
            server: found(&server, "eth0")?,
            wan: found(&middle, "wan0")?,
            lan: found(&middle, "lan0")?,
            tun: figures(&middle, TUN).unwrap_or_default(),
        })
    }

    pub(crate) fn since(&self, before: &Devices) -> Devices {
        Devices {
            client: self.client.since(before.client),
            server: self.server.since(before.server),
            wan: self.wan.since(before.wan),
            lan: self.lan.since(before.lan),
            tun: self.tun.since(before.tun),
        }
    }

    /// Returns the share of the packets that the kernel's queues have lost on a way: the machine's
    /// own limit.
    pub(crate) fn loss(&self, way: Way) -> f64 {
        1.0 - self.queues(way).map(|queue| 1.0 - queue.loss()).iter().product::<f64>()
    }

    /// Returns the number of packets that the kernel's queues have lost on a way.
    pub(crate) fn lost(&self, way: Way) -> u64 {
        self.queues(way).map(|queue| queue.lost).iter().sum()
    }

    fn queues(&self, way: Way) -> [Figures; 3] {
        match way {
            Way::Inbound => [self.client, self.tun, self.lan],
            Way::Outbound => [self.server, self.tun, self.wan],
        }
    }
}

/// Reads a row of the kernel's table. Columns: received bytes, packets, errors, drops, ...; from
/// the ninth on the same of what was sent.
fn figures(table: &str, device: &str) -> Option<Figures> {
    let row = table.lines().find_map(|line| {
        let (name, figures) = line.split_once(':')?;
        (name.trim() == device).then_some(figures)
    })?;
    let figure = |column| row.split_whitespace().nth(column)?.parse().ok();
    Some(Figures { received: figure(1)?, sent: figure(9)?, lost: figure(11)? })
}

/// natbox and the devices at a moment at which no packet is under way.
pub(crate) struct Snapshot {
    pub status: Status,
    pub devices: Devices,
    /// Resident memory of the process, in KiB.
    pub resident: u64,
    /// Time that the process has spent in its own code.
    pub user_time: Duration,
}

impl Snapshot {
    /// Waits until the counters add up, at most [`SETTLE`].
    pub(crate) fn settled(testbed: &Testbed) -> Result<Snapshot> {
        let natbox = testbed.natbox.as_ref().context("natbox runs")?;
        let deadline = Instant::now() + SETTLE;
        loop {
            let (devices, status) = (Devices::read(testbed)?, natbox.status()?);
            let (resident, user_time) = process(status.pid)?;
            let snapshot = Snapshot { status, devices, resident, user_time };
            if snapshot.adds_up() || Instant::now() >= deadline {
                return Ok(snapshot);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Tells whether natbox's counters add up to the packet: with those of the device, and with
    /// each other. Every packet that natbox has read, and every error of its own, has left or was
    /// dropped.
    pub(crate) fn adds_up(&self) -> bool {
        let Sums { read, answered, dropped, sent } = Sums::of(&self.status);
        let Figures { sent: passed, received, .. } = self.devices.tun;
        read + answered == sent + dropped && (read, sent) == (passed, received)
    }

    /// Returns the number of packets dropped for a reason.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.status.drops.get(reason).copied().unwrap_or(0)
    }
}

/// Sums of natbox's counters.
#[derive(Debug)]
pub(crate) struct Sums {
    /// Packets that natbox has read.
    pub read: u64,
    /// Packets that natbox itself has made.
    pub answered: u64,
    pub dropped: u64,
    pub sent: u64,
}

impl Sums {
    pub(crate) fn of(Status { totals, drops, .. }: &Status) -> Sums {
        let total = |name| totals.get(name).copied().unwrap_or(0);
        Sums {
            read: total("packets_in") + drops.get("bad-vnet-header").unwrap_or(&0),
            answered: total("icmp_errors_sent") + total("failover_notifications"),
            dropped: drops.values().sum(),
            sent: total("packets_out"),
        }
    }
}

/// Returns the resident memory in KiB and the time in user mode of a process.
fn process(pid: u32) -> Result<(u64, Duration)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|text| text.split_whitespace().next()).context("VmRSS")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program may contain blanks. The time is the twelfth word behind it.
    let ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(11));
    let ticks: u64 = ticks.context("utime")?.parse()?;
    Ok((resident.parse()?, Duration::from_millis(ticks * 1000 / USER_HZ)))
}

/// Name of natbox's device.
const TUN: &str = "nb0";
/// Longest time until no packet is under way: fragments wait for 1 s, and workers publish their
/// counters when they wake.
const SETTLE: Duration = Duration::from_secs(20);
/// Ticks in a second of the times in `/proc`, on every architecture that natbox runs on.
const USER_HZ: u64 = 100;
/// Longest wait until the queue has space.
const READ_TIMEOUT: Duration = Duration::from_millis(200);
/// Time between two looks at the queue.
const POLL_INTERVAL: Duration = Duration::from_micros(50);
const POLL: Duration = Duration::from_millis(50);
