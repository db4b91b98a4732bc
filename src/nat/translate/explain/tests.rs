//! What [`Translator::rehearse`] says is what [`Translator::process`] then does, byte for byte, and
//! the rehearsal changes nothing.

mod cases;

use std::num::NonZeroU32;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

use super::*;
use crate::nat::context::WorkerContext;
use crate::nat::policy::limits::{Limits, Timeouts};
use crate::nat::policy::rules::{ExternalAddress, OutboundRule, Policy};
use crate::nat::seed::Seed;
use crate::nat::shared::uplink_states::AdmitNew;
use crate::nat::table::TableCursor;
use crate::nat::table::filter::Filter;
use crate::nat::translate::decide::tests::{ADDRESSES, packet, setup};
use crate::packet::{Protocol, TcpFlags, builder};
use crate::time::Span;
use crate::values::nat::{EndpointDependence, HashBy, PortRange};

/// Addresses of the box itself: the host's, and those of probes over both uplinks.
const OWN: [[u8; 4]; 3] = [[169, 254, 0, 1], [169, 254, 0, 2], [169, 254, 0, 3]];

/// Places of the inside hosts, of the external addresses and of the remote hosts in [`ADDRESSES`].
const INSIDE: [usize; 2] = [0, 1];
const EXTERNAL: [usize; 3] = [2, 3, 8];
const REMOTE: [usize; 2] = [4, 5];
const PORTS: [u16; 12] = [80, 8080, 5000, 5001, 5002, 5003, 5004, 5005, 5006, 600, 40_001, 53];

/// Something that happens to the box.
#[derive(Clone, Debug)]
enum Step {
    /// A packet between two of the addresses.
    Packet {
        kind: usize,
        source: (usize, usize),
        destination: (usize, usize),
    },
    /// A packet to the source of one of the last packets that left, perhaps a mapping.
    Knock {
        which: Index,
        kind: usize,
        source: (usize, usize),
    },
    /// A packet of one of the last packets that left: the answer to it, or the next of its sender.
    Follow {
        which: Index,
        kind: usize,
        answers: bool,
    },
    /// An ICMP error about one of the last packets that left.
    Error {
        which: Index,
        reporter: usize,
        code: u8,
    },
    /// A datagram in fragments, some of them and in any order.
    Fragments {
        source: (usize, usize),
        destination: (usize, usize),
        id: u16,
        order: Vec<Index>,
    },
    /// A packet longer than the MTU of an uplink, perhaps with DF.
    Long {
        source: (usize, usize),
        destination: (usize, usize),
        length: usize,
        fixed: bool,
    },
    /// Any bytes.
    Noise(Vec<u8>),
    Wait(u32),
    Admission {
        uplink: u8,
        admits: u8,
        is_last_resort: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let endpoint = || (0..ADDRESSES.len() + OWN.len(), 0..PORTS.len());
    let noise = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64),
        proptest::collection::vec(any::<u8>(), 20..64).prop_map(|bytes| {
            let source = ADDRESSES[4].into();
            builder::other(Protocol(bytes[0] % 20), source, ADDRESSES[2].into(), &bytes)
        }),
    ];
    let one_of = |places: &[usize]| (prop::sample::select(places.to_vec()), 0..PORTS.len());
    // SYN and UDP open the most.
    let kind =
        || prop_oneof![2 => Just(0usize), 3 => Just(5usize), 1 => Just(8usize), 3 => 0..9usize];
    let packet = |(kind, source, destination)| Step::Packet { kind, source, destination };
    let own = [ADDRESSES.len(), ADDRESSES.len() + 1, ADDRESSES.len() + 2];
    prop_oneof![
        12 => (kind(), one_of(&INSIDE), one_of(&REMOTE)).prop_map(packet),
        6 => (kind(), one_of(&REMOTE), one_of(&EXTERNAL)).prop_map(packet),
        3 => (kind(), one_of(&INSIDE), one_of(&EXTERNAL)).prop_map(packet),
        2 => (kind(), one_of(&own), one_of(&REMOTE)).prop_map(packet),
        2 => (kind(), endpoint(), endpoint()).prop_map(packet),
        5 => (any::<Index>(), kind(), prop_oneof![one_of(&REMOTE), one_of(&INSIDE)])
            .prop_map(|(which, kind, source)| Step::Knock { which, kind, source }),
        8 => (any::<Index>(), 0..9usize, any::<bool>())
            .prop_map(|(which, kind, answers)| Step::Follow { which, kind, answers }),
        2 => (any::<Index>(), 0..ADDRESSES.len(), 0..5u8)
            .prop_map(|(which, reporter, code)| Step::Error { which, reporter, code }),
        2 => (one_of(&INSIDE), one_of(&REMOTE), 0..3u16, proptest::collection::vec(any::<Index>(), 1..5))
            .prop_map(|(source, destination, id, order)| {
                Step::Fragments { source, destination, id, order }
            }),
        2 => (one_of(&INSIDE), one_of(&REMOTE), 500..1400usize, any::<bool>())
            .prop_map(|(source, destination, length, fixed)| {
                Step::Long { source, destination, length, fixed }
            }),
        1 => noise.prop_map(Step::Noise),
        3 => prop_oneof![4 => 0..2000u32, 2 => 0..30_000u32, 1 => 0..400_000u32].prop_map(Step::Wait),
        1 => (0..2u8, 0..3u8, any::<bool>()).prop_map(|(uplink, admits, is_last_resort)| {
            Step::Admission { uplink, admits, is_last_resort }
        }),
    ]
}

prop_compose! {
    /// The configurations of the decisions' test, with limits that are reached.
    fn tight_setup()(
        (limits, policy) in setup(),
        sessions in prop::sample::select(vec![4u32, 16, 1000]),
        per_host in prop::sample::select(vec![0u32, 3, 100]),
        rate in prop::sample::select(vec![0u32, 2, 50]),
        (first, count) in (prop::sample::select(vec![500u16, 1020, 40_000]), 0..20u16),
        delay in prop::sample::select(vec![None, Some(Span(500)), Some(Span::seconds(60))]),
        errors in prop::sample::select(vec![1u32, 3, 0]),
        (overlaps, parity, soft, delayed_reject) in any::<(bool, bool, bool, bool)>(),
        (own, keeps, rejects, more, narrow) in any::<(bool, bool, bool, bool, bool)>(),
        (tier, closed) in (1..3u8, 0..4u8),
        delayed_ports in prop::sample::select(vec![1u32, 3, 1000]),
        aim in prop::sample::select(vec![Aim::Any, Aim::Any, Aim::SharedPorts, Aim::DelayedPorts]),
    ) -> (Limits, Policy) {
        let (limits, delay, overlaps) = aim.narrow(limits, delay, overlaps);
        let keeps = keeps && aim == Aim::Any;
        let count = if aim == Aim::SharedPorts { 1 } else { count };
        let depends = limits.mapping != EndpointDependence::EndpointIndependent;
        let timeouts = Timeouts {
            tcp_transitory: Span::seconds(8),
            tcp_syn: Span::seconds(4),
            udp: Span::seconds(10),
            icmp: Span::seconds(6),
            port_reuse_delay: delay,
            ..limits.timeouts
        };
        let limits = Limits {
            sessions,
            sessions_per_host: NonZeroU32::new(per_host),
            new_sessions_per_host: NonZeroU32::new(rate),
            ports: PortRange { first, last: first + count },
            icmp_errors_per_host: NonZeroU32::new(errors),
            port_overlapping: overlaps && depends,
            port_parity: parity,
            delayed_ports,
            paired_soft: soft,
            timeouts,
            ..limits
        };
        let mut policy = Policy {
            delayed_reject,
            reject_with: rejects.then_some(13),
            kept_ports: if keeps { vec![(0..=6000).into()] } else { Vec::new() },
            host_address: own.then_some(OWN[0].into()),
            ..policy
        };
        policy.uplinks[1].tier = tier;
        if closed != 0 && policy.outbound.is_empty() {
            policy.outbound.push(OutboundRule {
                from: limits.inside[0],
                to: Vec::new(),
                uplinks: vec![0, 1],
                hash_by: HashBy::SourceAddress,
            });
        }
        if closed > 1 {
            policy.no_nat.clear();
        }
        for (uplink, address) in policy.uplinks.iter_mut().zip(&OWN[1..]) {
            uplink.probe_address = own.then_some((*address).into());
            uplink.mtu = if narrow { 600 } else { 1500 };
        }
        if more {
            policy.uplinks[0].addresses.push(ExternalAddress {
                address: ADDRESSES[8].into(),
                assigned_to_host: false,
                reserved: Vec::new(),
            });
        }
        (limits, policy)
    }
}

/// A rare way to a port that a configuration makes likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Any,
    SharedPorts,
    DelayedPorts,
}

impl Aim {
    fn narrow(
        self,
        limits: Limits,
        delay: Option<Span>,
        overlaps: bool,
    ) -> (Limits, Option<Span>, bool) {
        use EndpointDependence::{AddressAndPortDependent, EndpointIndependent};
        match self {
            Self::Any => (limits, delay, overlaps),
            Self::SharedPorts => {
                (Limits { mapping: AddressAndPortDependent, ..limits }, None, true)
            }
            Self::DelayedPorts => (
                Limits { filtering: EndpointIndependent, ..limits },
                Some(Span::seconds(60)),
                false,
            ),
        }
    }
}

/// A translator with its worker.
struct Instance {
    nat: Translator,
    context: WorkerContext,
}

impl Instance {
    fn new(limits: Limits, policy: Policy, seed: u64, now: Tick) -> Self {
        let nat = Translator::new(limits, policy, 1, Seed::from(seed), now).expect("memory");
        Self { context: nat.worker(0), nat }
    }

    /// Does what is due, as the worker does before a batch.
    fn poll(&mut self, now: Tick) {
        while self.nat.poll(&mut self.context, &mut VecFrames::new(), now) == Some(now) {}
    }

    fn process(&mut self, packet: &[u8], now: Tick) -> Vec<Vec<u8>> {
        let mut frames = VecFrames::new();
        frames.push(packet);
        self.nat.process(&mut self.context, &mut frames, now);
        frames.take_sent().into_iter().map(|(packet, _)| packet).collect()
    }

    /// Everything that a packet may change, to compare.
    fn snapshot(&self) -> (String, Vec<String>) {
        let mut sessions = Vec::new();
        let mut next = Some(TableCursor::default());
        while let Some(from) = next {
            let page = self.nat.sessions(from, &Filter::default());
            sessions.extend(page.items);
            next = page.next;
        }
        let hosts: Vec<_> =
            (0..=255).map(|last| self.nat.hosts.usage([10, 0, 0, last].into(), Tick(0))).collect();
        let state = format!(
            "{:?} {sessions:?} {hosts:?} {}",
            self.context.counters,
            self.nat.delayed_rejects.is_empty()
        );
        (state, self.nat.mappings.snapshot())
    }
}

/// Explains a packet, then sends it, and compares. The twin gets the same packets and is never
/// asked.
fn check(
    one: &mut Instance,
    twin: &mut Instance,
    bytes: &[u8],
    now: Tick,
    tally: &Tally,
) -> Result<Vec<Vec<u8>>, TestCaseError> {
    let before = one.snapshot();
    let said = one.nat.explain_next(&mut one.context, bytes, now);
    twin.context.random = WorkerSeed::draw(&mut twin.context.random).rng(0);
    prop_assert_eq!(&before, &one.snapshot(), "a rehearsal changes nothing");
    let counters = one.context.counters.clone();
    let sent = one.process(bytes, now);
    prop_assert_eq!(&sent, &twin.process(bytes, now), "a rehearsal has no later effect");
    for label in labels(&said) {
        *tally.borrow_mut().entry(label).or_insert(0) += 1;
    }
    if said.story.doubt.is_some() {
        return Ok(sent);
    }
    let what = format!("{:?}: {:?}\n{:?}", said.parsed, said.verdict, said.story);
    prop_assert_eq!(&said.sent, &sent, "{}", what);
    let after = &one.context.counters;
    for (reason, count) in after.drops.iter() {
        let dropped = count - counters.drops.of(reason);
        prop_assert_eq!(said.counters.drops.of(reason), dropped, "{:?}: {}", reason, what);
    }
    let changes = |of: fn(&Counters) -> u64| (of(&said.counters), of(after) - of(&counters));
    let counted = [
        changes(|it| it.translated_inbound),
        changes(|it| it.translated_outbound),
        changes(|it| it.forwarded_stateless),
        changes(|it| it.bypassed),
        changes(|it| it.passed_to_host),
        changes(|it| it.icmp_errors_sent),
        changes(|it| it.icmp_errors_rate_limited),
        changes(|it| it.icmp_errors_translated),
    ];
    for (number, (foreseen, found)) in counted.into_iter().enumerate() {
        prop_assert_eq!(foreseen, found, "counter {}: {}", number, what);
    }
    let created = after.sessions_created - counters.sessions_created;
    prop_assert_eq!(u64::from(said.story.opened.is_some()), created, "{}", what);
    if let Some(opened) = said.story.opened {
        let session = one.nat.table.session_at(opened.original);
        // A packet longer than the MTU is answered after its session has begun.
        let session = session.expect("the session that was foreseen");
        let found = (session.reply, session.origin, session.uplink);
        prop_assert_eq!((opened.reply.tuple(), opened.origin, opened.uplink), found, "{}", what);
        let evicted = after.sessions_evicted - counters.sessions_evicted;
        prop_assert_eq!(u64::from(said.story.evicted.is_some()), evicted, "{}", what);
    }
    Ok(sent)
}

/// The paths that a packet takes.
fn labels(said: &Explained) -> Vec<String> {
    let story = &said.story;
    let decision = match story.decision {
        Some(Decision::Open(Opening { path, .. })) => match path {
            Path::Outbound { .. } => "outbound",
            Path::Hairpin { .. } => "hairpin",
            Path::Forward { .. } => "forward",
            Path::Mapping { .. } => "inbound",
            Path::Midstream { .. } => "midstream",
        },
        Some(Decision::Stateless(_)) => "stateless",
        Some(Decision::Bypass(_)) => "bypass",
        Some(Decision::Error(_) | Decision::BypassError(_)) => "icmp error",
        Some(Decision::Fragment(_)) => "fragment",
        Some(Decision::Hold) => "held",
        Some(Decision::PassToHost) => "to the host",
        Some(Decision::Session(_) | Decision::Drop(_)) | None => "other",
    };
    let mut labels = vec![decision.to_owned()];
    let flags = [
        ("session", story.session.is_some()),
        ("evicts", story.evicted.is_some()),
        ("in doubt", story.doubt.is_some()),
        ("replied", matches!(said.verdict, Verdict::Reply(..))),
        ("releases fragments", said.sent.len() > 1),
        ("deferred", story.is_deferred),
        ("limited", story.is_error_limited),
    ];
    labels.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (*name).to_owned()));
    labels.extend(story.mapping.as_ref().map(|(_, it)| format!("port {:?}", it.origin)));
    let (Verdict::Drop(reason) | Verdict::Reply(_, reason)) = said.verdict else { return labels };
    labels.push(reason.name().to_owned());
    labels
}

/// The packets of a step.
fn packets(step: &Step, last: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let endpoint = |(address, port): (usize, usize)| {
        let address = ADDRESSES.iter().chain(&OWN).nth(address).expect("one of them");
        Endpoint::new((*address).into(), PORTS[port])
    };
    match step {
        Step::Packet { kind, source, destination } => {
            vec![packet(*kind, endpoint(*source), endpoint(*destination))]
        }
        Step::Knock { which, kind, source } if !last.is_empty() => {
            let parsed = parse(which.get::<Vec<u8>>(last), ChecksumMode::Complete);
            let tuple = parsed.ok().and_then(|parsed| tuple_of(&parsed));
            let target = tuple.map(|tuple| tuple.source);
            target.map(|target| packet(*kind, endpoint(*source), target)).into_iter().collect()
        }
        Step::Follow { which, kind, answers } if !last.is_empty() => {
            let parsed = parse(which.get::<Vec<u8>>(last), ChecksumMode::Complete);
            let tuple = parsed.ok().and_then(|parsed| tuple_of(&parsed));
            let tuple = tuple.map(|tuple| if *answers { tuple.reversed() } else { tuple });
            let same = |tuple: Tuple| match tuple.protocol {
                Protocol::TCP => *kind % 5,
                Protocol::UDP => 5,
                Protocol::ICMP => 6 + usize::from(tuple.source.port == 0),
                _ => 8,
            };
            tuple.map(|it| packet(same(it), it.source, it.destination)).into_iter().collect()
        }
        Step::Error { which, reporter, code } if !last.is_empty() => {
            let quoted = which.get(last);
            let source = std::net::Ipv4Addr::from([quoted[12], quoted[13], quoted[14], quoted[15]]);
            let quote = &quoted[..quoted.len().min(60)];
            vec![builder::icmp_error(3, *code, ADDRESSES[*reporter].into(), source, quote)]
        }
        Step::Fragments { source, destination, id, order } => {
            let tuple = Tuple {
                protocol: Protocol::UDP,
                source: endpoint(*source),
                destination: endpoint(*destination),
            };
            let mut datagram = builder::udp(tuple, &[7; 200]);
            builder::set_identification(&mut datagram, *id);
            let fragments = builder::fragments(&datagram, 64);
            order.iter().map(|which| which.get(&fragments).clone()).collect()
        }
        Step::Long { source, destination, length, fixed } => {
            let tuple = Tuple {
                protocol: Protocol::TCP,
                source: endpoint(*source),
                destination: endpoint(*destination),
            };
            let payload = vec![7; *length];
            let mut segment = builder::tcp(tuple, TcpFlags::SYN, 1, 0, &[2, 4, 5, 180], &payload);
            if *fixed {
                builder::set_dont_fragment(&mut segment, true);
            }
            vec![segment]
        }
        Step::Noise(bytes) => vec![bytes.clone()],
        Step::Knock { .. }
        | Step::Follow { .. }
        | Step::Error { .. }
        | Step::Wait(_)
        | Step::Admission { .. } => Vec::new(),
    }
}

/// How often each outcome was foreseen, over all runs.
type Tally = std::cell::RefCell<std::collections::BTreeMap<String, u32>>;

/// Takes steps, and checks each packet.
fn play(
    (limits, policy): (Limits, Policy),
    steps: &[Step],
    seed: u64,
    tally: &Tally,
) -> Result<(), TestCaseError> {
    let mut now = Tick(u32::MAX - 50_000);
    let mut one = Instance::new(limits.clone(), policy.clone(), seed, now);
    let mut twin = Instance::new(limits, policy, seed, now);
    let mut last: Vec<Vec<u8>> = Vec::new();
    for step in steps {
        if let Step::Wait(span) = step {
            now = now.after(Span(*span));
        }
        if let Step::Admission { uplink, admits, is_last_resort } = *step {
            let all = [AdmitNew::All, AdmitNew::KnownEndpoints, AdmitNew::None];
            for instance in [&one, &twin] {
                instance.nat.set_admission(uplink, all[usize::from(admits)]);
                instance.nat.set_last_resort(uplink, is_last_resort);
            }
        }
        for instance in [&mut one, &mut twin] {
            instance.poll(now);
        }
        for bytes in packets(step, &last) {
            last.extend(check(&mut one, &mut twin, &bytes, now, tally)?);
            let excess = last.len().saturating_sub(8);
            last.drain(..excess);
        }
    }
    Ok(())
}

#[test]
fn a_packet_is_treated_as_its_rehearsal_said() {
    let config =
        ProptestConfig { cases: 200, source_file: Some(file!()), ..ProptestConfig::default() };
    let steps = proptest::collection::vec(step(), 1..150);
    let tally = Tally::default();
    TestRunner::new(config)
        .run(&(tight_setup(), steps, any::<u64>()), |(setup, steps, seed)| {
            play(setup, &steps, seed, &tally)
        })
        .unwrap_or_else(|error| panic!("{error}"));
    let tally = tally.into_inner();
    println!("{tally:#?}");
    // The runs reach every path, so that the test can fail for each.
    for reached in REACHED {
        assert!(tally.contains_key(reached), "no packet was {reached}: {tally:?}");
    }
}

const REACHED: [&str; 26] = [
    "session",
    "outbound",
    "hairpin",
    "forward",
    "inbound",
    "stateless",
    "bypass",
    "icmp error",
    "fragment",
    "held",
    "releases fragments",
    "to the host",
    "replied",
    "evicts",
    "in doubt",
    "port Present",
    "port Waiting",
    "port Kept",
    "port Random",
    "port Shared",
    "no-mapping",
    "table-full",
    "ports-exhausted",
    "host-session-limit",
    "host-session-rate",
    "address-conflict",
];
