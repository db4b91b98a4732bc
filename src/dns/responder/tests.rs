//! Answers as bytes.

use std::net::Ipv4Addr;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::{RecordType, TSigner};
use proptest::prelude::*;

use super::super::testing::{name, states, zone};
use super::super::{NameServer, PublishedName};
use super::*;
use crate::uplinks::{UplinkState, Uplinks};

const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 1], 4000);

fn respond(
    zone: Zone,
    states: UplinkStates,
    message: &[u8],
    protocol: Protocol,
    extent: Extent,
) -> ResponseBytes {
    let uplinks = Uplinks::new(states.uplinks);
    let responder = Responder::new(zone, uplinks.watch(), Arc::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(responder.respond(message, CLIENT.into(), protocol, extent))
}

fn ask(message: &[u8]) -> ResponseBytes {
    respond(zone(), states(), message, Protocol::Udp, Extent::Full)
}

fn read(response: &ResponseBytes) -> Message {
    match response {
        ResponseBytes::Full(bytes) | ResponseBytes::Truncated(bytes) => {
            Message::from_vec(bytes).unwrap()
        }
        ResponseBytes::None => panic!("no answer"),
    }
}

fn question(text: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 4242;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), kind));
    message
}

fn with_edns(mut message: Message, version: u8, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_version(version).set_max_payload(payload).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

#[test]
fn an_answer_has_the_right_header_and_repeats_the_query_byte_by_byte() {
    let message = question("wWw.eXample.ORG", RecordType::A);
    let bytes = message.to_vec().unwrap();
    let response = ask(&bytes);
    let answer = read(&response);
    let metadata = &answer.metadata;
    assert_eq!((metadata.id, metadata.response_code), (4242, ResponseCode::NoError));
    assert!(metadata.authoritative && metadata.recursion_desired);
    assert!(!metadata.recursion_available && !metadata.truncation && !metadata.authentic_data);
    assert!(answer.edns.is_none(), "the query had none");
    assert_eq!(answer.answers.len(), 3);
    let ResponseBytes::Full(answer) = response else { panic!("{response:?}") };
    assert_eq!(answer[12..bytes.len()], bytes[12..]);
}

#[test]
fn edns_is_answered_with_edns() {
    let answer = read(&ask(&with_edns(question("www.example.org", RecordType::A), 0, 4096)
        .to_vec()
        .unwrap()));
    let edns = answer.edns.clone().unwrap();
    assert_eq!((edns.version(), edns.max_payload(), edns.flags().dnssec_ok), (0, 1232, true));
    assert_eq!(answer.answers.len(), 3);
    let answer = read(&ask(&with_edns(question("www.example.org", RecordType::A), 1, 4096)
        .to_vec()
        .unwrap()));
    // BADVERS and BADSIG have the same number.
    assert_eq!(u16::from(answer.metadata.response_code), 16);
    assert_eq!(answer.edns.clone().unwrap().version(), 0);
    assert!(answer.answers.is_empty() && !answer.metadata.authoritative);
}

#[test]
fn messages_that_are_no_proper_query_are_refused_or_ignored() {
    let good = question("www.example.org", RecordType::A).to_vec().unwrap();
    let changed = |place: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[place] = value;
        bytes
    };
    let code = |bytes: &[u8]| read(&ask(bytes)).metadata.response_code;
    // Opcodes IQUERY, STATUS, NOTIFY, UPDATE.
    for opcode in [1, 2, 4, 5] {
        assert_eq!(code(&changed(2, opcode << 3)), ResponseCode::NotImp, "{opcode}");
    }
    assert_eq!(ask(&changed(2, 0x80)), ResponseBytes::None, "an answer");
    assert_eq!(ask(&good[..11]), ResponseBytes::None, "no header");
    assert_eq!(code(&good[..20]), ResponseCode::FormErr, "the query ends early");
    for (place, value) in [(5, 0), (5, 2), (4, 255), (7, 1), (9, 1), (10, 255)] {
        assert_eq!(code(&changed(place, value)), ResponseCode::FormErr, "{value} at {place}");
    }
    assert_eq!(code(&changed(good.len() - 1, 3)), ResponseCode::Refused, "class CHAOS");
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        let bytes = question("example.org", kind).to_vec().unwrap();
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let answer = read(&respond(zone(), states(), &bytes, protocol, Extent::Full));
            assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
        }
    }
    let mut signed = question("www.example.org", RecordType::A);
    let signer = TSigner::new(vec![1; 32], TsigAlgorithm::HmacSha256, name("key"), 300).unwrap();
    signed.finalize(&signer, 1_800_000_000).unwrap();
    let answer = read(&ask(&signed.to_vec().unwrap()));
    assert_eq!(answer.metadata.response_code, ResponseCode::NotAuth);
    let signature = answer.signature().unwrap();
    assert_eq!((&signature.name, signature.data.error), (&name("key"), Some(TsigError::BadKey)));
    assert!(signature.data.mac.is_empty(), "nothing can be signed without the key");
    assert_eq!((signature.data.time, signature.data.oid), (1_800_000_000, 4242));
}

/// Makes a zone that is large enough for the longest answers.
fn large(name_servers: u8, published: u8, label: &str) -> (Zone, UplinkStates) {
    let mut zone = zone();
    let long = |number: u8| name(&format!("{label}{number}.example.org"));
    zone.name_servers = (1..=name_servers)
        .map(|number| NameServer { name: long(number), address: Ipv4Addr::new(192, 0, 2, number) })
        .collect();
    let uplink = |number: u8| UplinkState {
        address: Some(Ipv4Addr::new(198, 51, 100, number)),
        ..UplinkState::new(number.to_string(), number)
    };
    let states = UplinkStates { uplinks: (0..published).map(uplink).collect(), serial: 1 };
    zone.published =
        vec![PublishedName { name: name("www.example.org"), uplinks: (0..published).collect() }];
    (zone, states)
}

#[test]
fn an_answer_too_long_for_a_datagram_is_truncated_and_whole_by_tcp() {
    let (zone, states) = large(40, 1, "name-server-with-a-rather-long-name-");
    for message in [
        question("example.org", RecordType::NS),
        with_edns(question("example.org", RecordType::NS), 0, 65_535),
    ] {
        let bytes = message.to_vec().unwrap();
        let cut = respond(zone.clone(), states.clone(), &bytes, Protocol::Udp, Extent::Full);
        assert!(
            matches!(&cut, ResponseBytes::Truncated(cut) if cut.len() <= bytes.len()),
            "{cut:?}"
        );
        let cut = read(&cut);
        assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.queries.len() == 1);
        assert_eq!(cut.edns.is_some(), message.edns.is_some());
        let whole =
            read(&respond(zone.clone(), states.clone(), &bytes, Protocol::Tcp, Extent::Full));
        assert!(!whole.metadata.truncation);
        assert_eq!((whole.answers.len(), whole.additionals.len()), (40, 40));
    }
    // Above the limit of its source, an answer is truncated even if it fits.
    let bytes = question("www.example.org", RecordType::A).to_vec().unwrap();
    let cut = respond(zone, states, &bytes, Protocol::Udp, Extent::QueryAlone);
    assert!(matches!(&cut, ResponseBytes::Truncated(cut) if cut.len() == bytes.len()), "{cut:?}");
}

/// TC says that a part of the answer is missing (RFC 2181 section 9). Addresses of name servers are
/// not part of it.
#[test]
fn additional_addresses_are_left_out_before_an_answer_is_truncated() {
    let (mut zone, states) = large(4, 1, "ns");
    zone.origin = name("a.example");
    for (server, label) in zone.name_servers.iter_mut().zip(["ns1", "ns2", "ns3", "ns4"]) {
        server.name = zone.origin.prepend_label(label).unwrap();
    }
    // Six times the length of so short a query holds four names, but not their addresses.
    let bytes = question("a.example", RecordType::NS).to_vec().unwrap();
    let by_udp = respond(zone.clone(), states.clone(), &bytes, Protocol::Udp, Extent::Full);
    assert!(matches!(by_udp, ResponseBytes::Full(_)), "{by_udp:?}");
    let by_udp = read(&by_udp);
    assert!(!by_udp.metadata.truncation);
    assert_eq!((by_udp.answers.len(), by_udp.additionals.len()), (4, 0));
    let by_tcp = read(&respond(zone, states, &bytes, Protocol::Tcp, Extent::Full));
    assert_eq!((by_tcp.answers.len(), by_tcp.additionals.len()), (4, 4));
}

#[test]
fn an_answer_with_the_most_addresses_fits_into_a_datagram() {
    let (zone, states) = large(2, 64, "ns");
    for message in [
        question("www.example.org", RecordType::A),
        with_edns(question("www.example.org", RecordType::A), 0, 512),
    ] {
        let answer = respond(
            zone.clone(),
            states.clone(),
            &message.to_vec().unwrap(),
            Protocol::Udp,
            Extent::Full,
        );
        assert!(matches!(answer, ResponseBytes::Full(_)));
        assert_eq!(read(&answer).answers.len(), crate::dns::answer::MAX_ADDRESSES);
    }
}

proptest! {
    /// No query to any zone amplifies a flood beyond the factor.
    #[test]
    fn an_answer_by_udp_is_at_most_six_times_as_long_as_its_query(
        (name_servers, published, label) in (1..50u8, 1..=64u8, "[a-z]{1,60}"),
        asked in prop::sample::select(vec!["www.example.org", "example.org", "x.example.org", "org"]),
        kind in prop::sample::select(vec![
            RecordType::A, RecordType::AAAA, RecordType::NS, RecordType::SOA, RecordType::ANY, RecordType::TXT,
        ]),
        edns in prop::option::of((0..3u8, any::<u16>())),
        truncated: bool,
    ) {
        let (zone, states) = large(name_servers, published, &label);
        let mut message = question(asked, kind);
        if let Some((version, payload)) = edns {
            message = with_edns(message, version, payload);
        }
        let bytes = message.to_vec().unwrap();
        let payload = usize::from(edns.map_or(512, |(_, payload)| payload.max(512)));
        let extent = if truncated { Extent::QueryAlone } else { Extent::Full };
        match respond(zone, states, &bytes, Protocol::Udp, extent) {
            ResponseBytes::None => prop_assert!(false, "no answer"),
            ResponseBytes::Full(answer) => {
                prop_assert!(answer.len() <= bytes.len() * 6, "{} for {}", answer.len(), bytes.len());
                prop_assert!(answer.len() <= payload.min(1232));
                prop_assert!(!truncated);
            }
            ResponseBytes::Truncated(answer) => prop_assert!(answer.len() <= bytes.len()),
        }
    }

    #[test]
    fn no_message_makes_the_responder_panic(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        from_good: bool,
    ) {
        let mut bytes = if from_good {
            with_edns(question("www.example.org", RecordType::A), 0, 1232).to_vec().unwrap()
        } else {
            noise
        };
        for (place, value) in changes {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
        }
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            if let ResponseBytes::Full(answer) | ResponseBytes::Truncated(answer) =
                respond(zone(), states(), &bytes, protocol, Extent::Full)
            {
                prop_assert!(Message::from_vec(&answer).is_ok());
                prop_assert_eq!(&answer[..2], &bytes[..2]);
            }
        }
    }
}
