//! Properties: no text makes the reader panic, and a printed configuration reads back equal.

use std::net::Ipv4Addr;

use super::types::Scalar as _;
use super::*;
use crate::values::nat::EndpointDependence;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_mutation_of_the_reference_file_makes_parsing_panic(mutations in mutations()) {
        let mut text = REFERENCE.to_owned();
        for mutation in mutations {
            text = mutation.apply(&text);
        }
        match parse("f.yaml", &text) {
            Ok(Loaded { config, .. }) => prop_assert_eq!(accepted(&to_yaml(&config)), config),
            Err(problems) => prop_assert!(!problems.is_empty() && !problems.to_string().is_empty()),
        }
    }

    #[test]
    fn no_text_makes_parsing_panic(text in "[-a:\\[\\]{},&*!|>'\"%@`#? \t\n\r0]{0,60}|\\PC{0,60}") {
        let _ = parse("f.yaml", &text);
    }

    #[test]
    fn a_printed_configuration_reads_back_equal(config in config()) {
        prop_assert_eq!(&accepted(&to_yaml(&config)), &config);
        prop_assert_eq!(&accepted(&to_json(&config)), &config);
    }
}

/// A change to a text. An index wraps around the number of lines or letters.
#[derive(Clone, Debug)]
enum Mutation {
    DeleteLine(usize),
    SwapLines(usize, usize),
    SwapValues(usize, usize),
    IndentLine(usize),
    Insert(usize, char),
    Delete(usize),
    ReplaceValue(usize, &'static str),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let values = prop::sample::select(vec![
        "",
        "null",
        "-1",
        "0",
        "1e9",
        "[]",
        "{}",
        "true",
        "any",
        "icmp",
        "18446744073709551616",
        "10.0.0.0/24",
        "0.0.0.0/0",
        "203.0.113.10-12",
        "255.255.255.255",
        "65535",
        "1-65535",
        "[a, b]",
        "\"\\u0000\"",
        "*x",
        "&x y",
        "wan0",
        "isp1",
    ]);
    let any = any::<usize>;
    let letters = prop::sample::select(
        ":-[]{}#'\"&*!|>%@`, \t\n\r\0a0\u{feff}\u{85}é".chars().collect::<Vec<_>>(),
    );
    let mutation = prop_oneof![
        any().prop_map(Mutation::DeleteLine),
        (any(), any()).prop_map(|(one, other)| Mutation::SwapLines(one, other)),
        (any(), any()).prop_map(|(one, other)| Mutation::SwapValues(one, other)),
        any().prop_map(Mutation::IndentLine),
        (any(), letters).prop_map(|(index, letter)| Mutation::Insert(index, letter)),
        any().prop_map(Mutation::Delete),
        (any(), values).prop_map(|(line, value)| Mutation::ReplaceValue(line, value)),
    ];
    prop::collection::vec(mutation, 1..6)
}

impl Mutation {
    fn apply(&self, text: &str) -> String {
        let mut lines: Vec<String> = text.lines().map(Into::into).collect();
        let mut letters: Vec<char> = text.chars().collect();
        if lines.is_empty() {
            return String::new();
        }
        let (number_of_lines, number_of_letters) = (lines.len(), letters.len());
        let line = |index: usize| index % number_of_lines;
        let letter = |index: usize| index % number_of_letters;
        let split = |line: &str| {
            let (key, rest) = line.split_once(": ").unwrap_or((line, ""));
            (key.to_owned(), rest.split(" #").next().unwrap_or_default().to_owned())
        };
        match *self {
            Self::DeleteLine(index) => drop(lines.remove(line(index))),
            Self::SwapLines(one, other) => lines.swap(line(one), line(other)),
            Self::SwapValues(one, other) => {
                let ((one_key, one_value), (other_key, other_value)) =
                    (split(&lines[line(one)]), split(&lines[line(other)]));
                lines[line(one)] = format!("{one_key}: {other_value}");
                lines[line(other)] = format!("{other_key}: {one_value}");
            }
            Self::IndentLine(index) => lines[line(index)].insert_str(0, "  "),
            Self::ReplaceValue(index, value) => {
                let (key, _) = split(&lines[line(index)]);
                lines[line(index)] = format!("{key}: {value}");
            }
            Self::Insert(index, new) => {
                letters.insert(letter(index), new);
                return letters.into_iter().collect();
            }
            Self::Delete(index) => {
                letters.remove(letter(index));
                return letters.into_iter().collect();
            }
        }
        lines.join("\n") + "\n"
    }
}

/// Returns a name that no other index has. Index 0 keeps the name.
fn distinct(index: usize, name: &str) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}{index}") }
}

/// Makes an expectation of two numbers.
fn expectation(one: u32, other: u32) -> Expectation {
    let range = |first: u32, last: u32| StatusRange { first: first as u16, last: last as u16 };
    let status = match one % 3 {
        0 => vec![range(200, 299)],
        1 => vec![range(204, 204), range(300 + other % 100, 400 + one % 200)],
        _ => vec![range(100, 599)],
    };
    let body = other.is_multiple_of(2).then(|| format!("{one} \"{other}\u{a0}: ~#"));
    Expectation { status, body, foreign_redirect: other.is_multiple_of(3) }
}

/// Generates labels.
fn label() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9._+ -]{1,20}|[-+]{0,2}[0-9.]{1,3}[eE][0-9]{1,5}|0?[xob][0-9A-F]{1,20}|[-+]{0,2}[.](inf|nAn|NaN)|true|null|~|\\PC{1,12}"
        .prop_filter("a label", |text| types::names::label().parse(text).is_ok())
}

/// Generates durations, in microseconds.
fn duration(from: u64, to: u64) -> impl Strategy<Value = Duration> {
    (from..=to).prop_map(Duration::from_micros)
}

/// Returns the variant of a number.
fn pick<W: ConfigEnum>(number: usize) -> W {
    W::ALL[number % W::ALL.len()]
}

/// Generates 1 to 3 uplinks.
fn uplinks() -> impl Strategy<Value = Vec<Uplink>> {
    let uplink = (
        label(),
        "[a-z][a-z0-9.@-]{0,14}",
        prop::collection::btree_set(1..=250u8, 1..9),
        1..=1000u32,
        prop::option::of((duration(100_000, 3_600_000_000), 1..=1000u32, 1..=1000u32)),
    );
    prop::collection::vec(uplink, 1..4).prop_map(|uplinks| {
        let whole = |(index, (name, interface, octets, weight, checked)): (
            usize,
            (String, String, std::collections::BTreeSet<u8>, u32, Option<_>),
        )| {
            let address = |octet| Ipv4Addr::new(203, 0, index as u8, octet);
            Uplink {
                name: distinct(index, &name),
                interface: interface.replacen(|_: char| true, "w", 1),
                addresses: octets.into_iter().map(address).collect(),
                follows_interface: false,
                gateway: Some(address(254)),
                weight,
                tier: 1 + weight % 255,
                on_failure: pick(weight as usize),
                failback: pick(weight as usize),
                health: checked.map(|(interval, fall, rise)| health(address, interval, fall, rise)),
                numbers: UplinkNumbers::default(),
            }
        };
        let mut uplinks: Vec<Uplink> = uplinks.into_iter().enumerate().map(whole).collect();
        number_in_order(&mut uplinks);
        uplinks
    })
}

/// Returns a health check with targets among the uplink's addresses.
fn health(address: impl Fn(u8) -> Ipv4Addr, interval: Duration, fall: u32, rise: u32) -> Health {
    Health {
        ping: vec![address(254), address(253)],
        tcp: (0..fall % 3).map(|port| SocketAddrV4::new(address(252), 1 + port as u16)).collect(),
        http: (0..rise % 3).map(web_page).collect(),
        quorum: 1 + fall % 2,
        interval,
        fall,
        rise,
        expect: match rise % 3 {
            0 => Expectation::usual(),
            _ => expectation(fall, rise),
        },
        window: 4 + rise % 997,
        loss: LossLimits { fail: 1 + fall % 100, r#return: rise % (1 + fall % 100) },
        latency: fall.is_multiple_of(2).then(|| LatencyLimits {
            fail: Duration::from_millis(1 + u64::from(1 + fall)),
            back: Duration::from_micros(1000 + u64::from(fall)),
        }),
        hold: HoldTimes {
            first: Duration::from_secs(rise.into()),
            step: interval,
            max: Duration::from_secs(1000 + u64::from(fall)),
            half_life: Duration::from_secs(fall.into()),
        },
    }
}

/// Name, place of the uplink and of its address, protocol, length of the range, first port inside.
type ForwardChoices = (String, usize, usize, usize, u16, u16);

/// Returns a forward whose ports no forward of another index has.
fn forward(uplinks: &[Uplink], index: usize, choices: ForwardChoices) -> Forward {
    let (name, uplink, address, protocol, length, to_port) = choices;
    let uplink = uplink % uplinks.len();
    let addresses = &uplinks[uplink].addresses;
    let protocol =
        [ForwardProtocol::Tcp, ForwardProtocol::Udp, ForwardProtocol::TcpUdp][protocol % 3];
    let first = 1 + 500 * index as u16;
    Forward {
        name: distinct(index, &name),
        uplink,
        protocol,
        address: addresses[address % addresses.len()],
        ports: PortRange { first, last: first + length },
        to_address: [10, 0, 0, 5].into(),
        to_port: to_port.clamp(1, u16::MAX - length),
    }
}

fn outbound_rule(octet: u8, uplinks: usize) -> OutboundRule {
    OutboundRule {
        from: ipnet::Ipv4Net::new_assert([10, 0, octet, 0].into(), 24),
        to: (0..octet % 3)
            .map(|to| ipnet::Ipv4Net::new_assert([20 + to, 0, 0, 0].into(), 8))
            .collect(),
        uplinks: (0..uplinks).rev().take(1 + usize::from(octet) % uplinks).collect(),
        hash_by: pick(usize::from(octet)),
    }
}

fn no_nat_rule(octet: u8) -> NoNatRule {
    let protocol = pick(usize::from(octet));
    NoNatRule {
        to: ipnet::Ipv4Net::new_assert([20 + octet % 100, 0, 0, 0].into(), 8 + octet % 25),
        protocol,
        ports: match protocol {
            ForwardProtocol::Icmp | ForwardProtocol::Any => PortRange::ALL,
            ForwardProtocol::Tcp | ForwardProtocol::Udp | ForwardProtocol::TcpUdp => {
                PortRange { first: 1 + u16::from(octet), last: 300 }
            }
        },
    }
}

/// Choices among the variants of enums.
type Words = [usize; 6];

/// Returns the section `nat`. `ports`: two ends of a range. `hairpin`, `manage` and `keep` choose
/// switches.
fn nat(
    words: Words,
    ports: [u16; 2],
    mss: Option<Option<u16>>,
    (hairpin, manage, keep): (bool, bool, bool),
) -> Nat {
    Nat {
        mapping: pick(words[2]),
        filtering: pick(words[3]),
        hairpin,
        ports: PortRange { first: ports[0].min(ports[1]), last: ports[0].max(ports[1]) },
        port_preservation: match mss {
            None => PortPreservation::Off,
            Some(None) => PortPreservation::All,
            Some(Some(port)) => PortPreservation::Listed(vec![
                PortRange { first: 500, last: 500 },
                PortRange { first: port, last: port.max(ports[1]) },
            ]),
        },
        mss_clamp: match mss {
            None => MssClamp::Auto,
            Some(None) => MssClamp::Off,
            Some(Some(bytes)) => MssClamp::To(bytes),
        },
        address_pooling: pick(words[0]),
        port_parity: keep,
        port_overlapping: pick::<EndpointDependence>(words[2])
            != EndpointDependence::EndpointIndependent
            && manage,
        inbound_refresh: hairpin,
        reject_with: pick(words[1]),
        unsolicited_syn: pick(words[3]),
    }
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    let timeout = || duration(1_000_000, 24 * 86_400_000_000);
    let all = (timeout(), timeout(), timeout(), timeout(), timeout(), timeout(), timeout());
    all.prop_map(|all| Timeouts {
        tcp_established: all.0,
        tcp_transitory: all.1,
        tcp_syn: all.2,
        udp: all.3,
        udp_dns: all.4,
        icmp: all.5,
        fragment: all.6,
        port_reuse_delay: all.3 - Duration::from_secs(1),
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let all = (1..=512_000_000u32, 0..=512_000_000u32, 0..=512_000_000u32, 1..=1_000_000u32);
    all.prop_map(|all| Limits {
        sessions: all.0,
        sessions_per_host: all.1,
        new_sessions_per_host: all.2,
        fragments: all.3,
        delayed_ports: all.1 % (Limits::MAX_PORTS + 1),
        icmp_errors_per_host: all.2 % 1_000_001,
    })
}

/// Generates any configuration that a file can lead to, in the order of the file.
pub(super) fn config() -> impl Strategy<Value = Config> {
    let forwards = prop::collection::vec(
        (label(), any::<usize>(), any::<usize>(), any::<usize>(), 0..400u16, any::<u16>()),
        0..8,
    );
    let rules = prop::collection::vec(any::<u8>(), 0..4);
    let numbers = (
        0..=256u16,
        duration(0, 1000),
        [1..=65535u16, 1..=65535u16],
        prop::option::of(prop::option::of(88..=65495u16)),
    );
    let rest = (
        "[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}",
        "/[a-z 0-9#:'\"/]{0,20}x",
        any::<(bool, bool, bool)>(),
        prop::option::of(1..=65535u16),
    );
    let sections = (any::<Words>(), numbers, limits(), timeouts());
    ((uplinks(), forwards, rules), sections, rest).prop_map(
        |((uplinks, forwards, rules), (words, numbers, limits, timeouts), rest)| {
            let (name, socket, switches, http) = rest;
            let (_, manage, keep) = switches;
            let dns = keep.then(|| dns::any(&uplinks, words[4], &name, http.unwrap_or(7)));
            let rules: std::collections::BTreeSet<u8> = rules.into_iter().collect();
            let (workers, busy_poll, ports, mss) = numbers;
            let forwards = forwards.into_iter().enumerate();
            let default_route =
                if manage { HostDefaultRoute::Follow } else { HostDefaultRoute::Leave };
            let group = keep.then(|| name.replace('.', "_")[..name.len().min(32)].to_owned());
            Config {
                tun: Tun {
                    name: "nb7".into(),
                    workers: if workers == 0 { Workers::Auto } else { Workers::Count(workers) },
                    io: pick(words[0]),
                    offload: pick(words[1]),
                    busy_poll,
                },
                inside: inside(usize::from(workers % 4)),
                forwards: forwards.map(|(index, one)| forward(&uplinks, index, one)).collect(),
                no_nat: rules.iter().map(|octet| no_nat_rule(*octet)).collect(),
                outbound: rules.iter().map(|octet| outbound_rule(*octet, uplinks.len())).collect(),
                uplinks,
                nat: nat(words, ports, mss, switches),
                timeouts,
                limits,
                host: Host { manage, default_route, block_private: !manage },
                admin: Admin {
                    socket: socket.into(),
                    group,
                    http: http.map(|port| ([127, 0, 0, 1], port).into()),
                },
                state: Persistence { keep, ..Persistence::default() },
                log: Log { level: pick(words[4]), format: pick(words[5]), mappings: manage },
                dns,
                name,
            }
        },
    )
}

/// Returns a private network of 1 to 4 legs.
fn inside(more: usize) -> Inside {
    let leg = |number: usize| InsideLeg {
        interface: format!("lan{number}"),
        address: (number == more).then(|| [10, 1, number as u8, 9].into()),
        prefixes: vec![ipnet::Ipv4Net::new_assert([10, 1, number as u8, 0].into(), 24)],
    };
    let mut legs: Vec<InsideLeg> = (0..=more).map(leg).collect();
    legs[0].prefixes.push("10.0.0.0/16".parse().unwrap());
    Inside { legs }
}

fn web_page(number: u32) -> WebTarget {
    WebTarget(format!("https://host{number}.example/a?b={number}").parse().expect("an address"))
}
