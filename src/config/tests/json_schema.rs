//! An independent validator compares the JSON Schema with the reader.

use jsonschema::Validator;
use serde_json::Value;

use super::properties;
use super::*;

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap();
    jsonschema::draft202012::meta::validate(&schema).expect("a schema of draft 2020-12");
    jsonschema::draft202012::new(&schema).unwrap()
}

fn complaints(validator: &Validator, yaml: &str) -> Vec<String> {
    let value: Value = serde_yaml_ng::from_str(yaml).unwrap();
    let complaint =
        |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    validator.iter_errors(&value).map(complaint).collect()
}

#[test]
fn shipped_files_and_effective_configurations_meet_the_schema() {
    let validator = validator();
    for text in [REFERENCE, NATBOX1, NATBOX2, FAILOVER, THREE_LEGGED, INSIDE_LEGS, SHORT] {
        assert_eq!(complaints(&validator, text), [""; 0], "{text}");
        let config = accepted(text);
        assert_eq!(complaints(&validator, &to_yaml(&config)), [""; 0], "{text}");
        assert_eq!(complaints(&validator, &to_json(&config)), [""; 0], "{text}");
    }
}

#[test]
fn the_forms_that_the_file_allows_meet_the_schema() {
    let validator = validator();
    for text in [
        SHORT.replace("[203.0.113.10]", "203.0.113.10-20"),
        SHORT.replace("[203.0.113.10]", "[203.0.113.16/28, 203.0.112.255-203.0.113.1]"),
        SHORT.replace("[203.0.113.10]", "dhcp"),
        SHORT.replace("[203.0.113.10]", "[interface]"),
        SHORT.replace("[10.0.0.0/24]", "10.0.0.0/24"),
        LEGS.to_owned(),
        with("tun: { workers: 4, busy_poll: 0 }\ntimeouts: { udp: 1d2h3m4s5ms6us }"),
        with("limits: { sessions: 512M, fragments: 64k, delayed_ports: 0 }"),
        with("nat: { ports: 2000, mss_clamp: 1400 }\nlog: { level: trace }"),
        with("nat: { ports: 2000-3000, mss_clamp: off }"),
        with("nat: { mss_clamp: false }"),
        with("nat: { mss_clamp: 'False', hairpin: 'TRUE', port_parity: \"false\" }"),
        with("nat: { port_preservation: true }"),
        with("nat: { port_preservation: false }"),
        with("nat: { port_preservation: off }"),
        with("nat: { port_preservation: 3074 }"),
        with("nat: { port_preservation: [3074, 5060-5080, '500', 4500] }"),
        with("forwards: [{ protocol: udp, port: 8000-8099, to: '10.0.0.5:9000-9099' }]"),
        with("forwards: [{ protocol: any, to: 10.0.0.5 }]\noutbound: []"),
        with("outbound: [{ from: 10.0.0.0/25, to: 192.0.2.0/24, uplinks: wan0 }]"),
        SHORT.replace("[203.0.113.10]", "\"interface\""),
        SHORT.replace("[203.0.113.10]", "[\"dhcp\"]"),
        SHORT.replace("[203.0.113.10]", "203.0.113.0/32"),
        SHORT.replace("lan0", "..."),
        SHORT.replace("wan0,", "wan0, weight: \"5\","),
        with("tun: { workers: \"4\" }\nlimits: { sessions: \"4096\", fragments: \"64k\" }"),
        with("nat: { ports: \"2000\", mss_clamp: \"1400\" }"),
        with("forwards: [{ protocol: \"tcp\", port: \"80\", to: 10.0.0.5 }]"),
        with("no_nat: [{ to: 172.20.0.0/16 }, { to: 192.0.2.0/24, protocol: tcp, port: 1-7 }]"),
    ] {
        accepted(&text);
        assert_eq!(complaints(&validator, &text), [""; 0], "{text}");
    }
}

#[test]
fn broken_files_are_refused_by_the_reader_and_by_the_schema() {
    let validator = validator();
    let short = |from: &str, to: &str| {
        assert!(SHORT.contains(from));
        SHORT.replace(from, to)
    };
    for text in [
        "name: x".to_owned(),
        "[]".to_owned(),
        short("interface: lan0, ", ""),
        short("prefixes: [10.0.0.0/24]", "prefixes: []"),
        short("10.0.0.0/24", "10.0.0.0"),
        short("10.0.0.0/24", "10.0.0.0/33"),
        short("lan0", "a-name-that-is-too-long"),
        short("lan0", "5"),
        LEGS.replace("interface: dmz0, ", ""),
        LEGS.replace("[10.1.0.0/24]", "[]"),
        short("203.0.113.10", "203.0.113.256"),
        short("203.0.113.10", "203.0.113.10-"),
        short("[203.0.113.10]", "[]"),
        short("[203.0.113.10]", "ethernet"),
        short("[203.0.113.10]", "[interface, 203.0.113.10]"),
        short("[203.0.113.10]", "[interface, dhcp]"),
        short("203.0.113.10", "203.0.113.0/33"),
        short("203.0.113.10", "203.0.113.10-020"),
        short("lan0", "."),
        short("lan0", ".."),
        short("lan0", "\"a\\0b\""),
        short("wan0,", "wan0, weight: \"05\","),
        short("wan0,", "wan0, health: { http: [' http://192.0.2.1/'] },"),
        short("wan0,", "wan0, health: { http: ['http://192.0.2.1/#x'] },"),
        with("forwards: [{ protocol: tcp, port: 00000080, to: 10.0.0.5 }]"),
        with("forwards: [{ protocol: tcp, port: 80, to: '10.0.0.5:0' }]"),
        with("limits: { sessions: 064k }"),
        with("outbound: [{ from: 10.0.0.0/024 }]"),
        with("admin: { http: '127.0.0.1:0' }"),
        with("dns: { zone: '192.0.2.1', names: [{ name: w }], listen: false, hook: /x }"),
        with("dns: { zone: a-.org, names: [{ name: w }], listen: false, hook: /x }"),
        with("dns: { zone: a.org, names: [{ name: -w }], listen: false, hook: /x }"),
        with(&format!(
            "dns: {{ zone: {}.org, names: [{{ name: w }}], listen: false, hook: /x }}",
            "a".repeat(64)
        )),
        with(
            "dns: { zone: a.org, names: [{ name: w }], listen: false, \
             update: { server: '2001:db8::1', key: k, secret_file: /k } }",
        ),
        short("wan0,", "wan0, gatway: 203.0.113.9,"),
        short("wan0,", "wan0, weight: 0,"),
        short("wan0,", "wan0, on_failure: die,"),
        short("wan0,", "wan0, health: { ping: [192.0.2.1], quorum: 17 },"),
        short("wan0,", "wan0, health: { ping: [192.0.2.1], interval: 5 },"),
        short("wan0,", "wan0, health: { http: ['ftp://example.org/'] },"),
        short("wan0,", "wan0, health: { tcp: [192.0.2.1] },"),
        with("tunn: {}"),
        with("tun:"),
        with("tun: []"),
        with("tun: { name: tun%d }"),
        with("tun: { workers: 257 }"),
        with("tun: { io: Auto }"),
        with("tun: { busy_poll: -1us }"),
        with("nat: { hairpin: yes }"),
        with("nat: { mapping: endpoint }"),
        with("nat: { ports: 0 }"),
        with("nat: { ports: http }"),
        with("nat: { mss_clamp: 87 }"),
        with("nat: { refusal: none }"),
        with("timeouts: { udp: 5 }"),
        with("timeouts: { udp: 4m2h }"),
        with("timeouts: { udp: 0 }"),
        with("limits: { sessions: 0 }"),
        with("limits: { sessions: 4G }"),
        with("limits: { sessions: 600000000 }"),
        with("host: { manage: 1 }"),
        with("admin: { socket: natbox.sock }"),
        with("admin: { http: localhost }"),
        with("log: { format: xml }"),
        with("forwards: {}"),
        with("forwards: [{ protocol: tcp, port: 80 }]"),
        with("forwards: [{ port: 80, to: '10.0.0.5:80' }]"),
        with("forwards: [{ protocol: tcp, port: 65536, to: 10.0.0.5 }]"),
        with("forwards: [{ protocol: tcp, port: 80, to: 'server:80' }]"),
        with("outbound: [{}]"),
        with("outbound: [{ from: 10.0.0.0/24, uplinks: [] }]"),
        with("outbound: [{ from: 10.0.0.0/24, hash_by: host }]"),
        with("no_nat: [{ protocol: tcp }]"),
        with("name: -x"),
        with("dns: { names: [{ name: www }] }"),
        with("dns: { zone: a.org, names: [{ name: '*' }], listen: false, hook: /x }"),
        with("dns: { zone: a.org, names: [{ name: w }], listen: false, hook: x }"),
        with("dns: { zone: a.org, names: [{ name: w }], listen: false, hook: /x, mailbox: a }"),
        with("dns: { zone: a.org, names: [], listen: false, hook: /x }"),
    ] {
        rejection(&text);
        assert!(!complaints(&validator, &text).is_empty(), "the schema accepts\n{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_effective_configuration_meets_the_schema(config in properties::config()) {
        let validator = validator();
        let value: Value = serde_json::from_str(&to_json(&config)).unwrap();
        let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        prop_assert_eq!(errors, [""; 0]);
    }
}
