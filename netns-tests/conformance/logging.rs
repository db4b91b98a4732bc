//! The mapping log: the holder of an external endpoint at any time, and the cost of the log.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use natbox::packet::{Endpoint, Protocol, builder};

use super::ports::wait_until;
use super::proves;
use crate::probe::{E1, E2, Probe, S1, S2, Setup, at};

/// A line of the log.
#[derive(Clone, Debug)]
struct Record {
    begins: bool,
    protocol: String,
    inside: String,
    external: String,
    at: SystemTime,
}

fn records(log: &str) -> Vec<Record> {
    let parse = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let begins = match value["message"].as_str()? {
            "mapping begins" => true,
            "mapping ends" => false,
            _ => return None,
        };
        assert_eq!(value["instance"], "natbox");
        Some(Record {
            begins,
            protocol: text("protocol")?,
            inside: text("inside")?,
            external: text("external")?,
            at: humantime::parse_rfc3339(&text("at")?).unwrap(),
        })
    };
    log.lines().filter_map(parse).collect()
}

/// Returns the holder of an external endpoint at a time.
fn holder(records: &[Record], protocol: &str, external: &str, at: SystemTime) -> Option<String> {
    let mut mine =
        records.iter().filter(|record| record.external == external && record.protocol == protocol);
    let mut holder = None;
    while let Some(record) = mine.next().filter(|record| record.at <= at) {
        assert_eq!(holder.is_none(), record.begins, "begin and end take turns: {record:?}");
        holder = record.begins.then(|| record.inside.clone());
    }
    holder
}

#[test]
fn mapping_log_names_the_holder_of_an_endpoint_and_no_destinations() {
    let _proof = proves(&["LOG-1", "RFC6888-12"]);
    let setup =
        Setup::new().no_forwards().nat("ports: 40000-40019, reject_with: none, port_parity: false");
    let setup = setup.timeouts("udp: 1s").log("mappings: true, format: json");
    let probe = Probe::start(setup);
    let mut seen = Vec::new();
    for round in 0..4_u16 {
        for number in 0..20 {
            let host = if (number + round) % 2 == 0 { S1 } else { S2 };
            let inside = at(host, 5000 + 100 * round + number);
            let external = probe.open_udp(inside, at(E1, 53));
            seen.push((external, inside, SystemTime::now()));
        }
        wait_until("the ports are free again", || probe.status().mappings == 0);
        // The clock of the packet path ticks once a millisecond.
        std::thread::sleep(Duration::from_millis(20));
    }
    wait_until("all is written", || records(&probe.log()).len() == 160);
    let log = probe.log();
    let records = records(&log);
    assert!(records.iter().all(|record| record.protocol == "udp"));
    for (external, inside, when) in seen {
        let found = holder(&records, "udp", &external.to_string(), when + Duration::from_millis(5));
        assert_eq!(found, Some(inside.to_string()), "{external} at {when:?}");
    }
    assert!(!log.contains(&E1.to_string()), "no destination");
    // Destinations do not appear without the mapping log either, nor for TCP.
    let probe = Probe::plain();
    probe.open_udp(at(S1, 5000), at(E2, 53));
    probe.connect_out(at(S1, 5000), at(E2, 80));
    assert!(!probe.log().contains(&E2.to_string()) && !probe.log().contains("mapping begins"));
}

#[test]
fn mapping_log_has_every_protocol_and_logs_reopening_as_end_and_begin() {
    let _proof = proves(&["LOG-1"]);
    let setup =
        Setup::new().log("mappings: true, format: json").timeouts("tcp_syn: 1s, icmp: 1s, udp: 1s");
    let probe = Probe::start(setup);
    let mut expected = HashMap::new();
    for _ in 0..2 {
        let udp = probe.open_udp(at(S1, 5000), at(E1, 53));
        let tcp = probe.syn_out(at(S1, 5000), at(E1, 80)).source();
        let icmp = probe.open_ping(at(S1, 77), E1);
        for (protocol, external) in [("udp", udp), ("tcp", tcp), ("icmp", icmp)] {
            *expected.entry((protocol, external.to_string())).or_insert(0) += 2;
        }
        wait_until("all have ended", || probe.status().mappings == 0);
    }
    wait_until("all is written", || records(&probe.log()).len() == 12);
    let records = records(&probe.log());
    for ((protocol, external), count) in expected {
        let of_one: Vec<_> = records
            .iter()
            .filter(|record| record.protocol == protocol && record.external == external)
            .map(|record| record.begins)
            .collect();
        assert_eq!(of_one.len(), count);
        assert!(of_one.chunks(2).all(|pair| pair == [true, false]), "{of_one:?}");
    }
}

#[test]
fn unread_log_slows_no_packet() {
    let _proof = proves(&["LOG-3"]);
    let probe = Probe::start_unread(Setup::new().log("mappings: true").nat("reject_with: none"));
    let datagram = |from: Endpoint| {
        builder::udp(
            natbox::packet::Tuple {
                protocol: Protocol::UDP,
                source: from,
                destination: at(E1, 53),
            },
            b"new",
        )
    };
    let mut connection = probe.connect_out(at(S2, 4000), at(E2, 80));
    probe.outside.ignore(|seen| seen.payload() == b"new");
    for round in 0..50_u16 {
        for number in 0..1000 {
            probe.inside.send(&datagram(at(S1, 1024 + round * 1000 + number)));
            if number % 100 == 0 {
                probe.outside.drain_now();
            }
        }
        probe.outside.drain_until_quiet();
        let asked = Instant::now();
        probe.assert_open(&mut connection);
        let status = probe.status();
        assert!(asked.elapsed() < Duration::from_millis(1000), "{:?}", asked.elapsed());
        assert!(status.mappings > usize::from(round) * 900, "{} mappings", status.mappings);
    }
    let lost = probe.status().log_lines_dropped;
    assert!(lost > 1000, "{lost} lines lost: the test must lose some");
}
