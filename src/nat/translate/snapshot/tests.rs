use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::nat::context::WorkerContext;
use crate::nat::policy::limits::{EndpointDependence, Limits, Timeouts};
use crate::nat::policy::port_range::PortRange;
use crate::nat::policy::rules::{
    ExternalAddress, Forward, ForwardProtocol, HashBy, OutboundRule, Policy, Uplink,
};
use crate::nat::seed::Seed;
use crate::nat::table::SessionFiles;
use crate::nat::table::filter::Filter;
use crate::nat::translate::fast_path::Packet;
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{ChecksumMode, TcpFlags, builder, parse};

const REMOTES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
const EXTERNAL: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(198, 51, 100, 10)];
const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 6)];
const SERVER: Endpoint = Endpoint::new(Ipv4Addr::new(10, 0, 0, 100), 8080);

/// Capacity of the tables of these tests.
const SESSIONS: u32 = 256;
/// The importer's clock shows this much more than the exporter's.
const CLOCKS_APART: Span = Span(u32::MAX - 12_345);

/// Behaviour of mappings and filtering, and whether ports overlap.
type Behaviour = (EndpointDependence, EndpointDependence, bool);

fn behaviours() -> impl Strategy<Value = Behaviour> {
    use EndpointDependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
    let behaviour = || {
        prop::sample::select(vec![EndpointIndependent, AddressDependent, AddressAndPortDependent])
    };
    (behaviour(), behaviour(), any::<bool>()).prop_map(|(mapping, filtering, overlapping)| {
        (mapping, filtering, overlapping && mapping != EndpointIndependent)
    })
}

fn translator(behaviour: Behaviour, seed: u64, now: Tick) -> Translator {
    let (limits, policy) = settings(behaviour);
    Translator::new(limits, policy, 2, Seed::from(seed), now).expect("memory")
}

fn settings((mapping, filtering, overlapping): Behaviour) -> (Limits, Policy) {
    let inside = "10.0.0.0/24".parse().expect("a prefix");
    let second = Span::seconds(1);
    let limits = Limits {
        mapping,
        filtering,
        port_overlapping: overlapping,
        ports: PortRange { first: 40_000, last: 40_015 },
        timeouts: Timeouts {
            tcp_established: Span::seconds(60),
            tcp_transitory: Span::seconds(8),
            tcp_syn: Span::seconds(4),
            udp: Span::seconds(20),
            udp_dns: second,
            icmp: Span::seconds(6),
            ..Limits::new(inside).timeouts
        },
        sessions: SESSIONS,
        accounting: true,
        sessions_per_host: NonZeroU32::new(100),
        ..Limits::new(inside)
    };
    let mut policy = Policy::one_uplink(inside, EXTERNAL[0]);
    policy.uplinks.push(Uplink {
        name: "isp2".into(),
        addresses: vec![ExternalAddress {
            address: EXTERNAL[1],
            assigned_to_host: false,
            reserved: Vec::new(),
        }],
        ..policy.uplinks[0].clone()
    });
    policy.outbound = vec![OutboundRule {
        from: inside,
        to: Vec::new(),
        uplinks: vec![0, 1],
        hash_by: HashBy::SourcePort,
    }];
    policy.forwards = vec![Forward {
        name: "web".into(),
        uplink: 0,
        protocol: ForwardProtocol::TcpUdp,
        address: EXTERNAL[0],
        ports: PortRange { first: 80, last: 80 },
        to_address: SERVER.address,
        to_port: SERVER.port,
    }];
    (limits, policy)
}

#[derive(Clone, Debug)]
enum Step {
    /// An inside host sends to a remote host or to an external endpoint.
    Outbound {
        host: usize,
        port: u16,
        to: usize,
        header: Header,
    },
    /// A remote host sends to the published server or to a dynamic port.
    Inbound {
        remote: usize,
        port: u16,
        uplink: usize,
        to: u16,
        header: Header,
    },
    /// A packet of a session.
    Follow {
        session: Index,
        reply: bool,
        header: Header,
    },
    Sleep(Span),
}

/// Protocol and TCP header of a packet.
#[derive(Clone, Copy, Debug)]
struct Header {
    protocol: Protocol,
    flags: TcpFlags,
    sequence: u32,
    acknowledgement: u32,
}

fn headers() -> impl Strategy<Value = Header> {
    let number = || prop::sample::select(vec![1000u32, 1001, 1101, 90_000, 1 << 30]);
    let protocol = prop::sample::select(vec![Protocol::TCP, Protocol::TCP, Protocol::UDP]);
    // SYN, SYN-ACK, ACK, FIN-ACK, RST.
    let flags = prop::sample::select(vec![0x02u8, 0x12, 0x10, 0x10, 0x11, 0x04]);
    (protocol, flags, number(), number()).prop_map(
        |(protocol, flags, sequence, acknowledgement)| Header {
            protocol,
            flags: TcpFlags(flags),
            sequence,
            acknowledgement,
        },
    )
}

/// Steps of which none needs a new mapping: the two translators draw ports of their own.
fn later_steps() -> impl Strategy<Value = Step> {
    let to = prop_oneof![Just(80u16), 40_000..40_016u16];
    prop_oneof![
        2 => (0..2usize, 1..3u16, 0..2usize, to, headers()).prop_map(
            |(remote, port, uplink, to, header)| Step::Inbound { remote, port, uplink, to, header }
        ),
        6 => (any::<Index>(), any::<bool>(), headers())
            .prop_map(|(session, reply, header)| Step::Follow { session, reply, header }),
        1 => (0..5000u32).prop_map(|span| Step::Sleep(Span(span))),
    ]
}

fn first_steps() -> impl Strategy<Value = Step> {
    let outbound = (0..2usize, 5000..5004u16, 0..6usize, headers())
        .prop_map(|(host, port, to, header)| Step::Outbound { host, port, to, header });
    prop_oneof![2 => outbound, 3 => later_steps()]
}

/// A translator, a worker of it, and its clock.
struct Instance {
    nat: Translator,
    context: WorkerContext,
    now: Tick,
}

impl Instance {
    fn new(behaviour: Behaviour, seed: u64, now: Tick) -> Self {
        Self::with(translator(behaviour, seed, now), now)
    }

    /// An instance whose sessions live in files.
    fn in_files(behaviour: Behaviour, now: Tick, files: &SessionFiles, inherits: bool) -> Self {
        let (limits, policy) = settings(behaviour);
        let seed = Seed::from(1);
        let nat = Translator::in_files(limits, policy, 2, seed, now, files, inherits);
        Self::with(nat.expect("memory"), now)
    }

    fn with(nat: Translator, now: Tick) -> Self {
        let context = nat.worker(0);
        Self { nat, context, now }
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        let mut sessions = Vec::new();
        let mut next = Some(TableCursor::default());
        while let Some(from) = next {
            let page = self.nat.sessions(from, &Filter::default());
            sessions.extend(page.items);
            next = page.next;
        }
        sessions
    }

    fn export(&self) -> Vec<SessionSnapshot> {
        let mut snapshots = Vec::new();
        let mut next = Some(TableCursor::default());
        while let Some(from) = next {
            let page = self.nat.export(from, self.now);
            snapshots.extend(page.items);
            next = page.next;
        }
        // Records lie in another order in every table.
        snapshots.sort_by_key(|snapshot| {
            let Tuple { protocol, source, destination } = snapshot.original;
            (protocol.0, source.address, source.port, destination.address, destination.port)
        });
        snapshots
    }

    /// Ends the sessions whose time is over, at once. The wheel would do so a moment later, and
    /// that moment depends on when it last saw the session.
    fn expire(&mut self) {
        for session in self.sessions() {
            if let Some(ended) = self.nat.table.reap_if_expired(session.id, self.now) {
                self.nat.release(&ended, self.now);
            }
        }
    }

    /// Takes steps, and ends the sessions whose time is over then.
    fn play(&mut self, steps: &[Step]) {
        for step in steps {
            if let Step::Sleep(span) = step {
                self.now = self.now.after(*span);
            } else if let Some((tuple, header)) = self.packet(step) {
                let _ = self.send(tuple, header);
            }
        }
        self.expire();
    }

    /// What a packet is translated to, or the verdict.
    fn send(&mut self, mut tuple: Tuple, header: Header) -> Result<Tuple, Verdict> {
        tuple.protocol = header.protocol;
        let mut buffer = match header.protocol {
            Protocol::TCP => {
                let Header { flags, sequence, acknowledgement, .. } = header;
                builder::tcp(tuple, flags, sequence, acknowledgement, &[], b"payload")
            }
            _ => builder::udp(tuple, b"payload"),
        };
        let length = buffer.len();
        let parsed = parse(&buffer, ChecksumMode::Complete).expect("well-formed");
        buffer.resize(2048, 0);
        let key = Key::of(tuple);
        let packet = Packet { parsed: &parsed, buffer: &mut buffer, wire_length: length };
        let hash = self.nat.table().hash(key);
        let verdict = self.nat.translate(&mut self.context, packet, key, hash, self.now);
        if verdict != Verdict::Translated {
            return Err(verdict);
        }
        let parsed = parse(&buffer[..length], ChecksumMode::Complete).expect("well-formed");
        Ok(parsed.tuple().expect("udp and tcp have a tuple"))
    }

    /// The packet of a step, by the sessions of this instance.
    fn packet(&self, step: &Step) -> Option<(Tuple, Header)> {
        let tuple = |source, destination| Tuple { protocol: Protocol::UDP, source, destination };
        match *step {
            Step::Outbound { host, port, to, header } => {
                let destination = match to {
                    0..4 => Endpoint::new(REMOTES[to % 2], [53, 1000][to / 2]),
                    4 => Endpoint::new(EXTERNAL[0], 80),
                    _ => self.sessions().first()?.reply.destination,
                };
                Some((tuple(Endpoint::new(HOSTS[host], port), destination), header))
            }
            Step::Inbound { remote, port, uplink, to, header } => {
                let source = Endpoint::new(REMOTES[remote], port);
                Some((tuple(source, Endpoint::new(EXTERNAL[uplink], to)), header))
            }
            Step::Follow { ref session, reply, header } => {
                let sessions = self.sessions();
                if sessions.is_empty() {
                    return None;
                }
                let session = session.get(&sessions);
                let tuple = if reply { session.reply } else { session.original };
                Some((tuple, Header { protocol: tuple.protocol, ..header }))
            }
            Step::Sleep(_) => None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Export and import are invisible: the same packets get the same translation, and the sessions
    /// have the same state, window, timers, mapping and place in the host's limit.
    #[test]
    fn an_imported_session_goes_on_as_if_it_had_never_moved(
        behaviour in behaviours(),
        before in prop::collection::vec(first_steps(), 1..120),
        after in prop::collection::vec(later_steps(), 1..80),
    ) {
        let mut old = Instance::new(behaviour, 1, Tick(u32::MAX - 30_000));
        old.play(&before);
        let mut new = Instance::new(behaviour, 2, old.now.after(CLOCKS_APART));
        let snapshots = old.export();
        prop_assert_eq!(snapshots.len(), old.sessions().len());
        for snapshot in snapshots.iter().rev() {
            let id = new.nat.import(snapshot, new.now).expect("the same policy and free ports");
            prop_assert!(new.nat.table().session(id).is_some());
            let again = new.nat.import(snapshot, new.now);
            prop_assert_eq!(again, Err(ImportError::TupleTaken));
        }
        prop_assert_eq!(&new.export(), &snapshots);
        for step in &after {
            if let Step::Sleep(span) = step {
                for instance in [&mut old, &mut new] {
                    instance.now = instance.now.after(*span);
                    instance.expire();
                }
            } else if let Some((tuple, header)) = old.packet(step) {
                prop_assert_eq!(old.send(tuple, header), new.send(tuple, header), "{:?}", step);
            }
            prop_assert_eq!(&new.export(), &old.export());
            prop_assert_eq!(new.nat.mappings(), old.nat.mappings());
            for host in HOSTS {
                prop_assert_eq!(new.nat.hosts.sessions_of(host), old.nat.hosts.sessions_of(host));
            }
        }
        for instance in [&mut old, &mut new] {
            instance.now = instance.now.after(Span::seconds(100));
            instance.expire();
            prop_assert_eq!((instance.nat.table().len(), instance.nat.mappings()), (0, 0));
            prop_assert!(HOSTS.iter().all(|host| instance.nat.hosts.sessions_of(*host) == 0));
        }
    }
}

/// The files as a process that dies now leaves them.
fn copy(files: &SessionFiles) -> SessionFiles {
    let copies = SessionFiles::temporary(SESSIONS);
    let pairs = [
        (&files.records, &copies.records),
        (&files.index, &copies.index),
        (&files.accounts, &copies.accounts),
    ];
    for (from, to) in pairs {
        let mut content = vec![0; from.metadata().expect("a length").len() as usize];
        from.read_exact_at(&mut content, 0).expect("its content");
        to.write_all_at(&content, 0).expect("room");
    }
    copies
}

/// Sessions without the idle times of their mappings: an adopted mapping has that of its session.
fn without_mapping_times(mut snapshots: Vec<SessionSnapshot>) -> Vec<SessionSnapshot> {
    for snapshot in &mut snapshots {
        snapshot.mappings.iter_mut().flatten().for_each(|mapping| mapping.idle = Span(0));
    }
    snapshots
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The death of a process is invisible. Packets of sessions are translated before the adoption
    /// as after it. After the adoption every packet is.
    #[test]
    fn an_inherited_session_goes_on_as_if_its_process_had_not_died(
        filtering in behaviours().prop_map(|(_, filtering, _)| filtering),
        before in prop::collection::vec(first_steps(), 1..120),
        early in prop::collection::vec((any::<Index>(), any::<bool>(), headers()), 1..20),
        after in prop::collection::vec(later_steps(), 1..60),
    ) {
        let behaviour = (EndpointDependence::EndpointIndependent, filtering, false);
        let files = SessionFiles::temporary(SESSIONS);
        let mut old = Instance::in_files(behaviour, Tick(u32::MAX - 30_000), &files, false);
        old.play(&before);
        let mut new = Instance::in_files(behaviour, old.now, &copy(&files), true);
        for (session, reply, header) in early {
            let step = Step::Follow { session, reply, header };
            if let Some((tuple, header)) = old.packet(&step) {
                prop_assert_eq!(old.send(tuple, header), new.send(tuple, header), "{:?}", step);
            }
            new.nat.adopt(0, 1, new.now);
        }
        let sessions = old.sessions().len();
        while new.nat.inherits() {
            new.nat.adopt(0, 10, new.now);
        }
        prop_assert_eq!(new.nat.table().len() as usize, sessions);
        for step in &after {
            if let Step::Sleep(span) = step {
                for instance in [&mut old, &mut new] {
                    instance.now = instance.now.after(*span);
                    instance.expire();
                }
            } else if let Some((tuple, header)) = old.packet(step) {
                prop_assert_eq!(old.send(tuple, header), new.send(tuple, header), "{:?}", step);
            }
            let exports = [&old, &new].map(|it| without_mapping_times(it.export()));
            prop_assert_eq!(&exports[0], &exports[1]);
            prop_assert_eq!(new.nat.mappings(), old.nat.mappings());
            for host in HOSTS {
                prop_assert_eq!(new.nat.hosts.sessions_of(host), old.nat.hosts.sessions_of(host));
            }
        }
        new.now = new.now.after(Span::seconds(100));
        new.expire();
        prop_assert_eq!((new.nat.table().len(), new.nat.mappings()), (0, 0));
        prop_assert!(HOSTS.iter().all(|host| new.nat.hosts.sessions_of(*host) == 0));
    }
}

/// A new mapping could get the port of an inherited one.
#[test]
fn a_new_mapping_waits_for_the_adoption_and_a_forward_does_not() {
    let independent = EndpointDependence::EndpointIndependent;
    let behaviour = (independent, independent, false);
    let (files, now) = (SessionFiles::temporary(SESSIONS), Tick(0));
    let udp =
        Header { protocol: Protocol::UDP, flags: TcpFlags(0), sequence: 0, acknowledgement: 0 };
    let outbound = |port, remote: usize| Tuple {
        protocol: Protocol::UDP,
        source: Endpoint::new(HOSTS[0], port),
        destination: Endpoint::new(REMOTES[remote], 1000),
    };
    let mut old = Instance::in_files(behaviour, now, &files, false);
    let external = old.send(outbound(5000, 0), udp).expect("a session").source;
    drop(old);
    let mut new = Instance::in_files(behaviour, now, &files, true);
    let waits = Err(Verdict::Drop(DropReason::AdoptingSessions));
    assert_eq!(new.send(outbound(5001, 0), udp), waits);
    assert_eq!(new.send(outbound(5000, 1), udp), waits, "its mapping is not known yet");
    let inbound = Tuple {
        protocol: Protocol::UDP,
        source: Endpoint::new(REMOTES[1], 7),
        destination: external,
    };
    assert_eq!(new.send(inbound, udp), waits);
    let published = Tuple { destination: Endpoint::new(EXTERNAL[0], 80), ..inbound };
    assert!(new.send(published, udp).is_ok());
    while new.nat.inherits() {
        new.nat.adopt(1, 50, now);
    }
    assert_eq!(new.send(outbound(5000, 1), udp).expect("a session").source, external);
    assert!(new.send(outbound(5001, 0), udp).is_ok());
}

/// An instance with one session from inside, and the session's snapshot.
fn one_session() -> (Instance, SessionSnapshot) {
    let independent = EndpointDependence::EndpointIndependent;
    let mut instance = Instance::new((independent, independent, false), 1, Tick(0));
    let header =
        Header { protocol: Protocol::UDP, flags: TcpFlags(0), sequence: 0, acknowledgement: 0 };
    let tuple = Tuple {
        protocol: Protocol::UDP,
        source: Endpoint::new(HOSTS[0], 5000),
        destination: Endpoint::new(REMOTES[0], 1000),
    };
    instance.send(tuple, header).expect("a session");
    let snapshot = instance.export().remove(0);
    (instance, snapshot)
}

#[test]
fn a_snapshot_that_cannot_be_imported_changes_nothing() {
    let (_, good) = one_session();
    let independent = EndpointDependence::EndpointIndependent;
    let new = Instance::new((independent, independent, false), 2, Tick(0));
    let mapping = good.mappings[0].expect("an outbound session holds a mapping");
    let elsewhere = Endpoint::new(Ipv4Addr::new(203, 0, 113, 99), 40_000);
    let moved = |external| SessionSnapshot {
        reply: Tuple { destination: external, ..good.reply },
        mappings: [Some(MappingSnapshot { external, ..mapping }), None],
        ..good.clone()
    };
    let scoped = MappingSnapshot { remote: good.original.destination, ..mapping };
    let out_of_range = Endpoint { port: 39_999, ..mapping.external };
    let cases = [
        (SessionSnapshot { version: 2, ..good.clone() }, ImportError::Version(2)),
        (SessionSnapshot { mappings: [None, None], ..good.clone() }, ImportError::Malformed),
        (SessionSnapshot { state: State::Icmp, ..good.clone() }, ImportError::Malformed),
        (SessionSnapshot { uplink: "isp9".into(), ..good.clone() }, ImportError::UnknownUplink),
        (SessionSnapshot { idle: Span::seconds(20), ..good.clone() }, ImportError::Expired),
        (moved(elsewhere), ImportError::Disallowed),
        (
            SessionSnapshot { mappings: [Some(scoped), None], ..good.clone() },
            ImportError::MappingBehaviour,
        ),
        (moved(out_of_range), ImportError::PortTaken),
    ];
    for (snapshot, error) in cases {
        assert_eq!(new.nat.import(&snapshot, new.now), Err(error));
        assert_eq!((new.nat.table().len(), new.nat.mappings()), (0, 0), "{error}");
        assert_eq!(new.nat.hosts.sessions_of(HOSTS[0]), 0, "{error}");
    }
    assert!(new.nat.import(&good, new.now).is_ok());
    // Another inside endpoint cannot have the same external port.
    let inside = Endpoint::new(HOSTS[1], 5000);
    let rival = SessionSnapshot {
        original: Tuple { source: inside, ..good.original },
        mappings: [Some(MappingSnapshot { inside, ..mapping }), None],
        ..good
    };
    assert_eq!(new.nat.import(&rival, new.now), Err(ImportError::PortTaken));
}
