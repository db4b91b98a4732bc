//! The translator: its parts, its construction, its expiry.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::nat::context::WorkerContext;
use crate::nat::fragments::identification::Identifications;
use crate::nat::fragments::store::Fragments;
use crate::nat::mapping::events::MappingEvents;
use crate::nat::mapping::host_limits::HostLimiter;
use crate::nat::mapping::inbound_limits::InboundLimiter;
use crate::nat::mapping::mappings::Mappings;
use crate::nat::policy::forwards::Forwards;
use crate::nat::policy::limits::Limits;
use crate::nat::policy::rules::{ExternalAddress, Forward, Policy, Uplink};
use crate::nat::seed::{Secrets, Seed, WorkerSeed};
use crate::nat::shared::delayed_rejects::DelayedRejects;
use crate::nat::shared::icmp_limit::IcmpErrorLimiter;
use crate::nat::shared::notifications::NotificationQueue;
use crate::nat::shared::traffic::{Traffic, UplinkTraffic};
use crate::nat::shared::uplink_states::UplinkStates;
use crate::nat::table::{EndedSession, Table};
use crate::nat::tracking::state::IdleTimeouts;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::Protocol;
use crate::time::{Span, Tick};
use crate::values::nat::ForwardProtocol;

/// A translator, shared by its workers: sessions, mappings and the policy.
/// [`Translator::with_policy`] makes another one with the same sessions and mappings.
pub struct Translator {
    pub(super) table: Arc<Table>,
    pub(super) mappings: Arc<Mappings>,
    pub(super) hosts: Arc<HostLimiter>,
    pub(super) inbound: Arc<InboundLimiter>,
    pub(super) fragments: Arc<Fragments>,
    pub(super) identifications: Arc<Identifications>,
    pub(super) uplink_states: Arc<UplinkStates>,
    pub(super) icmp_errors: Arc<IcmpErrorLimiter>,
    pub(super) delayed_rejects: Arc<DelayedRejects>,
    pub(super) notifications: Arc<NotificationQueue>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) limits: Arc<Limits>,
    pub(super) policy: Policy,
    pub(super) forwards: Forwards,
    pub(super) externals: HashMap<Ipv4Addr, External>,
    /// External addresses for mappings, by uplink. An address that a forward publishes whole serves
    /// only if its uplink has no other.
    pub(super) dynamic: Box<[Box<[Ipv4Addr]>]>,
    /// Key of the hash that spreads inside hosts over uplinks and external addresses.
    pub(super) hash_seed: u64,
    pub(super) worker_seed: WorkerSeed,
}

/// An external address in the packet path.
#[derive(Clone, Copy, Debug)]
pub(super) struct External {
    pub(super) uplink: u8,
    pub(super) assigned_to_host: bool,
}

impl Translator {
    /// Makes a translator with an empty session table of `limits.sessions` records, for `workers`
    /// workers.
    ///
    /// All randomness comes from `seed`. Two translators with one seed, the same limits and the
    /// same policy give the same output for the same packets at the same times.
    ///
    /// # Errors
    /// The memory of the session table cannot be mapped.
    pub fn new(
        limits: Limits,
        policy: Policy,
        workers: usize,
        seed: Seed,
        now: Tick,
    ) -> io::Result<Self> {
        let secrets = Secrets::of(seed);
        let timeouts = idle_timeouts(&limits);
        let mut table = Table::new(limits.sessions, workers, timeouts, secrets.table, now)?;
        if limits.accounting {
            table = table.with_accounting()?;
        }
        Self::over(table, limits, policy, secrets, now)
    }

    /// Makes a translator over a table.
    pub(super) fn over(
        mut table: Table,
        limits: Limits,
        policy: Policy,
        secrets: Secrets,
        now: Tick,
    ) -> io::Result<Self> {
        let maps = secrets.maps;
        // With one external address there is nothing to choose.
        if limits.addresses_may_grow || may_choose(&policy) {
            table = table.with_related()?;
        }
        let forwards = Forwards::new(&policy.forwards);
        let hosts = HostLimiter::new(limits.sessions_per_host, limits.new_sessions_per_host, maps);
        let fragments = Fragments::new(limits.fragments, limits.timeouts.fragment, maps);
        let icmp_errors =
            IcmpErrorLimiter::new(limits.icmp_errors_per_host, secrets.icmp_errors, now);
        Ok(Self {
            table: Arc::new(table),
            mappings: Arc::new(Mappings::new(&limits, &policy, &forwards, maps)),
            hosts: Arc::new(hosts),
            inbound: Arc::new(InboundLimiter::new(&limits, maps)),
            fragments: Arc::new(fragments),
            identifications: Arc::new(Identifications::new(secrets.identifications)),
            uplink_states: Arc::new(UplinkStates::new(&policy)),
            icmp_errors: Arc::new(icmp_errors),
            delayed_rejects: Arc::default(),
            notifications: Arc::default(),
            traffic: Arc::default(),
            externals: externals(&policy),
            dynamic: dynamic_addresses(&policy),
            hash_seed: secrets.hosts,
            worker_seed: secrets.workers,
            forwards,
            limits: Arc::new(limits),
            policy,
        })
    }

    /// Makes the context of a worker. Each worker of a translator has a number of its own, counted
    /// from 0.
    ///
    /// The translator's seed and the number determine the worker's random choices.
    pub fn worker(&self, worker: usize) -> WorkerContext {
        let random = self.worker_seed.rng(worker);
        WorkerContext::new(worker, random, EXPIRY_BUDGET as usize, self.traffic.worker())
    }

    /// Returns the packets and bytes of an uplink.
    pub fn traffic(&self, uplink: u8) -> UplinkTraffic {
        self.traffic.of(uplink)
    }

    /// The session table.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Subscribes to the beginnings and ends of mappings from now on. At most `capacity` events
    /// wait for the reader; further events are lost and counted. A second call replaces the first.
    /// Translators that share the mappings share the subscription.
    pub fn log_mappings(&self, capacity: usize) -> MappingEvents {
        self.mappings.log(capacity)
    }

    /// Ends the subscription of [`Self::log_mappings`].
    pub fn end_mapping_log(&self) {
        self.mappings.end_log();
    }

    /// Number of events that [`Self::log_mappings`] has lost.
    pub fn mapping_events_lost(&self) -> u64 {
        self.mappings.events_lost()
    }

    /// Number of dynamic mappings.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    /// The limits that apply now.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The policy that applies now.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Does a slice of the expiry work of a worker. Returns true when nothing more is due.
    pub(super) fn expire(&self, context: &mut WorkerContext, now: Tick) -> bool {
        // State without a timing wheel is swept at intervals, by one worker.
        if context.worker == 0 && now.since(context.last_sweep) >= SWEEP_INTERVAL {
            context.last_sweep = now;
            self.expire_fragments(context, now);
            self.mappings.expire_pinholes(now);
            self.hosts.prune_idle(now);
            self.expire_reserved(context, now);
        }
        self.send_due(context, now);
        self.send_notifications(context);
        let mut ended = std::mem::take(&mut context.ended);
        let done = self.table.expire(context.worker, now, EXPIRY_BUDGET, &mut ended);
        self.release_expired(context, ended, now);
        done
    }

    /// Does all expiry work of the reserved records, which are few.
    fn expire_reserved(&self, context: &mut WorkerContext, now: Tick) {
        loop {
            let mut ended = std::mem::take(&mut context.ended);
            let done = self.table.expire_reserved(now, EXPIRY_BUDGET, &mut ended);
            self.release_expired(context, ended, now);
            if done {
                return;
            }
        }
    }

    /// Releases what expired sessions held, and gives the list of them back to the context.
    fn release_expired(
        &self,
        context: &mut WorkerContext,
        mut ended: Vec<EndedSession>,
        now: Tick,
    ) {
        context.counters.sessions_expired += ended.len() as u64;
        for session in ended.drain(..) {
            self.release(&session, now);
        }
        context.ended = ended;
    }

    /// Reports whether the translator holds no state that expires or is due.
    pub(crate) fn is_idle(&self) -> bool {
        // Worker 0 rejects the SYNs that other workers keep, so it must wake in time for them.
        self.table.is_empty()
            && self.delayed_rejects.is_empty()
            && !self.policy.delayed_reject
            && self.notifications.is_empty()
            && self.fragments.is_empty()
    }

    /// Sets the TCP or UDP ports that programs of the host use: those at which they listen, and
    /// those of their connections. No new mapping gets one of these ports on an address of the
    /// host.
    pub fn exclude_ports(&self, protocol: Protocol, listening: &[u16], connected: &[u16]) {
        self.mappings.exclude(protocol, listening, connected);
    }

    /// Returns the verdict on a packet that is not translated for `reason`. If the host has the
    /// address `destination`, the host gets the packet. Otherwise the packet is dropped.
    pub(super) fn untranslated_verdict(
        &self,
        destination: Ipv4Addr,
        reason: DropReason,
    ) -> Verdict {
        if self.is_assigned(destination) { Verdict::PassToHost } else { Verdict::Drop(reason) }
    }

    /// Reports whether the host has an external address.
    pub(super) fn is_assigned(&self, address: Ipv4Addr) -> bool {
        self.external(address).is_some_and(|external| external.assigned_to_host)
    }

    pub(super) fn external(&self, address: Ipv4Addr) -> Option<External> {
        self.externals.get(&address).copied()
    }

    pub(super) fn is_inside(&self, address: Ipv4Addr) -> bool {
        self.limits.inside.iter().any(|prefix| prefix.contains(&address))
    }

    /// Returns the external address of an inside host on an uplink: one address for all mappings
    /// (RFC 4787 REQ-2) and forwards of the host. None: the uplink has no address.
    pub(super) fn external_address(&self, uplink: u8, host: Ipv4Addr) -> Option<Ipv4Addr> {
        let addresses = &self.dynamic[usize::from(uplink)];
        let is_here = |own: &Ipv4Addr| self.external(*own).is_some_and(|it| it.uplink == uplink);
        if let Some(published) = self.forwards.address_of(host, uplink).filter(is_here) {
            return Some(published);
        }
        let place = ((self.host_hash(host) >> 32) as usize).checked_rem(addresses.len())?;
        Some(addresses[place])
    }

    /// Returns the external addresses on which an inside host may get a mapping, best first: the
    /// address `first`, the host's own, and any other one if the limits allow this.
    pub(super) fn external_addresses(
        &self,
        uplink: u8,
        host: Ipv4Addr,
        first: Ipv4Addr,
    ) -> impl Iterator<Item = Ipv4Addr> {
        // Most mappings get a port on the first address: the others are computed only then.
        let own = std::iter::once_with(move || self.external_address(uplink, host)).flatten();
        let addresses = &self.dynamic[usize::from(uplink)];
        let others = if self.limits.paired_soft { &addresses[..] } else { &[] };
        let rest = own.chain(others.iter().copied()).filter(move |other| *other != first);
        std::iter::once(first).chain(rest)
    }

    pub(super) fn host_hash(&self, host: Ipv4Addr) -> u64 {
        self.mix64(u64::from(host.to_bits()))
    }

    /// Returns a hash that no remote host can predict.
    pub(super) fn mix64(&self, seed: u64) -> u64 {
        let mixed = (seed ^ self.hash_seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ mixed >> 32
    }
}

/// Reports whether a session could use another external address.
fn may_choose(policy: &Policy) -> bool {
    let addresses = policy.uplinks.iter().map(|uplink| uplink.addresses.len());
    policy.uplinks.len() > 1 || addresses.sum::<usize>() > 1
}

/// Returns the idle timeouts of a table.
pub(super) fn idle_timeouts(limits: &Limits) -> IdleTimeouts {
    IdleTimeouts::new(&limits.timeouts).with_inbound_refresh(limits.inbound_refresh)
}

/// Returns every external address.
pub(super) fn externals(policy: &Policy) -> HashMap<Ipv4Addr, External> {
    let of_uplink = |(number, uplink): (usize, &Uplink)| {
        let external = |external: &ExternalAddress| {
            (
                external.address,
                External { uplink: number as u8, assigned_to_host: external.assigned_to_host },
            )
        };
        uplink.addresses.iter().map(external).collect::<Vec<_>>()
    };
    policy.uplinks.iter().enumerate().flat_map(of_uplink).collect()
}

/// Returns the addresses of each uplink that mappings use: those that no forward publishes whole,
/// or all if there is no such address.
pub(super) fn dynamic_addresses(policy: &Policy) -> Box<[Box<[Ipv4Addr]>]> {
    let exposes = |forward: &&Forward| forward.protocol == ForwardProtocol::Any;
    let whole: HashSet<Ipv4Addr> =
        policy.forwards.iter().filter(exposes).map(|forward| forward.address).collect();
    let of_uplink = |uplink: &Uplink| -> Box<[Ipv4Addr]> {
        let all = || uplink.addresses.iter().map(|external| external.address);
        let others: Box<[_]> = all().filter(|address| !whole.contains(address)).collect();
        if others.is_empty() { all().collect() } else { others }
    };
    policy.uplinks.iter().map(of_uplink).collect()
}

/// Steps of the wheel in one batch. A step that ends a session costs some hundred nanoseconds.
const EXPIRY_BUDGET: u32 = 256;
const SWEEP_INTERVAL: Span = Span(100);
