//! The state of a running instance, as the admin socket sends it and `natbox status` shows it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use tokio::sync::watch;

use super::dns::NameService;
use super::drops::DropRates;
use super::events::Events;
use super::logging;
use super::reload::Reloader;
use super::sandbox::Sandbox;
use super::warnings::Warnings;
use crate::api::{
    BatchTimesBucket, BatchTimesStatus, EffectiveConfig, HostStatus, InstanceState, SessionStatus,
    Status, TunStatus, UplinkStatus, UplinkTrafficStatus, WorkerStatus,
};
use crate::config::{self, Uplink};
use crate::engine::{BatchTimes, Handle};
use crate::host::HostReport;
use crate::nat::{Counters, UplinkTraffic};
use crate::uplinks::{UplinkState, UplinkStates};

/// The parts of the instance that the admin socket and signals reach.
pub(super) struct InstanceHandle {
    pub(super) name: String,
    pub(super) started: Instant,
    pub(super) tun: TunStatus,
    pub(super) uplinks: watch::Receiver<UplinkStates>,
    pub(super) engine: Handle,
    pub(super) drop_rates: Rc<DropRates>,
    pub(super) reloader: Rc<Reloader>,
    pub(super) dns: Rc<NameService>,
    pub(super) events: Rc<Events>,
    pub(super) warnings: Rc<Warnings>,
    pub(super) host: Rc<HostWatchState>,
    pub(super) sandbox: Sandbox,
}

/// The settings of the host, as of the last look. None with `host.manage: false`.
#[derive(Debug, Default)]
pub(super) struct HostWatchState {
    status: RefCell<Option<HostStatus>>,
    /// Positions of the uplinks that depend on a missing setting.
    failed_uplinks: RefCell<BTreeSet<usize>>,
}

impl HostWatchState {
    /// Makes the state of a host whose settings natbox has just made.
    pub(super) fn new(is_managed: bool) -> Self {
        let status = RefCell::new(is_managed.then(HostStatus::default));
        Self { status, failed_uplinks: RefCell::default() }
    }

    /// Records a look at the host. Returns true when a dispute has begun.
    pub(super) fn record(&self, report: &HostReport) -> bool {
        let mut status = self.status.borrow_mut();
        let Some(status) = status.as_mut() else { return false };
        let begins = status.error.is_none() && report.dispute.is_some();
        status.missing.clone_from(&report.missing);
        self.failed_uplinks.borrow_mut().clone_from(&report.failed_uplinks);
        status.restored += report.restored.len() as u64;
        status.error.clone_from(&report.dispute);
        begins
    }

    /// Returns whether natbox makes the settings of the host.
    pub(super) fn is_managed(&self) -> bool {
        self.status.borrow().is_some()
    }

    fn get(&self) -> Option<HostStatus> {
        self.status.borrow().clone()
    }

    /// Returns true when an uplink depends on a missing setting.
    fn is_setting_missing(&self, uplink: usize) -> bool {
        self.failed_uplinks.borrow().contains(&uplink)
    }
}

impl InstanceHandle {
    /// Returns the configuration in use, and the identifiers of routing tables and rules.
    pub(super) fn effective_config(&self) -> EffectiveConfig {
        EffectiveConfig {
            configuration: config::to_yaml(&self.reloader.file_config()),
            routing_ids: Some(self.reloader.routing_ids()),
            uplink_numbers: self.reloader.file_config().uplink_numbers(),
        }
    }

    /// Returns the present status.
    pub(super) fn status(&self) -> Status {
        let (workers, totals) = (self.engine.counters(), self.engine.totals());
        let (occupancy, ended) = (self.engine.occupancy(), self.events.ended_sessions());
        Status {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state: InstanceState::Running,
            waiting_for: Vec::new(),
            uptime_seconds: self.started.elapsed().as_secs(),
            tun: self.tun.clone(),
            inside: self.reloader.legs(),
            pending_reload: self.reloader.confirmation().status(),
            uplinks: self.uplink_statuses(),
            sessions: SessionStatus {
                now: occupancy.sessions,
                capacity: occupancy.capacity,
                accounting: occupancy.accounting,
                created: totals.sessions_created,
                expired: totals.sessions_expired,
                evicted: totals.sessions_evicted,
                ended_by_failover: ended.by_failover,
                ended_by_changes: ended.by_changes,
            },
            mappings: occupancy.mappings,
            totals: by_name(&totals),
            drops: drops(&totals),
            log_lines_dropped: occupancy.mapping_events_lost + logging::dropped_lines(),
            warnings: self.warnings.all(),
            batch_times: batch_times(&self.engine.batch_times()),
            workers: workers
                .iter()
                .map(|counters| WorkerStatus {
                    counters: by_name(counters),
                    drops: drops(counters),
                })
                .collect(),
            host: self.host.get(),
            sandbox: Some(self.sandbox.status()),
            dns: self.dns.status(),
        }
    }

    fn uplink_statuses(&self) -> Vec<UplinkStatus> {
        let config = self.reloader.config();
        let states = self.uplinks.borrow();
        // A reload may be between its change of the configuration and that of the states.
        let with_state = |(place, settings): (usize, _)| {
            let settings: &Uplink = settings;
            states.named(&settings.name).map(|state| (place, settings, state))
        };
        let uplinks = config.uplinks.iter().enumerate().filter_map(with_state);
        let uplinks = uplinks.map(|(place, settings, state)| {
            let status = uplink(settings, state, states.is_in_use(state));
            // Without its settings on the host, the uplink does not work.
            let setting_missing = self.host.is_setting_missing(place);
            UplinkStatus {
                healthy: status.healthy && !setting_missing,
                in_use: status.in_use && !setting_missing,
                last_resort: status.last_resort && !setting_missing,
                setting_missing,
                traffic: traffic(self.engine.traffic(settings.numbers.uplink)),
                ..status
            }
        });
        uplinks.collect()
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

fn uplink(settings: &Uplink, state: &UplinkState, in_use: bool) -> UplinkStatus {
    UplinkStatus {
        name: settings.name.clone(),
        interface: settings.interface.clone(),
        address: settings.addresses.first().copied(),
        tier: state.tier,
        in_use,
        last_resort: in_use && !state.up,
        healthy: state.up,
        state_seconds: state.since.elapsed().as_secs(),
        link_ready: state.link_ready,
        setting_missing: false,
        health_check: settings.health.is_some(),
        reason: state.reason.clone(),
        hold_seconds: state.held_until.map(seconds_until).filter(|seconds| *seconds != 0),
        latency_milliseconds: state.latency.map(|latency| rounded(latency.as_secs_f64() * 1e3, 3)),
        loss_percent: state.loss.map(|share| rounded(share * 100.0, 1)),
        traffic: UplinkTrafficStatus::default(),
    }
}

fn traffic(traffic: UplinkTraffic) -> UplinkTrafficStatus {
    let UplinkTraffic { packets_in, bytes_in, packets_out, bytes_out } = traffic;
    UplinkTrafficStatus { packets_in, bytes_in, packets_out, bytes_out }
}

fn batch_times(times: &BatchTimes) -> BatchTimesStatus {
    let buckets = times.batches.iter().enumerate().map(|(place, batches)| BatchTimesBucket {
        up_to_microseconds: BatchTimes::bound(place).map(|bound| bound.as_micros() as u64),
        batches: *batches,
    });
    BatchTimesStatus {
        buckets: buckets.collect(),
        sum_seconds: times.sum as f64 / 1e9,
        longest_microseconds: times.longest.div_ceil(1000),
    }
}

/// Rounds to a number of decimals, so that JSON shows no noise of binary fractions.
fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

/// Returns the whole seconds until a time, rounded up.
fn seconds_until(time: Instant) -> u64 {
    let left = time.saturating_duration_since(Instant::now());
    left.as_secs() + u64::from(left.subsec_nanos() != 0)
}

fn by_name(counters: &Counters) -> BTreeMap<String, u64> {
    Counters::NAMES.iter().map(|name| (*name).to_owned()).zip(counters.values()).collect()
}

fn drops(counters: &Counters) -> BTreeMap<String, u64> {
    let occurred = counters.drops.iter().filter(|(_, count)| *count != 0);
    occurred.map(|(reason, count)| (reason.name().to_owned(), count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_values_have_few_decimals() {
        for (value, shown) in [(0.432_000_000_000_000_05, "0.432"), (99.999_96, "100.0")] {
            assert_eq!(serde_json::to_string(&rounded(value, 3)).unwrap(), shown);
        }
    }
}
