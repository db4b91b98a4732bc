//! The session record: plain data, for IPv4 64 bytes and so one cache line.
//!
//! A session is a pair of tuples, *original* and *reply*, each as its packets look on arrival.
//! natbox rewrites a packet that matches one tuple to the reverse of the other. Forwards, outbound
//! sessions and hairpin differ only in the tuples.
//!
//! Who may touch what:
//! * Tuples, protocol, kind and uplink are written before the record's keys enter the index and
//!   never while the keys are in the index. A worker that holds the shard of either key reads them
//!   freely.
//! * State, last-seen and TCP fields are written by the worker that holds the shard of the packet's
//!   own key. The two directions may run on two workers at once. Then the later write of a field
//!   wins, which costs at most a refresh or a window edge, never a wrong translation.
//! * The links and the wheel slot belong to the record's pool; the pool's lock guards them.
//! * The generation changes under the pool's lock while the record is free and not in the index. A
//!   worker that holds the pool or the shard of either key reads it freely.
//!
//! All accesses are relaxed: the locks of shard and pool order them.

use std::sync::atomic::Ordering::Relaxed;

use crate::nat::table::atomic::{AtomicU32, AtomicU64};
use crate::nat::table::common::RecordCommon;
use crate::nat::table::key::{Key, SessionKey};
use crate::nat::table::region::{Plain, plain};
use crate::nat::table::session::NewSession;
use crate::nat::tracking::direction::Direction;
use crate::time::Tick;

/// A session record of any address family: two keys, and the part that all families share.
pub trait SessionRecord: Plain + Send + Sized + 'static {
    /// Key of the family.
    type Key: SessionKey;

    /// The shared part.
    fn common(&self) -> &RecordCommon;

    /// Fills a free record. The caller holds the pool's lock and has not yet entered the record
    /// into the index.
    fn fill(&self, new: &NewSession<Self::Key>, now: Tick);

    /// Tuple of a direction, as its packets arrive.
    fn key(&self, direction: Direction) -> Self::Key;

    /// Whether the packets of the initiator go to port 53.
    fn is_dns(&self) -> bool;

    /// Whether the record has no keys: no session ever filled it.
    fn is_blank(&self) -> bool;

    /// Removes the keys of a record without a session.
    fn clear_keys(&self);
}

plain! {
    /// One IPv4 session. See the module doc.
    #[repr(C, align(64))]
    pub struct Record {
        original_addresses: AtomicU64,
        reply_addresses: AtomicU64,
        original_ports: AtomicU32,
        reply_ports: AtomicU32,
        common: RecordCommon,
    }
}

const _: () = assert!(size_of::<Record>() == 64 && align_of::<Record>() == 64);

impl SessionRecord for Record {
    type Key = Key;

    #[inline]
    fn common(&self) -> &RecordCommon {
        &self.common
    }

    fn fill(&self, new: &NewSession, now: Tick) {
        let NewSession { original, reply, origin, uplink, state, idle } = *new;
        self.original_addresses.store(original.addresses, Relaxed);
        self.original_ports.store(original.ports, Relaxed);
        self.reply_addresses.store(reply.addresses, Relaxed);
        self.reply_ports.store(reply.ports, Relaxed);
        self.common.fill(original.protocol, origin, uplink, state, idle, now);
    }

    #[inline]
    fn key(&self, direction: Direction) -> Key {
        let (addresses, ports) = match direction {
            Direction::Original => (&self.original_addresses, &self.original_ports),
            Direction::Reply => (&self.reply_addresses, &self.reply_ports),
        };
        Key {
            addresses: addresses.load(Relaxed),
            ports: ports.load(Relaxed),
            protocol: self.common.protocol(),
        }
    }

    #[inline]
    fn is_dns(&self) -> bool {
        self.original_ports.load(Relaxed) & 0xffff == DNS_PORT
    }

    fn is_blank(&self) -> bool {
        self.original_addresses.load(Relaxed) == 0 && self.reply_addresses.load(Relaxed) == 0
    }

    fn clear_keys(&self) {
        self.original_addresses.store(0, Relaxed);
        self.reply_addresses.store(0, Relaxed);
        self.original_ports.store(0, Relaxed);
        self.reply_ports.store(0, Relaxed);
    }
}

const DNS_PORT: u32 = 53;
