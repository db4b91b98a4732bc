//! The answer to a query: a pure function of zone, uplinks, query and a random value.
//!
//! | query | answer |
//! |---|---|
//! | outside the zone, other than class IN | REFUSED |
//! | AXFR, IXFR | REFUSED |
//! | no such name | NXDOMAIN, SOA as authority |
//! | a name without such records | NOERROR, SOA as authority (NODATA) |
//! | A of a published name | its uplinks that are up, at most [`MAX_ADDRESSES`], in random order |
//! | A of a name server | its address |
//! | NS of the apex | the name servers, with their addresses as additional records |
//! | SOA of the apex | the SOA record |
//! | ANY | one HINFO record (RFC 8482) |
//!
//! An answer spells the owner of a record as the query does. Some resolvers check the spelling to
//! recognise their query.

use std::net::Ipv4Addr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::{A, HINFO, NS, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{NameServer, NodeAtName, Zone};
use crate::uplinks::{UplinkState, UplinkStates};

/// Most addresses in one answer. More addresses would not help a client to find one that works.
pub(crate) const MAX_ADDRESSES: usize = 8;

/// ZoneAnswer to a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ZoneAnswer {
    /// Response code.
    pub code: ResponseCode,
    /// Whether the answer is authoritative.
    pub authoritative: bool,
    /// ZoneAnswer section.
    pub answers: Vec<Record>,
    /// Authority section.
    pub authority: Vec<Record>,
    /// Additional section, without the record of EDNS.
    pub additional: Vec<Record>,
}

/// Answers a query. `rng_value` decides the order of the addresses. Over all values, an uplink's
/// address comes first in proportion to the uplink's weight.
pub(crate) fn answer(
    zone: &Zone,
    states: &UplinkStates,
    question: &Query,
    rng_value: u64,
) -> ZoneAnswer {
    let name = question.name();
    if question.query_class() != DNSClass::IN || !zone.origin.zone_of(name) {
        return ZoneAnswer { code: ResponseCode::Refused, ..ZoneAnswer::default() };
    }
    let Some(node) = zone.node(name) else {
        return ZoneAnswer { code: ResponseCode::NXDomain, ..no_data(zone, states) };
    };
    let kind = question.query_type();
    if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
        return ZoneAnswer { code: ResponseCode::Refused, ..ZoneAnswer::default() };
    }
    if kind == RecordType::NS && node.is_apex {
        return name_servers(zone, name);
    }
    let answers = if kind == RecordType::A {
        addresses(zone, states, node, name, rng_value)
    } else if kind == RecordType::SOA && node.is_apex {
        vec![start_of_authority(zone, states, name)]
    } else if kind == RecordType::ANY {
        let refusal = HINFO::new("RFC8482".to_owned(), String::new());
        vec![Record::from_rdata(name.clone(), zone.ttl, RData::HINFO(refusal))]
    } else {
        Vec::new()
    };
    if answers.is_empty() {
        return no_data(zone, states);
    }
    ZoneAnswer { authoritative: true, answers, ..ZoneAnswer::default() }
}

fn name_servers(zone: &Zone, owner: &Name) -> ZoneAnswer {
    let record = |server: &NameServer| {
        Record::from_rdata(owner.clone(), NAME_SERVER_TTL, RData::NS(NS(server.name.clone())))
    };
    let address = |server: &NameServer| {
        Record::from_rdata(server.name.clone(), NAME_SERVER_TTL, RData::A(A(server.address)))
    };
    ZoneAnswer {
        authoritative: true,
        answers: zone.name_servers.iter().map(record).collect(),
        additional: zone.name_servers.iter().map(address).collect(),
        ..ZoneAnswer::default()
    }
}

/// Makes an answer without records (NODATA).
fn no_data(zone: &Zone, states: &UplinkStates) -> ZoneAnswer {
    let authority = vec![start_of_authority(zone, states, &zone.origin)];
    ZoneAnswer { authoritative: true, authority, ..ZoneAnswer::default() }
}

/// Makes the SOA record. Its TTL is that of a negative answer (RFC 2308 section 3).
fn start_of_authority(zone: &Zone, states: &UplinkStates, owner: &Name) -> Record {
    let primary =
        zone.name_servers.first().map_or_else(|| zone.origin.clone(), |server| server.name.clone());
    let soa = SOA::new(
        primary,
        zone.mailbox.clone(),
        states.serial,
        REFRESH,
        RETRY,
        EXPIRE,
        zone.negative_ttl,
    );
    Record::from_rdata(owner.clone(), zone.negative_ttl, RData::SOA(soa))
}

fn addresses(
    zone: &Zone,
    states: &UplinkStates,
    node: NodeAtName<'_>,
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
    let mut order = by_weight(states.addresses_to_serve(&published.uplinks), rng_value);
    order.truncate(MAX_ADDRESSES);
    let record = |address| Record::from_rdata(owner.clone(), zone.ttl, RData::A(A(address)));
    order.into_iter().map(record).collect()
}

/// Draws the uplinks one after the other, each time by the weights of those that are left. Returns
/// their addresses.
fn by_weight(mut uplinks: Vec<(&UplinkState, Ipv4Addr)>, rng_value: u64) -> Vec<Ipv4Addr> {
    let mut rng_value = rng_value;
    let mut order = Vec::with_capacity(uplinks.len());
    while !uplinks.is_empty() {
        let total: u64 = uplinks.iter().map(|(uplink, _)| u64::from(uplink.weight)).sum();
        rng_value = split_mix_64(rng_value);
        // The high half of a product of 128 bits: a number below `total` without the bias of a
        // remainder.
        let mut drawn = ((u128::from(rng_value) * u128::from(total)) >> 64) as u64;
        let place = uplinks.iter().position(|(uplink, _)| {
            let weight = u64::from(uplink.weight);
            let hit = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            hit
        });
        order.push(uplinks.remove(place.unwrap_or(0)).1);
    }
    order
}

/// Returns the next number of the SplitMix64 generator (Steele, Lea, Flood: Fast splittable
/// pseudorandom number generators).
fn split_mix_64(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Time to live of the name servers and their addresses, in seconds. They do not depend on the
/// uplinks, and a resolver that knows them all asks the next one if one does not answer.
const NAME_SERVER_TTL: u32 = 3600;

/// Times of the SOA record in seconds, for secondary servers (RIPE-203). The zone has no secondary
/// servers.
const REFRESH: i32 = 3600;
const RETRY: i32 = 600;
const EXPIRE: i32 = 1_209_600;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    use super::super::testing::{name, states, zone};
    use super::*;
    use crate::uplinks::Answers;

    fn ask(states: &UplinkStates, text: &str, kind: RecordType) -> ZoneAnswer {
        answer(&zone(), states, &Query::query(name(text), kind), 7)
    }

    fn octets(answer: &ZoneAnswer) -> Vec<u8> {
        let octet = |record: &Record| {
            let RData::A(A(address)) = &record.data else { panic!("no address: {record}") };
            address.octets()[3]
        };
        answer.answers.iter().map(octet).collect()
    }

    fn has_only_soa(answer: &ZoneAnswer) -> bool {
        let [soa] = answer.authority.as_slice() else { return false };
        let RData::SOA(data) = &soa.data else { return false };
        answer.authoritative
            && answer.answers.is_empty()
            && answer.additional.is_empty()
            && soa.name == name("example.org")
            && (soa.ttl, data.minimum) == (20, 20)
    }

    #[test]
    fn a_published_name_has_the_addresses_of_its_uplinks_that_are_up() {
        let mut states = states();
        let answer = ask(&states, "www.example.org", RecordType::A);
        assert_eq!((answer.code, answer.authoritative), (ResponseCode::NoError, true));
        assert!(answer.answers.iter().all(|record| record.ttl == 30));
        let mut found = octets(&answer);
        found.sort_unstable();
        assert_eq!(found, [1, 2, 3]);
        states.uplinks[1].up = false;
        let mut found = octets(&ask(&states, "www.example.org", RecordType::A));
        found.sort_unstable();
        assert_eq!(found, [1, 3]);
        assert_eq!(
            octets(&ask(&states, "example.org", RecordType::A)),
            [1],
            "the apex has one uplink"
        );
        states.uplinks[0].up = false;
        assert_eq!(
            octets(&ask(&states, "example.org", RecordType::A)),
            [1],
            "an old address is better than none"
        );
        states.uplinks[2].up = false;
        states.uplinks[2].answers = Answers::Good;
        assert_eq!(octets(&ask(&states, "www.example.org", RecordType::A)), [3], "it answers");
    }

    #[test]
    fn an_answer_spells_the_name_as_the_query_does() {
        let asked = name("wWw.eXample.ORG");
        let answer = answer(&zone(), &states(), &Query::query(asked.clone(), RecordType::A), 7);
        assert!(
            answer.answers.len() == 3
                && answer.answers.iter().all(|record| record.name.eq_case(&asked))
        );
    }

    #[test]
    fn the_apex_has_its_name_servers_with_addresses_and_its_soa() {
        let answer = ask(&states(), "example.org", RecordType::NS);
        let servers: Vec<String> =
            answer.answers.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(servers, ["ns1.example.org.", "ns2.example.org."]);
        let glue: Vec<String> = answer
            .additional
            .iter()
            .map(|record| format!("{} {}", record.name, record.data))
            .collect();
        assert_eq!(glue, ["ns1.example.org. 203.0.113.1", "ns2.example.org. 198.51.100.1"]);
        let soa = ask(&states(), "example.org", RecordType::SOA);
        assert!(soa.authoritative && soa.authority.is_empty());
        assert_eq!(
            soa.answers[0].data.to_string(),
            "ns1.example.org. hostmaster.example.org. 77 3600 600 1209600 20"
        );
        let server = ask(&states(), "ns2.example.org", RecordType::A);
        assert_eq!(server.answers[0].data, RData::A(A(Ipv4Addr::new(198, 51, 100, 1))));
    }

    #[test]
    fn missing_names_are_nxdomain_and_missing_records_nodata_with_the_soa() {
        for text in ["nowhere.example.org", "a.www.example.org", "c.b.example.org"] {
            for kind in [RecordType::A, RecordType::ANY, RecordType::SOA] {
                let answer = ask(&states(), text, kind);
                assert!(
                    answer.code == ResponseCode::NXDomain && has_only_soa(&answer),
                    "{text}: {answer:?}"
                );
            }
        }
        // IPv6 addresses, records that only the apex has, and a name that has only names below it.
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
            let answer = ask(&states(), text, kind);
            assert!(
                answer.code == ResponseCode::NoError && has_only_soa(&answer),
                "{text} {kind}: {answer:?}"
            );
        }
        assert_eq!(octets(&ask(&states(), "a.b.example.org", RecordType::A)), [2]);
    }

    #[test]
    fn queries_outside_the_zone_and_zone_transfers_are_refused() {
        let refused = ZoneAnswer { code: ResponseCode::Refused, ..ZoneAnswer::default() };
        for (text, kind) in [
            ("example.net", RecordType::A),
            ("org", RecordType::NS),
            (".", RecordType::NS),
            ("notexample.org", RecordType::A),
            ("example.org", RecordType::AXFR),
            ("example.org", RecordType::IXFR),
        ] {
            assert_eq!(ask(&states(), text, kind), refused, "{text} {kind}");
        }
        for class in [DNSClass::CH, DNSClass::ANY, DNSClass::NONE] {
            let mut question = Query::query(name("www.example.org"), RecordType::A);
            question.set_query_class(class);
            assert_eq!(answer(&zone(), &states(), &question, 7), refused, "{class}");
        }
    }

    #[test]
    fn an_any_query_gets_one_small_record() {
        let answer = ask(&states(), "www.example.org", RecordType::ANY);
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(answer.answers[0].record_type(), RecordType::HINFO);
    }

    #[test]
    fn the_first_address_is_that_of_an_uplink_in_proportion_to_its_weight() {
        let mut states = states();
        for (uplink, weight) in states.uplinks.iter_mut().zip([1, 6, 3]) {
            uplink.weight = weight;
        }
        let question = Query::query(name("www.example.org"), RecordType::A);
        let mut first = BTreeMap::<u8, f64>::new();
        let rounds = 20_000;
        for rng_value in 0..rounds {
            *first
                .entry(octets(&answer(&zone(), &states, &question, rng_value))[0])
                .or_default() += 1.0;
        }
        for (octet, share) in [(1, 0.1), (2, 0.6), (3, 0.3)] {
            let found = first[&octet] / rounds as f64;
            assert!((found - share).abs() < 0.02, "{octet}: {found} instead of {share}");
        }
    }

    proptest! {
        #[test]
        fn an_answer_has_each_uplink_that_is_up_once_for_every_random_value(
            rng_value: u64,
            weights in prop::collection::vec((1..=1000u32, any::<bool>()), 1..12),
        ) {
            let uplink = |(number, &(weight, up)): (usize, &(u32, bool))| UplinkState {
                address: Some(Ipv4Addr::new(192, 0, 2, number as u8)),
                weight,
                up,
                ..UplinkState::new(number.to_string(), number as u8)
            };
            let uplinks = weights.iter().enumerate().map(uplink).collect();
            let states = UplinkStates { uplinks, serial: 1 };
            let mut zone = zone();
            zone.published[0].uplinks = (0..weights.len() as u8).collect();
            let wanted: Vec<u8> = states
                .addresses_to_serve(&zone.published[0].uplinks)
                .iter()
                .map(|(_, address)| address.octets()[3])
                .collect();
            let question = Query::query(zone.published[0].name.clone(), RecordType::A);
            let mut found = octets(&answer(&zone, &states, &question, rng_value));
            prop_assert_eq!(found.len(), wanted.len().min(MAX_ADDRESSES));
            found.sort_unstable();
            found.dedup();
            prop_assert_eq!(found.len(), wanted.len().min(MAX_ADDRESSES));
            prop_assert!(found.iter().all(|octet| wanted.contains(octet)));
        }
    }
}
