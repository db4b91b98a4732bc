//! The plan for servers, its warnings and its assumptions.

use super::*;
use crate::host::render;

#[test]
fn a_server_behind_two_boxes_has_an_address_and_a_table_per_box() {
    let plan = render::plan(&[natbox1(), natbox2("10.0.0.0/24", "10.0.0.202")]);
    assert!(plan.warnings.is_empty());
    assert_eq!(plan.servers.len(), 1);
    assert_eq!(
        plan.servers[0].commands.join("\n"),
        "
        : \"${BOX_natbox1:?set it to the inside address of natbox1}\"
        : \"${DEV_10_0_0_0_24:?set it to the interface of the server in 10.0.0.0/24, such as eth0}\"
        : \"${BOX_natbox2:?set it to the inside address of natbox2}\"
        ip address replace 10.0.0.101/24 dev \"$DEV_10_0_0_0_24\"
        ip route replace throw 10.0.0.0/24 table 7201
        ip route replace default via \"$BOX_natbox1\" dev \"$DEV_10_0_0_0_24\" table 7201
        ip rule del from 10.0.0.101 lookup 7201 priority 7201 2>/dev/null || true
        ip rule add from 10.0.0.101 lookup 7201 priority 7201
        ip address replace 10.0.0.202/24 dev \"$DEV_10_0_0_0_24\"
        ip route replace throw 10.0.0.0/24 table 7202
        ip route replace default via \"$BOX_natbox2\" dev \"$DEV_10_0_0_0_24\" table 7202
        ip rule del from 10.0.0.202 lookup 7202 priority 7202 2>/dev/null || true
        ip rule add from 10.0.0.202 lookup 7202 priority 7202
        "
        .replace("        ", "")
        .trim()
    );
}

#[test]
fn separate_private_networks_are_separate_interfaces_in_every_format() {
    let plan = render::plan(&[natbox1(), natbox2("10.2.0.0/24", "10.2.0.202")]);
    let server = &plan.servers[0];
    assert_eq!(
        server.netplan,
        "network:
  version: 2
  ethernets:
    $DEV_10_0_0_0_24:
      addresses: [10.0.0.101/24]
      routes:
        - { to: 10.0.0.0/24, type: throw, table: 7201 }
        - { to: 10.2.0.0/24, type: throw, table: 7201 }
        - { to: 0.0.0.0/0, via: $BOX_natbox1, table: 7201 }
      routing-policy:
        - { from: 10.0.0.101, table: 7201, priority: 7201 }
    $DEV_10_2_0_0_24:
      addresses: [10.2.0.202/24]
      routes:
        - { to: 10.0.0.0/24, type: throw, table: 7202 }
        - { to: 10.2.0.0/24, type: throw, table: 7202 }
        - { to: 0.0.0.0/0, via: $BOX_natbox2, table: 7202 }
      routing-policy:
        - { from: 10.2.0.202, table: 7202, priority: 7202 }
"
    );
    assert_eq!(server.networkd.len(), 2);
    assert_eq!(
        server.networkd[1].text,
        "[Address]
Address=10.2.0.202/24

[RoutingPolicyRule]
From=10.2.0.202
Table=7202
Priority=7202

[Route]
Destination=10.0.0.0/24
Type=throw
Table=7202

[Route]
Destination=10.2.0.0/24
Type=throw
Table=7202

[Route]
Gateway=$BOX_natbox2
Table=7202
"
    );
}

#[test]
fn the_names_of_forwards_identify_servers() {
    let (mut one, mut two) = (natbox1(), natbox2("10.0.0.0/24", "10.0.0.202"));
    one.forwards.push(forward("mail", 0, "203.0.113.10", 25, "10.0.0.111"));
    two.forwards.push(forward("mail", 0, "198.51.100.10", 25, "10.0.0.212"));
    // A second service of the first server.
    one.forwards.push(forward("dns", 0, "203.0.113.10", 53, "10.0.0.101"));
    let plan = render::plan(&[one, two]);
    let servers: Vec<Vec<String>> = plan
        .servers
        .iter()
        .map(|server| {
            server.addresses.iter().map(|a| format!("{} by {}", a.address, a.through)).collect()
        })
        .collect();
    assert_eq!(
        servers,
        [
            ["10.0.0.101 by natbox1", "10.0.0.202 by natbox2"],
            ["10.0.0.111 by natbox1", "10.0.0.212 by natbox2"],
        ]
    );
    assert_eq!(plan.servers[0].forwards, ["dns", "web"]);
}

#[test]
fn behind_one_box_with_several_uplinks_a_server_needs_only_a_default_route() {
    let plan = render::plan(&[three_legged()]);
    assert!(!plan.servers[0].policy_routing);
    let commands = plan.servers[0].commands.join("\n");
    assert!(!commands.contains("rule"), "{commands}");
    assert!(commands.contains("ip route replace default via"), "{commands}");
    assert!(plan.servers[0].notes[0].contains("needs no policy routing"));
}

#[test]
fn behind_a_three_legged_box_and_another_box_a_server_has_an_address_and_a_table_per_box() {
    let mut three_legged = three_legged();
    three_legged.name = "three-legged".into();
    three_legged.inside.legs[0].address = Some(ip("10.0.0.1"));
    let mut other = natbox2("10.0.0.0/24", "10.0.0.202");
    other.uplinks[0].addresses = vec![ip("192.0.2.10")];
    other.forwards = vec![forward("web", 0, "192.0.2.10", 80, "10.0.0.202")];
    other.inside.legs[0].address = Some(ip("10.0.0.200"));
    let plan = render::plan(&[three_legged, other]);
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    assert_eq!(plan.servers.len(), 1);
    let server = &plan.servers[0];
    let addresses: Vec<_> =
        server.addresses.iter().map(|a| (a.address, a.through.as_str())).collect();
    // The server has one address for all uplinks of the first box.
    assert_eq!(addresses, [(ip("10.0.0.101"), "three-legged"), (ip("10.0.0.202"), "natbox2")]);
    assert!(server.policy_routing);
    let commands = server.commands.join("\n");
    for line in [
        "BOX_three_legged=10.0.0.1  # inside address of three-legged",
        "BOX_natbox2=10.0.0.200  # inside address of natbox2",
        "ip route replace default via \"$BOX_three_legged\" dev \"$DEV_10_0_0_0_24\" table 7201",
        "ip rule add from 10.0.0.101 lookup 7201 priority 7201",
        "ip route replace default via \"$BOX_natbox2\" dev \"$DEV_10_0_0_0_24\" table 7202",
        "ip rule add from 10.0.0.202 lookup 7202 priority 7202",
    ] {
        assert!(commands.contains(line), "{line} in\n{commands}");
    }
    assert_eq!(commands.matches("ip rule add").count(), 2);
}

#[test]
fn one_server_address_behind_two_boxes_is_a_warning() {
    let plan = render::plan(&[natbox1(), natbox2("10.0.0.0/24", "10.0.0.101")]);
    assert!(
        plan.warnings[0]
            .starts_with("10.0.0.101: natbox1 and natbox2 forward to this server address")
    );
}

#[test]
fn an_external_address_of_two_boxes_is_a_warning() {
    let mut other = natbox2("10.0.0.0/24", "10.0.0.202");
    other.uplinks[0].addresses = natbox1().uplinks[0].addresses.clone();
    let warnings = render::plan(&[natbox1(), other]).warnings;
    let wanted = "203.0.113.10: both natbox1 and natbox2 use this external address";
    assert!(warnings.iter().any(|warning| warning.starts_with(wanted)), "{warnings:?}");
}

#[test]
fn a_plan_on_another_machine_states_its_assumptions() {
    let mut config = natbox1();
    config.inside.legs[0].interface = "nosuch0".into();
    let plan = render::plan(&[config]);
    assert!(!plan.boxes[0].probed);
    assert!(plan.boxes[0].notes.iter().any(|note| note.contains("the plan assumes")));
    assert!(plan.text().contains("# ==== box natbox1, run as root ===="));
}

#[test]
fn boxes_with_similar_names_have_variables_of_their_own() {
    let named = |name: &str, config: Config| Config { name: name.into(), ..config };
    let (first, second) = (natbox1(), natbox2("10.0.0.0/24", "10.0.0.202"));
    let plan = render::plan(&[named("a-b", first), named("a.b", second)]);
    let commands = plan.servers[0].commands.join("\n");
    let variables = ["BOX_a_b:?", "BOX_a_b_7202:?"];
    assert!(variables.iter().all(|variable| commands.contains(variable)), "{commands}");
}
