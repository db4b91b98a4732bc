//! The steps as `ip` and `sysctl` commands, and what the servers behind the boxes need.
//!
//! Nothing here decides what is set on a box: that is [`crate::host::model::steps`], whose list is printed as it is.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

use crate::config::Config;
use crate::host::apply::compare::is_shared;
use crate::host::error::HostError;
use crate::host::kernel::netlink::Kernel;
use crate::host::model::facts::HostFacts;
use crate::host::model::routing_ids::{RoutingIds, RuleOwner};
use crate::host::model::snapshot::Snapshot;
use crate::host::model::steps::{
    self, RTPROT_NATBOX, Route, RouteKind, Rule, RuleAction, Step, TABLE_LOCAL, TABLE_MAIN,
    TUN_MTU, TUN_QUEUE_LENGTH,
};
use crate::host::render::server_plan::{self, ServerPlan};

/// What to do by hand, on every machine concerned.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// One per configuration, in their order.
    pub boxes: Vec<BoxPlan>,
    /// One per server, as far as the configurations tell servers apart.
    pub servers: Vec<ServerPlan>,
    /// Things that will not work, as sentences.
    pub warnings: Vec<String>,
}

/// The commands of one box.
#[derive(Clone, Debug, Serialize)]
pub struct BoxPlan {
    /// Name of the box.
    pub name: String,
    /// Its TUN, which natbox makes itself.
    pub tun: String,
    /// The interfaces were looked at on this machine; else plain facts were assumed.
    pub probed: bool,
    /// The box's address on the private network, if the configuration has it or the interface is at hand.
    pub inside_address: Option<Ipv4Addr>,
    /// Things to know, as sentences.
    pub notes: Vec<String>,
    /// Commands for a POSIX shell, in order.
    pub commands: Vec<String>,
}

/// Makes the plan for boxes that may be on this machine or on others. Needs no privilege; what cannot be looked at is
/// assumed, and the plan says so.
pub fn render(configs: &[Config]) -> Plan {
    let snapshot = probe_host();
    let likeness: Vec<Likeness> =
        configs.iter().map(|config| likeness(config, snapshot.as_ref())).collect();
    // The same interface names on several machines: only one of them can be this one, the one that fits best.
    let is_here = |(config, own): (&Config, &Likeness)| {
        let rivals = configs.iter().zip(&likeness);
        let equals = rivals.filter(|(other, theirs)| {
            other.inside.interface == config.inside.interface && *theirs >= own
        });
        *own != Likeness::None && equals.count() == 1
    };
    let boxes: Vec<BoxPlan> = configs
        .iter()
        .zip(&likeness)
        .map(|(config, own)| plan_box(config, snapshot.as_ref().filter(|_| is_here((config, own)))))
        .collect();
    let inside: Vec<Option<Ipv4Addr>> = boxes.iter().map(|plan| plan.inside_address).collect();
    let (servers, warnings) = server_plan::render(configs, &inside);
    let mut warnings = warnings;
    warnings.extend(addresses_published_twice(configs));
    Plan { boxes, servers, warnings }
}

/// External addresses that two of the boxes claim.
fn addresses_published_twice(configs: &[Config]) -> Vec<String> {
    let mut owners: HashMap<Ipv4Addr, &str> = HashMap::new();
    let mut warnings = Vec::new();
    for config in configs {
        let fixed = config.uplinks.iter().filter(|uplink| !uplink.follows_interface);
        for address in fixed.flat_map(|uplink| &uplink.addresses) {
            if let Some(other) = owners.insert(*address, &config.name) {
                warnings.push(format!(
                    "{address} is an external address of {other} and of {}; give each box addresses of its own",
                    config.name
                ));
            }
        }
    }
    warnings
}

impl Plan {
    /// The plan for people: commands under a heading per machine.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for warning in &self.warnings {
            let _ = writeln!(text, "# WARNING: {warning}");
        }
        for plan in &self.boxes {
            let _ = writeln!(text, "# ==== box {}, run as root ====", plan.name);
            plan.notes.iter().for_each(|note| {
                let _ = writeln!(text, "# {note}");
            });
            text.push_str("set -e\n");
            plan.commands.iter().for_each(|command| {
                let _ = writeln!(text, "{command}");
            });
            text.push('\n');
        }
        for plan in &self.servers {
            plan.write(&mut text);
        }
        text
    }
}

/// A step as commands. Without a natbox that manages the host they are run again, and find what stayed from before.
fn commands(step: &Step, managed: bool) -> Vec<String> {
    let command = command(step);
    let or_not = |command: &str| format!("{command} 2>/dev/null || true");
    let is_rule = matches!(step, Step::Rule(_) | Step::RemoveDefaultLocalRule);
    match (is_rule && !managed, is_shared(step)) {
        (false, _) => vec![command],
        // At no moment is there no rule for the host's own addresses.
        (true, true) => vec![or_not(&command)],
        (true, false) => vec![or_not(&command.replacen("ip rule add", "ip rule del", 1)), command],
    }
}

/// A step as one command.
pub(crate) fn command(step: &Step) -> String {
    match step {
        Step::BringUpTun { device } => {
            format!("ip link set dev {device} mtu {TUN_MTU} txqueuelen {TUN_QUEUE_LENGTH} up")
        }
        Step::Address { device, address } => {
            format!("ip address replace {address}/32 dev {device} scope link")
        }
        Step::Sysctl { path, value, optional } => {
            // With dots in an interface name only the slashes are clear.
            let key = if path.contains('.') { path.clone() } else { path.replace('/', ".") };
            format!("sysctl -q{} -w {key}={value}", if *optional { " -e" } else { "" })
        }
        Step::Route(route) => {
            format!("ip route replace {} proto {RTPROT_NATBOX}", route_words(route))
        }
        Step::Rule(rule) => rule_command(rule),
        Step::ProxyNeighbour { address, device } => {
            format!("ip neighbour replace proxy {address} dev {device}")
        }
        Step::RemoveDefaultLocalRule => "ip rule del priority 0 from all lookup local".into(),
    }
}

/// A route as `ip` writes it, without who set it.
pub(crate) fn route_words(route: &Route) -> String {
    let Route { table, kind, to, device, via, onlink, source, metric } = route;
    let mut words = Vec::new();
    match kind {
        RouteKind::Unicast => {}
        RouteKind::Blackhole => words.push("blackhole".to_owned()),
        RouteKind::Throw => words.push("throw".into()),
        RouteKind::Unreachable => words.push("unreachable".into()),
    }
    words.push(prefix(*to));
    words.extend(via.map(|gateway| format!("via {gateway}")));
    words.extend(device.as_ref().map(|device| format!("dev {device}")));
    words.extend(onlink.then(|| "onlink".to_owned()));
    words.extend(source.map(|source| format!("src {source}")));
    words.extend((*metric > 0).then(|| format!("metric {metric}")));
    words.extend((*table != TABLE_MAIN).then(|| format!("table {table}")));
    words.join(" ")
}

fn rule_command(rule: &Rule) -> String {
    let (selectors, action) = rule_parts(rule);
    format!("ip rule add priority {} {selectors} protocol {RTPROT_NATBOX} {action}", rule.priority)
}

/// A rule as `ip` writes it, without its priority and who set it.
pub(crate) fn rule_words(rule: &Rule) -> String {
    let (selectors, action) = rule_parts(rule);
    format!("{selectors} {action}")
}

fn rule_parts(rule: &Rule) -> (String, String) {
    let Rule { priority: _, iif, from, to, udp, action } = rule;
    let mut words = Vec::new();
    words.push(from.map_or("from all".into(), |from| format!("from {}", prefix(from))));
    words.extend(to.map(|to| format!("to {}", prefix(to))));
    words.extend(iif.as_ref().map(|iif| format!("iif {iif}")));
    words.extend(
        udp.map(|(source, destination)| format!("ipproto udp sport {source} dport {destination}")),
    );
    let action = match action {
        RuleAction::Lookup(TABLE_LOCAL) => "lookup local".into(),
        RuleAction::Lookup(table) => format!("lookup {table}"),
        RuleAction::Blackhole => "blackhole".into(),
    };
    (words.join(" "), action)
}

/// As `ip` writes it.
fn prefix(prefix: Ipv4Net) -> String {
    match prefix.prefix_len() {
        0 => "default".into(),
        32 => prefix.addr().to_string(),
        _ => prefix.to_string(),
    }
}

fn plan_box(config: &Config, snapshot: Option<&Snapshot>) -> BoxPlan {
    let dynamic_addresses = match snapshot {
        Some(snapshot) => snapshot.dynamic_addresses(config),
        None => vec![None; config.uplinks.len()],
    };
    let config = &config.resolve(&dynamic_addresses);
    let looked = snapshot.map(|snapshot| {
        let choose = |assigned_to_host| {
            RoutingIds::allocate(
                snapshot,
                &config.tun.name,
                assigned_to_host,
                RuleOwner::ThisInstance,
            )
        };
        let looked = HostFacts::collect(config, snapshot, choose)?;
        looked.0.check_interfaces(config, snapshot).map(|()| looked)
    });
    let tun = config.tun.name.clone();
    let mut notes = vec![match config.host.manage {
        true => format!(
            "natbox run does all of this itself and takes it back when it stops; by hand, with host.manage: false, \
             run it when natbox has made {tun}."
        ),
        false => format!(
            "host.manage is false: run this each time natbox has made {tun}, with which its routes go when natbox stops. What is \
             still there is set again."
        ),
    }];
    let looked =
        looked.and_then(|looked| looked.inspect_err(|error| notes.push(error.to_string())).ok());
    let was_looked = looked.is_some();
    let (facts, ids) = looked.unwrap_or_else(|| {
        notes.push(
            "The interfaces are not at hand here, so this is assumed: external addresses are on the segment of \
             their uplink and none is the host's own; gateways are reachable. Run `natbox plan` on the box to know."
                .into(),
        );
        HostFacts::assumed(config)
    });
    notes.extend(config.uplinks.iter().filter(|uplink| uplink.follows_interface).map(|uplink| {
        let known = uplink
            .addresses
            .first()
            .map_or("which is not known here".into(), |address| format!("now {address}"));
        format!(
            "The address of {} is that of {}, {known}; natbox run follows it, these commands do not.",
            uplink.name, uplink.interface
        )
    }));
    notes.extend(facts.warnings.iter().cloned());
    if facts.any_assigned_to_host() {
        notes.push(
            "An external address is also the host's own: the rule of the host's own addresses moves behind natbox's."
                .into(),
        );
    }
    let steps = steps::steps(config, &facts, &ids);
    BoxPlan {
        name: config.name.clone(),
        tun,
        probed: was_looked,
        inside_address: config.inside.address.or(facts.inside.address),
        notes,
        commands: steps.iter().flat_map(|step| commands(step, config.host.manage)).collect(),
    }
}

/// How much this machine looks like the box that a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Likeness {
    /// Not at all.
    None,
    /// The private leg is as it should be.
    Inside,
    /// The lines' interfaces have fitting networks, too.
    All,
}

fn likeness(config: &Config, snapshot: Option<&Snapshot>) -> Likeness {
    let Some(snapshot) = snapshot else { return Likeness::None };
    let networks =
        |name: &str| snapshot.link(name).map(|link| snapshot.on_link(link)).unwrap_or_default();
    let fits = |name: &str, address: &Ipv4Addr| {
        networks(name).iter().any(|network| network.contains(address))
    };
    let inside = networks(&config.inside.interface);
    let overlap = |a: &Ipv4Net, b: &Ipv4Net| a.contains(b) || b.contains(a);
    let inside_fits =
        inside.iter().any(|network| config.inside.prefixes.iter().any(|p| overlap(p, network)));
    let uplinks_fit = config.uplinks.iter().all(|uplink| {
        let mut known = uplink.addresses.iter().chain(&uplink.gateway);
        snapshot.link(&uplink.interface).is_some()
            && (known.any(|address| fits(&uplink.interface, address)) || uplink.gateway.is_none())
    });
    match (inside_fits, uplinks_fit) {
        (false, _) => Likeness::None,
        (true, false) => Likeness::Inside,
        (true, true) => Likeness::All,
    }
}

/// Reads what there is on this machine, from a thread of its own, since the caller may be in a runtime or not.
fn probe_host() -> Option<Snapshot> {
    let look = || -> Option<Snapshot> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        let snapshot: Result<Snapshot, HostError> =
            runtime.block_on(async { Kernel::connect()?.snapshot().await });
        snapshot.ok()
    };
    std::thread::scope(|scope| scope.spawn(look).join().ok().flatten())
}
