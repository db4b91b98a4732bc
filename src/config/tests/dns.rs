//! `dns` in whole files.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::{ConfigEnum as _, Dns, DnsName, DnsServer, DnsUpdate, Uplink, parse};
use crate::values::dns::{Algorithm, Name, Replace};

/// Returns a file with two uplinks and with `dns` from line 5 on.
fn with(dns: &str) -> String {
    format!(
        "inside: {{ interface: lan0, prefixes: [10.0.0.0/24] }}\n\
         uplinks:\n\
         - {{ name: isp1, interface: w0, addresses: [203.0.113.10-11], gateway: 203.0.113.9 }}\n\
         - {{ name: isp2, interface: w1, addresses: [198.51.100.10], gateway: 198.51.100.9 }}\n\
         {dns}\n"
    )
}

const SHORT: &str = "dns: { zone: example.org, names: [{ name: www }], name_servers: [{ name: ns1, address: 203.0.113.10 }] }";

fn accepted(text: &str) -> Dns {
    parse("f.yaml", text)
        .unwrap_or_else(|problems| panic!("{problems}\n{text}"))
        .config
        .dns
        .unwrap()
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

/// Returns the section with the default of every key that has one.
pub(super) fn with_defaults(dns: Dns) -> Dns {
    Dns {
        ttl: Duration::from_secs(30),
        negative_ttl: Duration::from_secs(30),
        answers_per_second: 20,
        listen: true,
        mailbox: dns.zone.prepend_label("hostmaster").unwrap(),
        names: dns
            .names
            .into_iter()
            .map(|published| DnsName { uplinks: vec![0], ..published })
            .collect(),
        update: dns.update.map(|update| DnsUpdate {
            zone: dns.zone.clone(),
            algorithm: Algorithm::HmacSha256,
            replace: Replace::All,
            ..update
        }),
        ..dns
    }
}

/// Returns a valid section for some uplinks. Its values vary with the numbers and the text.
pub(super) fn any(uplinks: &[Uplink], number: usize, text: &str, small: u16) -> Dns {
    let zone = name(["example.org", "a.b-c.1e5.x_y", "org"][number % 3]);
    let label = text.to_ascii_lowercase().replace(['.', '-'], "_");
    let seconds = |number: u16| Duration::from_secs(u64::from(number) + 1);
    Dns {
        names: vec![
            DnsName { name: zone.clone(), uplinks: (0..uplinks.len()).rev().collect() },
            DnsName {
                name: zone.prepend_label(label.as_bytes()).unwrap(),
                uplinks: vec![number % uplinks.len()],
            },
        ],
        name_servers: vec![DnsServer {
            name: zone.prepend_label("ns").unwrap().prepend_label(label.as_bytes()).unwrap(),
            address: Ipv4Addr::new(192, 0, 2, small as u8),
        }],
        mailbox: zone.prepend_label("a.b+c".as_bytes()).unwrap(),
        ttl: seconds(small),
        negative_ttl: seconds(small / 2),
        answers_per_second: u32::from(small),
        listen: false,
        update: Some(DnsUpdate {
            server: ([127, 0, 0, 1], small).into(),
            zone: zone.base_name(),
            key: name(&label),
            algorithm: Algorithm::ALL[number % 2],
            secret_file: format!("/etc/{text}").into(),
            replace: Replace::ALL[usize::from(small) % 2],
        })
        .filter(|update| {
            update.zone.num_labels() > 0 && !label.bytes().all(|byte| byte.is_ascii_digit())
        }),
        hook: Some(format!("/{text}").into()),
        zone,
    }
}

#[test]
fn a_short_section_gets_every_default() {
    let dns = accepted(&with(SHORT));
    assert_eq!(dns.zone, name("example.org"));
    assert_eq!(dns.names, [DnsName { name: name("www.example.org"), uplinks: vec![0, 1] }]);
    let server =
        DnsServer { name: name("ns1.example.org"), address: Ipv4Addr::new(203, 0, 113, 10) };
    assert_eq!(dns.name_servers, [server]);
    assert_eq!(dns.mailbox, name("hostmaster.example.org"));
    assert_eq!((dns.ttl, dns.negative_ttl), (Duration::from_secs(30), Duration::from_secs(30)));
    assert_eq!((dns.answers_per_second, dns.listen), (20, true));
    assert_eq!((dns.update, dns.hook), (None, None));
    assert_eq!(parse("f.yaml", &with("")).unwrap().config.dns, None);
}

#[test]
fn names_belong_to_uplinks() {
    let dns = accepted(&with(
        "dns:\n  zone: Example.org.\n  listen: false\n  hook: /usr/local/bin/line-changed\n  names:\n  \
         - { name: \"@\", uplinks: [isp2] }\n  - { name: a.B, uplinks: [isp2, isp1] }\n  \
         mailbox: dns.admin@example.net\n  update: { server: 192.0.2.53:5353, zone: org, key: natbox, \
         algorithm: hmac-sha512, secret_file: /etc/natbox/dns.secret, replace: own }",
    ));
    assert_eq!(
        dns.names,
        [
            DnsName { name: name("example.org"), uplinks: vec![1] },
            DnsName { name: name("a.b.example.org"), uplinks: vec![1, 0] },
        ]
    );
    assert_eq!(dns.mailbox.to_ascii(), "dns\\.admin.example.net.");
    let update = dns.update.unwrap();
    assert_eq!((update.server, update.zone), (([192, 0, 2, 53], 5353).into(), name("org")));
    assert_eq!((update.algorithm, update.replace), (Algorithm::HmacSha512, Replace::Own));
}

#[test]
fn a_box_outside_its_own_name_servers_gets_a_warning() {
    let warnings = |text: &str| {
        parse("f.yaml", text).unwrap().warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(warnings(&with(SHORT)), [""; 0]);
    // The name server listens at the first address of an uplink only.
    for other in ["192.0.2.1", "203.0.113.11"] {
        assert_eq!(
            warnings(&with(&SHORT.replace("203.0.113.10", other))),
            [
                "f.yaml:5:6: dns.name_servers: found no first address of an uplink, wanted this box among the name servers; clients find this box only through a name server of the zone; add this box"
            ]
        );
    }
}

#[test]
fn name_servers_that_fail_together_get_a_warning() {
    let two = "name_servers: [{ name: ns1, address: 203.0.113.10 }, { name: ns2, address: 203.0.113.10 }]";
    let text = with(&format!("dns: {{ zone: example.org, names: [{{ name: www }}], {two} }}"));
    let warnings = parse("f.yaml", &text).unwrap().warnings;
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert_eq!(
        warning.to_string(),
        "f.yaml:5:126: dns.name_servers[1].address: found 203.0.113.10 again (first in dns.name_servers[0].address), wanted an address of its own for each name server; write the address of another uplink, so that they do not fail together"
    );
}

#[test]
fn bad_sections_are_refused_with_exact_messages() {
    let cases: &[(&str, &[&str])] = &[
        (
            "dns: []",
            &[
                "f.yaml:5:6: dns: found a list, wanted a mapping; its keys are `zone`, `names`, `name_servers`, `mailbox`, `ttl`, `negative_ttl`, `answers_per_second`, `listen`, `update`, `hook`",
            ],
        ),
        (
            "dns: { zones: example.org }",
            &[
                "f.yaml:5:6: dns.zone: found no such key, wanted the zone to answer for; add `zone: example.org` with your own",
                "f.yaml:5:6: dns.names: found no such key, wanted the names to publish; add `names: [{ name: www }]` with your own",
                "f.yaml:5:6: dns.name_servers: found no such key, wanted the name servers of the zone; add `name_servers: [{ name: ns1, address: 203.0.113.10 }]`, one for each uplink, or `listen: false`",
                "f.yaml:5:8: dns.zones: found an unknown key, wanted one that natbox knows; did you mean `zone`?",
            ],
        ),
        (
            "dns: { zone: ex_ample..org, names: [{}, { name: \"*\" }, { name: www. }], ttl: 1500ms, negative_ttl: 2d, answers_per_second: 0, mailbox: hostmaster.example.org, listen: false, hook: line-changed }",
            &[
                "f.yaml:5:14: dns.zone: found `ex_ample..org`, wanted a domain name such as example.org; each part has 1 to 63 letters, digits, `-` or `_`",
                "f.yaml:5:37: dns.names[0].name: found no such key, wanted a name within the zone; add `name: www`, or `name: \"@\"` for the zone itself",
                "f.yaml:5:49: dns.names[1].name: found `*`, wanted a domain name such as example.org; write out each name: there are no wildcards here",
                "f.yaml:5:64: dns.names[2].name: found `www.`, wanted a name within the zone, without the zone's own; remove the last dot",
                "f.yaml:5:78: dns.ttl: found `1500ms`, wanted whole seconds; leave out the fraction of a second",
                "f.yaml:5:100: dns.negative_ttl: found `2d`, wanted a duration from 1s to 1d, such as 30s or 2h4m; shorten it",
                "f.yaml:5:124: dns.answers_per_second: found `0`, wanted a count from 1 to 1000000, such as 4096 or 64k; raise it",
                "f.yaml:5:136: dns.mailbox: found `hostmaster.example.org`, wanted a mail address such as hostmaster@example.org; write NAME@DOMAIN, the name in plain letters",
                "f.yaml:5:181: dns.hook: found `line-changed`, wanted the absolute path of a file; write it from the root, with a leading `/`",
            ],
        ),
        (
            "dns: { zone: example.org, listen: false, hook: /x, names: [{ name: www.example.org }, { name: a, uplinks: [isp1, isp3, isp1] }, { name: A }] }",
            &[
                "f.yaml:5:68: dns.names[0].name: found www.example.org, wanted a name within example.org, without it; leave out the zone, or write \"@\" for itself",
                "f.yaml:5:114: dns.names[1].uplinks[1]: found `isp3`, wanted the name of an uplink; did you mean `isp1`?",
                "f.yaml:5:120: dns.names[1].uplinks[2]: found `isp1` again, wanted each uplink once; remove one",
                "f.yaml:5:137: dns.names[2].name: found a.example.org again (first in dns.names[1].name), wanted each name once; give one of the two another name",
            ],
        ),
        (
            "dns: { zone: example.org, names: [{ name: ns1 }], name_servers: [{ name: ns1, address: 203.0.113.10 }, { name: ns2 }] }",
            &[
                "f.yaml:5:74: dns.name_servers[0].name: found ns1.example.org again (first in dns.names[0].name), wanted each name once; give one of the two another name",
                "f.yaml:5:104: dns.name_servers[1].address: found no such key, wanted the name server's address; add `address: 203.0.113.10` with your own",
            ],
        ),
        (
            "dns: { zone: example.org, names: [{ name: www }], listen: false }",
            &[
                "f.yaml:5:59: dns.listen: found `false`, and neither `update` nor `hook`, wanted a way to announce addresses; add one of them, or remove `dns`",
            ],
        ),
        (
            "dns: { zone: example.org, names: [{ name: www }], listen: false, update: { server: ns.example.org, zone: www.example.org, key: 5, algorithm: hmac-md5, replace: mine } }",
            &[
                "f.yaml:5:74: dns.update.secret_file: found no such key, wanted the file with the key's secret; add `secret_file: /etc/natbox/dns.secret` with your own",
                "f.yaml:5:84: dns.update.server: found `ns.example.org`, wanted ADDRESS or ADDRESS:PORT such as 192.0.2.53; write the address itself: names cannot be looked up before there is DNS",
                "f.yaml:5:106: dns.update.zone: found www.example.org, wanted example.org or a zone above it; the published names must lie in it",
                "f.yaml:5:128: dns.update.key: found `5`, wanted text; write it in quotes: \"5\"",
                "f.yaml:5:142: dns.update.algorithm: found `hmac-md5`, wanted one of `hmac-sha256`, `hmac-sha512`; choose one of them",
                "f.yaml:5:161: dns.update.replace: found `mine`, wanted one of `all`, `own`; choose one of them",
            ],
        ),
        (
            "forwards: [{ name: dns, uplink: isp2, protocol: tcp+udp, port: 53, to: 10.0.0.5 }]\ndns: { zone: example.org, names: [{ name: www }], name_servers: [{ name: ns1, address: 203.0.113.10 }] }",
            &[
                "f.yaml:6:6: dns.listen: found a name server at port 53 of 198.51.100.10, which forward `dns` publishes, wanted a port of its own; remove the forward, or set `listen: false`",
            ],
        ),
    ];
    let mut differences = Vec::new();
    for (text, wanted) in cases {
        let found = match parse("f.yaml", &with(text)) {
            Ok(_) => "accepted".to_owned(),
            Err(problems) => problems.to_string(),
        };
        if found.lines().ne(wanted.iter().copied()) {
            differences.push(format!(
                "--- file\n{text}\n--- wanted\n{}\n--- found\n{found}",
                wanted.join("\n")
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn forwards_of_other_ports_and_addresses_than_the_name_server_are_accepted() {
    for forward in [
        "{ uplink: isp2, protocol: tcp+udp, port: 54, to: 10.0.0.5 }",
        "{ uplink: isp2, protocol: icmp, to: 10.0.0.5 }",
        "{ address: 203.0.113.11, protocol: any, to: 10.0.0.5 }",
        "{ address: 203.0.113.10, protocol: any, to: 10.0.0.5 }",
    ] {
        accepted(&with(&format!("forwards: [{forward}]\n{SHORT}")));
    }
    let unheard = SHORT.replace("zone: ", "listen: false, hook: /x, zone: ");
    accepted(&with(&format!(
        "forwards: [{{ uplink: isp2, protocol: udp, port: 53, to: 10.0.0.5 }}]\n{unheard}"
    )));
}

#[test]
fn a_range_leaves_the_port_to_the_name_server_with_a_warning() {
    let range = "forwards: [{ name: dns, uplink: isp2, protocol: udp, port: 50-60, to: 10.0.0.5 }]";
    let loaded = parse("f.yaml", &with(&format!("{range}\n{SHORT}"))).unwrap();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings.iter().any(|warning| warning
            .contains("a name server at port 53 of 198.51.100.10, which forward `dns` publishes")),
        "{warnings:?}"
    );
}
