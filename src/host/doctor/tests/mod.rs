//! Fixtures for the tests of the checks, which need no kernel.

mod box_checks;
mod conntrack;
mod filters;
mod offloads;
mod server_checks;

use std::net::Ipv4Addr;

use super::facts::link_settings::{LinkSettings, Offloads};
use super::nft::filters::Filters;
use super::{Finding, Severity};
use crate::config::{self, Config};
use crate::host::kernel::route_lookup::{NeighbourState, RouteResult};
use crate::host::model::snapshot::{FoundRule, RuleEffect};
use crate::host::model::step::{Rule, RuleAction};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 202);

/// Makes a configuration of a box with one uplink and one forward.
fn natbox(number: u8, server: Ipv4Addr, inside: Option<u8>) -> Config {
    config_with(number, server, inside, "", "")
}

/// Makes a configuration with more keys of the uplink, and more keys at the end.
fn config_with(
    number: u8,
    server: Ipv4Addr,
    inside: Option<u8>,
    uplink_keys: &str,
    more: &str,
) -> Config {
    let address = inside.map(|last| format!("address: 10.0.0.{last}, ")).unwrap_or_default();
    let text = format!(
        "name: natbox{number}\ninside: {{ interface: lan0, {address}prefixes: [10.0.0.0/24] }}\n\
         uplinks: [{{ interface: wan0, addresses: [203.0.113.{number}] {uplink_keys} }}]\n\
         forwards: [{{ name: web, protocol: tcp+udp, port: 80, to: '{server}:80' }}]\n{more}"
    );
    config::parse("f.yaml", &text).expect("a good file").config
}

/// Keeps the findings about something that does not work.
fn errors(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.retain(|finding| finding.severity == Severity::Error);
    findings
}

/// A rule of another program for every packet.
fn found(rule: Rule) -> FoundRule {
    FoundRule {
        rule,
        protocol: 3,
        more: false,
        is_narrow: false,
        is_inverted: false,
        effect: RuleEffect::Lookup,
    }
}
