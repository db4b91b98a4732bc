//! The state of a running box in one snapshot: what `natbox status` shows and the admin socket answers.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::engine::SharedCounters;
use crate::nat::{Counters, Translator};
use crate::time::Tick;

use super::dns::Running;
use super::events::Events;
use super::health::{UplinkHealth, UplinkHealths};
use super::logging;
use super::reload::Reloader;
use super::sessions;
use crate::api::{
    EffectiveConfig, SessionCursor, SessionPage, SessionStatus, Status, TunStatus, UplinkStatus,
    WorkerStatus,
};
use crate::config::{self, Uplink};

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
