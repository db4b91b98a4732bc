//! What [`Translator::decide`] says is what [`Translator::process`] then does.

use proptest::prelude::*;

use super::*;
use crate::nat::context::WorkerContext;
use crate::nat::counters::Counters;
use crate::nat::policy::limits::Limits;
use crate::nat::policy::rules::{Forward, NoNatRule, OutboundRule, Policy, Uplink};
use crate::nat::seed::Seed;
use crate::packet::{ChecksumMode, Endpoint, QueryKind, TcpFlags, VecFrames, builder, parse};
use crate::time::Span;
use crate::values::nat::{EndpointDependence, ForwardProtocol, HashBy};

pub(in crate::nat::translate) const ADDRESSES: [[u8; 4]; 9] = [
    [10, 0, 0, 5],
    [10, 0, 0, 6],
    [203, 0, 113, 10],
    [198, 51, 100, 10],
    [192, 0, 2, 1],
    [192, 0, 2, 2],
    [172, 16, 0, 9],
    [127, 0, 0, 1],
    [203, 0, 113, 11],
];
pub(in crate::nat::translate) const PORTS: [u16; 4] = [80, 8080, 5000, 5001];
const FLAGS: [TcpFlags; 5] =
    [TcpFlags::SYN, TcpFlags::ACK, TcpFlags(0x12), TcpFlags::RST, TcpFlags(0x11)];

/// One packet: protocol and flags, source, destination, and the time before it.
#[derive(Clone, Debug)]
struct Step {
    kind: usize,
    source: (usize, usize),
    destination: (usize, usize),
    /// Sends to the external endpoint of the last packet that left instead.
    replies: bool,
    wait: u32,
}

fn step() -> impl Strategy<Value = Step> {
    let endpoint = || (0..ADDRESSES.len(), 0..PORTS.len());
    let wait = prop_oneof![8 => Just(0u32), 1 => 0..2000u32, 1 => 0..400_000u32];
    (0..9usize, endpoint(), endpoint(), any::<bool>(), wait).prop_map(
        |(kind, source, destination, replies, wait)| Step {
            kind,
            source,
            destination,
            replies,
            wait,
        },
    )
}

fn dependence() -> impl Strategy<Value = EndpointDependence> {
    prop_oneof![
        Just(EndpointDependence::EndpointIndependent),
        Just(EndpointDependence::AddressDependent),
        Just(EndpointDependence::AddressAndPortDependent),
    ]
}

prop_compose! {
    /// Two uplinks, the second of which may be the host's own, and one to three forwards, if any.
    /// Some of them expose a whole address.
    pub(in crate::nat::translate) fn setup()(
        mapping in dependence(),
        filtering in dependence(),
        (hairpin, outbound, bypass, owned, refresh) in any::<(bool, bool, bool, bool, bool)>(),
        forwards in 0..8usize,
    ) -> (Limits, Policy) {
        let inside = "10.0.0.0/24".parse().expect("a prefix");
        let one = Policy::one_uplink(inside, ADDRESSES[2].into());
        let mut second = Uplink { name: "isp2".into(), ..one.uplinks[0].clone() };
        second.addresses[0].address = ADDRESSES[3].into();
        second.addresses[0].assigned_to_host = owned;
        let forward = |uplink: u8, protocol, ports: std::ops::RangeInclusive<u16>, to_port| Forward {
            name: "server".into(),
            uplink,
            protocol,
            address: ADDRESSES[2 + usize::from(uplink)].into(),
            ports: ports.into(),
            to_address: ADDRESSES[0].into(),
            to_port,
        };
        let both = vec![
            forward(0, ForwardProtocol::TcpUdp, 8080..=8080, 80),
            forward(1, ForwardProtocol::TcpUdp, 8080..=8080, 80),
        ];
        let policy = Policy {
            uplinks: vec![one.uplinks[0].clone(), second],
            forwards: match forwards {
                0 => Vec::new(),
                1 => both[..1].to_vec(),
                2 => both,
                3 => vec![forward(0, ForwardProtocol::Any, 0..=65535, 0)],
                4 => vec![
                    forward(0, ForwardProtocol::Any, 0..=65535, 0),
                    forward(1, ForwardProtocol::Any, 0..=65535, 0),
                    forward(0, ForwardProtocol::Tcp, 8080..=8080, 80),
                ],
                5 => vec![forward(1, ForwardProtocol::TcpUdp, 1..=65535, 1)],
                6 => [&both[..], &[forward(1, ForwardProtocol::Any, 0..=65535, 0)]].concat(),
                _ => [&both[..], &[forward(0, ForwardProtocol::Icmp, 0..=65535, 0)]].concat(),
            },
            outbound: if outbound {
                vec![OutboundRule {
                    from: inside,
                    to: Vec::new(),
                    uplinks: vec![0, 1],
                    hash_by: HashBy::SourcePort,
                }]
            } else {
                Vec::new()
            },
            no_nat: if bypass {
                let to = "192.0.2.2/32".parse().expect("a prefix");
                vec![NoNatRule { to, protocol: ForwardProtocol::Any, ports: (0..=65535).into() }]
            } else {
                Vec::new()
            },
            hairpin,
            ..one
        };
        let limits = Limits { mapping, filtering, inbound_refresh: refresh, ..Limits::new(inside) };
        (limits, policy)
    }
}

pub(in crate::nat::translate) fn packet(
    kind: usize,
    source: Endpoint,
    destination: Endpoint,
) -> Vec<u8> {
    let tuple = |protocol| Tuple { protocol, source, destination };
    match kind {
        0..5 => builder::tcp(tuple(Protocol::TCP), FLAGS[kind], 1, 1, &[], b""),
        5 => builder::udp(tuple(Protocol::UDP), b"payload"),
        6 => builder::echo(
            source.address,
            destination.address,
            QueryKind::EchoRequest,
            source.port,
            1,
            b"",
        ),
        7 => builder::echo(
            source.address,
            destination.address,
            QueryKind::EchoReply,
            destination.port,
            1,
            b"",
        ),
        _ => builder::other(Protocol(47), source.address, destination.address, b"gre"),
    }
}

/// Sends one packet and checks the decision about it. Returns the tuple that it left with.
fn send(
    nat: &Translator,
    context: &mut WorkerContext,
    bytes: &[u8],
    now: Tick,
) -> Result<Option<Tuple>, TestCaseError> {
    let parsed = parse(bytes, ChecksumMode::Complete).expect("well-formed");
    let query = Query::of(&parsed, bytes).expect("a packet with a tuple");
    let decision = nat.decide(&query, now);
    prop_assert_eq!(decision, nat.decide(&query, now), "a decision has no effect");
    let before = context.counters.clone();
    let mut frames = VecFrames::new();
    frames.push(bytes);
    nat.process(context, &mut frames, now);
    let sent = frames.take_sent();
    let out = sent.first().map(|(packet, _)| {
        let parsed = parse(packet, ChecksumMode::Complete).expect("well-formed");
        parsed.tuple().expect("a rewrite leaves a tuple a tuple")
    });
    check(&query, decision, out, &before, &context.counters)?;
    Ok(out)
}

fn check(
    query: &Query,
    decision: Decision,
    out: Option<Tuple>,
    before: &Counters,
    after: &Counters,
) -> Result<(), TestCaseError> {
    let created = after.sessions_created - before.sessions_created;
    let dropped = after.drops.iter().find(|(reason, count)| before.drops.of(*reason) != *count);
    let dropped = dropped.map(|(reason, _)| reason);
    let what = format!("{query:?}: {decision:?}, out {out:?}, dropped {dropped:?}");
    match decision {
        Decision::Drop(reason) => prop_assert_eq!(dropped, Some(reason), "{}", what),
        Decision::PassToHost => {
            prop_assert_eq!(after.passed_to_host, before.passed_to_host + 1, "{}", what);
            prop_assert_eq!(out, Some(query.tuple), "{}", what);
        }
        Decision::Bypass(tuple) => {
            prop_assert_eq!(after.bypassed, before.bypassed + 1, "{}", what);
            prop_assert_eq!((out, tuple), (Some(query.tuple), query.tuple), "{}", what);
        }
        Decision::Session(rewrite) => {
            prop_assert_eq!((out, created), (Some(rewrite.to), 0), "{}", what);
        }
        Decision::Stateless(rewrite) => {
            prop_assert_eq!((out, created), (Some(rewrite.to), 0), "{}", what);
            prop_assert_eq!(after.forwarded_stateless, before.forwarded_stateless + 1, "{}", what);
        }
        Decision::Open(opening) => match out {
            Some(out) => {
                prop_assert_eq!(created, 1, "{}", what);
                prop_assert!(fits(&opening, out), "{}", what);
            }
            None => prop_assert!(dropped.is_some_and(DropReason::is_shortage), "{}", what),
        },
        Decision::Error(_) | Decision::BypassError(_) | Decision::Fragment(_) | Decision::Hold => {
            prop_assert!(false, "{}", what)
        }
    }
    Ok(())
}

/// Whether a packet has left as the opening says.
fn fits(opening: &Opening, out: Tuple) -> bool {
    let Tuple { source, destination, .. } = opening.tuple;
    let is_external = |external| match external {
        ExternalEndpoint::Published(endpoint) | ExternalEndpoint::Port(endpoint) => {
            out.source == endpoint
        }
        ExternalEndpoint::Address(address) => out.source.address == address,
        ExternalEndpoint::Mapping(_) => {
            out.source.address == Ipv4Addr::from(ADDRESSES[2 + usize::from(opening.uplink)])
        }
    };
    match opening.path {
        Path::Outbound { external, remote } => is_external(external) && out.destination == remote,
        // The port may have changed to avoid a conflict.
        Path::Hairpin { external, server: Some(server) } => {
            let address = match external {
                ExternalEndpoint::Published(endpoint) | ExternalEndpoint::Port(endpoint) => {
                    out.source.address == endpoint.address
                }
                ExternalEndpoint::Address(_) | ExternalEndpoint::Mapping(_) => {
                    is_external(external)
                }
            };
            address && out.destination == server.endpoint
        }
        Path::Hairpin { external, server: None } => is_external(external),
        Path::Forward { server } => {
            out.source.address == source.address && out.destination == server.endpoint
        }
        Path::Mapping { inside } => out.source == source && out.destination == inside,
        Path::Midstream { published } => out.source == published && out.destination == destination,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_packet_is_treated_as_it_was_decided(
        (limits, policy) in setup(),
        steps in proptest::collection::vec(step(), 1..120),
        seed in any::<u64>(),
    ) {
        let mut now = Tick(u32::MAX - 50_000);
        let nat = Translator::new(limits, policy, 1, Seed::from(seed), now).expect("memory");
        let mut context = nat.worker(0);
        let mut last = None;
        for Step { kind, source, destination, replies, wait } in steps {
            now = now.after(Span(wait));
            while nat.poll(&mut context, &mut VecFrames::new(), now) == Some(now) {}
            let endpoint = |(address, port): (usize, usize)| {
                Endpoint::new(ADDRESSES[address].into(), PORTS[port])
            };
            let destination = last.filter(|_| replies).unwrap_or_else(|| endpoint(destination));
            let bytes = packet(kind, endpoint(source), destination);
            if let Some(out) = send(&nat, &mut context, &bytes, now)? {
                last = Some(out.source);
            }
        }
    }
}
