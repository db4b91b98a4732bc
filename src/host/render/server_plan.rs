//! What a server needs so that each reply leaves by the box that the request came through: an address per box, and
//! policy routing by source address. Behind a single box, however many lines it has, a default route is enough.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::config::Config;

/// Table on the server for the first box; the others follow. Also the priority of its rules.
const SERVER_TABLES: u32 = 7201;

/// What one server needs.
#[derive(Clone, Debug, Serialize)]
pub struct ServerPlan {
    /// Names of the forwards that lead to it.
    pub forwards: Vec<String>,
    /// Its addresses, each with the box it belongs to.
    pub addresses: Vec<ServerAddress>,
    /// Routing by source address is needed; else a default route does.
    pub policy_routing: bool,
    /// Things to know, as sentences.
    pub notes: Vec<String>,
    /// Commands for a POSIX shell. Variables that are not set in it must be set by whoever runs it; the shell says
    /// which one is missing.
    pub commands: Vec<String>,
    /// The same as drop-ins of systemd-networkd, one per interface.
    pub networkd: Vec<Snippet>,
    /// The same for netplan.
    pub netplan: String,
}

/// One address of a server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// The private network it is in.
    pub network: Ipv4Net,
    /// The box that forwards to it.
    pub through: String,
}

/// A file's worth of settings.
#[derive(Clone, Debug, Serialize)]
pub struct Snippet {
    /// Interface, or the variable that stands for it.
    pub interface: String,
    /// Content.
    pub text: String,
}

/// Plans all servers. `inside`: the boxes' own inside addresses, where known.
pub(crate) fn render(
    configs: &[Config],
    inside: &[Option<Ipv4Addr>],
) -> (Vec<ServerPlan>, Vec<String>) {
    let mut boxes: Vec<Through<'_>> = Vec::new();
    for (place, (config, address)) in configs.iter().zip(inside).enumerate() {
        boxes.push(Through { config, address: *address, table: server_table(place) });
    }
    let targets = targets(configs);
    let mut warnings = Vec::new();
    for (address, by) in &targets {
        if by.boxes.len() > 1 {
            let names: Vec<&str> =
                by.boxes.iter().map(|place| configs[*place].name.as_str()).collect();
            warnings.push(format!(
                "{address} is the server address of {}: a reply from it cannot tell which box the request came \
                 through. Give the server an address for each box, or make the boxes one with several uplinks",
                names.join(" and ")
            ));
        }
    }
    let servers =
        group(configs, &targets).iter().map(|group| plan(group, &targets, &boxes)).collect();
    (servers, warnings)
}

impl ServerPlan {
    /// Appends the plan for people.
    pub(crate) fn write(&self, text: &mut String) {
        let addresses: Vec<String> = self.addresses.iter().map(|a| a.address.to_string()).collect();
        let _ = writeln!(
            text,
            "# ==== server of {} ({}), run as root ====",
            self.forwards.join(", "),
            addresses.join(", ")
        );
        self.notes.iter().for_each(|note| {
            let _ = writeln!(text, "# {note}");
        });
        text.push_str("set -e\n");
        self.commands.iter().for_each(|command| {
            let _ = writeln!(text, "{command}");
        });
        for snippet in &self.networkd {
            let _ = writeln!(
                text,
                "\n# ---- the same for systemd-networkd: natbox.conf in the .network.d directory of {} ----\n{}",
                snippet.interface,
                snippet.text.trim_end()
            );
        }
        let _ = writeln!(
            text,
            "\n# ---- the same for netplan: /etc/netplan/90-natbox.yaml ----\n{}",
            self.netplan
        );
    }
}

/// A box as a server sees it.
struct Through<'a> {
    config: &'a Config,
    /// Its address on the private network.
    address: Option<Ipv4Addr>,
    /// Table on the server.
    table: u32,
}

/// Who forwards to an address, and under what names.
#[derive(Default)]
struct Target {
    boxes: BTreeSet<usize>,
    names: BTreeSet<String>,
}

/// The servers, each with its addresses in order and with the places of the boxes that forward to them.
pub(crate) fn servers(configs: &[Config]) -> Vec<Vec<(Ipv4Addr, Vec<usize>)>> {
    let targets = targets(configs);
    let with_boxes =
        |address: &Ipv4Addr| (*address, targets[address].boxes.iter().copied().collect());
    group(configs, &targets).iter().map(|group| group.iter().map(with_boxes).collect()).collect()
}

/// The table on a server for the box at this place, also the priority of its rule.
pub(crate) fn server_table(place: usize) -> u32 {
    SERVER_TABLES + place as u32
}

fn targets(configs: &[Config]) -> BTreeMap<Ipv4Addr, Target> {
    let mut targets: BTreeMap<Ipv4Addr, Target> = BTreeMap::new();
    for (place, config) in configs.iter().enumerate() {
        for forward in &config.forwards {
            let target = targets.entry(forward.to_address).or_default();
            target.boxes.insert(place);
            target.names.insert(forward.name.clone());
        }
    }
    targets
}

/// Puts addresses together that belong to one server: forwards of one name in different boxes lead to one server.
fn group(configs: &[Config], targets: &BTreeMap<Ipv4Addr, Target>) -> Vec<Vec<Ipv4Addr>> {
    let mut groups: Vec<Vec<Ipv4Addr>> = targets.keys().map(|address| vec![*address]).collect();
    let mut by_name: BTreeMap<&str, BTreeSet<Ipv4Addr>> = BTreeMap::new();
    let mut ambiguous = BTreeSet::new();
    for config in configs {
        let mut within: BTreeMap<&str, Ipv4Addr> = BTreeMap::new();
        for forward in &config.forwards {
            let first = *within.entry(&forward.name).or_insert(forward.to_address);
            // Two servers under one name in one box: the name says nothing about who is who.
            if first != forward.to_address {
                ambiguous.insert(forward.name.as_str());
            }
            by_name.entry(&forward.name).or_default().insert(forward.to_address);
        }
    }
    for (_, addresses) in by_name.iter().filter(|(name, _)| !ambiguous.contains(*name)) {
        let (joined, apart): (Vec<_>, Vec<_>) = groups
            .into_iter()
            .partition(|group| group.iter().any(|address| addresses.contains(address)));
        groups = apart;
        groups.push(joined.into_iter().flatten().collect());
    }
    groups.iter_mut().for_each(|group| group.sort());
    groups.sort();
    groups
}

fn plan(
    group: &[Ipv4Addr],
    targets: &BTreeMap<Ipv4Addr, Target>,
    boxes: &[Through<'_>],
) -> ServerPlan {
    let mut forwards = BTreeSet::new();
    let mut lines = Vec::new();
    for address in group {
        let target = &targets[address];
        forwards.extend(target.names.iter().cloned());
        for place in &target.boxes {
            lines.push(Line { address: *address, through: &boxes[*place] });
        }
    }
    let policy_routing = boxes.len() > 1;
    let mut notes = Vec::new();
    if policy_routing {
        notes.push(
            "Replies leave by the box whose line the request came in by, told by their source address. A UDP \
             program must answer from the address it was asked at (IP_PKTINFO, or a socket per address)."
                .into(),
        );
        notes.push(
            "For connections that the server opens itself, give it a default route via any of the boxes."
                .into(),
        );
        if lines.len() == 1 {
            notes.push(format!(
                "Only {} leads to this address. If that is the server's only box, a default route via it is enough.",
                lines[0].through.config.name
            ));
        }
    } else {
        notes.push(
            "Behind a single box, however many lines it has, the server needs no policy routing: one address, and \
             the box as its default route. The box itself sends each reply out by the line of its request."
                .into(),
        );
    }
    // Private networks are reached as the main table says, whatever the source.
    let private: BTreeSet<Ipv4Net> =
        boxes.iter().flat_map(|through| through.config.inside.prefixes.iter().copied()).collect();
    let view = View { lines: &lines, private: &private, policy_routing };
    ServerPlan {
        forwards: forwards.into_iter().collect(),
        addresses: lines
            .iter()
            .map(|line| ServerAddress {
                address: line.address,
                network: line.network(),
                through: line.through.config.name.clone(),
            })
            .collect(),
        policy_routing,
        notes,
        commands: view.commands(),
        networkd: view.networkd(),
        netplan: view.netplan(),
    }
}

/// An address of the server and the box that leads to it.
struct Line<'a> {
    address: Ipv4Addr,
    through: &'a Through<'a>,
}

impl Line<'_> {
    /// The private network that the address is in.
    fn network(&self) -> Ipv4Net {
        self.through.config.inside.prefix_of(self.address).unwrap_or(Ipv4Net::from(self.address))
    }

    fn interface(&self) -> String {
        format!("DEV_{}", self.network().to_string().replace(['.', '/'], "_"))
    }

    fn gateway_name(&self) -> String {
        let name = &self.through.config.name;
        let variable = format!("BOX_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        // `a-b`, `a.b` and `a_b` are three boxes.
        match name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
            true => format!("{variable}_{}", self.through.table),
            false => variable,
        }
    }

    /// The box's inside address, if known and within reach.
    fn gateway(&self) -> Option<Ipv4Addr> {
        self.through.address.filter(|address| self.network().contains(address))
    }

    fn cidr(&self) -> String {
        format!("{}/{}", self.address, self.network().prefix_len())
    }
}

/// What is printed in three languages.
struct View<'a> {
    lines: &'a [Line<'a>],
    private: &'a BTreeSet<Ipv4Net>,
    policy_routing: bool,
}

impl View<'_> {
    fn commands(&self) -> Vec<String> {
        let mut commands = Vec::new();
        let mut once = |command: String| {
            if !commands.contains(&command) {
                commands.push(command);
            }
        };
        for line in self.lines {
            let (name, box_name) = (line.gateway_name(), &line.through.config.name);
            once(match line.gateway() {
                Some(address) => format!("{name}={address}  # inside address of {box_name}"),
                None => format!(": \"${{{name}:?set it to the inside address of {box_name}}}\""),
            });
            let (interface, network) = (line.interface(), line.network());
            once(format!(
                ": \"${{{interface}:?set it to the interface of the server in {network}, such as eth0}}\""
            ));
        }
        for line in self.lines {
            let (gateway, interface) = (line.gateway_name(), line.interface());
            let (address, table) = (line.address, line.through.table);
            once(format!("ip address replace {} dev \"${interface}\"", line.cidr()));
            if !self.policy_routing {
                once(format!("ip route replace default via \"${gateway}\" dev \"${interface}\""));
                continue;
            }
            for network in self.private {
                once(format!("ip route replace throw {network} table {table}"));
            }
            once(format!(
                "ip route replace default via \"${gateway}\" dev \"${interface}\" table {table}"
            ));
            let rule = format!("from {address} lookup {table} priority {table}");
            once(format!("ip rule del {rule} 2>/dev/null || true"));
            once(format!("ip rule add {rule}"));
        }
        commands
    }

    fn networkd(&self) -> Vec<Snippet> {
        self.by_interface()
            .iter()
            .map(|(interface, lines)| {
                let mut sections = Vec::new();
                let mut once = |section: String| {
                    if !sections.contains(&section) {
                        sections.push(section);
                    }
                };
                for line in lines {
                    let (gateway, table) = (placeholder(line), line.through.table);
                    once(format!("[Address]\nAddress={}\n", line.cidr()));
                    if !self.policy_routing {
                        once(format!("[Route]\nGateway={gateway}\n"));
                        continue;
                    }
                    once(format!(
                        "[RoutingPolicyRule]\nFrom={}\nTable={table}\nPriority={table}\n",
                        line.address
                    ));
                    for network in self.private {
                        once(format!(
                            "[Route]\nDestination={network}\nType=throw\nTable={table}\n"
                        ));
                    }
                    once(format!("[Route]\nGateway={gateway}\nTable={table}\n"));
                }
                Snippet { interface: format!("${interface}"), text: sections.join("\n") }
            })
            .collect()
    }

    fn netplan(&self) -> String {
        let mut text = "network:\n  version: 2\n  ethernets:\n".to_owned();
        for (interface, lines) in self.by_interface() {
            let addresses: Vec<String> = lines.iter().map(|line| line.cidr()).collect();
            let _ = writeln!(
                text,
                "    ${interface}:\n      addresses: [{}]\n      routes:",
                addresses.join(", ")
            );
            let mut tables = BTreeSet::new();
            for line in lines.iter().filter(|line| tables.insert(line.through.table)) {
                let (gateway, table) = (placeholder(line), line.through.table);
                if !self.policy_routing {
                    let _ = writeln!(text, "        - {{ to: 0.0.0.0/0, via: {gateway} }}");
                    continue;
                }
                for network in self.private {
                    let _ = writeln!(
                        text,
                        "        - {{ to: {network}, type: throw, table: {table} }}"
                    );
                }
                let _ =
                    writeln!(text, "        - {{ to: 0.0.0.0/0, via: {gateway}, table: {table} }}");
            }
            if self.policy_routing {
                text.push_str("      routing-policy:\n");
                for Line { address, through } in lines {
                    let table = through.table;
                    let _ = writeln!(
                        text,
                        "        - {{ from: {address}, table: {table}, priority: {table} }}"
                    );
                }
            }
        }
        text
    }

    fn by_interface(&self) -> BTreeMap<String, Vec<&Line<'_>>> {
        let mut interfaces: BTreeMap<String, Vec<&Line<'_>>> = BTreeMap::new();
        for line in self.lines {
            interfaces.entry(line.interface()).or_default().push(line);
        }
        interfaces
    }
}

/// The gateway where no shell fills in variables.
fn placeholder(line: &Line<'_>) -> String {
    line.gateway()
        .map_or_else(|| format!("${}", line.gateway_name()), |address| address.to_string())
}
