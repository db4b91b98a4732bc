//! Which table and rule numbers a box uses.
//!
//! Boxes in one network namespace are told apart by a number `k`: the digits at the end of the TUN's name where that
//! is free, else the next that is. From it follow a block of tables, two blocks of rule priorities and the TUN's
//! address.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::config::Uplink;

use crate::host::error::HostError;
use crate::host::model::snapshot::{Snapshot, is_local};
use crate::host::model::steps::{RTPROT_NATBOX, RuleAction, TABLE_LOCAL};

/// First table of the first block.
const TABLES: u32 = 7100;
/// Tables of one box: inside, errors, then two per uplink.
const TABLES_PER_BOX: u32 = 64;
/// First priority of the first block after the local rule. Low, so that a VPN's catch-all rules come later.
const AFTER_LOCAL: u32 = 1000;
/// Priorities of one box after the local rule.
const AFTER_LOCAL_PER_BOX: u32 = 8;
/// Where the local rule moves, unless someone's rules are lower: the blocks before it go down from here.
const MOVED_LOCAL: u32 = 999;
/// Priorities of one box before the local rule.
const BEFORE_LOCAL_PER_BOX: u32 = 4;
/// The TUNs' addresses are 169.254.71.(k + 1). Link-local (RFC 3927): they never leave the host.
const TUN_ADDRESSES: [u8; 3] = [169, 254, 71];
/// The box's own endpoints on its lines: a block of 32 addresses from 169.254.72.0 on, one for each uplink, numbered from 1.
const OWN_ENDPOINTS: [u8; 4] = [169, 254, 72, 0];
/// Length of such a block's prefix.
const OWN_PREFIX: u8 = 27;
/// RoutingIds are tried up to here, exclusive; the last octet of the TUN's address bounds them.
const BOXES: u32 = 240;

/// The numbers of one box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingIds {
    instance_index: u32,
    /// Address of the TUN, the source of the kernel's own ICMP errors about translated packets.
    pub tun_address: Ipv4Addr,
    /// Where the local rule moves if an external address is the host's own; nothing if someone has moved it already.
    pub(crate) local_rule: Option<u32>,
    /// First priority before the local rule; nothing if no external address is the host's own.
    before_local: Option<u32>,
}

impl RoutingIds {
    /// The numbers of a box on a host of which nothing is known.
    pub(crate) fn default_ids(tun: &str, assigned_to_host: bool) -> Self {
        Self::allocate(&Snapshot::default(), tun, assigned_to_host, RuleOwner::OtherInstance)
            .expect("nothing is in the way in an empty snapshot")
    }

    /// Chooses free numbers. `owned`: an external address is the host's own.
    ///
    /// # Errors
    /// When no block is free.
    pub(crate) fn allocate(
        snapshot: &Snapshot,
        tun: &str,
        assigned_to_host: bool,
        ours: RuleOwner,
    ) -> Result<Self, HostError> {
        let rules = || {
            snapshot
                .rules
                .iter()
                .filter(|found| ours == RuleOwner::OtherInstance || found.protocol != RTPROT_NATBOX)
        };
        // Rules of others stay after the local rule when it moves.
        let lowest_foreign = snapshot
            .rules
            .iter()
            .filter(|found| found.protocol != RTPROT_NATBOX && found.rule.priority > 0)
            .map(|found| found.rule.priority)
            .min();
        let first_local = snapshot.local_rules().any(|found| found.rule.priority == 0);
        let moved = |by: fn(u8) -> bool| {
            let mut late = snapshot.local_rules().filter(|found| found.rule.priority > 0);
            late.find(|found| by(found.protocol)).map(|found| found.rule.priority)
        };
        let below_foreign =
            lowest_foreign.map_or(MOVED_LOCAL, |lowest| (lowest - 1).min(MOVED_LOCAL));
        let (local_rule, ceiling) =
            match (moved(|p| p == RTPROT_NATBOX), moved(|p| p != RTPROT_NATBOX)) {
                // Another box's, shared.
                (Some(priority), _) => (Some(priority), priority),
                (None, Some(_)) if !first_local => (None, below_foreign + 1),
                (None, _) => (Some(below_foreign), below_foreign),
            };
        let preferred =
            digits_at_the_end(tun).filter(|instance_index| *instance_index < BOXES).unwrap_or(0);
        let free = |instance_index: &u32| {
            let ids = Self::of(*instance_index, assigned_to_host.then_some(ceiling), local_rule);
            let Some(ids) = ids else { return false };
            let tables = ids.inside_table()..ids.inside_table() + TABLES_PER_BOX;
            let after = ids.after_local(0)..ids.after_local(AFTER_LOCAL_PER_BOX);
            let before = ids.before_local.map_or(0..0, |first| first..first + BEFORE_LOCAL_PER_BOX);
            let rule_in_the_way = rules().filter(|found| !is_local(found)).any(|found| {
                let table = match found.rule.action {
                    RuleAction::Lookup(table) => table,
                    RuleAction::Blackhole => TABLE_LOCAL,
                };
                let priority = found.rule.priority;
                tables.contains(&table) || after.contains(&priority) || before.contains(&priority)
            });
            let route_in_the_way = snapshot.routes.iter().any(|found| {
                tables.contains(&found.route.table)
                    && (ours == RuleOwner::OtherInstance || found.protocol != RTPROT_NATBOX)
            });
            // In front of everything, `plan` looks at the device of a running box.
            let address_taken =
                ours == RuleOwner::OtherInstance && snapshot.has_address(ids.tun_address);
            !rule_in_the_way && !route_in_the_way && !address_taken
        };
        let instance_index = std::iter::once(preferred).chain(0..BOXES).find(free);
        instance_index.and_then(|instance_index| Self::of(instance_index, assigned_to_host.then_some(ceiling), local_rule)).ok_or_else(|| HostError::NoFreeIds {
            found: match lowest_foreign {
                Some(lowest) => format!("the lowest rule of others has priority {lowest}"),
                None => "every block is in use".into(),
            },
            wanted: match assigned_to_host {
                true => format!(
                    "{} priorities below every other rule, because an external address is the host's own, and \
                     {AFTER_LOCAL_PER_BOX} from {AFTER_LOCAL} on",
                    BEFORE_LOCAL_PER_BOX + 1
                ),
                false => format!("{AFTER_LOCAL_PER_BOX} priorities from {AFTER_LOCAL} on"),
            },
        })
    }

    fn of(instance_index: u32, ceiling: Option<u32>, local_rule: Option<u32>) -> Option<Self> {
        let [a, b, c] = TUN_ADDRESSES;
        let before_local = match ceiling {
            Some(ceiling) => Some(
                ceiling
                    .checked_sub(BEFORE_LOCAL_PER_BOX * (instance_index + 1))
                    .filter(|first| *first > 0)?,
            ),
            None => None,
        };
        let last = u8::try_from(instance_index + 1).ok()?;
        let local_rule = before_local.and(local_rule);
        Some(Self {
            instance_index,
            tun_address: Ipv4Addr::new(a, b, c, last),
            local_rule,
            before_local,
        })
    }

    /// Whether they were chosen for a host that owns an external address.
    pub(crate) fn may_precede_local(&self) -> bool {
        self.before_local.is_some()
    }

    /// Table asked for what comes from the inside.
    pub(crate) fn inside_table(&self) -> u32 {
        TABLES + TABLES_PER_BOX * self.instance_index
    }

    /// Table asked for the kernel's own ICMP errors.
    pub(crate) fn errors_table(&self) -> u32 {
        self.inside_table() + 1
    }

    /// Table asked for what comes in by the `place`-th outside interface.
    pub(crate) fn outside_table(&self, place: usize) -> u32 {
        self.inside_table() + 2 + 2 * place as u32
    }

    /// Table asked for what leaves by the `place`-th uplink.
    pub(crate) fn uplink_table(&self, place: usize) -> u32 {
        self.inside_table() + 3 + 2 * place as u32
    }

    /// The block of the box's own endpoints.
    pub(crate) fn probe_block(&self) -> Ipv4Net {
        let first = u32::from_be_bytes(OWN_ENDPOINTS) + (self.instance_index << (32 - OWN_PREFIX));
        Ipv4Net::new_assert(Ipv4Addr::from_bits(first), OWN_PREFIX)
    }

    /// Address of the box's own endpoint on the `place`-th uplink.
    pub(crate) fn probe_address(&self, place: usize) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.probe_block().addr().to_bits() + 1 + place as u32)
    }

    /// How many uplinks the block of tables has room for.
    pub(crate) const MAX_UPLINKS: usize = (TABLES_PER_BOX as usize - 2) / 2;

    /// Priority after the local rule.
    pub(crate) fn after_local(&self, offset: u32) -> u32 {
        AFTER_LOCAL + AFTER_LOCAL_PER_BOX * self.instance_index + offset
    }

    /// First priority before the moved local rule.
    ///
    /// # Panics
    /// When the numbers were chosen for a host that owns no external address.
    pub(crate) fn before_local(&self) -> u32 {
        self.before_local.expect("chosen with the facts that say an address is the host's own")
    }
}

/// What to think of rules and routes that carry our protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleOwner {
    /// They belong to another box that runs.
    OtherInstance,
    /// They belong to the box in question: `plan` prints what a running box has set.
    ThisInstance,
}

const _: () = assert!(RoutingIds::MAX_UPLINKS < 1 << (32 - OWN_PREFIX));
const _: () = assert!(Uplink::MAX <= RoutingIds::MAX_UPLINKS);

fn digits_at_the_end(name: &str) -> Option<u32> {
    let start = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[start..].parse().ok()
}
