//! Numbers of the routing tables and rules that one natbox instance uses.
//!
//! The instances of one network namespace differ by an index: the digits at the end of the TUN's
//! name if that index is free, else the lowest free one. The index determines a block of tables,
//! the preferred block of rule priorities, the TUN's address and the probe addresses. The block of
//! priorities moves when a rule of another program takes natbox's packets (see
//! [`super::precedence`]).

use std::net::Ipv4Addr;
use std::ops::Range;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::precedence::{PRIORITIES_PER_INSTANCE, Place, place};
use super::snapshot::{FoundRule, Snapshot};
use super::step::{RuleAction, TABLE_LOCAL};
use crate::config::{Config, Uplink};
use crate::host::error::HostError;

/// First table of the first block.
const TABLES: u32 = 7100;
/// Tables of one instance: inside, errors, then two per uplink.
const TABLES_PER_INSTANCE: u32 = 64;
/// First of the tables with the host's own default route: one table per instance, behind all
/// blocks.
const FOLLOW_TABLES: u32 = TABLES + TABLES_PER_INSTANCE * MAX_INSTANCES;
/// First table of the first block for the host's own packets.
const HOST_TABLES: u32 = FOLLOW_TABLES + MAX_INSTANCES;
/// Tables of one instance for the host's own packets: one for packets that have an inside source,
/// one for bound sockets, one for unnumbered interfaces, then one per published UDP service
/// address.
const HOST_TABLES_PER_INSTANCE: u32 = 16;
/// First priority of the first preferred block. The number is low, so that a VPN's catch-all rules
/// come later.
const PRIORITIES: u32 = 1000;
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
    /// First priority of the instance's rules.
    first_priority: u32,
}

/// Owner of the rules and routes with natbox's protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleOwner {
    /// Another running instance.
    OtherInstance,
    /// This instance: `plan` prints the settings of a running instance.
    ThisInstance,
}

impl RoutingIds {
    /// Number of addresses with published UDP services that fit the block of tables.
    pub(crate) const MAX_SERVICE_ADDRESSES: usize = HOST_TABLES_PER_INSTANCE as usize - 3;
    /// Number of uplinks that fit the block of tables.
    pub(crate) const MAX_UPLINKS: usize = (TABLES_PER_INSTANCE as usize - 2) / 2;

    /// Returns the numbers for a host without any rules and routes.
    pub(crate) fn default_ids(config: &Config) -> Self {
        Self::allocate(&Snapshot::default(), config, RuleOwner::OtherInstance)
            .expect("an empty snapshot has no conflicts")
    }

    /// Chooses free numbers.
    ///
    /// # Errors
    /// When no block is free.
    pub(crate) fn allocate(
        snapshot: &Snapshot,
        config: &Config,
        owner: RuleOwner,
    ) -> Result<Self, HostError> {
        let preferred = trailing_digits(&config.tun.name).filter(|index| *index < MAX_INSTANCES);
        let mut candidates =
            std::iter::once(preferred.unwrap_or(0)).chain(0..MAX_INSTANCES).filter_map(Self::of);
        let ids = candidates.find(|ids| ids.has_free_tables(snapshot, owner));
        let ids = ids.ok_or_else(|| HostError::NoFreeIds {
            found: "every block of tables is in use".into(),
            wanted: format!("{TABLES_PER_INSTANCE} tables from {TABLES} on"),
        })?;
        Ok(ids.placed(snapshot, config, owner))
    }

    fn of(instance_index: u32) -> Option<Self> {
        let [a, b, c] = TUN_ADDRESSES;
        let last = u8::try_from(instance_index + 1).ok()?;
        let first_priority = PRIORITIES + PRIORITIES_PER_INSTANCE * instance_index;
        Some(Self { instance_index, tun_address: Ipv4Addr::new(a, b, c, last), first_priority })
    }

    /// Returns the numbers with a place of the rules that no rule of another program precedes.
    /// Without such a place, the preferred one.
    fn placed(self, snapshot: &Snapshot, config: &Config, owner: RuleOwner) -> Self {
        let is_taken = |found: &&FoundRule| owner.counts(found.is_natbox());
        let taken = snapshot.rules.iter().filter(is_taken).map(|found| found.rule.priority);
        let taken: Vec<u32> = taken.filter(|priority| *priority > 0).collect();
        match place(snapshot, config, &taken, self.preferred_priority()) {
            Place::At(first_priority) => Self { first_priority, ..self },
            Place::Behind => self,
        }
    }

    /// Returns the numbers for rules that another program's rule precedes by now. `back`: also
    /// return to the preferred place when that is possible. None: the rules stay.
    pub(crate) fn moved(&self, snapshot: &Snapshot, config: &Config, back: bool) -> Option<Self> {
        let of_others = snapshot.rules.iter().map(|found| found.rule.priority);
        let taken: Vec<u32> = of_others
            .filter(|priority| *priority > 0 && !self.priorities().contains(priority))
            .collect();
        let preferred = match back {
            true => self.preferred_priority(),
            false => self.first_priority,
        };
        match place(snapshot, config, &taken, preferred) {
            Place::At(first) if first != self.first_priority => {
                Some(Self { first_priority: first, ..*self })
            }
            Place::At(_) | Place::Behind => None,
        }
    }

    fn preferred_priority(&self) -> u32 {
        PRIORITIES + PRIORITIES_PER_INSTANCE * self.instance_index
    }

    /// Returns true when no rule, route or address of the host uses the tables and addresses.
    fn has_free_tables(&self, snapshot: &Snapshot, owner: RuleOwner) -> bool {
        let leads_here = |found: &FoundRule| {
            let table = match found.rule.action {
                RuleAction::Lookup(table) => table,
                RuleAction::Blackhole => TABLE_LOCAL,
            };
            self.owns_table(table)
        };
        let mut rules = snapshot.rules.iter().filter(|found| owner.counts(found.is_natbox()));
        let mut routes = snapshot.routes.iter().filter(|found| owner.counts(found.is_natbox()));
        // `plan` may see the TUN of the running instance that the plan describes.
        let address_conflict =
            owner == RuleOwner::OtherInstance && snapshot.has_address(self.tun_address);
        !rules.any(leads_here)
            && !routes.any(|found| self.owns_table(found.route.table))
            && !address_conflict
    }

    /// Returns the blocks of tables for translated packets and for the host's own packets.
    fn tables(&self) -> [Range<u32>; 3] {
        let first = self.host_table();
        [
            self.inside_table()..self.inside_table() + TABLES_PER_INSTANCE,
            first..first + HOST_TABLES_PER_INSTANCE,
            self.follow_table()..self.follow_table() + 1,
        ]
    }

    /// Returns true for a table of this instance.
    pub(crate) fn owns_table(&self, table: u32) -> bool {
        self.tables().iter().any(|block| block.contains(&table))
    }

    /// Returns true for a table of any instance.
    pub(crate) fn is_table_of_natbox(table: u32) -> bool {
        (TABLES..HOST_TABLES + HOST_TABLES_PER_INSTANCE * MAX_INSTANCES).contains(&table)
    }

    /// Returns true for a table of any instance for packets that leave by an uplink.
    pub(crate) fn is_table_of_uplink(table: u32) -> bool {
        let place = table.checked_sub(TABLES).map(|offset| offset % TABLES_PER_INSTANCE);
        table < FOLLOW_TABLES && place.is_some_and(|place| place >= 3 && place % 2 == 1)
    }

    /// Table for packets from the inside.
    pub(crate) fn inside_table(&self) -> u32 {
        TABLES + TABLES_PER_INSTANCE * self.instance_index
    }

    /// Table for the kernel's own ICMP errors. Every route of this table leads into the TUN.
    pub(crate) fn errors_table(&self) -> u32 {
        self.inside_table() + 1
    }

    /// Table for packets that arrive on the outside interface with a number.
    pub(crate) fn outside_table(&self, interface: u8) -> u32 {
        self.inside_table() + 2 + 2 * u32::from(interface)
    }

    /// Table for packets that leave by the uplink with a number.
    pub(crate) fn uplink_table(&self, uplink: u8) -> u32 {
        self.inside_table() + 3 + 2 * u32::from(uplink)
    }

    /// Table for the host's own packets from inside addresses.
    pub(crate) fn host_table(&self) -> u32 {
        HOST_TABLES + HOST_TABLES_PER_INSTANCE * self.instance_index
    }

    /// Table for sockets that are bound to an uplink's interface and to an inside address.
    pub(crate) fn bound_table(&self) -> u32 {
        self.host_table() + 1
    }

    /// Table for packets without a source by an uplink's interface that has no address.
    pub(crate) fn unnumbered_table(&self) -> u32 {
        self.host_table() + 2
    }

    /// Table for the `place`-th address at which the host has a published UDP service.
    pub(crate) fn service_table(&self, place: usize) -> u32 {
        self.host_table() + 3 + place as u32
    }

    /// Table with the host's own default route.
    pub(crate) fn follow_table(&self) -> u32 {
        FOLLOW_TABLES + self.instance_index
    }

    /// Returns true for a table of the host's own packets.
    pub(crate) fn is_of_host(&self, table: u32) -> bool {
        let [_, own, follow] = self.tables();
        own.contains(&table) || follow.contains(&table)
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

    /// Address from which natbox itself sends over the uplink with a number.
    pub(crate) fn probe_address(&self, uplink: u8) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.probe_block().addr().to_bits() + 1 + u32::from(uplink))
    }

    /// Priority of the instance's rules at a position of the block.
    pub(crate) fn priority(&self, offset: u32) -> u32 {
        debug_assert!(offset < PRIORITIES_PER_INSTANCE, "{offset} is beyond the block");
        self.first_priority + offset
    }

    /// Block of the instance's priorities.
    pub(crate) fn priorities(&self) -> Range<u32> {
        self.first_priority..self.first_priority + PRIORITIES_PER_INSTANCE
    }
}

impl RuleOwner {
    /// Returns true when a rule or route counts as taken.
    fn counts(self, is_natbox: bool) -> bool {
        self == RuleOwner::OtherInstance || !is_natbox
    }
}

const _: () = assert!(RoutingIds::MAX_UPLINKS < 1 << (32 - PROBE_PREFIX));
const _: () = assert!(Uplink::MAX <= RoutingIds::MAX_UPLINKS);

fn trailing_digits(name: &str) -> Option<u32> {
    let start = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[start..].parse().ok()
}
