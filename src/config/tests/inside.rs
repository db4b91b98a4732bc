//! One inside leg as a mapping, several as a list.

use super::*;

#[test]
fn one_leg_is_a_mapping_or_a_list_and_is_printed_as_a_mapping() {
    let config = accepted(SHORT);
    assert_eq!(config.inside.legs.len(), 1);
    let as_list =
        SHORT.replace("{ interface: lan0", "[{ interface: lan0").replacen(" }\n", " }]\n", 1);
    assert_eq!(accepted(&as_list), config);
    assert!(to_yaml(&config).contains("inside:\n  interface: lan0\n"), "{}", to_yaml(&config));
}

#[test]
fn several_legs_are_printed_as_a_list_and_found_by_their_prefixes() {
    let config = accepted(LEGS);
    assert!(to_yaml(&config).contains("inside:\n- interface: lan0\n"), "{}", to_yaml(&config));
    assert_eq!(accepted(&to_yaml(&config)), Config { name: "f".into(), ..config.clone() });
    let interface =
        |address: [u8; 4]| config.inside.leg_of(address.into()).map(|leg| leg.interface.as_str());
    assert_eq!(interface([10, 0, 0, 9]), Some("lan0"));
    assert_eq!(interface([10, 1, 0, 9]), Some("dmz0"));
    assert_eq!(interface([10, 2, 0, 9]), None);
    let keys = [0, 1].map(|place| config.inside.key_path(place, "address"));
    assert_eq!(keys, ["inside[0].address", "inside[1].address"]);
    assert_eq!(accepted(SHORT).inside.key_path(0, "address"), "inside.address");
}

#[test]
fn rules_and_forwards_may_name_every_leg() {
    let more = "outbound: [{ from: 10.0.0.0/24 }, { from: 10.1.0.0/25 }]\n\
                forwards: [{ protocol: tcp, port: 80, to: 10.1.0.5 }]\n";
    let config = accepted(&format!("{LEGS}{more}"));
    assert_eq!((config.outbound.len(), config.forwards.len()), (2, 1));
}

#[test]
fn problems_of_a_leg_are_named_with_its_place() {
    let legs = |second: &str| LEGS.replace("{ interface: dmz0, prefixes: [10.1.0.0/24] }", second);
    let cases = [
        (
            legs("{ interface: dmz0, prefixes: [10.0.0.128/25] }"),
            "inside[1].prefixes[0]: found 10.0.0.128/25, wanted a prefix apart from 10.0.0.0/24 (inside[0].prefixes[0]); give each prefix to the one inside leg that leads there",
        ),
        (
            legs("{ interface: lan0, prefixes: [10.1.0.0/24] }"),
            "inside[1].interface: found `lan0`, which is the interface of `inside[0]`, wanted another interface; join the two, or give this one a VLAN interface of its own",
        ),
        (
            legs("{ interface: wan0, prefixes: [10.1.0.0/24] }"),
            "uplinks[0].interface: found `wan0`, which is the inside interface, wanted another interface; give each uplink an interface of its own; a VLAN interface serves",
        ),
        (
            legs("{ interface: dmz0, address: 10.0.0.2, prefixes: [10.1.0.0/24] }"),
            "inside[1].address: found 10.0.0.2, wanted an address in one of the `prefixes` of its inside leg; write the box's own address on the private network, or correct the `prefixes`",
        ),
        (
            legs("{ interface: dmz0, prefix: [10.1.0.0/24] }"),
            "inside[1].prefix: found an unknown key, wanted one that natbox knows; did you mean `prefixes`?",
        ),
        (
            format!("{LEGS}tun: {{ name: dmz0 }}\n"),
            "tun.name: found `dmz0`, which is the interface of `inside[1]`, wanted a name of its own; choose another, such as `nb1`: natbox makes this device",
        ),
        (
            format!("{LEGS}outbound: [{{ from: 10.2.0.0/24 }}]\n"),
            "outbound[0].from: found 10.2.0.0/24, wanted a prefix within `10.0.0.0/24`, `10.1.0.0/24`; correct it, or add it to `inside[].prefixes`",
        ),
        (
            format!("{LEGS}forwards: [{{ protocol: any, to: 10.2.0.5 }}]\n"),
            "forwards[0].to: found 10.2.0.5, wanted an address within `10.0.0.0/24`, `10.1.0.0/24`; correct it, or add its prefix to `inside[].prefixes`",
        ),
        (
            SHORT.replacen("{ interface: lan0, prefixes: [10.0.0.0/24] }", "[]", 1),
            "inside: found an empty list, wanted a list of inside legs; add to the list, 1 to 32",
        ),
        (
            SHORT.replacen("{ interface: lan0, prefixes: [10.0.0.0/24] }", "lan0", 1),
            "inside: found `lan0`, wanted a mapping; its keys are `interface`, `address`, `prefixes`",
        ),
    ];
    for (text, problem) in cases {
        let found = rejection(&text);
        assert!(found.contains(problem), "{text}\nfound  {found}\nwanted {problem}");
    }
}
