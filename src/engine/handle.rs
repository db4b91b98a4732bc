//! The access of the control plane to the translator and its workers.
//!
//! No method waits for a worker or walks the whole table on the caller's thread. A call lists or
//! ends one slice of the sessions, and a change of policy runs on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Sender, unbounded};

use crate::nat::{
    AdmitNew, Counters, EndReason, EndedSlice, Filter, Limits, MappingEvents, PacketEnds, Policy,
    PolicyPreview, SessionEvents, TableCursor, Translator, UplinkTraffic,
};
use crate::packet::{Protocol, Tuple};
use crate::time::Tick;

use super::batch_times::BatchTimes;
use super::counters::SharedCounters;
use super::listing::Listing;
use super::observe::{DropExamples, DropRecord, Observation, last_examples};
use super::trace::{Trace, TracedPacket};

/// The running translator, as the control plane sees it. Clones refer to the same translator.
#[derive(Clone)]
pub(crate) struct Handle {
    nat: Arc<ArcSwap<Translator>>,
    counters: Arc<[Arc<SharedCounters>]>,
    observation: Arc<Observation>,
    changes: Sender<PolicySwap>,
}

/// A change of policy, and the callback that receives the number of ended sessions.
struct PolicySwap {
    /// None: the limits stay.
    limits: Option<Limits>,
    policy: Policy,
    done: Box<dyn FnOnce(usize) + Send>,
}

/// Use of the translator's capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occupancy {
    /// Sessions in the table.
    pub sessions: u32,
    /// Capacity of the table.
    pub capacity: u32,
    /// True: the table counts packets and bytes.
    pub accounting: bool,
    /// Dynamic mappings.
    pub mappings: usize,
    /// Events of the mapping log that were lost because the reader was slow.
    pub mapping_events_lost: u64,
}

impl Handle {
    /// Makes the handle and starts the thread that changes the policy, which first calls `confine`.
    /// The thread ends with the last clone.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn new(
        nat: Arc<ArcSwap<Translator>>,
        (counters, observation): (Vec<Arc<SharedCounters>>, Arc<Observation>),
        confine: fn(),
    ) -> std::io::Result<Self> {
        let (changes, queue) = unbounded::<PolicySwap>();
        let translator = Arc::clone(&nat);
        std::thread::Builder::new().name("natbox-policy".to_owned()).spawn(move || {
            confine();
            for PolicySwap { limits, policy, done } in queue {
                done(change_rules(&translator, limits, policy));
            }
        })?;
        Ok(Self { nat, counters: counters.into(), observation, changes })
    }

    /// The translator, which a change of policy replaces.
    pub(super) fn translator(&self) -> &Arc<ArcSwap<Translator>> {
        &self.nat
    }

    /// Returns the counters of each worker, as of its last batch.
    pub(crate) fn counters(&self) -> Vec<Counters> {
        self.counters.iter().map(|counters| counters.read()).collect()
    }

    /// Returns the sums of the counters over all workers.
    pub(crate) fn totals(&self) -> Counters {
        let mut totals = Counters::default();
        self.counters().iter().for_each(|counters| totals.add(counters));
        totals
    }

    /// Returns the durations of the batches of all workers.
    pub(crate) fn batch_times(&self) -> BatchTimes {
        let mut times = BatchTimes::default();
        self.counters.iter().for_each(|worker| times.add(&worker.batch_times.read()));
        times
    }

    /// Returns the packets and bytes of an uplink.
    pub(crate) fn traffic(&self, uplink: u8) -> UplinkTraffic {
        self.nat.load().traffic(uplink)
    }

    /// Returns the drops of each reason, with the last examples.
    pub(crate) fn drops(&self) -> Vec<DropRecord> {
        let totals = self.totals();
        let record = |(reason, packets)| {
            let workers = &self.observation.examples;
            let last = workers.iter().filter_map(|worker| worker.last(reason)).max();
            DropRecord { reason, packets, last, examples: last_examples(workers, reason) }
        };
        totals.drops.iter().map(record).collect()
    }

    /// Returns the number of examples of dropped packets that no worker could store, because they
    /// were being read.
    pub(crate) fn missed_examples(&self) -> u64 {
        self.observation.examples.iter().map(DropExamples::missed).sum()
    }

    /// Begins a trace of the packets that `filter` accepts. Workers call the filter for every
    /// packet. None: too many traces are on.
    pub(crate) fn trace(
        &self,
        filter: impl Fn(&TracedPacket) -> bool + Send + Sync + 'static,
    ) -> Option<Trace> {
        self.observation.trace(Box::new(filter))
    }

    /// Returns what the translator knows of a packet that belongs to no session.
    pub(crate) fn ends_of(&self, tuple: Tuple) -> PacketEnds {
        self.nat.load().ends_of(tuple)
    }

    /// Returns the use of the translator's capacity.
    pub(crate) fn occupancy(&self) -> Occupancy {
        let nat = self.nat.load();
        Occupancy {
            sessions: nat.table().len(),
            capacity: nat.table().capacity(),
            accounting: nat.limits().accounting,
            mappings: nat.mappings(),
            mapping_events_lost: nat.mapping_events_lost(),
        }
    }

    /// Returns access to the sessions, for one page of a listing. A change of policy waits until
    /// the caller drops it.
    pub(crate) fn listing(&self) -> Listing {
        Listing::new(self.nat.load_full())
    }

    /// Subscribes to the changes of sessions from now on. At most `capacity` events wait for the
    /// reader; further ones are lost and counted.
    pub(crate) fn subscribe(&self, capacity: usize) -> SessionEvents {
        self.nat.load().subscribe(capacity)
    }

    /// Ends the sessions that match a filter among the next slice of the table.
    pub(crate) fn end_matching(
        &self,
        filter: &Filter,
        reason: EndReason,
        from: TableCursor,
    ) -> EndedSlice {
        self.nat.load().end_matching(filter, reason, from, Tick::now())
    }

    /// Returns the number of notifications about ended sessions that wait for a worker.
    pub(crate) fn pending_notifications(&self) -> usize {
        self.nat.load().notifications()
    }

    /// Sets which new sessions an uplink admits, from the next packet on.
    pub(crate) fn set_admission(&self, uplink: u8, admit: AdmitNew) {
        self.nat.load().set_admission(uplink, admit);
    }

    /// Sets whether an uplink is a last resort, from the next packet on.
    pub(crate) fn set_last_resort(&self, uplink: u8, is_last_resort: bool) {
        self.nat.load().set_last_resort(uplink, is_last_resort);
    }

    /// Sets the MTU of an inside leg, in bytes.
    pub(crate) fn set_leg_mtu(&self, leg: usize, mtu: u16) {
        self.nat.load().set_leg_mtu(leg, mtu);
    }

    /// Sets the MTU of an uplink, in bytes.
    pub(crate) fn set_uplink_mtu(&self, uplink: u8, mtu: u16) {
        self.nat.load().set_uplink_mtu(uplink, mtu);
    }

    /// Excludes the ports that the host's programs use: those at which they listen, and those of
    /// their connections. No new mapping gets one of them on an address of the host.
    pub(crate) fn exclude_ports(&self, protocol: Protocol, listening: &[u16], connected: &[u16]) {
        self.nat.load().exclude_ports(protocol, listening, connected);
    }

    /// Prepares to count the sessions that [`Self::change_policy`] would end. The count walks the
    /// whole table: make it on a thread that may be busy for some time.
    pub(crate) fn preview(&self, limits: Limits, policy: Policy) -> PolicyPreview {
        self.nat.load().preview(limits, policy)
    }

    /// Applies a policy, ends the sessions that it does not allow, and calls `done` with their
    /// number on the policy thread. Policies take effect in the order of the calls.
    pub(crate) fn change_policy(&self, policy: Policy, done: impl FnOnce(usize) + Send + 'static) {
        self.change(None, policy, done);
    }

    /// Applies limits and a policy as [`Self::change_policy`] does.
    pub(crate) fn change_rules(
        &self,
        limits: Limits,
        policy: Policy,
        done: impl FnOnce(usize) + Send + 'static,
    ) {
        self.change(Some(limits), policy, done);
    }

    fn change(
        &self,
        limits: Option<Limits>,
        policy: Policy,
        done: impl FnOnce(usize) + Send + 'static,
    ) {
        let change = PolicySwap { limits, policy, done: Box::new(done) };
        self.changes.send(change).expect("the thread runs as long as a handle exists");
    }

    /// Starts the mapping log. The log holds `capacity` unread events.
    pub(crate) fn log_mappings(&self, capacity: usize) -> MappingEvents {
        self.nat.load().log_mappings(capacity)
    }

    /// Ends the mapping log.
    pub(crate) fn end_mapping_log(&self) {
        self.nat.load().end_mapping_log();
    }
}

/// Applies limits and a policy, and returns the number of ended sessions.
fn change_rules(nat: &ArcSwap<Translator>, limits: Option<Limits>, policy: Policy) -> usize {
    // The checks of inherited sessions know only the uplinks of the start.
    while nat.load().inherits() && policy.uplinks.len() > nat.load().policy().uplinks.len() {
        std::thread::sleep(ADOPTION_INTERVAL);
    }
    let before = nat.load();
    let (new, mut transition) = match limits {
        Some(limits) => before.with_limits(limits, policy, Tick::now()),
        None => before.with_policy(policy),
    };
    drop(before);
    let new = Arc::new(new);
    swap_policy(nat, Arc::clone(&new));
    let mut ended = 0;
    while !transition.is_complete() {
        ended += new.enforce(&mut transition, Tick::now());
    }
    ended
}

/// Replaces the translator by `new`, and waits until no worker uses the old one, so that its policy
/// has no further effect. A batch takes some microseconds.
pub(super) fn swap_policy(nat: &ArcSwap<Translator>, new: Arc<Translator>) {
    let before = nat.swap(new);
    let deadline = Instant::now() + BATCH_TIMEOUT;
    while Arc::strong_count(&before) > 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Time between two looks whether all sessions are adopted.
const ADOPTION_INTERVAL: Duration = Duration::from_millis(5);
/// Time after which a worker that has not ended its batch counts as failed. A failed worker ends
/// the process.
const BATCH_TIMEOUT: Duration = Duration::from_secs(1);
