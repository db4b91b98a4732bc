//! Rules of other programs, as the kernel reports them: which of them take natbox's packets.

use std::net::IpAddr;

use rtnetlink::packet_core::DefaultNla;
use rtnetlink::packet_route::IpProtocol;
use rtnetlink::packet_route::route::RouteRealm;
use rtnetlink::packet_route::rule::{
    RuleAction as KernelAction, RuleAttribute, RuleFlags, RuleMessage, RulePortRange, RuleUidRange,
};

use super::*;
use crate::host::kernel::decode;

/// `FIB_RULE_INVERT` and `FIB_RULE_UNRESOLVED`.
const NOT: u32 = 2;
const UNRESOLVED: u32 = 4;

fn iif(name: &str) -> RuleAttribute {
    RuleAttribute::Iifname(name.into())
}

fn oif(name: &str) -> RuleAttribute {
    RuleAttribute::Oifname(name.into())
}

fn users(start: u32, end: u32) -> RuleAttribute {
    RuleAttribute::UidRange(RuleUidRange { start, end })
}

fn ports(start: u16, end: u16) -> RulePortRange {
    RulePortRange { start, end }
}

/// Makes a rule of the table 200 with the priority 500.
fn message(change: impl FnOnce(&mut RuleMessage)) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.action = KernelAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(500),
        RuleAttribute::Table(200),
        RuleAttribute::SuppressPrefixLen(u32::MAX),
    ];
    change(&mut message);
    message
}

fn with(attributes: &[RuleAttribute]) -> RuleMessage {
    message(|message| message.attributes.extend_from_slice(attributes))
}

fn not(attributes: &[RuleAttribute]) -> RuleMessage {
    message(|message| {
        message.header.flags = RuleFlags::from_bits_retain(NOT);
        message.attributes.extend_from_slice(attributes);
    })
}

fn acts(action: KernelAction, attributes: &[RuleAttribute]) -> RuleMessage {
    message(|message| {
        message.header.action = action;
        message.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Table(_)));
        message.attributes.extend_from_slice(attributes);
    })
}

fn prefix(from: &str, to: &str) -> RuleMessage {
    message(|message| {
        if !from.is_empty() {
            message.header.src_len = net(from).prefix_len();
            message.attributes.push(RuleAttribute::Source(IpAddr::V4(net(from).addr())));
        }
        if !to.is_empty() {
            message.header.dst_len = net(to).prefix_len();
            message.attributes.push(RuleAttribute::Destination(IpAddr::V4(net(to).addr())));
        }
    })
}

/// Returns true when natbox moves its rules before the rule. natbox1() has the inside 10.0.0.0/24
/// on lan0, and 203.0.113.10 on wan0.
fn moves(message: &RuleMessage, routes: &[&str]) -> bool {
    let mut host = host();
    host.links.push(Link { index: 8, name: "x0".into(), group: 9, ..host.links[3].clone() });
    host.routes.extend(routes.iter().map(|to| route(to, 200, Some("x0"))));
    host.rules.push(decode::rule(message));
    let config = Config { tun: Tun { name: "nb0".into(), ..Tun::default() }, ..natbox1() };
    let ids = RoutingIds::allocate(&host, &config, RuleOwner::OtherInstance).unwrap();
    assert!([1000, 484].contains(&ids.priority(0)), "{}", ids.priority(0));
    ids.priority(0) == 484
}

#[test]
fn each_selector_decides_whether_a_rule_takes_natboxs_packets() {
    use RuleAttribute::*;
    let narrow = true;
    let all_users = users(0, u32::MAX);
    let other = |kind, value: &[u8]| Other(DefaultNla::new(kind, value.to_vec()));
    for (name, message, is_taken) in [
        ("all", with(&[]), true),
        ("from the lan", with(&[iif("lan0")]), true),
        ("from the line", with(&[iif("wan0")]), true),
        ("out of the TUN", with(&[iif("nb0")]), true),
        ("the host's own, with those of natbox", with(&[iif("lo")]), true),
        ("from another interface", with(&[iif("x0")]), false),
        ("bound to another interface", with(&[oif("x0")]), false),
        ("bound to the line", with(&[oif("wan0")]), false),
        ("a mark", with(&[FwMark(7), FwMask(u32::MAX)]), false),
        ("no mark", with(&[FwMask(0xff)]), true),
        ("users", with(&[users(1000, 1999)]), false),
        ("root, and so what is forwarded", with(&[users(0, 0)]), true),
        ("all users", with(&[all_users]), true),
        ("TCP", with(&[IpProtocol(self::IpProtocol::Tcp)]), false),
        ("ports", with(&[IpProtocol(self::IpProtocol::Udp), SourcePortRange(ports(1, 9))]), false),
        ("a port", with(&[DestinationPortRange(ports(22, 22))]), false),
        ("a tunnel", with(&[TunId(7)]), false),
        ("tables of VRFs", with(&[L3MDev(narrow)]), false),
        ("a type of service", message(|message| message.header.tos = 8), false),
        ("the usual DSCP", with(&[other(25, &[0])]), true),
        ("another DSCP", with(&[other(25, &[46]), other(30, &[0x3f])]), false),
        ("a realm", with(&[Realm(RouteRealm { source: 1, destination: 2 })]), true),
        ("an unknown selector", with(&[other(99, &[0])]), false),
        ("not a mark, as wg-quick", not(&[FwMark(51820), FwMask(u32::MAX)]), true),
        ("not without a mark", not(&[FwMask(0xff)]), false),
        ("not all", not(&[]), false),
        ("not a port", not(&[DestinationPortRange(ports(22, 22))]), true),
        ("not a leg", not(&[iif("lan0")]), true),
        ("not bound", not(&[oif("x0")]), true),
        ("blackhole", acts(KernelAction::Blackhole, &[]), true),
        ("unreachable", acts(KernelAction::Unreachable, &[]), true),
        ("prohibit for a mark", acts(KernelAction::Prohibit, &[FwMark(7)]), false),
        ("nop", acts(KernelAction::Nop, &[]), false),
        ("goto behind natbox", acts(KernelAction::Goto, &[Goto(32766)]), true),
        ("goto before natbox", acts(KernelAction::Goto, &[Goto(600)]), false),
        ("goto for a mark", acts(KernelAction::Goto, &[Goto(32766), FwMark(7)]), false),
        (
            "goto nowhere",
            message(|message| {
                message.header.action = KernelAction::Goto;
                message.header.flags = RuleFlags::from_bits_retain(UNRESOLVED);
                message.attributes.push(Goto(32766));
            }),
            false,
        ),
        ("suppress_ifgroup", with(&[SuppressIfGroup(9)]), false),
        ("suppress another group", with(&[SuppressIfGroup(8)]), true),
    ] {
        assert_eq!(moves(&message, &["0.0.0.0/0"]), is_taken, "{name}");
    }
}

#[test]
fn prefixes_decide_whether_a_rule_takes_natboxs_packets() {
    for (from, to, is_taken) in [
        ("10.0.0.0/24", "", true),
        ("10.0.0.7/32", "", false),
        ("203.0.113.10/32", "", true),
        ("203.0.113.1/32", "", false),
        ("", "203.0.113.10/32", true),
        ("", "10.0.0.0/8", true),
        // Remote hosts: the halves of all addresses as VPN clients name them, and parts of them.
        ("", "0.0.0.0/1", true),
        ("", "128.0.0.0/1", true),
        ("", "8.0.0.0/7", true),
        ("", "8.8.8.0/24", true),
        ("", "8.8.8.8/32", true),
        ("10.0.0.0/24", "8.8.8.8/32", true),
        ("10.0.0.7/32", "0.0.0.0/1", false),
        ("0.0.0.0/1", "", true),
        ("0.0.0.0/1", "10.0.0.0/24", true),
        ("8.8.8.8/32", "8.8.4.4/32", false),
        ("192.0.2.0/24", "", false),
        ("", "192.168.9.0/24", false),
        ("", "224.0.0.0/4", false),
        ("", "127.0.0.0/8", false),
    ] {
        assert_eq!(moves(&prefix(from, to), &["0.0.0.0/0"]), is_taken, "from {from} to {to}");
    }
}

#[test]
fn a_table_without_a_route_takes_no_packets() {
    let of = |to: &str, routes: &[&str]| moves(&prefix("", to), routes);
    let halves = ["0.0.0.0/1", "128.0.0.0/1"];
    assert!(!of("", &[]) && !of("0.0.0.0/1", &[]));
    assert!(of("", &["192.168.9.0/24"]), "a network within all");
    assert!(of("0.0.0.0/1", &halves[..1]) && !of("0.0.0.0/1", &halves[1..]));
    assert!(!of("192.0.2.0/24", &["192.0.2.0/24"]), "a network of the host");
    assert!(of("203.0.113.0/24", &["203.0.113.0/24"]), "the network of the line");
    let suppressed = |length, routes: &[&str]| {
        let length = RuleAttribute::SuppressPrefixLen(length);
        moves(&message(|message| message.attributes[2] = length), routes)
    };
    assert!(!suppressed(0, &["0.0.0.0/0"]) && suppressed(0, &["192.168.9.0/24"]));
    assert!(!suppressed(1, &halves) && suppressed(0, &halves));
}
