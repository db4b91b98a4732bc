//! The state of a running instance, as the admin socket sends it and `natbox status` shows it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinError;

use super::dns::NameService;
use super::events::Events;
use super::logging;
use super::reload::Reloader;
use super::sessions;
use crate::api::{
    EffectiveConfig, InstanceState, SessionCursor, SessionPage, SessionStatus, Status, TunStatus,
    UplinkStatus, WorkerStatus,
};
use crate::config::{self, Uplink};
use crate::engine::Handle;
use crate::nat::Counters;
use crate::uplinks::{UplinkState, UplinkStates};

/// The parts of the instance that the admin socket and signals reach.
pub(super) struct InstanceHandle {
    pub(super) name: String,
    pub(super) started: Instant,
    pub(super) tun: TunStatus,
    pub(super) uplinks: watch::Receiver<UplinkStates>,
    pub(super) engine: Handle,
    pub(super) reloader: Rc<Reloader>,
    /// None: the configuration has no `dns`.
    pub(super) dns: Option<Rc<NameService>>,
    pub(super) events: Rc<Events>,
}

impl InstanceHandle {
    /// Returns a page of the sessions.
    ///
    /// # Errors
    /// The instance is stopping.
    pub(super) async fn sessions(&self, from: SessionCursor) -> Result<SessionPage, JoinError> {
        // On a thread of its own, because a page may walk a large part of the table.
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || sessions::page(&engine, from)).await
    }

    /// Returns the configuration in use, and the identifiers of routing tables and rules.
    pub(super) fn effective_config(&self) -> EffectiveConfig {
        EffectiveConfig {
            configuration: config::to_yaml(&self.reloader.file_config()),
            routing_ids: Some(self.reloader.routing_ids()),
        }
    }

    /// Returns the present status.
    pub(super) fn status(&self) -> Status {
        let (workers, totals) = (self.engine.counters(), self.engine.totals());
        let occupancy = self.engine.occupancy();
        let config = self.reloader.config();
        let states = self.uplinks.borrow();
        let tier = states.tier_in_use();
        let uplinks = config.uplinks.iter().zip(&states.uplinks);
        let uplinks = uplinks.map(|(settings, state)| uplink(settings, state, tier)).collect();
        Status {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state: InstanceState::Running,
            waiting_for: Vec::new(),
            uptime_seconds: self.started.elapsed().as_secs(),
            tun: self.tun.clone(),
            inside: self.reloader.legs(),
            uplinks,
            sessions: SessionStatus {
                now: occupancy.sessions,
                capacity: occupancy.capacity,
                created: totals.sessions_created,
                expired: totals.sessions_expired,
                evicted: totals.sessions_evicted,
            },
            mappings: occupancy.mappings,
            totals: by_name(&totals),
            drops: drops(&totals),
            log_lines_dropped: occupancy.mapping_events_lost + logging::dropped_lines(),
            workers: workers
                .iter()
                .map(|counters| WorkerStatus {
                    counters: by_name(counters),
                    drops: drops(counters),
                })
                .collect(),
            dns: self.dns.as_ref().and_then(|dns| dns.status()),
        }
    }

    /// Logs the most important counters.
    pub(super) fn log_counters(&self) {
        let (totals, occupancy) = (self.engine.totals(), self.engine.occupancy());
        let dropped: u64 = totals.drops.iter().map(|(_, count)| count).sum();
        tracing::info!(
            sessions = occupancy.sessions,
            mappings = occupancy.mappings,
            created = totals.sessions_created,
            packets_in = totals.packets_in,
            packets_out = totals.packets_out,
            dropped,
            "status"
        );
    }
}

/// `tier`: the tier in use.
fn uplink(settings: &Uplink, state: &UplinkState, tier: Option<u32>) -> UplinkStatus {
    UplinkStatus {
        name: settings.name.clone(),
        interface: settings.interface.clone(),
        address: settings.addresses.first().copied(),
        tier: state.tier,
        in_use: state.up && Some(state.tier) == tier,
        healthy: state.up,
        state_seconds: state.since.elapsed().as_secs(),
        link_ready: state.link_ready,
        health_check: settings.health.is_some(),
        latency_milliseconds: state.latency.map(|latency| latency.as_secs_f64() * 1000.0),
        loss_percent: state.loss.map(|share| share * 100.0),
    }
}

fn by_name(counters: &Counters) -> BTreeMap<String, u64> {
    Counters::NAMES.iter().map(|name| (*name).to_owned()).zip(counters.values()).collect()
}

fn drops(counters: &Counters) -> BTreeMap<String, u64> {
    let occurred = counters.drops.iter().filter(|(_, count)| *count != 0);
    occurred.map(|(reason, count)| (reason.name().to_owned(), count)).collect()
}
