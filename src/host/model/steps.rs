//! The one list of what is set on the host.
//!
//! Order matters twice. The first step is a rule, so that a namespace in which anything was changed can be
//! recognised by it (see [`crate::host::apply::journal`]). Forwarding is switched on only after the rules that keep the outside
//! from the inside are there, and where an external address is also the host's own, the change that puts natbox
//! before the host comes last of all.
//!
//! Rules in the order the kernel asks them. Those to `G` before the local rule are there only where `G` is also the host's own
//! address; else the local rule stays the first of all:
//!
//! | where                | rule                                    | why                                              |
//! |----------------------|-----------------------------------------|--------------------------------------------------|
//! | before local         | `iif lo from TUN address` → errors      | errors of the kernel are translated back         |
//! | before local         | `iif lo from OWN/27` → errors           | what the box itself says over a line             |
//! | before local         | `iif wan0 to G` DHCP answers → local    | a DHCP client's socket is bound to wan0          |
//! | before local         | `iif wan0 from PREFIX to G` → blackhole | a TUN does not tell which leg a packet came from |
//! | before local         | `iif wan0 to G` → outside               | natbox sees it before the host does              |
//! | before local         | `iif lan0 to G` → inside                | the same for hairpin                             |
//! | local                |                                         | the host's own addresses                         |
//! | after local          | `iif wan0 from PREFIX` → blackhole      | nobody outside speaks for the inside             |
//! | after local          | `iif wan0 from EXEMPT to PREFIX` → TUN  | what is not translated passes natbox as well     |
//! | after local          | `iif wan0` → outside                    | only `G` is reachable from outside               |
//! | after local          | `iif lan0` → inside                     | all that leaves the inside is translated         |
//! | after local          | `iif TUN from G` → uplink               | leave by the line the address belongs to         |
//! | after local          | `iif lo from OUTSIDE` → uplink          | so does what the host itself says; several lines |

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::host::model::facts::{HostFacts, InterfaceState};
use crate::host::model::routing_ids::RoutingIds;

/// Protocol number in our routes and rules (`rtm_protocol`, `FRA_PROTOCOL`), so that leftovers can be told from what
/// others set. Not in iproute2's `rt_protos`, and above the kernel's own range (`RTPROT_STATIC`).
pub const RTPROT_NATBOX: u8 = 110;

/// The kernel's main table.
pub const TABLE_MAIN: u32 = 254;
/// The kernel's table of the host's own addresses.
pub const TABLE_LOCAL: u32 = 255;

/// MTU of the TUN: the most an IPv4 packet can have, so that the kernel never fragments into it.
pub const TUN_MTU: u32 = 65535;
/// Length of the TUN's transmit queue, in packets (super-packets count once).
pub const TUN_QUEUE_LENGTH: u32 = 1000;

/// One change, complete enough to be made, compared, taken back and printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Sets MTU and queue length of the TUN and brings it up. Goes with the device; there is nothing to take back.
    BringUpTun {
        /// Interface.
        device: String,
    },
    /// Gives an interface a /32 of link scope.
    Address {
        /// Interface.
        device: String,
        /// Address.
        address: Ipv4Addr,
    },
    /// Writes a sysctl.
    Sysctl {
        /// Below `/proc/sys`, with slashes, since interface names may have dots.
        path: String,
        /// Wanted value.
        value: String,
        /// Not there on every kernel; missing is as good as set.
        optional: bool,
    },
    /// Adds a route.
    Route(Route),
    /// Adds a policy rule.
    Rule(Rule),
    /// NeighbourState ARP for an address on an interface.
    ProxyNeighbour {
        /// Address to answer for.
        address: Ipv4Addr,
        /// Interface on which to answer.
        device: String,
    },
    /// Deletes the kernel's `local` rule at priority 0. Another one has been added after our rules by then, so at no
    /// moment is there none.
    RemoveDefaultLocalRule,
}

/// An IPv4 route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Table.
    pub table: u32,
    /// What it does.
    pub kind: RouteKind,
    /// Destination.
    pub to: Ipv4Net,
    /// Outgoing interface; only for [`RouteKind::Unicast`].
    pub device: Option<String>,
    /// Next hop.
    pub via: Option<Ipv4Addr>,
    /// Take the next hop as reachable on the interface though no connected prefix says so.
    pub onlink: bool,
    /// Source address that the host's own packets prefer.
    pub source: Option<Ipv4Addr>,
    /// Metric; 0: none.
    pub metric: u32,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteKind {
    /// Forwards.
    Unicast,
    /// Drops in silence.
    Blackhole,
    /// Ends the look-up in this table; the next rule is asked.
    Throw,
    /// Drops and answers with ICMP host unreachable.
    Unreachable,
}

/// An IPv4 policy rule. A packet must match all selectors that are present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Lower is asked first.
    pub priority: u32,
    /// Interface the packet came in by; `lo` for the host's own.
    pub iif: Option<String>,
    /// Source prefix.
    pub from: Option<Ipv4Net>,
    /// Destination prefix.
    pub to: Option<Ipv4Net>,
    /// UDP source and destination port.
    pub udp: Option<(u16, u16)>,
    /// What happens then.
    pub action: RuleAction,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuleAction {
    /// Asks a table.
    Lookup(u32),
    /// Drops in silence.
    Blackhole,
}

/// Everything to be set, in order.
///
/// # Panics
/// Never for facts that were collected for this configuration.
pub fn steps(config: &Config, facts: &HostFacts, ids: &RoutingIds) -> Vec<Step> {
    let view = View { config, facts, ids, tun: &config.tun.name };
    let mut steps = vec![Step::Rule(view.errors_rule())];
    steps.extend(view.probe_addresses());
    steps.extend(view.tun());
    steps.extend(view.tables());
    steps.extend(view.main_table());
    steps.extend(view.interface_sysctls());
    steps.extend(view.rules());
    steps.push(sysctl("net/ipv4/icmp_errors_use_inbound_ifaddr", 1));
    // The kernel's limit for all receivers together lets packets of many strangers use up what is due to the others; its
    // limit for each receiver (icmp_ratelimit) stays.
    for (key, value) in [("icmp_msgs_per_sec", "100000"), ("icmp_msgs_burst", "10000")] {
        steps.push(Step::Sysctl {
            path: format!("net/ipv4/{key}"),
            value: value.into(),
            optional: true,
        });
    }
    steps.push(sysctl("net/ipv4/ip_forward", 1));
    steps.extend(view.forwarding_of_legs());
    steps.extend(view.proxies());
    steps.extend(view.before_the_host());
    steps
}

/// The arguments of [`steps`].
struct View<'a> {
    config: &'a Config,
    facts: &'a HostFacts,
    ids: &'a RoutingIds,
    tun: &'a str,
}

impl View<'_> {
    /// An ICMP error that the kernel writes about a packet that came out of the TUN has the TUN's address as its
    /// source (`icmp_errors_use_inbound_ifaddr`), and the kernel asks for a route from that source.
    fn errors_rule(&self) -> Rule {
        self.rule_to_tun(host(self.ids.tun_address))
    }

    /// What the host itself sends from these addresses goes into the TUN.
    fn rule_to_tun(&self, from: Ipv4Net) -> Rule {
        // The same whether an address is the host's own or not, which may change: by it the namespace is recognised.
        let priority = match self.ids.may_precede_local() {
            true => self.ids.before_local(),
            false => self.ids.after_local(0),
        };
        Rule {
            iif: Some("lo".into()),
            from: Some(from),
            ..rule(priority, RuleAction::Lookup(self.ids.errors_table()))
        }
    }

    /// The way of what the box itself says over a line, from an address that tells natbox the line.
    fn probe_addresses(&self) -> Vec<Step> {
        let needs_any = self.facts.probe_addresses.iter().any(Option::is_some);
        let rule = needs_any.then(|| Step::Rule(self.rule_to_tun(self.ids.probe_block())));
        rule.into_iter().collect()
    }

    fn tun(&self) -> Vec<Step> {
        let conf = |key: &str| format!("net/ipv4/conf/{}/{key}", self.tun);
        // Packets of any source come out of the TUN. The kernel takes the greater of `all` and the device's value,
        // and 1 (strict) would refuse what goes back to the host; 0 saves a look-up per packet where it is enough.
        let rp_filter =
            if self.any_assigned_to_host() || self.facts.rp_filter_all != 0 { 2 } else { 0 };
        let mut steps = vec![
            Step::Sysctl {
                path: format!("net/ipv6/conf/{}/disable_ipv6", self.tun),
                value: "1".into(),
                optional: true,
            },
            // What natbox and the kernel send from the host's own addresses comes out of the TUN, too.
            sysctl(conf("accept_local"), 1),
            sysctl(conf("rp_filter"), rp_filter),
            Step::BringUpTun { device: self.tun.into() },
            Step::Address { device: self.tun.into(), address: self.ids.tun_address },
        ];
        let own = self.facts.probe_addresses.iter().flatten();
        steps.extend(
            own.map(|address| Step::Address { device: self.tun.into(), address: *address }),
        );
        steps
    }

    fn tables(&self) -> Vec<Step> {
        let to_tun = |table, to| Route {
            device: Some(self.tun.into()),
            ..route(table, RouteKind::Unicast, to)
        };
        let throw_inside = |table| {
            let prefixes = &self.config.inside.prefixes;
            prefixes.iter().map(move |prefix| route(table, RouteKind::Throw, *prefix))
        };
        let mut routes = vec![to_tun(self.ids.errors_table(), everywhere())];
        routes.extend(throw_inside(self.ids.inside_table()));
        routes.push(to_tun(self.ids.inside_table(), everywhere()));
        for (place, (_, uplinks)) in self.outside_interfaces().iter().enumerate() {
            let table = self.ids.outside_table(place);
            for address in uplinks.iter().flat_map(|uplink| &self.config.uplinks[*uplink].addresses)
            {
                routes.push(to_tun(table, host(*address)));
            }
            // Should natbox die, its TUN goes and the route with it; the host must still be reached then.
            let assigned_to_host = uplinks.iter().flat_map(|uplink| {
                let addresses = self.config.uplinks[*uplink].addresses.iter();
                addresses.filter(|address| self.assigned_to_host(*uplink, **address))
            });
            for address in assigned_to_host {
                routes.push(Route {
                    metric: u32::MAX,
                    ..route(table, RouteKind::Throw, host(*address))
                });
            }
            routes.push(route(table, RouteKind::Blackhole, everywhere()));
        }
        for place in (0..self.config.uplinks.len()).filter(|place| self.has_table(*place)) {
            let table = self.ids.uplink_table(place);
            let (uplink, leg) = (&self.config.uplinks[place], &self.facts.uplinks[place]);
            let by = |to| Route {
                device: Some(uplink.interface.clone()),
                ..route(table, RouteKind::Unicast, to)
            };
            routes.extend(throw_inside(table));
            if leg.takes_routes() {
                let inside = &self.config.inside.prefixes;
                let outside = leg.on_link.iter().filter(|prefix| !inside.contains(prefix));
                routes.extend(outside.map(|prefix| by(*prefix)));
                match uplink.gateway {
                    Some(gateway) => {
                        let onlink = !leg.reaches(gateway);
                        routes.push(Route { via: Some(gateway), onlink, ..by(everywhere()) });
                    }
                    None if leg.is_direct() => routes.push(by(everywhere())),
                    None => {}
                }
            }
            // Without the others, what belongs to this line must not leave by the one that the main table knows.
            let metric = u32::MAX;
            routes.push(Route { metric, ..route(table, RouteKind::Unreachable, everywhere()) });
        }
        routes.into_iter().map(Step::Route).collect()
    }

    fn main_table(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        // While an inside prefix has no connected route (link down, prefix wider than the network), packets for it
        // must not leave by the default route with private addresses.
        for prefix in &self.config.inside.prefixes {
            let metric = u32::MAX;
            steps.push(Route { metric, ..route(TABLE_MAIN, RouteKind::Unreachable, *prefix) });
        }
        // Nobody has these addresses (RFC 1122 section 3.2.1.3); without a way back the kernel cannot report to them on
        // packets that claim to come from there.
        for nobody in [
            Ipv4Net::new_assert([0, 0, 0, 0].into(), 8),
            Ipv4Net::new_assert([240, 0, 0, 0].into(), 4),
        ] {
            steps.push(Route {
                metric: u32::MAX,
                ..route(TABLE_MAIN, RouteKind::Blackhole, nobody)
            });
        }
        for (place, address) in
            self.addresses().filter(|(place, address)| !self.assigned_to_host(*place, *address))
        {
            steps.push(Route {
                device: Some(self.tun.into()),
                source: self.facts.uplinks[place].address,
                ..route(TABLE_MAIN, RouteKind::Unicast, host(address))
            });
        }
        steps.into_iter().map(Step::Route).collect()
    }

    /// Loose: the way back to a source leads by another interface as a matter of course here; and inside, so that natbox
    /// sees and counts what claims to come from elsewhere.
    fn interface_sysctls(&self) -> Vec<Step> {
        let legs = std::iter::once(&self.facts.inside).chain(&self.facts.uplinks);
        let mut interfaces: Vec<&str> = Vec::new();
        for leg in legs.filter(|leg| leg.state != InterfaceState::Missing) {
            if !interfaces.contains(&leg.interface.as_str()) {
                interfaces.push(&leg.interface);
            }
        }
        interfaces.iter().map(|name| sysctl(format!("net/ipv4/conf/{name}/rp_filter"), 2)).collect()
    }

    fn rules(&self) -> Vec<Step> {
        let mut rules = Vec::new();
        for (place, (interface, _)) in self.outside_interfaces().iter().enumerate() {
            let iif = Some(interface.to_string());
            for prefix in &self.config.inside.prefixes {
                let from = Some(*prefix);
                let priority = self.ids.after_local(1);
                rules.push(Rule {
                    iif: iif.clone(),
                    from,
                    ..rule(priority, RuleAction::Blackhole)
                });
            }
            rules.extend(self.exempt_rules(iif.as_ref()));
            let action = RuleAction::Lookup(self.ids.outside_table(place));
            rules.push(Rule { iif, ..rule(self.ids.after_local(3), action) });
        }
        rules.push(Rule {
            iif: Some(self.config.inside.interface.clone()),
            ..rule(self.ids.after_local(4), RuleAction::Lookup(self.ids.inside_table()))
        });
        for (place, uplink) in self.config.uplinks.iter().enumerate() {
            if !self.has_table(place) {
                continue;
            }
            let action = RuleAction::Lookup(self.ids.uplink_table(place));
            // As few rules as possible: each is asked for every packet.
            for prefix in Ipv4Net::aggregate(&uplink.addresses.iter().map(|a| host(*a)).collect()) {
                let (iif, from) = (Some(self.tun.into()), Some(prefix));
                rules.push(Rule { iif, from, ..rule(self.ids.after_local(5), action) });
            }
        }
        rules.extend(self.rules_of_the_host());
        rules.into_iter().map(Step::Rule).collect()
    }

    /// With several lines the main table's default route leads to one of them. NeighbourState of the host at its own addresses, and
    /// the kernel's errors about packets that have just come in, belong to the others as well.
    fn rules_of_the_host(&self) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        for (place, uplink) in self.config.uplinks.iter().enumerate() {
            if self.config.uplinks.len() < 2 {
                continue;
            }
            let assigned_to_host = uplink
                .addresses
                .iter()
                .copied()
                .filter(|address| self.assigned_to_host(place, *address));
            for address in assigned_to_host.chain(self.facts.uplinks[place].address) {
                let from = Some(host(address));
                // Lines that share an interface share its address, which goes with the first of them.
                if rules.iter().any(|rule| rule.from == from) {
                    continue;
                }
                let action = RuleAction::Lookup(self.ids.uplink_table(place));
                let iif = Some("lo".into());
                rules.push(Rule { iif, from, ..rule(self.ids.after_local(6), action) });
            }
        }
        rules
    }

    /// Packets of exempt destinations come for inside addresses themselves. The errors table, which leads everywhere
    /// through the TUN, is the one that takes them to natbox; protocols and ports are for natbox to look at.
    fn exempt_rules(&self, iif: Option<&String>) -> Vec<Rule> {
        let action = RuleAction::Lookup(self.ids.errors_table());
        let mut rules = Vec::new();
        for source in
            Ipv4Net::aggregate(&self.config.no_nat.iter().map(|exemption| exemption.to).collect())
        {
            for prefix in &self.config.inside.prefixes {
                rules.push(Rule {
                    iif: iif.cloned(),
                    // The kernel knows a selector of length zero as none.
                    from: (source.prefix_len() > 0).then_some(source),
                    to: Some(*prefix),
                    ..rule(self.ids.after_local(2), action)
                });
            }
        }
        rules
    }

    /// `ip_forward` reaches every interface when it is switched on, but not one that was switched off after that.
    fn forwarding_of_legs(&self) -> Vec<Step> {
        let uplinks = self.config.uplinks.iter().zip(&self.facts.uplinks);
        let legs = uplinks.map(|(uplink, facts)| (&uplink.interface, facts.forwarding_off));
        let inside = (&self.config.inside.interface, self.facts.inside.forwarding_off);
        let mut names: Vec<&str> = std::iter::once(inside)
            .chain(legs)
            .chain([(&self.config.tun.name, self.facts.forwarding_off_by_default)])
            .filter_map(|(name, off)| off.then_some(name.as_str()))
            .collect();
        names.dedup();
        names.iter().map(|name| sysctl(format!("net/ipv4/conf/{name}/forwarding"), 1)).collect()
    }

    /// The kernel stops answering ARP for an address that it would forward, so a `G` that is the host's own needs an
    /// entry just as one that is merely on the segment. No `proxy_arp` is needed with it.
    fn proxies(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (place, address) in self.addresses() {
            let leg = &self.facts.uplinks[place];
            if leg.takes_routes()
                && leg.arp
                && (self.assigned_to_host(place, address) || self.on_link(place, address))
            {
                // Else the kernel answers after a random time of up to 0.8 s.
                let path = format!("net/ipv4/neigh/{}/proxy_delay", leg.interface);
                if !steps.contains(&sysctl(&path, 0)) {
                    steps.push(sysctl(path, 0));
                }
                steps.push(Step::ProxyNeighbour { address, device: leg.interface.clone() });
            }
        }
        steps
    }

    /// Where `G` is the host's own: natbox first. What it has no use for comes back out of the TUN unchanged and
    /// reaches the host then, since these rules do not match the TUN.
    fn before_the_host(&self) -> Vec<Step> {
        if !self.any_assigned_to_host() {
            return Vec::new();
        }
        // Early demux gives a packet of one of the host's connections to its socket before routing, and the kernel
        // drops a packet that has a socket when it is to be forwarded (into the TUN).
        let mut steps = vec![sysctl("net/ipv4/ip_early_demux", 0)];
        if let Some(priority) = self.ids.local_rule {
            steps.push(Step::Rule(rule(priority, RuleAction::Lookup(TABLE_LOCAL))));
        }
        let priority = |offset| self.ids.before_local() + offset;
        let outside = self.outside_interfaces();
        for (place, address) in
            self.addresses().filter(|(place, address)| self.assigned_to_host(*place, *address))
        {
            let interface = &self.config.uplinks[place].interface;
            let to_address =
                |rule: Rule| Rule { iif: Some(interface.clone()), to: Some(host(address)), ..rule };
            steps.push(Step::Rule(to_address(Rule {
                udp: Some((DHCP_SERVER, DHCP_CLIENT)),
                ..rule(priority(1), RuleAction::Lookup(TABLE_LOCAL))
            })));
            for prefix in &self.config.inside.prefixes {
                let from = Some(*prefix);
                steps.push(Step::Rule(to_address(Rule {
                    from,
                    ..rule(priority(2), RuleAction::Blackhole)
                })));
            }
            let table = outside
                .iter()
                .position(|(name, _)| name == interface)
                .map(|place| self.ids.outside_table(place))
                .expect("outside_interfaces lists the interface of every uplink");
            steps.push(Step::Rule(to_address(rule(priority(3), RuleAction::Lookup(table)))));
            steps.push(Step::Rule(Rule {
                iif: Some(self.config.inside.interface.clone()),
                to: Some(host(address)),
                ..rule(priority(3), RuleAction::Lookup(self.ids.inside_table()))
            }));
        }
        if self.ids.local_rule.is_some() {
            steps.push(Step::RemoveDefaultLocalRule);
        }
        steps
    }

    /// External addresses with the place of their uplink.
    fn addresses(&self) -> impl Iterator<Item = (usize, Ipv4Addr)> {
        let uplinks = self.config.uplinks.iter().enumerate();
        uplinks.flat_map(|(place, uplink)| {
            uplink.addresses.iter().map(move |address| (place, *address))
        })
    }

    /// Interfaces of the uplinks without repeats, each with the places of its uplinks.
    fn outside_interfaces(&self) -> Vec<(&str, Vec<usize>)> {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut interfaces: Vec<(&str, Vec<usize>)> = Vec::new();
        for (uplink, settings) in self.config.uplinks.iter().enumerate() {
            let place = *places.entry(&settings.interface).or_insert_with(|| {
                interfaces.push((&settings.interface, Vec::new()));
                interfaces.len() - 1
            });
            interfaces[place].1.push(uplink);
        }
        interfaces
    }

    /// Whether a line has a table of its own. The only line may leave its way to the main table.
    fn has_table(&self, place: usize) -> bool {
        self.config.uplinks.len() > 1 || self.config.uplinks[place].gateway.is_some()
    }

    fn flag(&self, flags: &[Vec<bool>], uplink: usize, address: Ipv4Addr) -> bool {
        let addresses = &self.config.uplinks[uplink].addresses;
        addresses.iter().position(|a| *a == address).is_some_and(|place| flags[uplink][place])
    }

    fn assigned_to_host(&self, uplink: usize, address: Ipv4Addr) -> bool {
        self.flag(&self.facts.assigned_to_host, uplink, address)
    }

    fn on_link(&self, uplink: usize, address: Ipv4Addr) -> bool {
        self.flag(&self.facts.on_link, uplink, address)
    }

    fn any_assigned_to_host(&self) -> bool {
        self.facts.any_assigned_to_host()
    }
}

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

fn rule(priority: u32, action: RuleAction) -> Rule {
    Rule { priority, iif: None, from: None, to: None, udp: None, action }
}

fn route(table: u32, kind: RouteKind, to: Ipv4Net) -> Route {
    Route { table, kind, to, device: None, via: None, onlink: false, source: None, metric: 0 }
}

fn sysctl(path: impl Into<String>, value: u32) -> Step {
    Step::Sysctl { path: path.into(), value: value.to_string(), optional: false }
}

/// The prefix of one address.
fn host(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(address)
}

/// The default route's prefix.
fn everywhere() -> Ipv4Net {
    Ipv4Net::default()
}
