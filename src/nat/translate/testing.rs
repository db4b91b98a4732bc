//! A translator with two uplinks and a published server under random packets, for the tests of
//! sessions that move.

use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;

use crate::nat::context::WorkerContext;
use crate::nat::policy::limits::{Limits, Timeouts};
use crate::nat::policy::rules::{ExternalAddress, Forward, OutboundRule, Policy, Uplink};
use crate::nat::seed::Seed;
use crate::nat::table::filter::Filter;
use crate::nat::table::key::Key;
use crate::nat::table::{FileFormat, OldSessions, SessionFiles, SessionInfo, TableCursor, layout};
use crate::nat::translate::adoption::Contents;
use crate::nat::translate::fast_path::Packet;
use crate::nat::translate::snapshot::SessionSnapshot;
use crate::nat::translator::Translator;
use crate::nat::verdict::Verdict;
use crate::packet::{ChecksumMode, Endpoint, Protocol, TcpFlags, Tuple, builder, parse};
use crate::time::{Span, Tick};
use crate::values::nat::{EndpointDependence, ForwardProtocol, HashBy, PortRange};

pub(super) const REMOTES: [Ipv4Addr; 2] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
pub(super) const EXTERNAL: [Ipv4Addr; 2] =
    [Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(198, 51, 100, 10)];
pub(super) const HOSTS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 6)];
pub(super) const SERVER: Endpoint = Endpoint::new(Ipv4Addr::new(10, 0, 0, 100), 8080);

/// Capacity of the tables of these tests.
pub(super) const SESSIONS: u32 = 256;

/// Behaviour of mappings and filtering, and whether ports overlap.
pub(super) type Behaviour = (EndpointDependence, EndpointDependence, bool);

pub(super) fn behaviours() -> impl Strategy<Value = Behaviour> {
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

pub(super) fn settings((mapping, filtering, overlapping): Behaviour) -> (Limits, Policy) {
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

/// The files as a process that dies now leaves them.
pub(super) fn copy(files: &SessionFiles) -> SessionFiles {
    let copies = SessionFiles::temporary(SESSIONS);
    let pairs = [
        (&files.records, &copies.records),
        (&files.index, &copies.index),
        (&files.accounts, &copies.accounts),
    ];
    for (from, to) in pairs {
        let mut content = vec![0; from.metadata().expect("a length").len() as usize];
        from.read_exact_at(&mut content, 0).expect("its content");
        to.write_all_at(&content, 0).expect("space");
    }
    copies
}

/// The files of a translator with these settings, for an import.
pub(super) fn old_sessions(files: SessionFiles, policy: &Policy) -> OldSessions {
    OldSessions {
        files,
        format: FileFormat::of(&layout()).expect("the present layout"),
        capacity: SESSIONS,
        accounting: true,
        uplinks: policy.uplinks.iter().map(|uplink| uplink.name.clone()).collect(),
        other_mappings: false,
        seed: Seed::from(1),
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
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
pub(super) struct Header {
    pub(super) protocol: Protocol,
    pub(super) flags: TcpFlags,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
}

pub(super) fn headers() -> impl Strategy<Value = Header> {
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
pub(super) fn later_steps() -> impl Strategy<Value = Step> {
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

pub(super) fn first_steps() -> impl Strategy<Value = Step> {
    let outbound = (0..2usize, 5000..5004u16, 0..6usize, headers())
        .prop_map(|(host, port, to, header)| Step::Outbound { host, port, to, header });
    prop_oneof![2 => outbound, 3 => later_steps()]
}

/// A translator, a worker of it, and its clock.
pub(super) struct Instance {
    pub(super) nat: Translator,
    pub(super) context: WorkerContext,
    pub(super) now: Tick,
}

impl Instance {
    pub(super) fn new(behaviour: Behaviour, seed: u64, now: Tick) -> Self {
        Self::with(translator(behaviour, seed, now), now)
    }

    /// An instance whose sessions live in files.
    pub(super) fn in_files(
        behaviour: Behaviour,
        now: Tick,
        files: &SessionFiles,
        contents: Contents,
    ) -> Self {
        let (limits, policy) = settings(behaviour);
        let seed = Seed::from(1);
        let nat = Translator::in_files(limits, policy, 2, seed, now, files, contents);
        Self::with(nat.expect("memory"), now)
    }

    pub(super) fn with(nat: Translator, now: Tick) -> Self {
        let context = nat.worker(0);
        Self { nat, context, now }
    }

    pub(super) fn sessions(&self) -> Vec<SessionInfo> {
        let mut sessions = Vec::new();
        let mut next = Some(TableCursor::default());
        while let Some(from) = next {
            let page = self.nat.sessions(from, &Filter::default());
            sessions.extend(page.items);
            next = page.next;
        }
        sessions
    }

    pub(super) fn export(&self) -> Vec<SessionSnapshot> {
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
    pub(super) fn expire(&mut self) {
        for session in self.sessions() {
            if let Some(ended) = self.nat.table.reap_if_expired(session.id, self.now) {
                self.nat.release(&ended, self.now);
            }
        }
    }

    /// Takes steps, and ends the sessions whose time is over then.
    pub(super) fn play(&mut self, steps: &[Step]) {
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
    pub(super) fn send(&mut self, mut tuple: Tuple, header: Header) -> Result<Tuple, Verdict> {
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
    pub(super) fn packet(&self, step: &Step) -> Option<(Tuple, Header)> {
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

/// Plays a step in two instances with the same sessions. Both must translate its packet alike.
pub(super) fn play_alike(
    old: &mut Instance,
    new: &mut Instance,
    step: &Step,
) -> Result<(), TestCaseError> {
    if let Step::Sleep(span) = step {
        for instance in [old, new] {
            instance.now = instance.now.after(*span);
            instance.expire();
        }
    } else if let Some((tuple, header)) = old.packet(step) {
        prop_assert_eq!(old.send(tuple, header), new.send(tuple, header), "{:?}", step);
    }
    Ok(())
}
