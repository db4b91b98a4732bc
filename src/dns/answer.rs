//! What the zone answers to a question: a function of zone, lines, question and rng_value.
//!
//! | the question                          | the answer                                                              |
//! |---------------------------------------|-------------------------------------------------------------------------|
//! | not in the zone, not of the Internet  | REFUSED                                                                 |
//! | AXFR, IXFR                            | REFUSED                                                                 |
//! | no such name                          | NXDOMAIN, SOA as authority                                              |
//! | a name without such records           | NOERROR, SOA as authority (NODATA)                                      |
//! | A of a published name                 | its usable lines, at most [`MAX_ADDRESSES`], in an order of rng_value       |
//! | A of a name server                    | its address                                                             |
//! | NS of the apex                        | the name servers, with their addresses as additional records            |
//! | SOA of the apex                       | it                                                                      |
//! | ANY                                   | one HINFO record (RFC 8482)                                             |
//!
//! A record's owner is spelled as the question spells it: some resolvers recognise their own question by its letters.

use std::net::Ipv4Addr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, HINFO, NS, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::uplinks::{UplinkState, UplinkStates};
use super::zone::{NameServer, Node, Zone};

/// Addresses in one answer. More would not make a client more likely to find one that works.
pub const MAX_ADDRESSES: usize = 8;

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// How it went.
    pub code: ResponseCode,
    /// Whether it is said with authority.
    pub authoritative: bool,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authority: Vec<Record>,
    /// Additional section, less what belongs to EDNS.
    pub additional: Vec<Record>,
}

/// Answers a question. `rng_value` decides the order of the addresses; over all its values, a line's address comes first in
/// proportion to its weight.
pub fn answer(zone: &Zone, lines: &UplinkStates, question: &Query, rng_value: u64) -> Answer {
    let name = question.name();
    if question.query_class() != DNSClass::IN || !zone.origin.zone_of(name) {
        return Answer { code: ResponseCode::Refused, ..Answer::default() };
    }
    let Some(node) = zone.node(name) else {
        return Answer { code: ResponseCode::NXDomain, ..nothing(zone, lines) };
    };
    let kind = question.query_type();
    if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
        return Answer { code: ResponseCode::Refused, ..Answer::default() };
    }
    if kind == RecordType::NS && node.is_apex {
        return name_servers(zone, name);
    }
    let answers = if kind == RecordType::A {
        addresses(zone, lines, node, name, rng_value)
    } else if kind == RecordType::SOA && node.is_apex {
        vec![start_of_authority(zone, lines, name)]
    } else if kind == RecordType::ANY {
        let refusal = HINFO::new("RFC8482".to_owned(), String::new());
        vec![Record::from_rdata(name.clone(), zone.ttl, RData::HINFO(refusal))]
    } else {
        Vec::new()
    };
    if answers.is_empty() {
        return nothing(zone, lines);
    }
    Answer { authoritative: true, answers, ..Answer::default() }
}

fn name_servers(zone: &Zone, owner: &Name) -> Answer {
    let record = |server: &NameServer| {
        Record::from_rdata(owner.clone(), NAME_SERVER_TTL, RData::NS(NS(server.name.clone())))
    };
    let address = |server: &NameServer| {
        Record::from_rdata(server.name.clone(), NAME_SERVER_TTL, RData::A(A(server.address)))
    };
    Answer {
        authoritative: true,
        answers: zone.name_servers.iter().map(record).collect(),
        additional: zone.name_servers.iter().map(address).collect(),
        ..Answer::default()
    }
}

/// NODATA.
fn nothing(zone: &Zone, lines: &UplinkStates) -> Answer {
    let authority = vec![start_of_authority(zone, lines, &zone.origin)];
    Answer { authoritative: true, authority, ..Answer::default() }
}

/// RFC 2308 section 3: its TTL is that of the negative answer.
fn start_of_authority(zone: &Zone, lines: &UplinkStates, owner: &Name) -> Record {
    let primary =
        zone.name_servers.first().map_or_else(|| zone.origin.clone(), |server| server.name.clone());
    let soa = SOA::new(
        primary,
        zone.mailbox.clone(),
        lines.serial,
        REFRESH,
        RETRY,
        EXPIRE,
        zone.negative_ttl,
    );
    Record::from_rdata(owner.clone(), zone.negative_ttl, RData::SOA(soa))
}

fn addresses(
    zone: &Zone,
    lines: &UplinkStates,
    node: Node<'_>,
    owner: &Name,
    rng_value: u64,
) -> Vec<Record> {
    if let Some(server) = node.name_server {
        return vec![Record::from_rdata(
            owner.clone(),
            NAME_SERVER_TTL,
            RData::A(A(server.address)),
        )];
    }
    let Some(published) = node.published else { return Vec::new() };
    let mut order = by_weight(lines.addresses_to_serve(&published.lines), rng_value);
    order.truncate(MAX_ADDRESSES);
    let record = |address| Record::from_rdata(owner.clone(), zone.ttl, RData::A(A(address)));
    order.into_iter().map(record).collect()
}

/// Draws the lines one after the other, each time by the weights of those that are left.
fn by_weight(mut lines: Vec<(&UplinkState, Ipv4Addr)>, rng_value: u64) -> Vec<Ipv4Addr> {
    let mut rng_value = rng_value;
    let mut order = Vec::with_capacity(lines.len());
    while !lines.is_empty() {
        let total: u64 = lines.iter().map(|(line, _)| u64::from(line.weight)).sum();
        rng_value = mixed(rng_value);
        // The high half of a product of 128 bits: a number below `total` without the bias of a remainder.
        let mut drawn = ((u128::from(rng_value) * u128::from(total)) >> 64) as u64;
        let place = lines.iter().position(|(line, _)| {
            let weight = u64::from(line.weight);
            let hit = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            hit
        });
        order.push(lines.remove(place.unwrap_or(0)).1);
    }
    order
}

/// The next number of the SplitMix64 generator (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Seconds for which the name servers and their addresses may be kept: they do not follow the lines, and resolvers that
/// have them all go to the next one when one is dead.
const NAME_SERVER_TTL: u32 = 3600;

/// Times of the SOA record, for secondary servers, which this zone has none of (RIPE-203).
const REFRESH: i32 = 3600;
const RETRY: i32 = 600;
const EXPIRE: i32 = 1_209_600;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use super::super::testing::{lines, name, zone};
    use super::*;

    fn ask(lines: &UplinkStates, text: &str, kind: RecordType) -> Answer {
        answer(&zone(), lines, &Query::query(name(text), kind), 7)
    }

    fn octets(answer: &Answer) -> Vec<u8> {
        let octet = |record: &Record| {
            let RData::A(A(address)) = &record.data else { panic!("no address: {record}") };
            address.octets()[3]
        };
        answer.answers.iter().map(octet).collect()
    }

    fn has_only_soa(answer: &Answer) -> bool {
        let [soa] = answer.authority.as_slice() else { return false };
        let RData::SOA(data) = &soa.data else { return false };
        answer.authoritative
            && answer.answers.is_empty()
            && answer.additional.is_empty()
            && soa.name == name("example.org")
            && (soa.ttl, data.minimum) == (20, 20)
    }

    #[test]
    fn published_names_lead_to_their_usable_lines() {
        let mut snapshot = lines();
        let answer = ask(&snapshot, "www.example.org", RecordType::A);
        assert_eq!((answer.code, answer.authoritative), (ResponseCode::NoError, true));
        assert!(answer.answers.iter().all(|record| record.ttl == 30));
        let mut found = octets(&answer);
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3]);
        snapshot.lines[1].up = false;
        let mut found = octets(&ask(&snapshot, "www.example.org", RecordType::A));
        found.sort_unstable();
        assert_eq!(found, [1, 3]);
        assert_eq!(
            octets(&ask(&snapshot, "example.org", RecordType::A)),
            [1],
            "the apex has one line"
        );
        snapshot.lines[0].up = false;
        assert_eq!(
            octets(&ask(&snapshot, "example.org", RecordType::A)),
            [1],
            "dead data is better than none"
        );
    }

    #[test]
    fn letters_are_answered_as_they_were_asked() {
        let asked = name("wWw.eXample.ORG");
        let answer = answer(&zone(), &lines(), &Query::query(asked.clone(), RecordType::A), 7);
        assert!(
            answer.answers.len() == 3
                && answer.answers.iter().all(|record| record.name.eq_case(&asked))
        );
    }

    #[test]
    fn the_apex_has_its_name_servers_with_addresses_and_its_soa() {
        let answer = ask(&lines(), "example.org", RecordType::NS);
        let servers: Vec<String> =
            answer.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(servers, ["ns1.example.org.", "ns2.example.org."]);
        let glue: Vec<String> = answer
            .additional
            .iter()
            .map(|record| format!("{} {}", record.name, record.data))
            .collect();
        assert_eq!(glue, ["ns1.example.org. 203.0.113.1", "ns2.example.org. 198.51.100.1"]);
        let soa = ask(&lines(), "example.org", RecordType::SOA);
        assert!(soa.authoritative && soa.authority.is_empty());
        assert_eq!(
            soa.answers[0].data.to_string(),
            "ns1.example.org. hostmaster.example.org. 77 3600 600 1209600 20"
        );
        let server = ask(&lines(), "ns2.example.org", RecordType::A);
        assert_eq!(server.answers[0].data, RData::A(A(Ipv4Addr::new(198, 51, 100, 1))));
    }

    #[test]
    fn what_is_not_there_is_nxdomain_or_nodata_with_the_soa() {
        for text in ["nowhere.example.org", "a.www.example.org", "c.b.example.org"] {
            for kind in [RecordType::A, RecordType::ANY, RecordType::SOA] {
                let answer = ask(&lines(), text, kind);
                assert!(
                    answer.code == ResponseCode::NXDomain && has_only_soa(&answer),
                    "{text}: {answer:?}"
                );
            }
        }
        // An address of the other kind, records that only the apex has, and a name that only has names below it.
        for (text, kind) in [
            ("www.example.org", RecordType::AAAA),
            ("ns1.example.org", RecordType::AAAA),
            ("www.example.org", RecordType::NS),
            ("www.example.org", RecordType::SOA),
            ("www.example.org", RecordType::CNAME),
            ("example.org", RecordType::MX),
            ("b.example.org", RecordType::A),
            ("b.example.org", RecordType::AAAA),
        ] {
            let answer = ask(&lines(), text, kind);
            assert!(
                answer.code == ResponseCode::NoError && has_only_soa(&answer),
                "{text} {kind}: {answer:?}"
            );
        }
        assert_eq!(octets(&ask(&lines(), "a.b.example.org", RecordType::A)), [2]);
    }

    #[test]
    fn what_is_not_this_servers_affair_is_refused() {
        let refused = Answer { code: ResponseCode::Refused, ..Answer::default() };
        for (text, kind) in [
            ("example.net", RecordType::A),
            ("org", RecordType::NS),
            (".", RecordType::NS),
            ("notexample.org", RecordType::A),
            ("example.org", RecordType::AXFR),
            ("example.org", RecordType::IXFR),
        ] {
            assert_eq!(ask(&lines(), text, kind), refused, "{text} {kind}");
        }
        for class in [DNSClass::CH, DNSClass::ANY, DNSClass::NONE] {
            let mut question = Query::query(name("www.example.org"), RecordType::A);
            question.set_query_class(class);
            assert_eq!(answer(&zone(), &lines(), &question, 7), refused, "{class}");
        }
    }

    #[test]
    fn any_is_one_small_record() {
        let answer = ask(&lines(), "www.example.org", RecordType::ANY);
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.answers[0].record_type(), RecordType::HINFO);
    }

    #[test]
    fn a_line_comes_first_in_proportion_to_its_weight() {
        let mut snapshot = lines();
        for (line, weight) in snapshot.lines.iter_mut().zip([1, 6, 3]) {
            line.weight = weight;
        }
        let question = Query::query(name("www.example.org"), RecordType::A);
        let mut first = BTreeMap::<u8, f64>::new();
        let rounds = 20_000;
        for rng_value in 0..rounds {
            *first
                .entry(octets(&answer(&zone(), &snapshot, &question, rng_value))[0])
                .or_default() += 1.0;
        }
        for (octet, share) in [(1, 0.1), (2, 0.6), (3, 0.3)] {
            let found = first[&octet] / rounds as f64;
            assert!((found - share).abs() < 0.02, "{octet}: {found} instead of {share}");
        }
    }

    proptest! {
        #[test]
        fn every_usable_line_is_answered_once_whatever_the_luck(
            rng_value: u64,
            weights in prop::collection::vec((1..=1000u32, any::<bool>()), 1..12),
        ) {
            let line = |(number, &(weight, up)): (usize, &(u32, bool))| UplinkState {
                name: number.to_string(),
                address: Some(Ipv4Addr::new(192, 0, 2, number as u8)),
                source: None,
                weight,
                up,
            };
            let snapshot = UplinkStates { lines: weights.iter().enumerate().map(line).collect(), serial: 1 };
            let mut zone = zone();
            zone.published[0].lines = (0..weights.len()).collect();
            let wanted: Vec<u8> = snapshot
                .addresses_to_serve(&zone.published[0].lines)
                .iter()
                .map(|(_, address)| address.octets()[3])
                .collect();
            let question = Query::query(zone.published[0].name.clone(), RecordType::A);
            let mut found = octets(&answer(&zone, &snapshot, &question, rng_value));
            prop_assert_eq!(found.len(), wanted.len().min(MAX_ADDRESSES));
            found.sort_unstable();
            found.dedup();
            prop_assert_eq!(found.len(), wanted.len().min(MAX_ADDRESSES));
            prop_assert!(found.iter().all(|octet| wanted.contains(octet)));
        }
    }
}
