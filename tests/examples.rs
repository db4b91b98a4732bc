//! Runs the examples.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use natbox::packet::{ChecksumMode, Protocol, TcpFlags, Tuple, builder, parse};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};

#[allow(dead_code, reason = "main belongs to the example")]
#[path = "../examples/embed.rs"]
mod embed;
#[allow(dead_code, reason = "main belongs to the example")]
#[path = "../examples/pcap_nat.rs"]
mod pcap_nat;

#[test]
fn the_embedded_translator_translates_drops_and_runs_idle() {
    let mut out = Vec::new();
    embed::run(&mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].ends_with("-> outbound") && lines[1].ends_with("-> forward"), "{out}");
    assert!(lines[2].ends_with("-> no-mapping"), "{out}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("sent")).count(), 2, "{out}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("session")).count(), 2, "{out}");
    assert!(lines.iter().any(|line| line.starts_with("dropped 1")), "{out}");
    // The timeout of UDP is the longer one of the two sessions.
    let idle = lines.last().unwrap().strip_prefix("idle after ").unwrap();
    let seconds: u32 = idle.trim_end_matches(" s").parse().unwrap();
    assert!((300..310).contains(&seconds), "{out}");
}

fn write(path: &Path, datalink: DataLink, packets: &[(u64, Vec<u8>)]) {
    let header = PcapHeader { datalink, ..PcapHeader::default() };
    let file = std::fs::File::create(path).unwrap();
    let mut writer = PcapWriter::with_header(file, header).unwrap();
    for (seconds, packet) in packets {
        let length = packet.len().try_into().unwrap();
        writer
            .write_packet(&PcapPacket::new(Duration::from_secs(*seconds), length, packet))
            .unwrap();
    }
}

fn read(path: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(std::fs::File::open(path).unwrap()).unwrap();
    assert_eq!(reader.header().datalink, DataLink::RAW);
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.push(packet.unwrap().data.into_owned());
    }
    packets
}

/// Translates a capture file; what comes out, and the summary.
fn translate(input: &Path, more: &[&str]) -> (Vec<Vec<u8>>, String) {
    let output = input.with_extension("out");
    let fixed = ["pcap_nat", input.to_str().unwrap(), output.to_str().unwrap()];
    let network = ["--inside", "10.0.0.0/24", "--external", "203.0.113.10"];
    let arguments = fixed.iter().chain(&network).chain(more);
    let mut summary = Vec::new();
    pcap_nat::run(&pcap_nat::Options::try_parse_from(arguments).unwrap(), &mut summary).unwrap();
    (read(&output), String::from_utf8(summary).unwrap())
}

fn tuples(packets: &[Vec<u8>]) -> Vec<Tuple> {
    let tuple = |packet: &Vec<u8>| {
        builder::verify(packet, ChecksumMode::Complete).unwrap();
        parse(packet, ChecksumMode::Complete).unwrap().tuple().unwrap()
    };
    packets.iter().map(tuple).collect()
}

#[test]
fn a_capture_of_the_inside_becomes_one_of_the_outside() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("inside.pcap");
    let question =
        |port| builder::tuple(Protocol::UDP, ([10, 0, 0, 5], port), ([192, 0, 2, 1], 53));
    let packets = [
        (1, builder::udp(question(5000), b"one")),
        (2, builder::udp(question(5000), b"two")),
        // Long after the timeout: the mapping is gone.
        (900, builder::udp(question(5000), b"three")),
        (
            901,
            builder::udp(
                builder::tuple(Protocol::UDP, ([10, 0, 1, 1], 1), ([192, 0, 2, 1], 1)),
                b"",
            ),
        ),
    ];
    write(&input, DataLink::RAW, &packets);
    let (sent, summary) = translate(&input, &["--seed", "1"]);
    let sent_tuples = tuples(&sent);
    assert!(summary.starts_with("4 packets in, 3 written"), "{summary}");
    assert!(summary.contains("source-not-allowed"), "{summary}");
    assert!(sent_tuples.iter().all(|tuple| tuple.source.address.octets() == [203, 0, 113, 10]));
    assert_eq!(sent_tuples[0], sent_tuples[1]);
    assert_ne!(sent_tuples[1], sent_tuples[2]);
    assert_eq!(translate(&input, &["--seed", "1"]).0, sent, "a run can be repeated");
    assert_ne!(translate(&input, &["--seed", "2"]).0, sent);
}

#[test]
fn an_ethernet_capture_of_the_outside_reaches_the_published_server() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("outside.pcap");
    let to =
        |port| builder::tuple(Protocol::TCP, ([192, 0, 2, 1], 4000), ([203, 0, 113, 10], port));
    let frame = |packet: Vec<u8>, kind: [u8; 2]| [&[0; 12][..], &kind, &packet].concat();
    let syn = |port| builder::tcp(to(port), TcpFlags::SYN, 1, 0, &[], b"");
    let packets = [
        (1, frame(syn(80), [0x08, 0x00])),
        (1, frame(syn(81), [0x08, 0x00])),
        (1, frame(vec![0; 28], [0x08, 0x06])),
    ];
    write(&input, DataLink::ETHERNET, &packets);
    let (sent, summary) = translate(&input, &["--forward", "tcp:80=10.0.0.80:8080"]);
    let server = builder::tuple(Protocol::TCP, ([192, 0, 2, 1], 4000), ([10, 0, 0, 80], 8080));
    assert_eq!(tuples(&sent), [server]);
    assert!(summary.starts_with("2 packets in, 1 written"), "{summary}");
    assert!(summary.contains("1 dropped, no-mapping"), "{summary}");
}
