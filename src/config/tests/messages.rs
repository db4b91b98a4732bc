//! Bad files are refused with exact messages.

use std::fmt::Write as _;

use super::*;

/// Compares the messages about each text with those that are wanted.
fn assert_refused(cases: Vec<(String, &[&str])>) {
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
fn bad_text_and_bad_keys_are_refused_with_exact_messages() {
    let cases: Vec<(String, &[&str])> = vec![
        // The text as such.
        (
            "".into(),
            &[
                "f.yaml:1:1: found an empty file, wanted a configuration; begin with `inside:` and `uplinks:`; `natbox config --reference` prints an example",
            ],
        ),
        (
            "# nothing\n".into(),
            &[
                "f.yaml:1:1: found an empty file, wanted a configuration; begin with `inside:` and `uplinks:`; `natbox config --reference` prints an example",
            ],
        ),
        (
            "- 1\n".into(),
            &[
                "f.yaml:1:1: found a list, wanted a mapping; its keys are `name`, `tun`, `inside`, `uplinks`, `forwards`, `outbound`, `no_nat`, `nat`, `timeouts`, `limits`, `host`, `admin`, ...",
            ],
        ),
        (
            "name: a\u{0}b\n".into(),
            &[
                "f.yaml:1:8: found the control character U+0000, wanted text; remove it, or check that this is a YAML file",
            ],
        ),
        (
            with("tun:\n\tname: nb0"),
            &[
                "f.yaml:4:2: found broken YAML (tabs disallowed within this context (block indentation)), wanted YAML; indent with spaces, not with tabs",
            ],
        ),
        (
            with("---\nname: b"),
            &[
                "f.yaml:3:1: found a second YAML document, wanted one; write one configuration per file and remove the `---`",
            ],
        ),
        (
            with("host: &h { manage: true }"),
            &[
                "f.yaml:3:7: found a YAML anchor or alias (`&`, `*`), wanted the value itself; write the value out",
            ],
        ),
        (
            with("name: !!str x"),
            &["f.yaml:3:7: found a YAML tag (`!`), wanted a plain value; remove the tag"],
        ),
        (
            with("? [a, b]\n: c"),
            &[
                "f.yaml:3:3: found a list or mapping as a key, wanted text as a key; check the indentation and the brackets",
            ],
        ),
        // Keys.
        (
            with(
                "tunn: {}\nnat: { hair_pin: true, mss: 1400 }\ntun: { mss_clamp: off }\nhairpin: true\nzebra: 1",
            ),
            &[
                "f.yaml:3:1: tunn: found an unknown key, wanted one that natbox knows; did you mean `tun`?",
                "f.yaml:4:8: nat.hair_pin: found an unknown key, wanted one that natbox knows; did you mean `hairpin`?",
                "f.yaml:4:24: nat.mss: found an unknown key, wanted one that natbox knows; the keys here are `mapping`, `filtering`, `hairpin`, `ports`, `port_preservation`, `mss_clamp`, `address_pooling`, `port_parity`, `port_overlapping`, `inbound_refresh`, `reject_with`, `unsolicited_syn`",
                "f.yaml:5:8: tun.mss_clamp: found an unknown key, wanted one that natbox knows; `mss_clamp` belongs under `nat`",
                "f.yaml:6:1: hairpin: found an unknown key, wanted one that natbox knows; `hairpin` belongs under `nat`",
                "f.yaml:7:1: zebra: found an unknown key, wanted one that natbox knows; the keys here are `name`, `tun`, `inside`, `uplinks`, `forwards`, `outbound`, `no_nat`, `nat`, `timeouts`, `limits`, `host`, `admin`, ...",
            ],
        ),
        (
            with("host: { manage: true, manage: false }\ninside: {}"),
            &[
                "f.yaml:3:23: host.manage: found this key again (first in line 3), wanted the key once; join the two or remove one",
                "f.yaml:4:1: inside: found this key again (first in line 1), wanted the key once; join the two or remove one",
            ],
        ),
        (
            "name: x\n".into(),
            &[
                "f.yaml:1:1: inside: found no such key, wanted the private network: its interface and prefixes; add `inside: { interface: lan0, prefixes: [10.0.0.0/24] }` with your own values",
                "f.yaml:1:1: uplinks: found no such key, wanted at least one uplink: its interface and addresses; add `uplinks:` and under it `- { interface: wan0, addresses: [203.0.113.10] }` with your own values",
            ],
        ),
        (
            "inside: {}\nuplinks: [{}]\n".into(),
            &[
                "f.yaml:1:9: inside.interface: found no such key, wanted the interface towards the private network; add `interface: NAME`; `ip link` lists the names",
                "f.yaml:1:9: inside.prefixes: found no such key, wanted the private prefixes behind the interface; add `prefixes: [10.0.0.0/24]` with your own",
                "f.yaml:2:11: uplinks[0].interface: found no such key, wanted the interface towards the provider; add `interface: NAME`; `ip link` lists the names",
                "f.yaml:2:11: uplinks[0].addresses: found no such key, wanted the uplink's external addresses; add `addresses: [203.0.113.10]` with your own",
            ],
        ),
    ];
    assert_refused(cases);
}

#[test]
fn bad_values_are_refused_with_exact_messages() {
    let cases: Vec<(String, &[&str])> = vec![
        // Types.
        (
            with(
                "tun:\nnat: []\nhost: { manage: yes }\nlog: { level: [info] }\nname: 5\nforwards: {}\nstate: { keep: \"yes\" }",
            ),
            &[
                "f.yaml:3:1: tun: found nothing, wanted a mapping; its keys are `name`, `workers`, `io`, `offload`, `busy_poll`",
                "f.yaml:4:6: nat: found a list, wanted a mapping; its keys are `mapping`, `filtering`, `hairpin`, `ports`, `port_preservation`, `mss_clamp`, `address_pooling`, `port_parity`, `port_overlapping`, `inbound_refresh`, `reject_with`, `unsolicited_syn`",
                "f.yaml:5:17: host.manage: found `yes`, wanted true or false; write `true` or `false`",
                "f.yaml:6:15: log.level: found a list, wanted one of `error`, `warn`, `info`, `debug`, `trace`; write a single value",
                "f.yaml:7:7: name: found `5`, wanted text; write it in quotes: \"5\"",
                "f.yaml:8:11: forwards: found a mapping, wanted a list of forwards; begin each item with `- `, or write `[]` for none",
                "f.yaml:9:16: state.keep: found the text `yes`, wanted true or false; write `true` or `false`",
            ],
        ),
        // Values and ranges.
        (
            with("nat: { port_overlapping: true }"),
            &[
                "f.yaml:3:26: nat.port_overlapping: found `true`, wanted false with endpoint-independent mapping; set `mapping: address-and-port-dependent` as well, or leave this key out",
            ],
        ),
        (
            with("tun: { name: tun%d, workers: 0, io: urng, offload: tso+, busy_poll: 2ms }"),
            &[
                "f.yaml:3:14: tun.name: found `tun%d`, wanted an interface name; leave out the `%`: natbox makes the device of exactly this name",
                "f.yaml:3:30: tun.workers: found `0`, wanted `auto` or a number of threads from 1 to 256; raise it",
                "f.yaml:3:37: tun.io: found `urng`, wanted one of `auto`, `uring`, `poll`; did you mean `uring`?",
                "f.yaml:3:52: tun.offload: found `tso+`, wanted one of `auto`, `tso+uso`, `tso`, `checksum`, `none`; did you mean `tso`?",
                "f.yaml:3:69: tun.busy_poll: found `2ms`, wanted a duration from 0 to 1ms, such as 50us; shorten it",
            ],
        ),
        (
            with(
                "timeouts: { udp: 5, icmp: 0, tcp_syn: 25d }\nlimits: { sessions: 0, sessions_per_host: 4m, fragments: 2M }\nnat: { ports: 0-100, mss_clamp: 50 }\nadmin: { socket: here.sock, http: localhost:80 }\nname: -x",
            ),
            &[
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
            ],
        ),
    ];
    assert_refused(cases);
}

#[test]
fn bad_uplinks_and_forwards_are_refused_with_exact_messages() {
    let cases: Vec<(String, &[&str])> = vec![
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
    ];
    assert_refused(cases);
}

#[test]
fn bad_health_checks_and_outbound_rules_are_refused_with_exact_messages() {
    let cases: Vec<(String, &[&str])> = vec![
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
    assert_refused(cases);
}
