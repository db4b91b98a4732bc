//! Damage of the files between two processes: no panic, and no packet goes to a wrong place.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use proptest::sample::Index;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::tests::{UDP, adopt_all, udp};
use crate::nat::seed::{Secrets, Seed};
use crate::nat::table::hash::{KeyHash, KeyHasher};
use crate::nat::table::key::{Key, SessionKey};
use crate::nat::table::{Adopted, SessionFiles};
use crate::nat::translate::adoption::Contents;
use crate::nat::translate::import_files::import_sessions;
use crate::nat::translate::testing::{
    Behaviour, EXTERNAL, HOSTS, Header, Instance, SERVER, SESSIONS, Step, behaviours, copy,
    first_steps, later_steps, old_sessions, settings,
};
use crate::nat::verdict::Verdict;
use crate::packet::{Endpoint, TcpFlags, Tuple};
use crate::time::{Span, Tick};
use crate::values::nat::EndpointDependence;

/// Length of a record and of a bucket.
const LINE: usize = 64;

/// The published endpoint.
const PUBLISHED: Endpoint = Endpoint::new(EXTERNAL[0], 80);

/// Damage of one place.
#[derive(Clone, Debug)]
enum Damage {
    /// A byte has another value.
    Byte { at: Index, value: u8 },
    /// A field that a session uses has another value; see [`FIELDS`].
    Field { line: Index, field: usize, value: u32 },
    /// A line has random bytes.
    Line { line: Index, bytes: Vec<u8> },
    /// A line has the bytes of another one.
    Copy { line: Index, from: Index },
    /// The reply tuple of a record is its original tuple.
    EqualTuples { line: Index },
}

/// Offset and length of fields: the addresses, ports, protocol, kinds, uplink, state, time, slot of
/// the wheel and generation of a record; tags, entries, overflow count and mark of a bucket.
const FIELDS: [(usize, usize); 16] = [
    (0, 4),
    (12, 4),
    (16, 2),
    (20, 4),
    (24, 1),
    (25, 1),
    (26, 1),
    (27, 1),
    (28, 4),
    (60, 2),
    (62, 2),
    (2, 2),
    (16, 4),
    (20, 4),
    (48, 4),
    (52, 4),
];

fn damages() -> impl Strategy<Value = (bool, Damage)> {
    let value = prop_oneof![any::<u32>(), 0..40u32, Just(u32::MAX), Just(0)];
    let damage = prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Damage::Byte { at, value }),
        6 => (any::<Index>(), 0..FIELDS.len(), value)
            .prop_map(|(line, field, value)| Damage::Field { line, field, value }),
        1 => (any::<Index>(), prop::collection::vec(any::<u8>(), LINE))
            .prop_map(|(line, bytes)| Damage::Line { line, bytes }),
        1 => any::<(Index, Index)>().prop_map(|(line, from)| Damage::Copy { line, from }),
        1 => any::<Index>().prop_map(|line| Damage::EqualTuples { line }),
    ];
    (any::<bool>(), damage)
}

/// The content of a file, and its lines that are not all zeros.
struct FileLines {
    bytes: Vec<u8>,
    used: Vec<usize>,
}

impl FileLines {
    fn read(file: &std::fs::File) -> Self {
        let mut bytes = vec![0; file.metadata().expect("a length").len() as usize];
        file.read_exact_at(&mut bytes, 0).expect("its content");
        let lines = bytes.chunks(LINE).enumerate();
        let used = lines.filter(|(_, line)| line.iter().any(|byte| *byte != 0));
        let used = used.map(|(number, _)| number * LINE).collect();
        Self { bytes, used }
    }

    fn damage(&mut self, damage: &Damage) {
        if self.used.is_empty() {
            return;
        }
        let place = |index: &Index| *index.get(&self.used);
        match damage {
            Damage::Byte { at, value } => {
                let offset = at.index(self.used.len() * LINE);
                let line = self.used[offset / LINE];
                self.bytes[line + offset % LINE] = *value;
            }
            Damage::Field { line, field, value } => {
                let (offset, length) = FIELDS[*field];
                let start = place(line) + offset;
                self.bytes[start..start + length].copy_from_slice(&value.to_le_bytes()[..length]);
            }
            Damage::Line { line, bytes } => {
                let start = place(line);
                self.bytes[start..start + LINE].copy_from_slice(bytes);
            }
            Damage::Copy { line, from } => {
                let (to, from) = (place(line), place(from));
                self.bytes.copy_within(from..from + LINE, to);
            }
            Damage::EqualTuples { line } => {
                let start = place(line);
                self.bytes.copy_within(start..start + 8, start + 8);
                self.bytes.copy_within(start + 16..start + 20, start + 20);
            }
        }
    }
}

/// The two tuples of each record that has both of its entries in the index, wherever they are.
fn whole_records(records: &[u8], index: &[u8]) -> HashSet<(Key, Key)> {
    let mut entries = HashSet::new();
    for bucket in index.chunks(LINE) {
        for slot in 0..8 {
            let tag = u16::from_le_bytes([bucket[2 * slot], bucket[2 * slot + 1]]);
            let entry = bucket[16 + 4 * slot..20 + 4 * slot].try_into().expect("four bytes");
            if tag != 0 {
                entries.insert((u32::from_le_bytes(entry), tag));
            }
        }
    }
    let hasher = KeyHasher::new(Secrets::of(Seed::from(1)).table);
    let records = records.chunks(LINE).enumerate().filter_map(|(slot, record)| {
        let word = |offset: usize, length: usize| {
            let mut bytes = [0; 8];
            bytes[..length].copy_from_slice(&record[offset..offset + length]);
            u64::from_le_bytes(bytes)
        };
        let key = |number: usize| Key {
            addresses: word(8 * number, 8),
            ports: word(16 + 4 * number, 4) as u32,
            protocol: record[24],
        };
        let has_entry = |key: Key, direction: u32| {
            let KeyHash(hash) = key.hash_with(&hasher);
            entries.contains(&((slot as u32) << 1 | direction, (hash as u16).max(1)))
        };
        (has_entry(key(0), 0) && has_entry(key(1), 1)).then(|| (key(0), key(1)))
    });
    records.collect()
}

/// Sends packets to an instance and checks where they go.
struct Traffic {
    new: Instance,
    /// Tuples of the sessions that the files have, and of those that packets have opened since.
    known: HashSet<(Key, Key)>,
    inherited: HashSet<(Key, Key)>,
    translated: u64,
}

impl Traffic {
    fn sessions(&self) -> Vec<(Key, Key)> {
        let sessions = self.new.sessions();
        sessions.iter().map(|it| (Key::of(it.original), Key::of(it.reply))).collect()
    }

    fn send(&mut self, tuple: Tuple, header: Header) {
        let tuple = Tuple { protocol: header.protocol, ..tuple };
        let before: HashSet<_> = self.sessions().into_iter().collect();
        match self.new.send(tuple, header) {
            Ok(translated) => {
                self.translated += 1;
                let opened = self
                    .sessions()
                    .into_iter()
                    .filter(|pair| !before.contains(pair) && !self.inherited.contains(pair));
                self.known.extend(opened.collect::<Vec<_>>());
                assert!(
                    self.allows(tuple, translated),
                    "{tuple:?} has become {translated:?}; sessions: {:?}",
                    self.known
                );
            }
            Err(verdict) => assert!(
                matches!(verdict, Verdict::Drop(_) | Verdict::Reply(..) | Verdict::PassToHost),
                "{verdict:?}"
            ),
        }
    }

    fn allows(&self, from: Tuple, to: Tuple) -> bool {
        let (from, to) = (Key::of(from), Key::of(to.reversed()));
        // Some packets pass a forward without a session.
        let is_forwarded = |from: Key, to: Key| {
            let (from, to) = (from.tuple(), to.tuple());
            (from.destination, to.source) == (PUBLISHED, SERVER) && from.source == to.destination
        };
        self.known.contains(&(from, to))
            || self.known.contains(&(to, from))
            || is_forwarded(from, to)
            || is_forwarded(to, from)
    }
}

/// An instance that imports the sessions of files.
fn imported(behaviour: Behaviour, now: Tick, files: SessionFiles) -> Instance {
    let ((limits, policy), seed) = (settings(behaviour), Seed::from(1));
    let old = old_sessions(files, &policy);
    let files = SessionFiles::temporary(SESSIONS);
    let imported = import_sessions(&old, &files, &limits, &policy, 2, seed, now);
    let contents = Contents::Imported(imported.expect("memory"));
    Instance::in_files(behaviour, now, &files, contents)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn damaged_files_lead_no_packet_to_a_wrong_place(
        behaviour in behaviours(),
        before in prop::collection::vec(first_steps(), 1..100),
        damages in prop::collection::vec(damages(), 0..12),
        early in prop::collection::vec(prop_oneof![later_steps(), first_steps()], 1..40),
        after in prop::collection::vec(first_steps(), 1..40),
        imports in any::<bool>(),
    ) {
        let files = SessionFiles::temporary(SESSIONS);
        let mut old = Instance::in_files(behaviour, Tick(u32::MAX - 30_000), &files, Contents::Empty);
        old.play(&before);
        let files = copy(&files);
        let [mut records, mut index] = [&files.records, &files.index].map(FileLines::read);
        for (hits_records, damage) in &damages {
            (if *hits_records { &mut records } else { &mut index }).damage(damage);
        }
        files.records.write_all_at(&records.bytes, 0).expect("space");
        files.index.write_all_at(&index.bytes, 0).expect("space");
        let inherited = whole_records(&records.bytes, &index.bytes);
        let new = match imports {
            false => Instance::in_files(behaviour, old.now, &files, Contents::Inherited),
            true => imported(behaviour, old.now, files),
        };
        let mut traffic = Traffic { new, known: inherited.clone(), inherited, translated: 0 };
        // Every packet of every session that there was, and others, during the adoption.
        for session in old.sessions() {
            for tuple in [session.original, session.reply] {
                let header = Header { protocol: tuple.protocol, flags: TcpFlags::ACK, ..UDP };
                traffic.send(tuple, header);
            }
            traffic.new.nat.adopt(0, 3, traffic.new.now);
        }
        for step in &early {
            if let Some((tuple, header)) = traffic.new.packet(step) {
                traffic.send(tuple, header);
            }
            traffic.new.nat.adopt(0, 20, traffic.new.now);
        }
        adopt_all(&traffic.new);
        let sessions = traffic.sessions();
        prop_assert_eq!(sessions.len(), traffic.new.nat.table().len() as usize);
        prop_assert!(sessions.iter().all(|pair| traffic.known.contains(pair)));
        for step in &after {
            if let Step::Sleep(span) = step {
                traffic.new.now = traffic.new.now.after(*span);
                traffic.new.expire();
            } else if let Some((tuple, header)) = traffic.new.packet(step) {
                traffic.send(tuple, header);
            }
        }
        let counters = &traffic.new.context.counters;
        prop_assert_eq!(
            counters.translated_inbound + counters.translated_outbound,
            traffic.translated
        );
        // Nothing is held any more once all sessions are over, and every record is free.
        traffic.new.now = traffic.new.now.after(Span::seconds(100));
        traffic.new.expire();
        let nat = &traffic.new.nat;
        prop_assert_eq!((nat.table().len(), nat.mappings()), (0, 0));
        prop_assert!(HOSTS.iter().all(|host| nat.hosts.sessions_of(*host) == 0));
        for port in 0..SESSIONS as u16 {
            let client = Endpoint::new(Ipv4Addr::new(192, 0, 2, 9), 1000 + port);
            let to = traffic.new.send(udp(client, PUBLISHED), UDP).expect("a session");
            prop_assert_eq!(to.destination, SERVER);
            prop_assert_eq!(traffic.new.nat.table().len(), u32::from(port) + 1);
        }
    }
}

/// All of the files is random: natbox begins without sessions and with whole counts.
#[test]
fn files_of_random_bytes_have_no_sessions() {
    let mut random = StdRng::seed_from_u64(7);
    let files = SessionFiles::temporary(SESSIONS);
    for file in [&files.records, &files.index, &files.accounts] {
        let length = file.metadata().expect("a length").len() as usize;
        let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
        file.write_all_at(&bytes, 0).expect("space");
    }
    let independent = EndpointDependence::EndpointIndependent;
    let behaviour = (independent, independent, false);
    let new = Instance::in_files(behaviour, Tick(0), &files, Contents::Inherited);
    let mut sum = Adopted::default();
    while new.nat.inherits() {
        sum += new.nat.adopt(0, 100, new.now);
    }
    assert_eq!((sum.kept, new.nat.table().len(), new.nat.mappings()), (0, 0, 0));
    assert!(sum.damaged > SESSIONS, "{sum:?}");
}
