//! Whole files: shipped files, bad files with their exact messages, mutated files, and files
//! printed and read again.

mod advice;
mod destinations;
mod dns;
mod inside;
mod json_schema;
mod keywords;
mod messages;
mod properties;

use std::net::SocketAddrV4;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::problem::Diagnostics;
use super::reader::cursor::SectionKeys;
use super::reader::tree::{self, MAX_BYTES, Node, Value};
use super::*;

const REFERENCE: &str = include_str!("../../configs/reference.yaml");
const NATBOX1: &str = include_str!("../../configs/natbox1.yaml");
const NATBOX2: &str = include_str!("../../configs/natbox2.yaml");
const FAILOVER: &str = include_str!("../../configs/failover.yaml");
const INSIDE_LEGS: &str = include_str!("../../configs/inside-legs.yaml");
const THREE_LEGGED: &str = include_str!("../../configs/three-legged.yaml");

/// The shortest valid file.
const SHORT: &str = "inside: { interface: lan0, prefixes: [10.0.0.0/24] }\n\
                     uplinks: [{ interface: wan0, addresses: [203.0.113.10] }]\n";

/// A file with two inside legs.
const LEGS: &str = "inside:\n\
                    - { interface: lan0, address: 10.0.0.1, prefixes: [10.0.0.0/24] }\n\
                    - { interface: dmz0, prefixes: [10.1.0.0/24] }\n\
                    uplinks: [{ interface: wan0, addresses: [203.0.113.10] }]\n";

fn accepted(text: &str) -> Config {
    match parse("f.yaml", text) {
        Ok(loaded) => loaded.config,
        Err(problems) => panic!("refused:\n{problems}\n--- file:\n{text}"),
    }
}

fn rejection(text: &str) -> String {
    match parse("f.yaml", text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn a_short_file_gets_every_default() {
    let config = accepted(SHORT);
    assert_eq!(config.name, "f");
    assert_eq!(config.tun, Tun::default());
    assert_eq!(config.nat, Nat::default());
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.host, Host::default());
    assert_eq!(config.state, Persistence::default());
    assert_eq!(config.log, Log::default());
    assert_eq!(
        config.admin,
        Admin { socket: "/run/natbox/f.sock".into(), group: None, http: None }
    );
    let uplink = &config.uplinks[0];
    assert_eq!(
        (uplink.name.as_str(), uplink.weight, uplink.gateway, &uplink.health),
        ("wan0", 1, None, &None)
    );
    assert!(config.forwards.is_empty() && config.outbound.is_empty() && config.no_nat.is_empty());
}

#[test]
fn the_reference_file_holds_the_defaults() {
    let reference = accepted(REFERENCE);
    let mut short = accepted(
        &SHORT.replace("interface: wan0", "name: isp1, gateway: 203.0.113.254, interface: wan0"),
    );
    // Keys without a default, and keys whose default depends on the name.
    short.name = "reference".into();
    short.admin.socket = Admin::default_socket(&short.name);
    short.inside.legs[0].address = reference.inside.legs[0].address;
    short.admin.http = reference.admin.http;
    short.admin.group = reference.admin.group.clone();
    short.forwards = reference.forwards.clone();
    short.outbound = reference.outbound.clone();
    short.no_nat = reference.no_nat.clone();
    short.dns = Some(dns::with_defaults(reference.dns.clone().unwrap()));
    short.uplinks[0].health = Some(Health {
        ping: vec![[203, 0, 113, 254].into()],
        tcp: vec![SocketAddrV4::new([192, 0, 2, 53].into(), 53)],
        http: vec![WebTarget("https://example.org/".parse().expect("an address"))],
        expect: Expectation { body: Some("Example Domain".into()), ..Expectation::usual() },
        latency: Some(LatencyLimits {
            fail: Duration::from_millis(500),
            back: Duration::from_millis(250),
        }),
        ..Health::of_pings(1)
    });
    assert_eq!(reference, short);
}

#[test]
fn the_reference_file_and_the_printed_configuration_have_every_key() {
    for text in [REFERENCE, &to_yaml(&accepted(REFERENCE)), &to_json(&accepted(REFERENCE))] {
        let diagnostics = Diagnostics::new("f.yaml");
        let mut keys = Vec::new();
        collect_keys(&tree::read(text, &diagnostics).unwrap(), "", &mut keys);
        for SectionKeys { path, keys: wanted } in file::section_keys() {
            for key in wanted {
                let separator = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{separator}{key}");
                assert!(keys.contains(&path), "{path} is missing in\n{text}");
            }
        }
    }
}

fn collect_keys(node: &Node, path: &str, keys: &mut Vec<String>) {
    match &node.value {
        Value::Null | Value::Plain(_) | Value::Quoted(_) => {}
        Value::List(items) => {
            items.iter().for_each(|item| collect_keys(item, &format!("{path}[]"), keys))
        }
        Value::Mapping(entries) => {
            for entry in entries {
                let separator = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{separator}{}", entry.key);
                collect_keys(&entry.value, &path, keys);
                keys.push(path);
            }
        }
    }
}

#[test]
fn the_shipped_files_are_accepted_without_warnings() {
    let files = [
        ("natbox1", NATBOX1),
        ("natbox2", NATBOX2),
        ("three-legged", THREE_LEGGED),
        ("inside-legs", INSIDE_LEGS),
        ("failover", FAILOVER),
    ];
    for (name, text) in files {
        let loaded = parse(&format!("configs/{name}.yaml"), text).unwrap();
        assert_eq!((loaded.config.name.as_str(), loaded.warnings), (name, vec![]));
    }
    let forwards = accepted(THREE_LEGGED).forwards;
    assert_eq!(forwards.iter().map(|forward| forward.uplink).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(forwards[1].address, std::net::Ipv4Addr::new(198, 51, 100, 10));
}

#[test]
fn keys_without_effect_give_warnings() {
    let warnings = parse("f.yaml", REFERENCE).unwrap().warnings;
    let keys: Vec<&str> = warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(keys, ["admin.http"]);
    assert!(parse("f.yaml", SHORT).unwrap().warnings.is_empty());
}

#[test]
fn forwards_fill_in_uplink_address_and_ports() {
    let file = |forwards: &str| {
        accepted(&format!(
            "inside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}\n\
             uplinks:\n\
             - {{ name: a, interface: w0, addresses: [203.0.113.1-2], gateway: 203.0.113.9 }}\n\
             - {{ name: b, interface: w1, addresses: 198.51.100.1, gateway: 198.51.100.9 }}\n\
             forwards: {forwards}\n"
        ))
        .forwards
    };
    let address_tells_uplink =
        &file("[{ protocol: tcp, port: 80, address: 198.51.100.1, to: 10.0.0.5 }]")[0];
    assert_eq!((address_tells_uplink.uplink, address_tells_uplink.to_port), (1, 80));
    assert_eq!(address_tells_uplink.name, "forward-1");
    let range = &file("[{ uplink: b, protocol: udp, port: 8000-8099, to: 10.0.0.5:9000 }]")[0];
    assert_eq!((range.ports, range.to_port), (PortRange { first: 8000, last: 8099 }, 9000));
    assert_eq!(
        file("[{ uplink: b, protocol: udp, port: 8000-8099, to: 10.0.0.5:9000-9099 }]")[0].to_port,
        9000
    );
    let whole = &file("[{ uplink: b, protocol: any, to: 10.0.0.5 }]")[0];
    assert_eq!((whole.ports, whole.to_port), (PortRange { first: 0, last: 65535 }, 0));
}

#[test]
fn narrower_forwards_may_stand_beside_wider_ones() {
    for forwards in [
        "[{ name: all, protocol: any, to: 10.0.0.5 }, { name: web, protocol: tcp, port: 80, to: 10.0.0.6 }]",
        "[{ name: ping, protocol: icmp, to: 10.0.0.6 }, { name: all, protocol: any, to: 10.0.0.5 }]",
        "[{ name: wide, protocol: tcp+udp, port: 1-65535, to: 10.0.0.5 }, { name: all, protocol: any, to: 10.0.0.6 }]",
        "[{ name: wide, protocol: tcp+udp, port: 1-65535, to: 10.0.0.5 }, { name: game, protocol: udp, port: 3074, to: 10.0.0.6 }]",
        "[{ name: one, protocol: udp, port: 8010, to: 10.0.0.5 }, { name: some, protocol: udp, port: 8000-8099, to: 10.0.0.6 }]",
    ] {
        let loaded = parse("f.yaml", &format!("{SHORT}forwards: {forwards}\n"));
        let loaded = loaded.unwrap_or_else(|problems| panic!("{forwards}: {problems}"));
        assert!(loaded.warnings.is_empty(), "{forwards}: {:?}", loaded.warnings);
    }
}

#[test]
fn resolve_fills_in_the_address_of_a_followed_interface() {
    let text = "inside: { interface: lan0, prefixes: [10.0.0.0/24] }\n\
                uplinks:\n\
                - { name: a, interface: w0, addresses: interface }\n\
                - { name: b, interface: w1, addresses: [dhcp], gateway: 198.51.100.9 }\n\
                - { name: c, interface: w2, addresses: 192.0.2.1, gateway: 192.0.2.9 }\n\
                forwards:\n\
                - { protocol: tcp, port: 80, to: 10.0.0.5 }\n";
    let written = accepted(text);
    assert_eq!(accepted(&to_yaml(&written)), written);
    assert!(to_yaml(&written).contains("- interface"));
    let found =
        DynamicAddress { address: [203, 0, 113, 7].into(), gateway: Some([203, 0, 113, 1].into()) };
    let config = written.resolve(&[Some(found), None, None]);
    assert_eq!(config.uplinks[0].addresses, [found.address]);
    assert_eq!(config.uplinks[0].gateway, found.gateway);
    assert_eq!(config.uplinks[1].addresses, [] as [std::net::Ipv4Addr; 0]);
    assert_eq!(config.uplinks[2], written.uplinks[2]);
    let published: Vec<_> =
        config.forwards.iter().map(|forward| (forward.uplink, forward.address)).collect();
    assert_eq!(
        published,
        [(0, found.address), (2, [192, 0, 2, 1].into())],
        "b publishes nothing now"
    );
    assert_eq!(written.resolve(&config.dynamic_addresses()), config);
}

/// Returns [`SHORT`] with more lines, from line 3 on.
fn with(lines: &str) -> String {
    format!("{SHORT}{lines}\n")
}

/// Returns a file with two uplinks and with forwards from line 6 on.
fn with_forwards(forwards: &str) -> String {
    format!(
        "inside: {{ interface: lan0, prefixes: [10.0.0.0/24, 10.1.0.0/16] }}\n\
         uplinks:\n\
         - {{ name: isp1, interface: w0, addresses: [203.0.113.1-2], gateway: 203.0.113.9 }}\n\
         - {{ name: isp2, interface: w1, addresses: [198.51.100.1], gateway: 198.51.100.9 }}\n\
         forwards:\n{forwards}\n"
    )
}

/// The host has 31 routing tables for the uplinks of one box.
#[test]
fn a_box_has_at_most_31_uplinks() {
    let with = |number: u8| {
        let uplink = |number| {
            format!(
                "- {{ interface: w{number}, addresses: [203.0.113.{number}], gateway: 198.51.100.{number} }}\n"
            )
        };
        let uplinks: String = (1..=number).map(uplink).collect();
        format!("inside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}\nuplinks:\n{uplinks}")
    };
    assert_eq!(accepted(&with(31)).uplinks.len(), Uplink::MAX);
    assert_eq!(
        rejection(&with(32)),
        "f.yaml:3:3: uplinks: found 32 items, wanted at most 31 uplinks; leave some out"
    );
}

#[test]
fn an_unreadable_file_is_one_problem() {
    let directory = tempfile::tempdir().unwrap();
    let message = |path: &Path| {
        load(path).unwrap_err().to_string().replace(&directory.path().display().to_string(), "D")
    };
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let missing = message(&directory.path().join("missing.yaml"));
    assert_eq!(
        missing,
        "D/missing.yaml: found No such file or directory (os error 2), wanted a readable YAML file; correct the path after --config"
    );
    assert!(message(directory.path()).starts_with("D: found Is a directory"));
    assert_eq!(
        message(&file("latin1.yaml", b"name: x\n# caf\xe9\n")),
        "D/latin1.yaml:2:6: found bytes that are not UTF-8, wanted UTF-8 text; save the file as UTF-8"
    );
    assert_eq!(
        message(&file("large.yaml", &vec![b'#'; 10_000_000])),
        "D/large.yaml: found a larger file, wanted at most 1048576 bytes; check that this is natbox's configuration"
    );
    assert_eq!(
        message(&file("my box.yaml", SHORT.as_bytes())),
        "D/my box.yaml:1:1: name: found no such key, and the file's name `my box` is no name of an instance, wanted a name of 1 to 63 letters, digits, `-`, `_`, `.`, beginning with a letter or digit; add `name: NAME`"
    );
    assert_eq!(load(&file("box7.yaml", SHORT.as_bytes())).unwrap().config.name, "box7");
}

#[test]
fn hostile_files_are_refused_quickly() {
    let most = MAX_BYTES;
    let keys: String = (0..most / 12).map(|number| format!("k{number}: 1\n")).collect();
    let forwards: String = (0..4096)
        .map(|number| {
            format!("- {{ uplink: isp2, protocol: any, to: 10.1.0.5, name: f{number} }}\n")
        })
        .collect();
    let texts = [
        "[".repeat(most),
        "{a: ".repeat(most / 4),
        "- ".repeat(most / 2),
        "? ".repeat(most / 2),
        "a: &a [".repeat(most / 7),
        "a:\n".repeat(most / 3),
        format!("{}: 1\n", "k".repeat(most / 2)),
        format!("name: \"{}\"\n", "n".repeat(most / 2)),
        keys,
        with(
            "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]",
        ),
        with_forwards(&forwards),
        format!("inside: {{ interface: lan0, prefixes: [{}] }}", "10.0.0.0/8,".repeat(most / 12)),
        format!("uplinks: [{}]", "{interface: w, addresses: 9.0.0.0/22},".repeat(most / 39)),
        format!("uplinks: [{{ interface: w, addresses: [{}] }}]", "9.0.0.0/22,".repeat(1024)),
        format!("name: '{}\n", "'".repeat(most - 20)),
        format!("name: |\n{}", " x\n".repeat(most / 4)),
        "!".repeat(most),
        "%".repeat(most),
        "#\r".repeat(most / 2),
    ];
    for text in texts {
        let start = Instant::now();
        let message = rejection(&text);
        let beginning = &text[..text.len().min(40)];
        // A debug build on a busy machine reads a megabyte of YAML in seconds. A quadratic reader
        // takes many minutes.
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{beginning:?} took {:?}",
            start.elapsed()
        );
        assert!(message.len() < MAX_BYTES, "{beginning:?}: {} bytes of messages", message.len());
    }
}

#[test]
fn messages_show_no_control_characters_from_the_file() {
    let message = rejection(&with("\"\\e[31m\": 1\nname: \"a\\x07\\n\""));
    assert!(!message.contains(|letter: char| letter.is_control() && letter != '\n'), "{message:?}");
    assert_eq!(message.lines().count(), 2);
}
