//! The language against a naive evaluator, and its messages.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::condition::{Comparison, Condition, End, EndpointPattern, Property};
use super::*;
use crate::packet::{Endpoint, Protocol, Tuple};

/// A client outside uses a published server.
fn published() -> Subject<'static> {
    let (client, server) = (endpoint([203, 0, 113, 9], 4242), endpoint([10, 0, 0, 9], 8443));
    let address = endpoint([198, 51, 100, 1], 443);
    Subject {
        original: tuple(client, address),
        reply: Some(tuple(server, client)),
        opened_from_inside: false,
        answered_from_inside: true,
        uplink: Some("isp1"),
        forward: Some("web"),
        state: Some("established"),
        origin: Some("forward"),
        idle: Some(Duration::from_secs(301)),
        age: Some(Duration::from_secs(600)),
        expires: Some(Duration::from_secs(7000)),
    }
}

/// A host inside uses a server outside.
fn outbound() -> Subject<'static> {
    let (host, server) = (endpoint([10, 0, 0, 9], 5000), endpoint([203, 0, 113, 9], 443));
    let external = endpoint([198, 51, 100, 1], 40_000);
    Subject {
        original: tuple(host, server),
        reply: Some(tuple(server, external)),
        opened_from_inside: true,
        answered_from_inside: false,
        forward: None,
        origin: Some("outbound"),
        age: None,
        ..published()
    }
}

fn endpoint(address: [u8; 4], port: u16) -> Endpoint {
    Endpoint::new(Ipv4Addr::from(address), port)
}

fn tuple(source: Endpoint, destination: Endpoint) -> Tuple {
    Tuple { protocol: Protocol::TCP, source, destination }
}

fn matches(text: &str, subject: &Subject<'_>) -> bool {
    text.parse::<FilterExpression>()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .matches(subject)
}

#[test]
fn filters_select_by_every_end_and_property() {
    let (published, outbound) = (published(), outbound());
    for (text, of_published, of_outbound) in [
        ("", true, true),
        ("tcp", true, true),
        ("udp", false, false),
        ("protocol 6", true, true),
        ("from 203.0.113.0/24", true, false),
        ("from 198.51.100.1:40000", false, true),
        ("to :443", true, true),
        ("to :8443", true, false),
        ("client 10.0.0.9", false, true),
        ("server 10.0.0.9:8443", true, false),
        ("server 203.0.113.9", false, true),
        ("published 198.51.100.1:443", true, false),
        ("published :40000-50000", false, true),
        ("inside 10.0.0.9", true, true),
        ("outside 203.0.113.9:4242", true, false),
        ("203.0.113.9", true, true),
        ("198.51.100.0/24:443", true, false),
        (":5000", false, true),
        ("uplink isp1", true, true),
        ("forward web", true, false),
        ("not forward web", false, true),
        ("state established origin outbound", false, true),
        ("idle>5m", true, true),
        ("idle over 5m and idle under 302s", true, true),
        ("age<1h", true, false),
        ("not age<1h", false, true),
        ("expires >= 7000", true, true),
        ("expires=7001s", false, false),
        ("udp or client 10.0.0.9", false, true),
        ("(udp or tcp) forward web", true, false),
        ("udp or tcp forward web", true, false),
        ("not (udp or forward web)", false, true),
        ("not not tcp", true, true),
        (
            "tcp from 203.0.113.0/24 to :443 uplink isp1 forward web state established idle>5m \
             age<1h not inside 10.0.0.10",
            true,
            false,
        ),
    ] {
        assert_eq!(matches(text, &published), of_published, "{text}, published");
        assert_eq!(matches(text, &outbound), of_outbound, "{text}, outbound");
    }
}

#[test]
fn errors_name_the_place_and_the_nearest_word() {
    for (text, wanted) in [
        (
            "tpc",
            "column 1: found `tpc`, wanted a word of the language or an address; did you mean `tcp`?",
        ),
        (
            "tcp upllink isp1",
            "column 5: found `upllink`, wanted a word of the language or an address; did you mean `uplink`?",
        ),
        (
            "zebra",
            "column 1: found `zebra`, wanted a word of the language or an address; choose one of `protocol`",
        ),
        ("from", "column 5: found the end, wanted an address, a prefix"),
        ("from web", "column 6: found `web`, wanted an address, a prefix"),
        ("10.0.0.0/33", "column 1: found `10.0.0.0/33`, wanted a word"),
        ("to :99999", "column 4: found `:99999`, wanted an address"),
        ("to :20-10", "column 4: found `:20-10`, wanted an address"),
        ("idle 5m", "column 6: found `5m`, wanted `<`"),
        ("idle>5w", "column 6: found `5w`, wanted a duration"),
        ("idle>>5m", "column 5: found `>>`, wanted `<`"),
        ("(tcp", "column 5: found the end, wanted `)`"),
        ("tcp)", "column 4: found `)`, wanted a condition, `and`, `or` or the end"),
        ("tcp or", "column 7: found the end, wanted a condition"),
        ("uplink (", "column 8: found `(`, wanted a name"),
        ("protocol 256", "column 10: found `256`, wanted a number from 0 to 255"),
    ] {
        let error = text.parse::<FilterExpression>().expect_err(text).to_string();
        assert!(error.starts_with(&format!("filter, {wanted}")), "{text}: {error}");
    }
    let deep = "(".repeat(100_000);
    assert!(
        deep.parse::<FilterExpression>().expect_err("too deep").to_string().contains("at most 64")
    );
}

fn endpoints() -> impl Strategy<Value = Endpoint> {
    (0..4u8, 0..4u16).prop_map(|(host, port)| endpoint([10, 0, host / 2, host % 2], 80 + port))
}

fn names() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("isp1"), Just("isp2"), Just("web"), Just("established")]
}

fn seconds() -> impl Strategy<Value = Duration> {
    (0..5u64).prop_map(Duration::from_secs)
}

fn subjects() -> impl Strategy<Value = Subject<'static>> {
    let tuples = (endpoints(), endpoints(), prop::option::of((endpoints(), endpoints())));
    let names = prop::array::uniform4(prop::option::of(names()));
    let times = prop::array::uniform3(prop::option::of(seconds()));
    let protocols = prop_oneof![Just(Protocol::TCP), Just(Protocol::UDP), Just(Protocol(47))];
    (tuples, any::<(bool, bool)>(), names, times, protocols).prop_map(
        |((source, destination, reply), inside, names, times, protocol)| Subject {
            original: Tuple { protocol, source, destination },
            reply: reply.map(|(source, destination)| Tuple { protocol, source, destination }),
            opened_from_inside: inside.0,
            answered_from_inside: inside.1,
            uplink: names[0],
            forward: names[1],
            state: names[2],
            origin: names[3],
            idle: times[0],
            age: times[1],
            expires: times[2],
        },
    )
}

fn conditions() -> impl Strategy<Value = Condition> {
    let protocols = prop_oneof![Just(Protocol::TCP), Just(Protocol(47)), Just(Protocol(99))];
    let ends =
        prop_oneof![Just(End::Any), prop::sample::select(End::WORDS.map(|(_, end)| end).to_vec()),];
    let networks = (endpoints(), prop_oneof![Just(32u8), 0..=32u8])
        .prop_map(|(end, length)| Ipv4Net::new_assert(end.address, length).trunc());
    let ports = (0..4u16, 0..2u16).prop_map(|(first, more)| (80 + first, 80 + first + more));
    let patterns = (prop::option::of(networks), prop::option::of(ports))
        .prop_filter("an endpoint has a part", |(network, ports)| {
            network.or(ports.map(|_| Ipv4Net::default())).is_some()
        })
        .prop_map(|(network, ports)| EndpointPattern { network, ports });
    let named = prop::sample::select(Property::NAMES.map(|(_, name)| name).to_vec());
    let timed = prop::sample::select(Property::TIMES.map(|(_, time)| time).to_vec());
    let signs = prop::sample::select(Comparison::SIGNS.map(|(_, sign)| sign).to_vec());
    prop_oneof![
        protocols.prop_map(Condition::Protocol),
        (ends, patterns).prop_map(|(end, pattern)| Condition::Endpoint(end, pattern)),
        (named, names()).prop_map(|(name, value)| Condition::Name(name, value.to_owned())),
        (timed, signs, seconds())
            .prop_map(|(time, sign, limit)| Condition::Time(time, sign, limit)),
    ]
}

fn expressions() -> impl Strategy<Value = FilterExpression> {
    let leaf = conditions().prop_map(FilterExpression::Is);
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(FilterExpression::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(FilterExpression::Any),
            inner.prop_map(|filter| FilterExpression::Not(Box::new(filter))),
        ]
    })
}

/// The value of the text, computed as it is read from left to right, without a tree.
mod naive {
    use super::*;

    pub(super) fn value(words: &mut &[String], subject: &Subject<'_>) -> bool {
        let mut result = conjunction(words, subject);
        while words.first().is_some_and(|word| word == "or") {
            *words = &words[1..];
            result |= conjunction(words, subject);
        }
        result
    }

    fn conjunction(words: &mut &[String], subject: &Subject<'_>) -> bool {
        let mut result = true;
        while words.first().is_some_and(|word| word != "or" && word != ")") {
            result &= one(words, subject);
        }
        result
    }

    fn one(words: &mut &[String], subject: &Subject<'_>) -> bool {
        let word = take(words);
        match word.as_str() {
            "not" => !one(words, subject),
            "(" => {
                let result = value(words, subject);
                assert_eq!(take(words), ")");
                result
            }
            "tcp" => subject.original.protocol.0 == 6,
            "gre" => subject.original.protocol.0 == 47,
            "protocol" => subject.original.protocol.0.to_string() == take(words),
            "uplink" => subject.uplink == Some(&take(words)),
            "forward" => subject.forward == Some(&take(words)),
            "state" => subject.state == Some(&take(words)),
            "origin" => subject.origin == Some(&take(words)),
            _ if word.starts_with(char::is_alphabetic) && word.contains(['<', '>', '=']) => {
                time(&word, subject)
            }
            _ if word.starts_with(char::is_alphabetic) => {
                let pattern = take(words);
                ends(&word, subject).into_iter().any(|end| is_in(&pattern, end))
            }
            _ => ends("any", subject).into_iter().any(|end| is_in(&word, end)),
        }
    }

    fn take(words: &mut &[String]) -> String {
        let (first, rest) = words.split_first().expect("a word");
        *words = rest;
        first.clone()
    }

    fn ends(word: &str, subject: &Subject<'_>) -> Vec<Endpoint> {
        let (request, reply) = (subject.original, subject.reply);
        let server = reply.map_or(request.destination, |reply| reply.source);
        let mut found = Vec::new();
        let mut add = |is_one: bool, end: Option<Endpoint>| found.extend(end.filter(|_| is_one));
        let (opened, answered) = (subject.opened_from_inside, subject.answered_from_inside);
        add(["any", "from", "client"].contains(&word), Some(request.source));
        add(["any", "from"].contains(&word), reply.map(|reply| reply.destination));
        add(["any", "to"].contains(&word), Some(request.destination));
        add(["any", "to"].contains(&word), reply.map(|reply| reply.source));
        add(word == "server", Some(server));
        add(word == "published" && opened, reply.map(|reply| reply.destination));
        add(word == "published" && answered, Some(request.destination));
        add(word == "inside" && opened, Some(request.source));
        add(word == "inside" && answered, Some(server));
        add(word == "outside" && !opened, Some(request.source));
        add(word == "outside" && opened && !answered, Some(server));
        found
    }

    fn is_in(pattern: &str, end: Endpoint) -> bool {
        let (address, ports) = pattern.split_once(':').unwrap_or((pattern, ""));
        let (address, length) = address.split_once('/').unwrap_or((address, "32"));
        let length: u32 = length.parse().expect("a length");
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let is_near = |address: Ipv4Addr| address.to_bits() & mask == end.address.to_bits() & mask;
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        (address.is_empty() || is_near(address.parse().expect("an address")))
            && (ports.is_empty()
                || (first.parse().expect("a port")..=last.parse().expect("a port"))
                    .contains(&end.port))
    }

    fn time(word: &str, subject: &Subject<'_>) -> bool {
        let split = word.find(['<', '>', '=']).expect("a sign");
        let (property, rest) = word.split_at(split);
        let value = match property {
            "idle" => subject.idle,
            "age" => subject.age,
            _ => subject.expires,
        };
        let digits = rest.trim_start_matches(['<', '>', '=']);
        let limit: u64 = digits.trim_end_matches('s').parse().expect("seconds");
        let Some(value) = value.map(|value| value.as_secs()) else { return false };
        match &rest[..rest.len() - digits.len()] {
            "<" => value < limit,
            "<=" => value <= limit,
            ">" => value > limit,
            ">=" => value >= limit,
            _ => value == limit,
        }
    }
}

proptest! {
    #[test]
    fn text_and_tree_agree_with_a_naive_evaluator(
        filter in expressions(),
        subjects in prop::collection::vec(subjects(), 1..20),
    ) {
        let text = filter.to_string();
        let read: FilterExpression = text.parse().expect("the language's own text");
        prop_assert_eq!(&read.to_string(), &text);
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let words: Vec<String> = spaced.split_whitespace().map(str::to_owned).collect();
        for subject in &subjects {
            let expected = naive::value(&mut &words[..], subject);
            prop_assert_eq!(filter.matches(subject), expected, "{}", text);
            prop_assert_eq!(read.matches(subject), expected, "{}", text);
        }
    }

    #[test]
    fn no_text_ends_the_parser(text in "[ a-z0-9:./()<>=-]{0,60}") {
        if let Ok(filter) = text.parse::<FilterExpression>() {
            prop_assert_eq!(filter.to_string().parse::<FilterExpression>().expect("its own text"), filter);
        }
    }
}
