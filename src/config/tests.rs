//! Whole files: shipped files, bad files with their exact messages, mutated files, and files
//! printed and read again.

mod advice;
mod dns;
mod inside;
mod json_schema;
mod keywords;
mod properties;

use std::fmt::Write as _;
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
fn bad_files_are_refused_with_exact_messages() {
    let cases: Vec<(String, &[&str])> = vec![
        // The text as such.
        ("".into(), &["f.yaml:1:1: found an empty file, wanted a configuration; begin with `inside:` and `uplinks:`; `natbox config --reference` prints an example"]),
        ("# nothing\n".into(), &["f.yaml:1:1: found an empty file, wanted a configuration; begin with `inside:` and `uplinks:`; `natbox config --reference` prints an example"]),
        ("- 1\n".into(), &["f.yaml:1:1: found a list, wanted a mapping; its keys are `name`, `tun`, `inside`, `uplinks`, `forwards`, `outbound`, `no_nat`, `nat`, `timeouts`, `limits`, `host`, `admin`, ..."]),
        ("name: a\u{0}b\n".into(), &["f.yaml:1:8: found the control character U+0000, wanted text; remove it, or check that this is a YAML file"]),
        (with("tun:\n\tname: nb0"), &["f.yaml:4:2: found broken YAML (tabs disallowed within this context (block indentation)), wanted YAML; indent with spaces, not with tabs"]),
        (with("---\nname: b"), &["f.yaml:3:1: found a second YAML document, wanted one; write one configuration per file and remove the `---`"]),
        (with("host: &h { manage: true }"), &["f.yaml:3:7: found a YAML anchor or alias (`&`, `*`), wanted the value itself; write the value out"]),
        (with("name: !!str x"), &["f.yaml:3:7: found a YAML tag (`!`), wanted a plain value; remove the tag"]),
        (with("? [a, b]\n: c"), &["f.yaml:3:3: found a list or mapping as a key, wanted text as a key; check the indentation and the brackets"]),
        // Keys.
        (with("tunn: {}\nnat: { hair_pin: true, mss: 1400 }\ntun: { mss_clamp: off }\nhairpin: true\nzebra: 1"), &[
            "f.yaml:3:1: tunn: found an unknown key, wanted one that natbox knows; did you mean `tun`?",
            "f.yaml:4:8: nat.hair_pin: found an unknown key, wanted one that natbox knows; did you mean `hairpin`?",
            "f.yaml:4:24: nat.mss: found an unknown key, wanted one that natbox knows; the keys here are `mapping`, `filtering`, `hairpin`, `ports`, `port_preservation`, `mss_clamp`, `address_pooling`, `port_parity`, `port_overlapping`, `inbound_refresh`, `reject_with`, `unsolicited_syn`",
            "f.yaml:5:8: tun.mss_clamp: found an unknown key, wanted one that natbox knows; `mss_clamp` belongs under `nat`",
            "f.yaml:6:1: hairpin: found an unknown key, wanted one that natbox knows; `hairpin` belongs under `nat`",
            "f.yaml:7:1: zebra: found an unknown key, wanted one that natbox knows; the keys here are `name`, `tun`, `inside`, `uplinks`, `forwards`, `outbound`, `no_nat`, `nat`, `timeouts`, `limits`, `host`, `admin`, ...",
        ]),
        (with("host: { manage: true, manage: false }\ninside: {}"), &[
            "f.yaml:3:23: host.manage: found this key again (first in line 3), wanted the key once; join the two or remove one",
            "f.yaml:4:1: inside: found this key again (first in line 1), wanted the key once; join the two or remove one",
        ]),
        ("name: x\n".into(), &[
            "f.yaml:1:1: inside: found no such key, wanted the private network: its interface and prefixes; add `inside: { interface: lan0, prefixes: [10.0.0.0/24] }` with your own values",
            "f.yaml:1:1: uplinks: found no such key, wanted at least one uplink: its interface and addresses; add `uplinks:` and under it `- { interface: wan0, addresses: [203.0.113.10] }` with your own values",
        ]),
        ("inside: {}\nuplinks: [{}]\n".into(), &[
            "f.yaml:1:9: inside.interface: found no such key, wanted the interface towards the private network; add `interface: NAME`; `ip link` lists the names",
            "f.yaml:1:9: inside.prefixes: found no such key, wanted the private prefixes behind the interface; add `prefixes: [10.0.0.0/24]` with your own",
            "f.yaml:2:11: uplinks[0].interface: found no such key, wanted the interface towards the provider; add `interface: NAME`; `ip link` lists the names",
            "f.yaml:2:11: uplinks[0].addresses: found no such key, wanted the uplink's external addresses; add `addresses: [203.0.113.10]` with your own",
        ]),
        // Types.
        (with("tun:\nnat: []\nhost: { manage: yes }\nlog: { level: [info] }\nname: 5\nforwards: {}\nstate: { keep: \"true\" }"), &[
            "f.yaml:3:1: tun: found nothing, wanted a mapping; its keys are `name`, `workers`, `io`, `offload`, `busy_poll`",
            "f.yaml:4:6: nat: found a list, wanted a mapping; its keys are `mapping`, `filtering`, `hairpin`, `ports`, `port_preservation`, `mss_clamp`, `address_pooling`, `port_parity`, `port_overlapping`, `inbound_refresh`, `reject_with`, `unsolicited_syn`",
            "f.yaml:5:17: host.manage: found `yes`, wanted true or false; write `true` or `false`, without quotes",
            "f.yaml:6:15: log.level: found a list, wanted one of `error`, `warn`, `info`, `debug`, `trace`; write a single value",
            "f.yaml:7:7: name: found `5`, wanted text; write it in quotes: \"5\"",
            "f.yaml:8:11: forwards: found a mapping, wanted a list of forwards; begin each item with `- `, or write `[]` for none",
            "f.yaml:9:16: state.keep: found the text `true`, wanted true or false; write `true` or `false`, without quotes",
        ]),
        // Values and ranges.
        (with("nat: { port_overlapping: true }"), &[
            "f.yaml:3:26: nat.port_overlapping: found `true`, wanted false with endpoint-independent mapping; set `mapping: address-and-port-dependent` as well, or leave this key out",
        ]),
        (with("tun: { name: tun%d, workers: 0, io: urng, offload: tso+, busy_poll: 2ms }"), &[
            "f.yaml:3:14: tun.name: found `tun%d`, wanted an interface name; leave out the `%`: natbox makes the device of exactly this name",
            "f.yaml:3:30: tun.workers: found `0`, wanted `auto` or a number of threads from 1 to 256; raise it",
            "f.yaml:3:37: tun.io: found `urng`, wanted one of `auto`, `uring`, `poll`; did you mean `uring`?",
            "f.yaml:3:52: tun.offload: found `tso+`, wanted one of `auto`, `tso+uso`, `tso`, `checksum`, `none`; did you mean `tso`?",
            "f.yaml:3:69: tun.busy_poll: found `2ms`, wanted a duration from 0 to 1ms, such as 50us; shorten it",
        ]),
        (with("timeouts: { udp: 5, icmp: 0, tcp_syn: 25d }\nlimits: { sessions: 0, sessions_per_host: 4m, fragments: 2M }\nnat: { ports: 0-100, mss_clamp: 50 }\nadmin: { socket: here.sock, http: localhost:80 }\nname: -x"), &[
            "f.yaml:3:18: timeouts.udp: found `5`, wanted a duration from 1s to 24d, such as 30s or 2h4m; add a unit: s for seconds, ms for milliseconds",
            "f.yaml:3:27: timeouts.icmp: found `0`, wanted a duration from 1s to 24d, such as 30s or 2h4m; lengthen it",
            "f.yaml:3:39: timeouts.tcp_syn: found `25d`, wanted a duration from 1s to 24d, such as 30s or 2h4m; shorten it",
            "f.yaml:4:21: limits.sessions: found `0`, wanted a count from 1 to 512000000, such as 4096, 64k or 4M; raise it",
            "f.yaml:4:43: limits.sessions_per_host: found `4m`, wanted a count from 0 to 512000000, such as 4096, 64k or 4M; `k` is thousand, `M` is million",
            "f.yaml:4:58: limits.fragments: found `2M`, wanted a count from 1 to 1000000, such as 4096 or 64k; lower it",
            "f.yaml:5:15: nat.ports: found `0-100`, wanted a port or a range of ports such as 80 or 8000-8099, from 1 to 65535; port 0 cannot be used",
            "f.yaml:5:33: nat.mss_clamp: found `50`, wanted `auto`, `off` or a number of bytes from 88 to 65495; raise it",
            "f.yaml:6:18: admin.socket: found `here.sock`, wanted an absolute path of at most 107 bytes; write it from the root, such as /run/natbox/natbox1.sock",
            "f.yaml:6:35: admin.http: found `localhost:80`, wanted ADDRESS:PORT such as 127.0.0.1:9640; 127.0.0.1 keeps it on this host, 0.0.0.0 is every address",
            "f.yaml:7:7: name: found `-x`, wanted a name of 1 to 63 letters, digits, `-`, `_`, `.`, beginning with a letter or digit; choose another name",
        ]),
        // Inside and uplinks.
        ("inside: { interface: lan 0, prefixes: [10.0.0.1/24, 10.0.0.0, 127.0.0.0/8] }\nuplinks: [{ interface: averylonginterface, addresses: [256.1.1.1, '::1', 224.0.0.1], gateway: 203.0.113.1/24, weight: 0 }]\n".into(), &[
            "f.yaml:1:22: inside.interface: found `lan 0`, wanted an interface name; the kernel allows no blanks in it",
            "f.yaml:1:40: inside.prefixes[0]: found `10.0.0.1/24`, wanted a prefix whose bits after the length are zero; write 10.0.0.0/24 for the network, or 10.0.0.1/32 for the one host",
            "f.yaml:1:53: inside.prefixes[1]: found `10.0.0.0`, wanted an IPv4 prefix such as 10.0.0.0/24; add the prefix length: 10.0.0.0/32 is this one host",
            "f.yaml:1:63: inside.prefixes[2]: found `127.0.0.0/8`, wanted a prefix of hosts; it overlaps the loopback addresses 127.0.0.0/8: narrow it",
            "f.yaml:2:24: uplinks[0].interface: found `averylonginterface`, wanted an interface name; `ip link` lists the names, which have 1 to 15 bytes",
            "f.yaml:2:56: uplinks[0].addresses[0]: found `256.1.1.1`, wanted external addresses as 203.0.113.10, 203.0.113.10-20 or 203.0.113.0/28; write four numbers from 0 to 255, without leading zeros",
            "f.yaml:2:67: uplinks[0].addresses[1]: found `::1`, wanted external addresses as 203.0.113.10, 203.0.113.10-20 or 203.0.113.0/28; natbox translates IPv4 only",
            "f.yaml:2:74: uplinks[0].addresses[2]: found `224.0.0.1`, wanted an address that one host may have; multicast addresses cannot be used here",
            "f.yaml:2:95: uplinks[0].gateway: found `203.0.113.1/24`, wanted an IPv4 address such as 203.0.113.10; leave out the prefix length",
            "f.yaml:2:119: uplinks[0].weight: found `0`, wanted a whole number from 1 to 1000; raise it",
        ]),
        ("name: x\ntun: { name: wan0 }\ninside: { interface: lan0, prefixes: [10.0.0.0/8, 10.0.0.0/24] }\nuplinks:\n- { interface: lan0, addresses: [10.0.0.9, 203.0.113.1-3, 203.0.113.2] }\n- { interface: wan0, addresses: 203.0.113.3, gateway: 203.0.113.3 }\n- { interface: wan0, addresses: 203.0.113.4, gateway: 10.0.0.1 }\n".into(), &[
            "f.yaml:2:14: tun.name: found `wan0`, which is the interface of `uplinks[1]`, wanted a name of its own; choose another, such as `nb1`: natbox makes this device",
            "f.yaml:3:51: inside.prefixes[1]: found 10.0.0.0/24, wanted a prefix apart from 10.0.0.0/8 (inside.prefixes[0]); leave out the smaller of the two",
            "f.yaml:5:3: uplinks[0].gateway: found no such key, wanted the next hop, because there are 3 uplinks; add `gateway: ADDRESS`",
            "f.yaml:5:16: uplinks[0].interface: found `lan0`, which is the inside interface, wanted another interface; give each uplink an interface of its own; a VLAN interface serves",
            "f.yaml:5:34: uplinks[0].addresses[0]: found 10.0.0.9, which lies in the inside prefix 10.0.0.0/8, wanted an external address; write the uplink's external address, or correct `inside.prefixes`",
            "f.yaml:5:59: uplinks[0].addresses[2]: found 203.0.113.2, which uplinks[0].addresses[1] holds already, wanted each external address once; remove it from one of the two",
            "f.yaml:6:33: uplinks[1].addresses: found 203.0.113.3, which uplinks[0].addresses[1] holds already, wanted each external address once; remove it from one of the two",
            "f.yaml:6:55: uplinks[1].gateway: found 203.0.113.3, which is an address of this box (uplinks[0].addresses[1]), wanted the provider's router; ask the provider for its address",
            "f.yaml:7:16: uplinks[2].interface: found a second uplink `wan0` (the first is uplinks[1].interface), wanted one of each name; give this one a `name` of its own",
            "f.yaml:7:55: uplinks[2].gateway: found 10.0.0.1, which lies in the inside prefix 10.0.0.0/8, wanted the provider's router; write its address on the uplink",
        ]),
        // Forwards.
        (with_forwards("- { protocol: tcp, port: 80, to: 10.0.0.5 }\n- { uplink: isp3, protocol: tcp, port: 80, to: 10.0.0.5 }\n- { uplink: isp2, protocol: tpc, port: 80, to: 10.0.0.5 }\n- { address: 203.0.113.3, protocol: tcp, port: 80, to: 10.0.0.5 }\n- { uplink: isp2, address: 203.0.113.1, protocol: tcp, port: 80, to: 10.0.0.5 }"), &[
            "f.yaml:6:3: forwards[0].address: found no such key, wanted one of the 2 addresses of uplink `isp1`; add `address:` with one of `203.0.113.1`, `203.0.113.2`",
            "f.yaml:7:13: forwards[1].uplink: found `isp3`, wanted the name of an uplink; did you mean `isp1`?",
            "f.yaml:8:29: forwards[2].protocol: found `tpc`, wanted one of `tcp`, `udp`, `tcp+udp`, `icmp`, `any`; did you mean `tcp`?",
            "f.yaml:9:14: forwards[3].address: found 203.0.113.3, wanted an address of an uplink; choose one of `203.0.113.1`, `203.0.113.2`, `198.51.100.1`",
            "f.yaml:10:28: forwards[4].address: found 203.0.113.1, wanted an address of uplink `isp2`; choose one of `198.51.100.1`",
        ]),
        (with_forwards("- { uplink: isp2, protocol: tcp, to: 10.0.0.5 }\n- { uplink: isp2, protocol: icmp, port: 8, to: 10.0.0.5:80 }\n- { uplink: isp2, protocol: udp, port: 9000-9099, to: 10.0.0.5:65500 }\n- { uplink: isp2, protocol: udp, port: 7000-7009, to: 10.0.0.5:1-5 }\n- { uplink: isp2, protocol: tcp, port: 90-80, to: server:80 }\n- { uplink: isp2, protocol: tcp, port: 81, to: 10.9.0.5:80 }\n- { uplink: isp2, protocol: tcp, port: 82, to: 10.0.0.255:80 }"), &[
            "f.yaml:6:3: forwards[0].port: found no such key, wanted the port to publish; add `port: 80` or `port: 8000-8099` with your own",
            "f.yaml:7:41: forwards[1].port: found 8, wanted no `port`, because `protocol: icmp` publishes no single ports; remove it, or choose tcp, udp or tcp+udp",
            "f.yaml:7:48: forwards[1].to: found port 80, wanted an address without port, because of `protocol: icmp`; write `to: 10.0.0.5`",
            "f.yaml:8:55: forwards[2].to: found port 65500 for the first of 100 published ports, wanted a range that ends at 65535 or before; lower it to 65436 at most, or publish fewer",
            "f.yaml:9:55: forwards[3].to: found 5 ports (1-5), wanted the number of published ports: 10 (7000-7009); write the first port only, the others keep their offset",
            "f.yaml:10:40: forwards[4].port: found `90-80`, wanted a port or a range of ports such as 80 or 8000-8099, from 1 to 65535; write the lower port first: 80-90",
            "f.yaml:10:51: forwards[4].to: found `server:80`, wanted the server as ADDRESS or ADDRESS:PORT, such as 10.0.0.101:80; write four numbers from 0 to 255, without leading zeros",
            "f.yaml:11:48: forwards[5].to: found 10.9.0.5, wanted an address within `10.0.0.0/24`, `10.1.0.0/16`; correct it, or add its prefix to `inside.prefixes`",
            "f.yaml:12:48: forwards[6].to: found 10.0.0.255, the network or broadcast address of 10.0.0.0/24, wanted a host's address; write the server's address",
        ]),
        (with_forwards("- { name: a, uplink: isp2, protocol: tcp, port: 80-90, to: 10.0.0.5 }\n- { name: b, uplink: isp2, protocol: tcp, port: 85-95, to: 10.0.0.6 }\n- { name: c, uplink: isp2, protocol: any, to: 10.0.0.7 }"), &[
            "f.yaml:7:3: forwards[1]: found tcp port 85-95 on 198.51.100.1, which `a` (forwards[0]) publishes already, wanted each protocol, address and port published once; change or remove one of the two",
        ]),
        (with_forwards("- { name: a, uplink: isp2, protocol: tcp+udp, port: 80-90, to: 10.0.0.5 }\n- { name: b, uplink: isp2, protocol: udp, port: 80-90, to: 10.0.0.6 }\n- { name: c, address: 203.0.113.1, protocol: any, to: 10.0.0.5 }\n- { name: d, address: 203.0.113.1, protocol: any, to: 10.0.0.7 }\n- { name: d, address: 203.0.113.2, protocol: icmp, to: 10.0.0.8 }"), &[
            "f.yaml:7:3: forwards[1]: found udp port 80-90 on 198.51.100.1, which `a` (forwards[0]) publishes already, wanted each protocol, address and port published once; change or remove one of the two",
            "f.yaml:9:3: forwards[3]: found any on 203.0.113.1, which `c` (forwards[2]) publishes already, wanted each protocol, address and port published once; change or remove one of the two",
            "f.yaml:10:11: forwards[4].name: found a second forward `d` (the first is forwards[3]), wanted one of each name on an uplink; give this one another `name`",
        ]),
        // Destinations without translation.
        (with("no_nat:\n- { to: 192.0.2.1/24 }\n- { protocol: tcp, port: 0 }\n- { to: 192.0.2.0/24, port: 80 }\n- { to: 192.0.2.0/24, protocol: icmp, port: 7 }"), &[
            "f.yaml:4:9: no_nat[0].to: found `192.0.2.1/24`, wanted a prefix whose bits after the length are zero; write 192.0.2.0/24 for the network, or 192.0.2.1/32 for the one host",
            "f.yaml:5:3: no_nat[1].to: found no such key, wanted the destinations that are not translated; add `to: PREFIX`, such as `to: 192.0.2.0/24`",
            "f.yaml:5:26: no_nat[1].port: found `0`, wanted a port or a range of ports such as 80 or 8000-8099, from 1 to 65535; port 0 cannot be used",
            "f.yaml:6:29: no_nat[2].port: found `80`, wanted no `port`, because the protocol has none; add `protocol: tcp` (or udp, tcp+udp)",
            "f.yaml:7:45: no_nat[3].port: found `7`, wanted no `port`, because the protocol has none; add `protocol: tcp` (or udp, tcp+udp)",
        ]),
        // Health, and addresses that follow their interface.
        (SHORT.replace("203.0.113.10]", "203.0.113.10], health: { interval: 10ms, tcp: ['192.0.2.1', 192.0.2.1:1-2], http: [ftp://a/, 'http://[::1]/', 'https://u:p@a/'] }, on_failure: die"), &[
            "f.yaml:2:77: uplinks[0].health.interval: found `10ms`, wanted a duration from 100ms to 1h, such as 100ms or 30s; lengthen it",
            "f.yaml:2:89: uplinks[0].health.tcp[0]: found `192.0.2.1`, wanted an IPv4 address with a port such as 192.0.2.53:53; add `:` and the port",
            "f.yaml:2:102: uplinks[0].health.tcp[1]: found `192.0.2.1:1-2`, wanted an IPv4 address with a port such as 192.0.2.53:53; choose one port",
            "f.yaml:2:125: uplinks[0].health.http[0]: found `ftp://a/`, wanted the address of a page such as https://example.org/ or http://192.0.2.80/alive; begin it with http:// or https://",
            "f.yaml:2:135: uplinks[0].health.http[1]: found `http://[::1]/`, wanted the address of a page such as https://example.org/ or http://192.0.2.80/alive; natbox probes IPv4 only: write a name or an IPv4 address",
            "f.yaml:2:152: uplinks[0].health.http[2]: found `https://u:p@a/`, wanted the address of a page such as https://example.org/ or http://192.0.2.80/alive; leave out the user and the password",
            "f.yaml:2:185: uplinks[0].on_failure: found `die`, wanted one of `keep`, `drain`, `reset`; choose one of them",
        ]),
        (SHORT.replace("203.0.113.10]", "203.0.113.10], health: { http: ['http://127.0.0.1/', 'http://localhost:80/', 'http://0xe0000001/'] }"), &[
            "f.yaml:2:74: uplinks[0].health.http[0]: found `http://127.0.0.1/`, wanted the address of a page such as https://example.org/ or http://192.0.2.80/alive; loopback addresses cannot be used here",
            "f.yaml:2:95: uplinks[0].health.http[1]: found `http://localhost:80/`, wanted the address of a page such as https://example.org/ or http://192.0.2.80/alive; name a host beyond the uplink",
            "f.yaml:2:119: uplinks[0].health.http[2]: found `http://0xe0000001/`, wanted the address of a page such as https://example.org/ or http://192.0.2.80/alive; write the address as four numbers from 0 to 255, without leading zeros",
        ]),
        // Targets on the box or on its private network.
        (SHORT.replace("203.0.113.10]", "203.0.113.10], health: { ping: [203.0.113.10, 203.0.113.9], tcp: ['10.0.0.5:80'], http: ['http://203.0.113.10:8080/x', 'https://10.0.0.7/', 'http://0xa000008/'] }"), &[
            "f.yaml:2:74: uplinks[0].health.ping[0]: found 203.0.113.10, which is an address of this box (uplinks[0].addresses[0]), wanted a target beyond the uplink; probe the provider's router, or a host beyond it",
            "f.yaml:2:108: uplinks[0].health.tcp[0]: found 10.0.0.5, which lies in the inside prefix 10.0.0.0/24, wanted a target beyond the uplink; probe the provider's router, or a host beyond it",
            "f.yaml:2:131: uplinks[0].health.http[0]: found 203.0.113.10, which is an address of this box (uplinks[0].addresses[0]), wanted a target beyond the uplink; probe the provider's router, or a host beyond it",
            "f.yaml:2:161: uplinks[0].health.http[1]: found 10.0.0.7, which lies in the inside prefix 10.0.0.0/24, wanted a target beyond the uplink; probe the provider's router, or a host beyond it",
            "f.yaml:2:182: uplinks[0].health.http[2]: found `http://0xa000008/`, wanted the address of a page such as https://example.org/ or http://192.0.2.80/alive; write the address as four numbers from 0 to 255, without leading zeros",
        ]),
        (SHORT.replace("203.0.113.10]", "203.0.113.10], health: {}"), &[
            "f.yaml:2:65: uplinks[0].health: found a mapping, wanted at least one target: `ping`, `tcp` or `http`; add `ping: [203.0.113.254]` with an address beyond the uplink",
        ]),
        (SHORT.replace("203.0.113.10]", "203.0.113.10], health: { ping: 192.0.2.1, quorum: 2 }"), &[
            "f.yaml:2:92: uplinks[0].health.quorum: found `2`, wanted a number of answers from 1 to 1, the number of targets; lower it, or add targets",
        ]),
        (SHORT.replace("203.0.113.10]", "203.0.113.10], health: { ping: 192.0.2.1, loss: { fail: 10%, return: 10% }, latency: { fail: 1s, return: 2s }, hold: { first: 10m } }"), &[
            "f.yaml:2:111: uplinks[0].health.loss.return: found `10%`, wanted a smaller share than 10%, which is `loss.fail`; lower it",
            "f.yaml:2:147: uplinks[0].health.latency.return: found `2s`, wanted a shorter latency than 1s, which is `latency.fail`; shorten it",
            "f.yaml:2:168: uplinks[0].health.hold.first: found `10m`, wanted a duration of at most `hold.max`; shorten it, or raise `hold.max`",
        ]),
        (SHORT.replace("203.0.113.10]", "203.0.113.10], health: { http: 'http://192.0.2.1/', loss: { fail: 40 }, latency: {}, window: 3, expect: { status: [2x, 299-200], body: '' } }"), &[
            "f.yaml:2:108: uplinks[0].health.loss.fail: found `40`, wanted a share from 1% to 100%; add the sign: %",
            "f.yaml:2:123: uplinks[0].health.latency.fail: found no such key, wanted the latency at which the uplink fails; add `fail: 500ms`",
            "f.yaml:2:135: uplinks[0].health.window: found `3`, wanted a whole number from 4 to 1000; raise it",
            "f.yaml:2:157: uplinks[0].health.expect.status[0]: found `2x`, wanted an HTTP status from 100 to 599, a class or a range, such as 200, 2xx or 200-299; write three digits",
            "f.yaml:2:161: uplinks[0].health.expect.status[1]: found `299-200`, wanted an HTTP status from 100 to 599, a class or a range, such as 200, 2xx or 200-299; write the smaller status first",
            "f.yaml:2:177: uplinks[0].health.expect.body: found ``, wanted a text of 1 to 1024 bytes in one line; write the text",
        ]),
        (with("forwards: [{ protocol: tcp, port: 80, address: 203.0.113.10, to: 10.0.0.5 }]").replace("[203.0.113.10]", "interface"), &[
            "f.yaml:3:48: forwards[0].address: found 203.0.113.10, wanted an address of an uplink; leave it out: the uplink has the address of its interface",
        ]),
        ("inside: { interface: lan0, prefixes: [10.0.0.0/24] }\nuplinks:\n- { name: a, interface: w, addresses: interface }\n- { name: b, interface: w, addresses: dhcp }\n".into(), &[
            "f.yaml:4:3: uplinks[1].addresses: found the address of w, which uplinks[0] has already, wanted an interface of its own, or fixed addresses; correct one of the two",
        ]),
        // Outbound.
        (with("outbound:\n- { from: 10.0.0.0/16 }\n- { from: 10.0.0.0/25, uplinks: [wan0, wan, wan0] }\n- { from: 10.0.0.0/25, uplinks: [] }\n- { uplinks: wan0 }"), &[
            "f.yaml:4:11: outbound[0].from: found 10.0.0.0/16, wanted a prefix within `10.0.0.0/24`; correct it, or add it to `inside.prefixes`",
            "f.yaml:5:40: outbound[1].uplinks[1]: found `wan`, wanted the name of an uplink; did you mean `wan0`?",
            "f.yaml:5:45: outbound[1].uplinks[2]: found `wan0` again, wanted each uplink once; remove one",
            "f.yaml:6:11: outbound[2].from: found 10.0.0.0/25 again (first in outbound[1].from), wanted one rule for each prefix; join the two",
            "f.yaml:6:33: outbound[2].uplinks: found an empty list, wanted a list of uplinks; add to the list, 1 to 31",
            "f.yaml:7:3: outbound[3].from: found no such key, wanted the sources that may go out; add `from: PREFIX`, such as `from: 10.0.0.0/24`",
        ]),
    ];
    let mut differences = String::new();
    for (text, wanted) in cases {
        let found = rejection(&text);
        if found.lines().ne(wanted.iter().copied()) {
            writeln!(
                differences,
                "--- file\n{text}\n--- wanted\n{}\n--- found\n{found}",
                wanted.join("\n")
            )
            .unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
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
