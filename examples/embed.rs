//! The translator inside another program: packets are byte vectors, and time is a number that the
//! program gives.
//!
//! ```text
//!   host 10.0.0.5 ── translator 203.0.113.10 ── resolver 192.0.2.53
//!   server 10.0.0.80:8080 ── published as 203.0.113.10:80 ── client 198.51.100.7
//! ```
//!
//! `cargo run --example embed`

use std::error::Error;
use std::io::{self, Write};
use std::net::Ipv4Addr;

use natbox::nat::{
    Decision, Filter, Forward, ForwardProtocol, Limits, Policy, PortRange, Query, Seed,
    TableCursor, Translator,
};
use natbox::packet::{ChecksumMode, Protocol, TcpFlags, VecFrames, builder, parse};
use natbox::time::Tick;

const EXTERNAL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 80);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut io::stdout())
}

/// Translates a few packets and writes what happens to them.
pub(crate) fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut now = Tick(0);
    let nat = translator(now)?;
    // A context belongs to one thread. Threads share the translator.
    let mut context = nat.worker(0);

    let packets = packets();
    write_decisions(out, &nat, &packets, now)?;

    // `process` translates a batch in place. Frames that leave are read back, the others were
    // dropped.
    let mut frames = VecFrames::new();
    for packet in &packets {
        frames.push(packet);
    }
    nat.process(&mut context, &mut frames, now);
    for (packet, _) in frames.take_sent() {
        let parsed = parse(&packet, ChecksumMode::Complete)?;
        writeln!(out, "sent {}", parsed.tuple().ok_or("a translated packet has a tuple")?)?;
    }

    for session in nat.sessions(TableCursor::default(), &Filter::default()).items {
        writeln!(out, "session {} {}", session.origin.name(), session.original)?;
    }
    for (reason, count) in context.counters.drops.iter().filter(|(_, count)| *count > 0) {
        writeln!(out, "dropped {count}: {}", reason.explanation())?;
    }

    // `poll` ends what has idled for too long, and returns when to call it again.
    while let Some(due) = nat.poll(&mut context, &mut frames, now) {
        now = due;
    }
    writeln!(out, "idle after {} s", now.0 / 1000)?;
    Ok(())
}

/// Makes a translator for one thread, which publishes a server on port 80.
fn translator(now: Tick) -> Result<Translator, Box<dyn Error>> {
    // `with_policy` swaps the policy while sessions live, and `with_limits` most limits as well.
    let inside = "10.0.0.0/24".parse()?;
    let limits = Limits { sessions: 1000, ..Limits::new(inside) };
    let mut policy = Policy::one_uplink(inside, EXTERNAL);
    policy.forwards.push(Forward {
        name: "web".into(),
        uplink: 0,
        protocol: ForwardProtocol::Tcp,
        address: EXTERNAL,
        ports: PortRange::single(80),
        to_address: SERVER,
        to_port: 8080,
    });
    // One seed gives the same ports in every run. A translator on a network takes `Seed::random()`.
    Ok(Translator::new(limits, policy, 1, Seed::from(1), now)?)
}

/// Makes a question to a resolver, the first packet of a connection to the server, and a packet
/// that nothing admits.
fn packets() -> [Vec<u8>; 3] {
    let query = builder::udp(builder::tuple(Protocol::UDP, (HOST, 5353), (RESOLVER, 53)), b"?");
    let to_server = builder::tuple(Protocol::TCP, (CLIENT, 40_000), (EXTERNAL, 80));
    let syn = builder::tcp(to_server, TcpFlags::SYN, 1, 0, &[], b"");
    let stray = builder::udp(builder::tuple(Protocol::UDP, (CLIENT, 9), (EXTERNAL, 9)), b"!");
    [query, syn, stray]
}

/// Writes what would happen to the packets. `decide` has no effect.
fn write_decisions(
    out: &mut impl Write,
    nat: &Translator,
    packets: &[Vec<u8>],
    now: Tick,
) -> Result<(), Box<dyn Error>> {
    for packet in packets {
        let parsed = parse(packet, ChecksumMode::Complete)?;
        let query = Query::of(&parsed, packet).ok_or("the packet has no tuple")?;
        let decision = nat.decide(&query, now);
        if let Decision::Open(opening) = decision {
            writeln!(out, "{} -> {}", query.tuple, opening.kind().name())?;
        } else if let Decision::Drop(reason) = decision {
            writeln!(out, "{} -> {}", query.tuple, reason.name())?;
        }
    }
    Ok(())
}
