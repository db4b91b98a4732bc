//! Translates a capture: the packets of one side in, the packets of the other side out.
//!
//! The input holds raw IPv4 packets or Ethernet frames, the output raw IPv4 packets. The clock of
//! the translator is that of the capture, so timeouts apply. Packets that do not cross the
//! translator (ICMP errors to the sender, hairpin) are counted and not written.
//!
//! ```text
//! cargo run --example pcap_nat -- inside.pcap outside.pcap --inside 10.0.0.0/24 --external 203.0.113.10 \
//!     --forward tcp:80=10.0.0.80:8080 --seed 1
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use natbox::nat::{
    EndpointDependence, Forward, ForwardProtocol, Limits, Policy, PortRange, Seed, Translator,
};
use natbox::packet::{ChecksumMode, VecFrames, parse};
use natbox::time::Tick;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};

/// Translates the packets of a capture.
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Capture to read.
    input: PathBuf,
    /// Capture to write.
    output: PathBuf,
    /// Prefix of the inside.
    #[arg(long)]
    inside: ipnet::Ipv4Net,
    /// External address.
    #[arg(long)]
    external: Ipv4Addr,
    /// Published service, as PROTOCOL:PORT=ADDRESS:PORT.
    #[arg(long)]
    forward: Vec<Published>,
    /// Filtering behaviour (RFC 4787 section 5).
    #[arg(long, value_enum, default_value_t = Filtering::AddressAndPortDependent)]
    filtering: Filtering,
    /// Drop packets from inside to external endpoints.
    #[arg(long)]
    no_hairpin: bool,
    /// Seed of all random choices. One seed gives the same output in every run.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Filtering {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

/// One published port and its server.
#[derive(Clone, Debug)]
struct Published {
    protocol: ForwardProtocol,
    port: u16,
    server: SocketAddrV4,
}

impl FromStr for Published {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || format!("{text}: expected PROTOCOL:PORT=ADDRESS:PORT");
        let (published, server) = text.split_once('=').ok_or_else(malformed)?;
        let (protocol, port) = published.split_once(':').ok_or_else(malformed)?;
        let protocol = match protocol {
            "tcp" => ForwardProtocol::Tcp,
            "udp" => ForwardProtocol::Udp,
            other => return Err(format!("{other}: expected tcp or udp").into()),
        };
        Ok(Self { protocol, port: port.parse()?, server: server.parse()? })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    run(&Options::parse(), &mut io::stdout())
}

/// Translates the capture and writes a summary.
pub(crate) fn run(options: &Options, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let nat = translator(options)?;
    let mut context = nat.worker(0);
    let mut frames = VecFrames::new();
    let mut reader = PcapReader::new(BufReader::new(File::open(&options.input)?))?;
    let header = PcapHeader { datalink: DataLink::RAW, ..reader.header() };
    let output = BufWriter::new(File::create(&options.output)?);
    let mut writer = PcapWriter::with_header(output, header)?;
    let ethernet = reader.header().datalink == DataLink::ETHERNET;
    let (mut start, mut written) = (None, 0);
    while let Some(captured) = reader.next_packet() {
        let PcapPacket { timestamp, data, .. } = captured?;
        let packet = if ethernet { ipv4_of_ethernet(&data) } else { Some(&data[..]) };
        let Some(packet) = packet else { continue };
        let now = tick(timestamp.saturating_sub(*start.get_or_insert(timestamp)));
        while nat.poll(&mut context, &mut frames, now) == Some(now) {}
        frames.push(packet);
        nat.process(&mut context, &mut frames, now);
        let from_inside = address(packet, 12).is_some_and(|from| options.inside.contains(&from));
        for (translated, _) in frames.take_sent() {
            let to = parse(&translated, ChecksumMode::Complete)?.destination();
            if options.inside.contains(&to) != from_inside {
                let length = translated.len().try_into()?;
                writer.write_packet(&PcapPacket::new(timestamp, length, &translated))?;
                written += 1;
            }
        }
    }
    writer.into_writer().flush()?;
    let counters = &context.counters;
    writeln!(out, "{} packets in, {written} written", counters.packets_in)?;
    for (reason, count) in counters.drops.iter().filter(|(_, count)| *count > 0) {
        writeln!(out, "{count} dropped, {}: {}", reason.name(), reason.explanation())?;
    }
    Ok(())
}

fn translator(options: &Options) -> io::Result<Translator> {
    let limits = Limits {
        filtering: match options.filtering {
            Filtering::EndpointIndependent => EndpointDependence::EndpointIndependent,
            Filtering::AddressDependent => EndpointDependence::AddressDependent,
            Filtering::AddressAndPortDependent => EndpointDependence::AddressAndPortDependent,
        },
        sessions: 1 << 20,
        fragments: 4096,
        ..Limits::new(options.inside)
    };
    let forwards = options.forward.iter().map(|published| Forward {
        name: "option".into(),
        uplink: 0,
        protocol: published.protocol,
        address: options.external,
        ports: PortRange::single(published.port),
        to_address: *published.server.ip(),
        to_port: published.server.port(),
    });
    let policy = Policy {
        forwards: forwards.collect(),
        hairpin: !options.no_hairpin,
        ..Policy::one_uplink(options.inside, options.external)
    };
    let seed = options.seed.map_or_else(Seed::random, Seed::from);
    Translator::new(limits, policy, 1, seed, Tick(0))
}

/// The packet of an Ethernet frame without a VLAN tag, if the packet is IPv4.
fn ipv4_of_ethernet(frame: &[u8]) -> Option<&[u8]> {
    let (header, packet) = frame.split_at_checked(14)?;
    (header[12..] == [0x08, 0x00]).then_some(packet)
}

fn address(packet: &[u8], at: usize) -> Option<Ipv4Addr> {
    let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
    Some(bytes.into())
}

/// The translator's clock counts milliseconds and wraps.
fn tick(since_start: Duration) -> Tick {
    Tick(since_start.as_millis() as u32)
}
