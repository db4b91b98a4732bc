//! The state of a running box in one snapshot: what `natbox status` shows and the admin socket answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::engine::SharedCounters;
use crate::host::RoutingIds;
use crate::nat::{Counters, Translator};
use crate::time::Tick;

use super::dns::{DnsStatus, Running};
use super::events::Events;
use super::health::{UplinkHealth, UplinkHealths};
use super::logging;
use super::reload::Reloader;
use super::sessions::{self, SessionCursor, SessionPage};
use crate::config::{self, Uplink};

/// A box at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the box.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since it was ready.
    pub uptime_seconds: u64,
    /// The TUN device.
    pub tun: TunStatus,
    /// The lines, in the order of the configuration.
    pub uplinks: Vec<UplinkStatus>,
    /// Sessions.
    pub sessions: SessionStatus,
    /// Dynamic mappings alive.
    pub mappings: usize,
    /// Sums over the workers, by name of the counter.
    pub totals: BTreeMap<String, u64>,
    /// Packets dropped, by reason; reasons that never occurred are left out.
    pub drops: BTreeMap<String, u64>,
    /// Lines of the log, the mapping log's included, that were lost because nobody read them in time.
    pub log_lines_dropped: u64,
    /// Each worker on its own.
    pub workers: Vec<WorkerStatus>,
    /// The name server, if the box has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsStatus>,
}

/// What a box lives by: enough to tell what its host should look like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EffectiveConfig {
    /// The configuration as a file, with all defaults.
    pub configuration: String,
    /// The numbers of its tables and rules.
    pub routing_ids: RoutingIds,
}

/// The TUN device of a box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunStatus {
    /// Interface name.
    pub name: String,
    /// The I/O backend in use.
    pub io: String,
    /// The rung of the offload ladder that was found.
    pub offload: String,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Its name.
    pub name: String,
    /// Its interface.
    pub interface: String,
    /// Its first external address; null: it has none.
    #[serde(default)]
    pub address: Option<Ipv4Addr>,
    /// Whether it is used for what begins.
    pub healthy: bool,
    /// Seconds since it has been so, or not.
    pub state_seconds: u64,
    /// Whether packets can leave by it: its interface is up, has an address, and somebody to give them to.
    pub link_ready: bool,
    /// Whether it is asked for its health, and not only its interface watched.
    pub health_check: bool,
    /// Smoothed time of an answer; null: there was none yet.
    pub latency_milliseconds: Option<f64>,
    /// Of the last 100 probes; null: there was none yet.
    pub loss_percent: Option<f64>,
}

/// Sessions of a box.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Alive now.
    pub now: u32,
    /// At most.
    pub capacity: u32,
    /// Added since the start.
    pub created: u64,
    /// Ended by their timeout.
    pub expired: u64,
    /// Ended early to make room.
    pub evicted: u64,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Its drops by reason.
    pub drops: BTreeMap<String, u64>,
}

/// Where a status comes from.
pub(super) struct InstanceHandle {
    pub(super) name: String,
    pub(super) started: Instant,
    pub(super) tun: TunStatus,
    pub(super) lines: UplinkHealths,
    pub(super) nat: Arc<ArcSwap<Translator>>,
    pub(super) reloader: Reloader,
    pub(super) published: Vec<Arc<SharedCounters>>,
    pub(super) dns: Running,
    pub(super) events: Rc<Events>,
}

impl InstanceHandle {
    /// Sums of all workers.
    pub(super) fn totals(&self) -> Counters {
        let mut totals = Counters::default();
        for published in &self.published {
            totals.add(&published.read());
        }
        totals
    }

    /// A page of the sessions.
    pub(super) fn sessions(&self, from: SessionCursor) -> SessionPage {
        sessions::page(&self.nat.load(), from, Tick::now())
    }

    pub(super) fn effective_config(&self) -> EffectiveConfig {
        EffectiveConfig {
            configuration: config::to_yaml(&self.reloader.written()),
            routing_ids: self.reloader.routing_ids(),
        }
    }

    pub(super) fn status(&self) -> Status {
        let workers: Vec<Counters> =
            self.published.iter().map(|published| published.read()).collect();
        let mut totals = Counters::default();
        workers.iter().for_each(|counters| totals.add(counters));
        let nat = self.nat.load();
        let table = nat.table();
        Status {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            tun: self.tun.clone(),
            uplinks: self
                .reloader
                .config()
                .uplinks
                .iter()
                .zip(self.lines.borrow().iter())
                .map(uplink)
                .collect(),
            sessions: SessionStatus {
                now: table.len(),
                capacity: table.capacity(),
                created: totals.sessions_created,
                expired: totals.sessions_expired,
                evicted: totals.sessions_evicted,
            },
            mappings: nat.mappings(),
            totals: by_name(&totals),
            drops: drops(&totals),
            log_lines_dropped: nat.mapping_events_lost() + logging::lost_lines(),
            workers: workers
                .iter()
                .map(|counters| WorkerStatus {
                    counters: by_name(counters),
                    drops: drops(counters),
                })
                .collect(),
            dns: self.dns.status(),
        }
    }
}

fn uplink((settings, line): (&Uplink, &UplinkHealth)) -> UplinkStatus {
    UplinkStatus {
        name: settings.name.clone(),
        interface: settings.interface.clone(),
        address: settings.addresses.first().copied(),
        healthy: line.is_healthy(),
        state_seconds: line.since().elapsed().as_secs(),
        link_ready: line.has_carrier(),
        health_check: settings.health.is_some(),
        latency_milliseconds: line.latency().map(|latency| latency.as_secs_f64() * 1000.0),
        loss_percent: line.loss().map(|share| share * 100.0),
    }
}

fn by_name(counters: &Counters) -> BTreeMap<String, u64> {
    Counters::NAMES.iter().map(|name| (*name).to_owned()).zip(counters.values()).collect()
}

fn drops(counters: &Counters) -> BTreeMap<String, u64> {
    let occurred = counters.drops.iter().filter(|(_, count)| *count != 0);
    occurred.map(|(reason, count)| (reason.name().to_owned(), count)).collect()
}
