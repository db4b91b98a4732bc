//! Files of each layout, as the release that introduced the layout wrote them, with their sessions.
//!
//! `NATBOX_BLESS=1` writes the files of the present layout if they do not exist. Existing ones stay
//! as they are: this program could not write those of an older layout.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::nat::context::WorkerContext;
use crate::nat::policy::limits::Limits;
use crate::nat::policy::rules::Policy;
use crate::nat::seed::Seed;
use crate::nat::table::filter::Filter;
use crate::nat::table::formats::{OldSessions, OldTable};
use crate::nat::table::{EndReason, FileFormat, SessionFiles, SessionInfo, TableCursor, layout};
use crate::nat::translate::adoption::Contents;
use crate::nat::translate::import_files::import_sessions;
use crate::nat::translate::testing::{EXTERNAL, HOSTS, REMOTES, settings};
use crate::nat::translator::Translator;
use crate::packet::{
    ChecksumMode, Endpoint, Protocol, QueryKind, TcpFlags, Tuple, VecFrames, builder, parse,
};
use crate::time::{Span, Tick};
use crate::values::nat::EndpointDependence;

const CAPACITY: u32 = 24;
/// Time of the first packet. The ticks wrap before the last one.
const START: Tick = Tick(u32::MAX - 5000);
const LINE: usize = 64;

/// A box whose sessions live in files.
struct Source {
    nat: Translator,
    context: WorkerContext,
    now: Tick,
}

impl Source {
    fn new(files: &SessionFiles) -> Self {
        let ((limits, policy), seed) = (configuration(), Seed::from(7));
        let nat = Translator::in_files(limits, policy, 1, seed, START, files, Contents::Empty);
        let nat = nat.expect("memory");
        Self { context: nat.worker(0), nat, now: START }
    }

    /// Translates a packet.
    fn pass(&mut self, packet: &[u8]) -> Vec<u8> {
        self.now = self.now.after(Span(100));
        let mut frames = VecFrames::new();
        frames.push(packet);
        self.nat.process(&mut self.context, &mut frames, self.now);
        let mut sent = frames.take_sent();
        assert_eq!(sent.len(), 1, "{packet:?}");
        sent.remove(0).0
    }

    /// Translates a UDP datagram and returns its new tuple.
    fn udp(&mut self, source: Endpoint, destination: Endpoint) -> Tuple {
        let tuple = Tuple { protocol: Protocol::UDP, source, destination };
        tuple_of(&self.pass(&builder::udp(tuple, b"payload")))
    }

    /// Translates the segments of a connection: who sends (true: the client), flags, sequence and
    /// acknowledgement number.
    fn tcp(&mut self, client: Endpoint, to: Endpoint, segments: &[(bool, u8, u32, u32)]) {
        let original = Tuple { protocol: Protocol::TCP, source: client, destination: to };
        let mut translated = original;
        for (from_client, flags, sequence, acknowledgement) in segments {
            let tuple = if *from_client { original } else { translated.reversed() };
            let flags = TcpFlags(*flags);
            let segment = builder::tcp(tuple, flags, *sequence, *acknowledgement, &[], b"payload");
            let sent = tuple_of(&self.pass(&segment));
            if *from_client {
                translated = sent;
            }
        }
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        self.nat.sessions(TableCursor::default(), &Filter::default()).items
    }
}

fn configuration() -> (Limits, Policy) {
    let independent = EndpointDependence::EndpointIndependent;
    let (limits, policy) = settings((independent, independent, false));
    (Limits { sessions: CAPACITY, ..limits }, policy)
}

fn tuple_of(packet: &[u8]) -> Tuple {
    let parsed = parse(packet, ChecksumMode::Complete).expect("well-formed");
    parsed.tuple().expect("a tuple")
}

const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
const ACK: u8 = 0x10;
const FIN_ACK: u8 = 0x11;
const RST: u8 = 0x04;
const HANDSHAKE: [(bool, u8, u32, u32); 3] =
    [(true, SYN, 1000, 0), (false, SYN_ACK, 5000, 1008), (true, ACK, 1008, 5008)];

/// Sessions of every kind and of many states.
fn open_sessions(source: &mut Source) {
    let host = |port| Endpoint::new(HOSTS[0], port);
    let remote = |port| Endpoint::new(REMOTES[0], port);
    let web = Endpoint::new(EXTERNAL[0], 80);
    let short = source.udp(host(4000), remote(9));
    let external = source.udp(host(5000), remote(1000)).source;
    source.udp(remote(1000), external);
    let dns = source.udp(host(5001), remote(53)).source;
    source.udp(remote(53), dns);
    source.udp(Endpoint::new(REMOTES[1], 9000), external);
    source.udp(Endpoint::new(HOSTS[1], 5005), external);
    source.udp(Endpoint::new(HOSTS[1], 5006), web);
    source.udp(Endpoint::new(REMOTES[1], 7001), web);
    let established = [&HANDSHAKE[..], &[(false, ACK, 5008, 1015)]].concat();
    source.tcp(host(6000), remote(443), &established);
    source.tcp(host(6001), remote(443), &HANDSHAKE[..1]);
    source.tcp(
        host(6002),
        remote(443),
        &[&established[..], &[(true, FIN_ACK, 1015, 5015)]].concat(),
    );
    source.tcp(host(6003), remote(443), &[&established[..], &[(false, RST, 5015, 0)]].concat());
    source.tcp(Endpoint::new(REMOTES[1], 7000), web, &established);
    source.pass(&builder::echo(HOSTS[1], REMOTES[0], QueryKind::EchoRequest, 77, 1, b"ping"));
    source.pass(&builder::other(Protocol(47), HOSTS[1], REMOTES[1], b"gre"));
    // A record that is free again.
    let is_short = |session: &&SessionInfo| session.reply == short.reversed();
    let short = source.sessions().iter().find(is_short).expect("a session").id;
    source.nat.end(short, EndReason::Requested, source.now).expect("a session");
}

/// A session as JSON.
fn described(session: &SessionInfo, uplink: &str, now: Tick) -> Value {
    let tuple = |tuple: Tuple| {
        let Tuple { protocol, source, destination } = tuple;
        format!(
            "{} {}:{} {}:{}",
            protocol.0, source.address, source.port, destination.address, destination.port
        )
    };
    let kinds = [session.origin.initiator, session.origin.responder].map(|it| format!("{it:?}"));
    json!({
        "original": tuple(session.original),
        "reply": tuple(session.reply),
        "kind": kinds,
        "uplink": uplink,
        "state": format!("{:?}", session.state),
        "next_sequence": session.tcp.next_sequence,
        "acknowledged": session.tcp.acknowledged,
        "window": session.tcp.window,
        "idle": now.since(session.last_seen).0,
        "accounting": session.accounting.map(|it| json!({
            "age": now.since(it.start).0, "packets": it.packets, "bytes": it.bytes,
        })),
    })
}

/// Number of a layout.
fn number(layout: &[u64]) -> u64 {
    layout[0]
}

fn place(number: u64, what: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/nat/translate/import_files/files");
    folder.join(format!("layout_{number}_{what}.json"))
}

/// The lines of a file that are not all zeros.
fn lines(file: &File) -> Value {
    let mut content = vec![0; file.metadata().expect("a length").len() as usize];
    file.read_exact_at(&mut content, 0).expect("its content");
    let lines = content.chunks(LINE).enumerate();
    let used = lines.filter(|(_, line)| line.iter().any(|byte| *byte != 0));
    used.map(|(number, line)| json!([number, HEXLOWER.encode(line)])).collect()
}

/// Writes the files of the present layout and their sessions.
fn write_present() {
    let files = SessionFiles::temporary(CAPACITY);
    let mut source = Source::new(&files);
    open_sessions(&mut source);
    let uplinks: Vec<_> =
        source.nat.policy().uplinks.iter().map(|uplink| uplink.name.clone()).collect();
    let name = |session: &SessionInfo| &uplinks[usize::from(session.uplink)][..];
    let sessions = source.sessions();
    let sessions: Value =
        sessions.iter().map(|session| described(session, name(session), source.now)).collect();
    let content = json!({
        "layout": layout(),
        "capacity": CAPACITY,
        "uplinks": uplinks,
        "seed": 7,
        "now": source.now.0,
        "records": lines(&files.records),
        "index": lines(&files.index),
        "accounts": lines(&files.accounts),
    });
    for (what, value) in [("files", content), ("sessions", sessions)] {
        let text = serde_json::to_string_pretty(&value).expect("plain values") + "\n";
        fs::write(place(number(&layout()), what), text).expect("a file");
    }
}

/// Files of a layout that lie in the repository, and the time at which they were written.
struct Stored {
    old: OldSessions,
    now: Tick,
    /// Their sessions.
    expected: Value,
}

impl Stored {
    fn read(number: u64) -> Self {
        let read = |what| -> Value {
            let text = fs::read_to_string(place(number, what)).expect("files of each layout");
            serde_json::from_str(&text).expect("JSON")
        };
        let (content, expected) = (read("files"), read("sessions"));
        let of = |name: &str| content[name].as_u64().expect("a number");
        let layout: Vec<u64> = serde_json::from_value(content["layout"].clone()).expect("numbers");
        let format = FileFormat::of(&layout).expect("a known layout");
        let capacity = of("capacity") as u32;
        let sizes = format.sizes(capacity, true);
        let file = |name: &str, length: u64| {
            let file = tempfile::tempfile().expect("a file");
            file.set_len(length).expect("space");
            for line in content[name].as_array().expect("lines") {
                let offset = line[0].as_u64().expect("a number") * LINE as u64;
                let bytes = line[1].as_str().expect("digits").as_bytes();
                file.write_all_at(&HEXLOWER.decode(bytes).expect("digits"), offset).expect("space");
            }
            file
        };
        let files = SessionFiles {
            records: file("records", sizes.records),
            index: file("index", sizes.index),
            accounts: file("accounts", sizes.accounts),
        };
        let old = OldSessions {
            files,
            format,
            capacity,
            accounting: true,
            uplinks: serde_json::from_value(content["uplinks"].clone()).expect("names"),
            other_mappings: false,
            seed: Seed::from(of("seed")),
        };
        Self { old, now: Tick(of("now") as u32), expected }
    }

    /// Sessions that the reader finds, as JSON.
    fn found(&self) -> Value {
        let table = OldTable::open(&self.old).expect("memory");
        let sessions = (0..table.records()).filter_map(|slot| table.session(slot));
        let uplink = |session: &SessionInfo| &self.old.uplinks[usize::from(session.uplink)][..];
        sessions.map(|session| described(&session, uplink(&session), self.now)).collect()
    }
}

/// Numbers of all layouts that this program reads.
const LAYOUTS: [u64; 2] = [1, 2];

#[test]
fn the_sessions_in_files_of_every_layout_are_read() {
    let present = number(&layout());
    assert_eq!(LAYOUTS.last(), Some(&present), "the present layout needs files in this test");
    assert!(FileFormat::of(&layout()).is_some(), "a reader of the present layout is missing");
    let blesses = std::env::var_os("NATBOX_BLESS").is_some_and(|value| value == "1");
    if blesses && !place(present, "files").exists() {
        write_present();
    }
    for number in LAYOUTS {
        let stored = Stored::read(number);
        assert!(stored.expected.as_array().is_some_and(|sessions| sessions.len() == 13));
        assert_eq!(stored.found(), stored.expected, "layout {number}");
    }
}

#[test]
fn a_record_that_is_not_whole_or_not_possible_is_not_read() {
    let sessions = |stored: &Stored| stored.found().as_array().expect("a list").len();
    // The state, the kinds, the protocol, a port; equal tuples; a record without a session.
    let cases: [(u64, &[u8]); 6] =
        [(27, &[99]), (25, &[0o71]), (24, &[50]), (16, &[1]), (62, &[0, 0]), (60, &[255, 255])];
    for (offset, bytes) in cases {
        let stored = Stored::read(1);
        let record = 64;
        stored.old.files.records.write_all_at(bytes, record + offset).expect("space");
        assert_eq!(sessions(&stored), 12, "{offset}");
    }
    // Each index entry is missing once. In a shard that was being changed, a session is found also
    // if its overflow count is wrong.
    for torn in [false, true] {
        let stored = Stored::read(1);
        let mut index = vec![0; LINE * 1024];
        stored.old.files.index.read_exact_at(&mut index, 0).expect("its content");
        let is_next_empty = |at: &usize| {
            index[*at..*at + 2] != [0, 0] && index[at + LINE..at + 2 * LINE] == [0; LINE]
        };
        let entry = (0..index.len() - LINE).step_by(LINE).find(is_next_empty);
        let bucket = entry.expect("an entry");
        let (mut home, mut next) = (index[bucket..bucket + LINE].to_vec(), vec![0; LINE]);
        // The entry lies in the next bucket, and the overflow count does not say so.
        next[..2].copy_from_slice(&home[..2]);
        next[16..20].copy_from_slice(&home[16..20]);
        home[..2].fill(0);
        home[52] = u8::from(torn);
        index[bucket..bucket + LINE].copy_from_slice(&home);
        index[bucket + LINE..bucket + 2 * LINE].copy_from_slice(&next);
        stored.old.files.index.write_all_at(&index, 0).expect("space");
        assert_eq!(sessions(&stored) == 13, torn);
    }
}

/// Sessions of an older release go on: packets of both directions are translated as before.
#[test]
fn sessions_of_every_layout_continue_with_their_external_ports() {
    for number in LAYOUTS {
        let Stored { old, now, .. } = Stored::read(number);
        let table = OldTable::open(&old).expect("memory");
        let sessions: Vec<_> =
            (0..table.records()).filter_map(|slot| table.session(slot)).collect();
        let (mut limits, policy) = configuration();
        let timeouts = &mut limits.timeouts;
        (timeouts.udp_dns, timeouts.tcp_syn, timeouts.tcp_transitory) =
            (timeouts.udp, timeouts.udp, timeouts.udp);
        let (new, seed) = (SessionFiles::temporary(CAPACITY), Seed::from(8));
        let imported = import_sessions(&old, &new, &limits, &policy, 1, seed, now);
        let imported = imported.expect("memory");
        assert_eq!((imported.kept, imported.dropped, imported.without_record), (13, 0, 0));
        let contents = Contents::Imported(imported);
        let nat = Translator::in_files(limits, policy, 1, seed, now, &new, contents);
        let nat = nat.expect("memory");
        let context = nat.worker(0);
        let mut natbox = Source { nat, context, now };
        for is_adopted in [false, true] {
            for session in &sessions {
                for (from, to) in
                    [(session.original, session.reply), (session.reply, session.original)]
                {
                    let sent = natbox.pass(&packet(from));
                    assert_eq!(tuple_of(&sent), to.reversed(), "{session:?}");
                }
            }
            if !is_adopted {
                while natbox.nat.inherits() {
                    natbox.nat.adopt(0, 5, natbox.now);
                }
                assert_eq!(natbox.nat.table().len(), 13);
            }
        }
    }
}

/// A packet with a tuple.
fn packet(tuple: Tuple) -> Vec<u8> {
    let Tuple { protocol, source, destination } = tuple;
    match protocol {
        Protocol::TCP => builder::tcp(tuple, TcpFlags::ACK, 1, 1, &[], b""),
        Protocol::UDP => builder::udp(tuple, b"payload"),
        Protocol::ICMP => {
            let (kind, identifier) = match source.port {
                0 => (QueryKind::EchoReply, destination.port),
                port => (QueryKind::EchoRequest, port),
            };
            builder::echo(source.address, destination.address, kind, identifier, 1, b"ping")
        }
        _ => builder::other(protocol, source.address, destination.address, b"gre"),
    }
}
