//! Numbers of the routing tables and rules that one natbox instance uses.
//!
//! The instances of one network namespace differ by an index: the digits at the end of the TUN's
//! name if that index is free, else the lowest free one. The index determines a block of tables,
//! two blocks of rule priorities, the TUN's address and the probe addresses.

use std::net::Ipv4Addr;
use std::ops::Range;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::snapshot::{FoundRule, Snapshot};
use super::step::{RTPROT_NATBOX, RuleAction, TABLE_LOCAL};
use crate::config::Uplink;
use crate::host::error::HostError;

/// First table of the first block.
const TABLES: u32 = 7100;
/// Tables of one instance: inside, errors, then two per uplink.
const TABLES_PER_INSTANCE: u32 = 64;
/// First of the tables with the host's own default route: one table per instance, behind all
/// blocks.
const FOLLOW_TABLES: u32 = TABLES + TABLES_PER_INSTANCE * MAX_INSTANCES;
/// First priority of the first block after the local rule. The number is low, so that a VPN's
/// catch-all rules come later.
const AFTER_LOCAL: u32 = 1000;
/// Priorities of one instance after the local rule.
const AFTER_LOCAL_PER_INSTANCE: u32 = 8;
/// Priority of the moved local rule, unless another program has rules at lower priorities. The
/// blocks before the local rule count down from this priority.
const MOVED_LOCAL: u32 = 999;
/// Priorities of one instance before the local rule.
const BEFORE_LOCAL_PER_INSTANCE: u32 = 4;
/// The TUN's address is 169.254.71.(index + 1). Link-local (RFC 3927): it never leaves the host.
const TUN_ADDRESSES: [u8; 3] = [169, 254, 71];
/// First of the probe addresses: a block of 32 per instance, with one address per uplink from 1 on.
/// Address 0 is the source of the host's own packets, see [`RoutingIds::host_address`].
const PROBE_ADDRESSES: [u8; 4] = [169, 254, 72, 0];
/// Prefix length of one instance's block of probe addresses.
const PROBE_PREFIX: u8 = 27;
/// Number of indices. The last octet of the TUN's address is the limit.
const MAX_INSTANCES: u32 = 240;

/// The routing numbers of one natbox instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingIds {
    instance_index: u32,
    /// Address of the TUN, the source of the kernel's own ICMP errors about translated packets.
    pub tun_address: Ipv4Addr,
    /// Priority of the moved local rule. None when the local rule stays, and when another program
    /// has moved it.
    pub(crate) local_rule: Option<u32>,
    /// First priority before the local rule. None when all of natbox's rules follow the local rule.
    before_local: Option<u32>,
}

/// Position of natbox's first rules relative to the rule of the host's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precedence {
    /// All rules follow the local rule.
    AfterLocal,
    /// Some rules precede the local rule, because an external address is assigned to the host.
    BeforeLocal,
}

/// Owner of the rules and routes with natbox's protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleOwner {
    /// Another running instance.
    OtherInstance,
    /// This instance: `plan` prints the settings of a running instance.
    ThisInstance,
}

/// The place and the limits of natbox's rules before the local rule.
#[derive(Clone, Copy)]
struct LocalRulePlan {
    /// See [`RoutingIds::local_rule`].
    moved_to: Option<u32>,
    /// Exclusive upper bound of the priorities before the local rule.
    ceiling: u32,
}

impl RoutingIds {
    /// Number of uplinks that fit the block of tables.
    pub(crate) const MAX_UPLINKS: usize = (TABLES_PER_INSTANCE as usize - 2) / 2;

    /// Returns the numbers for a host without any rules and routes.
    pub(crate) fn default_ids(tun: &str, precedence: Precedence) -> Self {
        Self::allocate(&Snapshot::default(), tun, precedence, RuleOwner::OtherInstance)
            .expect("an empty snapshot has no conflicts")
    }

    /// Chooses free numbers.
    ///
    /// # Errors
    /// When no block is free.
    pub(crate) fn allocate(
        snapshot: &Snapshot,
        tun: &str,
        precedence: Precedence,
        owner: RuleOwner,
    ) -> Result<Self, HostError> {
        let lowest_other = lowest_priority_of_others(snapshot);
        let plan = LocalRulePlan::new(snapshot, lowest_other);
        let of = |index| Self::of(index, plan, precedence);
        let preferred = trailing_digits(tun).filter(|index| *index < MAX_INSTANCES).unwrap_or(0);
        let mut candidates = std::iter::once(preferred).chain(0..MAX_INSTANCES).filter_map(of);
        candidates
            .find(|ids| ids.is_free(snapshot, owner))
            .ok_or_else(|| no_free_ids(lowest_other, precedence))
    }

    fn of(instance_index: u32, plan: LocalRulePlan, precedence: Precedence) -> Option<Self> {
        let [a, b, c] = TUN_ADDRESSES;
        let before_local = match precedence {
            Precedence::BeforeLocal => Some(
                plan.ceiling
                    .checked_sub(BEFORE_LOCAL_PER_INSTANCE * (instance_index + 1))
                    .filter(|first| *first > 0)?,
            ),
            Precedence::AfterLocal => None,
        };
        let last = u8::try_from(instance_index + 1).ok()?;
        let local_rule = before_local.and(plan.moved_to);
        let tun_address = Ipv4Addr::new(a, b, c, last);
        Some(Self { instance_index, tun_address, local_rule, before_local })
    }

    /// Returns true when no rule, route or address of the host uses these numbers.
    fn is_free(&self, snapshot: &Snapshot, owner: RuleOwner) -> bool {
        let counts = |protocol: u8| owner == RuleOwner::OtherInstance || protocol != RTPROT_NATBOX;
        let rules = snapshot.rules.iter().filter(|found| counts(found.protocol));
        let mut routes = snapshot.routes.iter().filter(|found| counts(found.protocol));
        let (tables, priorities) = (self.tables(), self.priorities());
        let has_conflict = |found: &FoundRule| {
            let table = match found.rule.action {
                RuleAction::Lookup(table) => table,
                RuleAction::Blackhole => TABLE_LOCAL,
            };
            tables.contains(&table)
                || table == self.follow_table()
                || priorities.iter().any(|block| block.contains(&found.rule.priority))
        };
        let rule_conflict = rules.filter(|found| !found.is_local()).any(has_conflict);
        let route_conflict = routes.any(|found| {
            tables.contains(&found.route.table) || found.route.table == self.follow_table()
        });
        // `plan` may see the TUN of the running instance that the plan describes.
        let address_conflict =
            owner == RuleOwner::OtherInstance && snapshot.has_address(self.tun_address);
        !rule_conflict && !route_conflict && !address_conflict
    }

    fn tables(&self) -> Range<u32> {
        self.inside_table()..self.inside_table() + TABLES_PER_INSTANCE
    }

    /// Returns the blocks of priorities after and before the local rule.
    fn priorities(&self) -> [Range<u32>; 2] {
        let before =
            self.before_local.map_or(0..0, |first| first..first + BEFORE_LOCAL_PER_INSTANCE);
        [self.after_local(0)..self.after_local(AFTER_LOCAL_PER_INSTANCE), before]
    }

    /// Returns the position of the first rules relative to the local rule.
    pub(crate) fn precedence(&self) -> Precedence {
        match self.before_local {
            Some(_) => Precedence::BeforeLocal,
            None => Precedence::AfterLocal,
        }
    }

    /// Table for packets from the inside.
    pub(crate) fn inside_table(&self) -> u32 {
        TABLES + TABLES_PER_INSTANCE * self.instance_index
    }

    /// Table for the kernel's own ICMP errors. Every route of this table leads into the TUN.
    pub(crate) fn errors_table(&self) -> u32 {
        self.inside_table() + 1
    }

    /// Table for packets that arrive on the `place`-th outside interface.
    pub(crate) fn outside_table(&self, place: usize) -> u32 {
        self.inside_table() + 2 + 2 * place as u32
    }

    /// Table for packets that leave by the `place`-th uplink.
    pub(crate) fn uplink_table(&self, place: usize) -> u32 {
        self.inside_table() + 3 + 2 * place as u32
    }

    /// Table with the host's own default route.
    pub(crate) fn follow_table(&self) -> u32 {
        FOLLOW_TABLES + self.instance_index
    }

    /// Address from which the host's own packets come to natbox, with `host.default_route: follow`.
    pub(crate) fn host_address(&self) -> Ipv4Addr {
        self.probe_block().addr()
    }

    /// Prefix of the instance's probe addresses.
    pub(crate) fn probe_block(&self) -> Ipv4Net {
        let first =
            u32::from_be_bytes(PROBE_ADDRESSES) + (self.instance_index << (32 - PROBE_PREFIX));
        Ipv4Net::new_assert(Ipv4Addr::from_bits(first), PROBE_PREFIX)
    }

    /// Address from which natbox itself sends over the `place`-th uplink.
    pub(crate) fn probe_address(&self, place: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.probe_block().addr().to_bits() + 1 + place as u32)
    }

    /// Priority after the local rule.
    pub(crate) fn after_local(&self, offset: u32) -> u32 {
        AFTER_LOCAL + AFTER_LOCAL_PER_INSTANCE * self.instance_index + offset
    }

    /// First priority before the local rule.
    ///
    /// # Panics
    /// When the numbers were chosen with [`Precedence::AfterLocal`].
    pub(crate) fn before_local(&self) -> u32 {
        self.before_local.expect("the facts that need these rules chose the precedence")
    }
}

impl LocalRulePlan {
    fn new(snapshot: &Snapshot, lowest_other: Option<u32>) -> Self {
        let at_default = snapshot.local_rules().any(|found| found.rule.priority == 0);
        let moved_by = |is_owner: fn(u8) -> bool| {
            let mut moved = snapshot.local_rules().filter(|found| found.rule.priority > 0);
            moved.find(|found| is_owner(found.protocol)).map(|found| found.rule.priority)
        };
        // Rules of other programs stay after the local rule when it moves.
        let below_others = lowest_other.map_or(MOVED_LOCAL, |lowest| (lowest - 1).min(MOVED_LOCAL));
        let by_natbox = moved_by(|protocol| protocol == RTPROT_NATBOX);
        let by_others = moved_by(|protocol| protocol != RTPROT_NATBOX);
        match (by_natbox, by_others) {
            // Another instance has moved the rule; the instances share it.
            (Some(priority), _) => Self { moved_to: Some(priority), ceiling: priority },
            (None, Some(_)) if !at_default => Self { moved_to: None, ceiling: below_others + 1 },
            (None, _) => Self { moved_to: Some(below_others), ceiling: below_others },
        }
    }
}

fn lowest_priority_of_others(snapshot: &Snapshot) -> Option<u32> {
    let others = snapshot
        .rules
        .iter()
        .filter(|found| found.protocol != RTPROT_NATBOX && found.rule.priority > 0);
    others.map(|found| found.rule.priority).min()
}

fn no_free_ids(lowest_other: Option<u32>, precedence: Precedence) -> HostError {
    let found = match lowest_other {
        Some(lowest) => format!("the lowest rule of other programs has priority {lowest}"),
        None => "every block is in use".into(),
    };
    let after = format!("{AFTER_LOCAL_PER_INSTANCE} priorities from {AFTER_LOCAL} on");
    let wanted = match precedence {
        Precedence::BeforeLocal => format!(
            "{} priorities below every other rule, because an external address is assigned to the \
             host, and {after}",
            BEFORE_LOCAL_PER_INSTANCE + 1
        ),
        Precedence::AfterLocal => after,
    };
    HostError::NoFreeIds { found, wanted }
}

const _: () = assert!(RoutingIds::MAX_UPLINKS < 1 << (32 - PROBE_PREFIX));
const _: () = assert!(Uplink::MAX <= RoutingIds::MAX_UPLINKS);

fn trailing_digits(name: &str) -> Option<u32> {
    let start = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[start..].parse().ok()
}
