//! The settings of a server as shell commands, for systemd-networkd and for netplan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::server_plan::Snippet;
use crate::config::Config;

/// An address of the server, and a box that forwards to it.
pub(super) struct BoxAddress<'a> {
    pub(super) address: Ipv4Addr,
    pub(super) config: &'a Config,
    /// The box's address on the inside leg that leads to the server.
    pub(super) inside: Option<Ipv4Addr>,
    /// Table on the server.
    pub(super) table: u32,
}

/// The settings of one server, in no particular language.
pub(super) struct ServerView<'a> {
    pub(super) addresses: &'a [BoxAddress<'a>],
    /// Private networks, which every table leaves to the main table.
    pub(super) private: &'a BTreeSet<Ipv4Net>,
    pub(super) policy_routing: bool,
}

impl BoxAddress<'_> {
    /// Returns the private network of the address.
    pub(super) fn network(&self) -> Ipv4Net {
        self.config.inside.prefix_of(self.address).unwrap_or(Ipv4Net::from(self.address))
    }

    /// Returns the variable for the server's interface.
    fn interface(&self) -> String {
        format!("DEV_{}", self.network().to_string().replace(['.', '/'], "_"))
    }

    /// Returns the variable for the box's inside address.
    fn gateway_variable(&self) -> String {
        let name = &self.config.name;
        let variable = format!("BOX_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        // `a-b`, `a.b` and `a_b` are three boxes.
        match name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            true => format!("{variable}_{}", self.table),
            false => variable,
        }
    }

    /// Returns the box's inside address, if it is known and on the network of this address.
    fn gateway(&self) -> Option<Ipv4Addr> {
        self.inside.filter(|address| self.network().contains(address))
    }

    /// Returns the gateway for languages without variables.
    fn gateway_or_placeholder(&self) -> String {
        let placeholder = || format!("${}", self.gateway_variable());
        self.gateway().map_or_else(placeholder, |address| address.to_string())
    }

    fn cidr(&self) -> String {
        format!("{}/{}", self.address, self.network().prefix_len())
    }
}

/// Collects texts without repeats, in order.
#[derive(Default)]
struct UniqueTexts(Vec<String>);

impl UniqueTexts {
    fn push(&mut self, text: String) {
        if !self.0.contains(&text) {
            self.0.push(text);
        }
    }
}

impl ServerView<'_> {
    /// Formats the settings as commands for a POSIX shell.
    pub(super) fn commands(&self) -> Vec<String> {
        let mut commands = UniqueTexts::default();
        for entry in self.addresses {
            let (variable, instance_name) = (entry.gateway_variable(), &entry.config.name);
            commands.push(match entry.gateway() {
                Some(address) => {
                    format!("{variable}={address}  # inside address of {instance_name}")
                }
                None => {
                    format!(
                        ": \"${{{variable}:?set it to the inside address of {instance_name}}}\""
                    )
                }
            });
            let (interface, network) = (entry.interface(), entry.network());
            commands.push(format!(
                ": \"${{{interface}:?set it to the interface of the server in {network}, such as \
                 eth0}}\""
            ));
        }
        for entry in self.addresses {
            let (gateway, interface) = (entry.gateway_variable(), entry.interface());
            let (address, table) = (entry.address, entry.table);
            let default = format!("default via \"${gateway}\" dev \"${interface}\"");
            commands.push(format!("ip address replace {} dev \"${interface}\"", entry.cidr()));
            if !self.policy_routing {
                commands.push(format!("ip route replace {default}"));
                continue;
            }
            for network in self.private {
                commands.push(format!("ip route replace throw {network} table {table}"));
            }
            commands.push(format!("ip route replace {default} table {table}"));
            let rule = format!("from {address} lookup {table} priority {table}");
            commands.push(format!("ip rule del {rule} 2>/dev/null || true"));
            commands.push(format!("ip rule add {rule}"));
        }
        commands.0
    }

    /// Formats the settings for systemd-networkd, one drop-in per interface.
    pub(super) fn networkd(&self) -> Vec<Snippet> {
        let snippet = |interface: &String, entries: &Vec<&BoxAddress<'_>>| {
            let mut sections = UniqueTexts::default();
            for entry in entries {
                let (gateway, table) = (entry.gateway_or_placeholder(), entry.table);
                sections.push(format!("[Address]\nAddress={}\n", entry.cidr()));
                if !self.policy_routing {
                    sections.push(format!("[Route]\nGateway={gateway}\n"));
                    continue;
                }
                sections.push(format!(
                    "[RoutingPolicyRule]\nFrom={}\nTable={table}\nPriority={table}\n",
                    entry.address
                ));
                for network in self.private {
                    sections.push(format!(
                        "[Route]\nDestination={network}\nType=throw\nTable={table}\n"
                    ));
                }
                sections.push(format!("[Route]\nGateway={gateway}\nTable={table}\n"));
            }
            Snippet { interface: format!("${interface}"), text: sections.0.join("\n") }
        };
        let interfaces = self.by_interface();
        interfaces.iter().map(|(interface, entries)| snippet(interface, entries)).collect()
    }

    /// Formats the settings for netplan.
    pub(super) fn netplan(&self) -> String {
        let mut text = "network:\n  version: 2\n  ethernets:\n".to_owned();
        for (interface, entries) in self.by_interface() {
            let addresses: Vec<String> = entries.iter().map(|entry| entry.cidr()).collect();
            let _ = writeln!(
                text,
                "    ${interface}:\n      addresses: [{}]\n      routes:",
                addresses.join(", ")
            );
            let mut tables = BTreeSet::new();
            for entry in entries.iter().filter(|entry| tables.insert(entry.table)) {
                self.netplan_routes(entry, &mut text);
            }
            if self.policy_routing {
                text.push_str("      routing-policy:\n");
                for BoxAddress { address, table, .. } in entries {
                    let _ = writeln!(
                        text,
                        "        - {{ from: {address}, table: {table}, priority: {table} }}"
                    );
                }
            }
        }
        text
    }

    fn netplan_routes(&self, entry: &BoxAddress<'_>, text: &mut String) {
        let (gateway, table) = (entry.gateway_or_placeholder(), entry.table);
        if !self.policy_routing {
            let _ = writeln!(text, "        - {{ to: 0.0.0.0/0, via: {gateway} }}");
            return;
        }
        for network in self.private {
            let _ = writeln!(text, "        - {{ to: {network}, type: throw, table: {table} }}");
        }
        let _ = writeln!(text, "        - {{ to: 0.0.0.0/0, via: {gateway}, table: {table} }}");
    }

    fn by_interface(&self) -> BTreeMap<String, Vec<&BoxAddress<'_>>> {
        let mut interfaces: BTreeMap<String, Vec<&BoxAddress<'_>>> = BTreeMap::new();
        for entry in self.addresses {
            interfaces.entry(entry.interface()).or_default().push(entry);
        }
        interfaces
    }
}
