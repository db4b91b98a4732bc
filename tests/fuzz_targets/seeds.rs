//! The seeds of the corpus: made here, written by `just bless`.
//!
//! Targets that read their bytes as choices have a seed for each counter that an input can
//! increase. The search for it draws inputs until one does, and shortens it.

use std::fs;

use natbox::api::{Request, SessionCursor, SessionGroup};
use natbox::nat::{Adopted, Counters};
use natbox::packet::{Protocol, QueryKind, TcpFlags, builder};

use crate::mutator::Mutator;
use crate::targets::{engine, fragments, icmp_errors, kept_sessions, translate, virtio};
use crate::{corpus, folder, named, run, shorten};

/// Words of the language of a target.
pub(crate) fn words(target: &str) -> &'static [&'static [u8]] {
    match target {
        "admin" => &[
            b"\n",
            b"{\"command\":\"status\"}\n",
            b"\"api_version\":1,",
            b"\"from\":",
            b"{}",
            b"null",
            b"\"command\":\"events\"",
            b"\"follow\":true",
            b"[[[[[[[[",
            b"\\u0000",
            b"1e999",
        ],
        "config" => &[
            b"\n",
            b"  ",
            b"- ",
            b": ",
            b"[]",
            b"{}",
            b"&x ",
            b"*x",
            b"!!str ",
            b"|\n",
            b"\"",
            b"'",
            b"#",
            b"null",
            b"~",
            b"true",
            b"-1",
            b"0",
            b"18446744073709551616",
            b"1e9",
            b"10.0.0.0/24",
            b"0.0.0.0/0",
            b"203.0.113.10",
            b"1-65535",
            b"tcp+udp",
            b"any",
            b"30s",
            b"1ms",
            b"64k",
            b"uplinks:\n",
            b"forwards:\n",
            b"nat:\n",
            b"health:\n",
            b"dns:\n",
            b"---\n",
            b"\xef\xbb\xbf",
        ],
        _ => &[],
    }
}

/// A target whose inputs increase counters.
type Counting = (&'static str, fn(&[u8]) -> Counters, &'static [&'static str]);

/// The targets with counters, and the counters that their seeds increase.
const COUNTING: [Counting; 5] = [
    (
        "engine",
        engine::counters,
        &[
            "translated_inbound",
            "translated_outbound",
            "forwarded_stateless",
            "bypassed",
            "passed_to_host",
            "icmp_errors_sent",
            "icmp_errors_rate_limited",
            "failover_notifications",
            "icmp_errors_translated",
            "sessions_evicted",
            "bad-ip-header",
            "bad-ip-checksum",
            "source-route",
            "bad-transport-header",
            "bad-icmp-error",
            "martian",
            "source-not-allowed",
            "no-outbound-rule",
            "no-mapping",
            "filtered",
            "tcp-without-session",
            "icmp-unsolicited-reply",
            "icmp-error-no-session",
            "unsupported-icmp",
            "address-conflict",
            "hairpin-disabled",
            "table-full",
            "mtu-exceeded",
        ],
    ),
    (
        "fragments",
        fragments::counters,
        &[
            "translated_inbound",
            "translated_outbound",
            "bad-fragment",
            "fragment-overlap",
            "fragment-duplicate",
            "fragment-table-full",
            "fragment-timeout",
            "no-mapping",
        ],
    ),
    (
        "icmp_errors",
        icmp_errors::counters,
        &[
            "icmp_errors_translated",
            "bad-icmp-error",
            "icmp-error-no-session",
            "icmp-error-mismatch",
            "unsupported-icmp",
            "passed_to_host",
        ],
    ),
    (
        "translate",
        translate::counters,
        &[
            "translated_inbound",
            "translated_outbound",
            "forwarded_stateless",
            "passed_to_host",
            "icmp_errors_sent",
            "icmp_errors_translated",
            "no-mapping",
            "filtered",
            "tcp-without-session",
            "hairpin-disabled",
            "fragment-duplicate",
        ],
    ),
    (
        "virtio",
        virtio::counters,
        &[
            "translated_inbound",
            "translated_outbound",
            "icmp_errors_sent",
            "bad-vnet-header",
            "mtu-exceeded",
            "not-ipv4",
        ],
    ),
];

/// A seed of `kept_sessions`, and what it leads to.
type Adopting = (&'static str, fn(Adopted) -> bool);
const ADOPTING: [Adopting; 3] = [
    ("kept", |adopted| adopted.kept > 2),
    ("dropped", |adopted| adopted.dropped > 0),
    ("damaged", |adopted| adopted.damaged > 0),
];

/// Returns a counter, or the number of drops for a reason.
fn of(counters: &Counters, name: &str) -> u64 {
    let reasons = counters.drops.iter().map(|(reason, count)| (reason.name(), count));
    let counts = Counters::NAMES.iter().copied().zip(counters.values());
    counts.chain(reasons).find(|(other, _)| *other == name).expect("a counter").1
}

/// Searches for an input that reaches a goal, and shortens it. None: no input of some thousand
/// does.
fn search(target: &str, reaches: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let mut known: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, input)| input).collect();
    known.push(Vec::new());
    let mut mutator = Mutator::new(1, &known, &[]);
    let found = (0..MAX_TRIES).map(|_| mutator.next()).find(|input| reaches(input))?;
    Some(shorten(found, reaches))
}

/// Returns the seeds of the targets whose inputs are messages.
fn messages(target: &str) -> Vec<(String, Vec<u8>)> {
    let named = |seeds: Vec<(&str, Vec<u8>)>| {
        seeds.into_iter().map(|(name, input)| (name.to_owned(), input)).collect()
    };
    match target {
        "admin" => named(admin()),
        "config" => configurations(),
        "dns" => named(queries()),
        "dns_update" => (0..8).map(|case| (format!("answer-{case}"), vec![0, case, 1])).collect(),
        "parse" => named(packets()),
        _ => Vec::new(),
    }
}

fn admin() -> Vec<(&'static str, Vec<u8>)> {
    let requests = [
        Request::Status,
        Request::Sessions { from: SessionCursor::default(), filter: "tcp".to_owned() },
        Request::CountSessions {
            from: SessionCursor::default(),
            filter: "not (uplink isp1 or idle>5m)".to_owned(),
            group_by: Some(SessionGroup::Server),
        },
        Request::SessionEvents { filter: String::new() },
        Request::KillSessions { filter: "from :80".to_owned(), max: Some(1), silent: true },
        Request::EffectiveConfig,
        Request::Events { follow: true },
        Request::Reload,
    ];
    let all = requests.iter().map(|request| request.to_json() + "\n").collect::<String>();
    vec![
        ("all-requests", all.into_bytes()),
        ("no-line-end", Request::Status.to_json().into_bytes()),
        ("other-version", b"{\"api_version\":2,\"command\":\"status\"}\n".to_vec()),
        ("longest-line", [vec![b' '; 4095], b"\n{}\n".to_vec()].concat()),
        ("long-line", vec![b' '; 4097]),
        ("deep", vec![b'['; 3000]),
    ]
}

/// The configurations of `configs/`, and texts that are none.
fn configurations() -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder("").join("../../configs")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    let named = |file: std::path::PathBuf| {
        (file.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(&file).unwrap())
    };
    let mut seeds: Vec<_> = files.map(named).collect();
    let smallest = "inside: { interface: lan0, prefixes: [10.0.0.0/24] }\nuplinks:\n  - { interface: \
                    wan0, addresses: [203.0.113.10], gateway: 203.0.113.1 }\n";
    seeds.push(("smallest".to_owned(), smallest.into()));
    seeds.push(("anchors".to_owned(), b"a: &x [*x, *x]\n<<: *x\n".to_vec()));
    seeds.push(("deep".to_owned(), b"[".repeat(2000)));
    seeds
}

/// Queries by UDP while all uplinks are up.
fn queries() -> Vec<(&'static str, Vec<u8>)> {
    let query = |name: &[u8], kind: u8| {
        let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&header, name, &[0, kind, 0, 1]].concat()
    };
    // The first bytes choose the transport, the uplinks, and that a message follows.
    let sent = |message: Vec<u8>| [vec![0, 7, 7], message].concat();
    let www = b"\x03www\x07example\x03org\0";
    let mut with_edns = query(www, 1);
    with_edns[11] = 1;
    with_edns.extend([0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    vec![
        ("address", sent(query(www, 1))),
        ("address-by-tcp", [vec![2, 5, 7], query(www, 1)].concat()),
        ("above-rate", [vec![1, 7, 7], query(www, 1)].concat()),
        ("apex", sent(query(b"\x07example\x03org\0", 6))),
        ("any", sent(query(b"\x07example\x03org\0", 255))),
        ("edns", sent(with_edns)),
        ("missing", sent(query(b"\x04none\x07example\x03org\0", 1))),
        ("foreign", sent(query(b"\x03com\0", 1))),
        ("pointer-to-itself", sent(query(b"\xc0\x0c", 1))),
        ("generated", vec![0, 7, 0, 0, 0, 0, 1, 3, 0]),
    ]
}

fn packets() -> Vec<(&'static str, Vec<u8>)> {
    let (from, to) = (([10, 0, 0, 5], 5000), ([192, 0, 2, 1], 53));
    let tuple = |protocol| builder::tuple(protocol, from, to);
    let udp = builder::udp(tuple(Protocol::UDP), b"ping");
    let addresses = (from.0.into(), to.0.into());
    vec![
        ("echo", builder::echo(addresses.0, addresses.1, QueryKind::EchoRequest, 7, 1, b"data")),
        ("first_fragment", builder::fragments(&udp, 8).swap_remove(0)),
        ("later_fragment", builder::fragments(&udp, 8).swap_remove(1)),
        ("gre", builder::other(Protocol(47), addresses.0, addresses.1, b"gre!")),
        ("icmp_error", builder::icmp_error(3, 3, addresses.1, addresses.0, &udp)),
        ("options", builder::with_ip_options(&udp, &[7, 7, 4, 0, 0, 0, 0])),
        ("tcp_syn", builder::tcp(tuple(Protocol::TCP), TcpFlags::SYN, 1, 0, &[2, 4, 5, 180], b"")),
        ("udp", udp),
    ]
}

/// Writes seeds that are missing or differ.
fn bless() {
    for target in &crate::TARGETS {
        fs::create_dir_all(folder(target.name)).unwrap();
        let write = |name: &str, input: Vec<u8>| {
            fs::write(folder(target.name).join(name), input).unwrap();
        };
        messages(target.name).into_iter().for_each(|(name, input)| write(&name, input));
    }
    for (target, counters, goals) in COUNTING {
        for goal in goals {
            let reaches = |input: &[u8]| {
                // An input that fails ends the search, and is kept in a file.
                run(named(target), input, 0);
                of(&counters(input), goal) > 0
            };
            let file = folder(target).join(goal);
            let is_there = fs::read(&file).is_ok_and(|input| reaches(&input));
            if !is_there && let Some(input) = search(target, reaches) {
                fs::write(&file, input).unwrap();
            }
        }
    }
    for (name, reaches) in ADOPTING {
        let file = folder("kept_sessions").join(name);
        if !fs::read(&file).is_ok_and(|input| reaches(kept_sessions::adopted(&input))) {
            let input = search("kept_sessions", |input| reaches(kept_sessions::adopted(input)));
            fs::write(&file, input.expect("an input that leads there")).unwrap();
        }
    }
}

#[test]
fn the_corpus_has_the_seeds_and_each_leads_where_its_name_says() {
    if std::env::var_os("NATBOX_BLESS").is_some_and(|value| value == "1") {
        bless();
    }
    let mut known = Vec::new();
    for target in &crate::TARGETS {
        for (name, input) in messages(target.name) {
            let file = fs::read(folder(target.name).join(&name)).unwrap_or_default();
            assert!(file == input, "{}/{name} is out of date; run: just bless", target.name);
            known.push((target.name, name));
        }
    }
    for (target, counters, goals) in COUNTING {
        for goal in goals {
            let input = fs::read(folder(target).join(goal)).unwrap_or_default();
            let count = of(&counters(&input), goal);
            assert!(count > 0, "{target}/{goal} does not lead there; run: just bless");
            known.push((target, (*goal).to_owned()));
        }
    }
    for (name, reaches) in ADOPTING {
        let input = fs::read(folder("kept_sessions").join(name)).unwrap_or_default();
        let is_there = reaches(kept_sessions::adopted(&input));
        assert!(is_there, "kept_sessions/{name} does not lead there; run: just bless");
        known.push(("kept_sessions", name.to_owned()));
    }
    for target in &crate::TARGETS {
        for (name, _) in corpus(target.name) {
            let is_known = known.contains(&(target.name, name.clone()));
            assert!(is_known || name.starts_with("found-"), "{}/{name} is no seed", target.name);
        }
    }
}

/// Inputs that a search draws at most.
const MAX_TRIES: usize = 2000;
