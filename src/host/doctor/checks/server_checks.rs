//! All checks of a server, in order.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::filters::{no_obstacle, unreadable};
use super::offloads::{self, MachineRole};
use super::{conntrack, mtu, server_replies, server_services};
use crate::config::Config;
use crate::host::doctor::facts::server_facts::{AddressFacts, ServerFacts};
use crate::host::doctor::finding::Finding;

/// Makes the findings about a server.
pub(crate) fn evaluate(facts: &ServerFacts) -> Vec<Finding> {
    if facts.addresses.is_empty() {
        return vec![no_server(facts)];
    }
    let mut findings = Vec::new();
    let mut doubts = BTreeSet::new();
    for address in &facts.addresses {
        findings.extend(shared(facts, address));
        findings.push(presence(facts, address));
        findings.extend(server_replies::evaluate(facts, address));
        findings.extend(server_services::listeners(facts, address));
        findings.extend(server_services::firewall(facts, address, &mut doubts));
    }
    if findings.iter().all(|finding| finding.id != "firewall") {
        findings.extend(no_obstacle(&facts.filters, &doubts));
    }
    findings.extend(mtu::of_server(facts));
    findings.extend(offloads::evaluate(&facts.links, MachineRole::Endpoint));
    findings.push(conntrack::of_server(&facts.filters));
    findings.extend(unreadable(&facts.filters));
    findings
}

fn no_server(facts: &ServerFacts) -> Finding {
    let addresses: Vec<String> = facts.servers.iter().map(Ipv4Addr::to_string).collect();
    let found = match addresses.is_empty() {
        true => "the configurations have no forwards".to_owned(),
        false => {
            format!("none of the servers' addresses ({}) is on this machine", addresses.join(", "))
        }
    };
    Finding::error("server", found, "there is nothing to check")
        .advice("run natbox doctor server on the server, with the configurations of all its boxes")
}

/// Reports an address that several boxes forward to.
fn shared(facts: &ServerFacts, address: &AddressFacts) -> Option<Finding> {
    let others: Vec<&str> =
        address.other_boxes.iter().map(|place| facts.configs[*place].name.as_str()).collect();
    (!others.is_empty()).then(|| {
        let found = format!(
            "{}: {} and {} forward to the same server address",
            address.address,
            facts.through(address).name,
            others.join(", ")
        );
        let why = "a reply from this address does not show which box forwarded the request";
        Finding::error("shared-address", found, why)
            .advice("give the server one address per box, or make one box with several uplinks")
    })
}

/// Checks that an address is on an interface that is up.
fn presence(facts: &ServerFacts, entry: &AddressFacts) -> Finding {
    let (address, name) = (entry.address, &facts.through(entry).name);
    let why = format!("{name} forwards its clients' requests to this address");
    match &entry.interface {
        None => {
            let length = facts.network(entry).prefix_len();
            let interface = facts.interface(entry);
            Finding::error("address", format!("{address} is missing"), why)
                .fix([format!("ip address replace {address}/{length} dev {interface}")])
        }
        Some(interface) if !entry.up => {
            Finding::error("address", format!("{address} is on {interface}, which is down"), why)
                .fix([format!("ip link set {interface} up")])
                .advice(format!("if {interface} is up already, check its cable"))
        }
        Some(interface) => {
            Finding::ok("address", format!("{address} for {name} is on {interface}"))
        }
    }
}

impl ServerFacts {
    /// Returns the configuration of the box that forwards to an address.
    pub(super) fn through(&self, address: &AddressFacts) -> &Config {
        &self.configs[address.through]
    }

    /// Returns the private network of an address.
    fn network(&self, entry: &AddressFacts) -> Ipv4Net {
        self.through(entry).inside.prefix_of(entry.address).unwrap_or(Ipv4Net::from(entry.address))
    }

    /// Returns the interface that has the address, or that should have it.
    pub(super) fn interface(&self, entry: &AddressFacts) -> String {
        let network = self.network(entry);
        let of_neighbour = || {
            let on_network = self.addresses.iter().filter(|other| self.network(other) == network);
            on_network.filter_map(|other| other.interface.clone()).next()
        };
        let connected = || {
            let links = self.snapshot.links.iter().filter(|link| link.arp);
            let mut fits = links.filter(|link| self.snapshot.on_link(link).contains(&network));
            fits.next().map(|link| link.name.clone())
        };
        entry.interface.clone().or_else(of_neighbour).or_else(connected).unwrap_or_else(|| {
            format!(
                "\"${{DEV:?set it to the interface of this machine in {network}, such as eth0}}\""
            )
        })
    }
}
