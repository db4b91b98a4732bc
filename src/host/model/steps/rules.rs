//! Policy rules, and the steps that put natbox before the host.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::planner::{StepPlanner, host_prefix, sysctl};
use crate::config::InsideLeg;
use crate::host::model::step::{Rule, RuleAction, Step, TABLE_LOCAL, TABLE_MAIN, UdpPorts};

/// Incoming interface of the host's own packets.
pub(super) const LOOPBACK: &str = "lo";
/// Ports of a DHCP reply.
const DHCP_REPLY: UdpPorts = UdpPorts { source: 67, destination: 68 };

/// Positions in the block of priorities.
pub(super) mod position {
    pub(super) const TO_TUN: u32 = 0;
    pub(super) const DHCP: u32 = 1;
    pub(super) const SPOOFED_TO_HOST: u32 = 2;
    pub(super) const TO_NATBOX: u32 = 3;
    pub(super) const TO_HOST: u32 = 4;
    pub(super) const SPOOFED: u32 = 5;
    pub(super) const BYPASS: u32 = 6;
    pub(super) const BETWEEN_LEGS: u32 = 6;
    pub(super) const FROM_OUTSIDE: u32 = 7;
    pub(super) const FROM_INSIDE: u32 = 8;
    pub(super) const TO_INSIDE: u32 = 9;
    pub(super) const FROM_TUN: u32 = 10;
    pub(super) const FROM_HOST: u32 = 11;
    pub(crate) const OWN_BOUND: u32 = 12;
    pub(crate) const OWN: u32 = 13;
    pub(crate) const OWN_SERVICES: u32 = 14;
    pub(crate) const OWN_UNNUMBERED: u32 = 15;
}

impl StepPlanner<'_> {
    /// Sends the kernel's own ICMP errors about translated packets into the TUN.
    ///
    /// Such an error has the TUN's address as its source (`icmp_errors_use_inbound_ifaddr`), and
    /// the kernel looks up the route from that source.
    pub(super) fn errors_rule(&self) -> Rule {
        self.rule_to_tun(host_prefix(self.ids.tun_address))
    }

    /// Sends the packets from the probe addresses into the TUN. The source address tells natbox the
    /// uplink. The address of the host's own packets is one of the block.
    pub(super) fn probe_rule(&self) -> Option<Rule> {
        let mut addresses = self.facts.probe_addresses.iter().chain([&self.facts.host_address]);
        let needs_any = addresses.any(Option::is_some);
        needs_any.then(|| self.rule_to_tun(self.ids.probe_block()))
    }

    /// Delivers the replies to the probe addresses.
    ///
    /// Where the local rule is set aside, by this instance or by another one, the first rule passes
    /// over every route of the TUN, and so over its own addresses.
    fn probe_replies_rule(&self) -> Option<Rule> {
        let action = RuleAction::Lookup(TABLE_LOCAL);
        let to = self.probe_rule()?.from;
        Some(Rule { to, ..Rule::new(self.ids.priority(position::TO_HOST), action) })
    }

    fn rule_to_tun(&self, from: Ipv4Net) -> Rule {
        let priority = self.ids.priority(position::TO_TUN);
        let action = RuleAction::Lookup(self.ids.errors_table());
        Rule { iif: Some(LOOPBACK.into()), from: Some(from), ..Rule::new(priority, action) }
    }

    /// Lists the rules that do not depend on whether an address is assigned to the host, except
    /// [`Self::errors_rule`] and [`Self::probe_rule`].
    pub(super) fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for interface in &self.outside_interfaces() {
            let table = self.ids.outside_table(interface.number);
            rules.extend(self.outside_rules(interface.name, table));
        }
        let to_natbox = RuleAction::Lookup(self.ids.inside_table());
        let spoofed = Rule::new(self.ids.priority(position::SPOOFED), RuleAction::Blackhole);
        for leg in &self.config.inside.legs {
            let iif = Some(leg.interface.clone());
            for prefix in self.prefixes_of_other_legs(leg) {
                rules.push(Rule { iif: iif.clone(), from: Some(prefix), ..spoofed.clone() });
            }
            rules.extend(self.rules_between_legs(leg));
            let priority = self.ids.priority(position::FROM_INSIDE);
            rules.push(Rule { iif, ..Rule::new(priority, to_natbox) });
        }
        rules.extend(self.probe_replies_rule());
        rules.extend(self.rules_from_tun());
        rules.extend(self.host_rules());
        rules
    }

    /// Lists the rules for packets that natbox has translated. If the packets use the main table,
    /// the rule keeps a rule of another program from taking them.
    fn rules_from_tun(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        let from_tun = |offset, action| Rule {
            iif: Some(self.tun.into()),
            ..Rule::new(self.ids.priority(offset), action)
        };
        for prefix in self.config.inside.prefixes() {
            let rule = from_tun(position::TO_INSIDE, RuleAction::Lookup(TABLE_MAIN));
            rules.push(Rule { to: Some(prefix), ..rule });
        }
        for (place, uplink) in self.config.uplinks.iter().enumerate() {
            let table = match self.facts.leaves_by_main_table(self.config, place) {
                true => TABLE_MAIN,
                false => self.table_of(place),
            };
            let rule = from_tun(position::FROM_TUN, RuleAction::Lookup(table));
            // The kernel tries every rule for every packet, so the rules are as few as possible.
            let addresses = uplink.addresses.iter().map(|address| host_prefix(*address)).collect();
            for prefix in Ipv4Net::aggregate(&addresses) {
                rules.push(Rule { from: Some(prefix), ..rule.clone() });
            }
        }
        rules.extend(self.own_rules());
        rules
    }

    /// Lists the prefixes that no packet from a leg may have as its source, in as few prefixes as
    /// possible.
    ///
    /// Source filters of the legs are loose, and the TUN hides the leg of a packet. Without these
    /// rules a host behind one leg could open sessions in the name of a host behind another.
    fn prefixes_of_other_legs(&self, leg: &InsideLeg) -> Vec<Ipv4Net> {
        let others = self.config.inside.legs.iter().filter(|other| *other != leg);
        let prefixes: Vec<Ipv4Net> =
            others.flat_map(|other| other.prefixes.iter().copied()).collect();
        Ipv4Net::aggregate(&prefixes)
    }

    /// Lists the rules for packets from a leg to prefixes of other legs that an outbound rule names
    /// as destinations.
    ///
    /// Without such a rule the host routes these packets. natbox translates their source to an
    /// external address, and the rules for translated packets lead them to the other leg. The
    /// errors table takes them to natbox, because each of its routes leads into the TUN.
    fn rules_between_legs(&self, leg: &InsideLeg) -> Vec<Rule> {
        let others = self.prefixes_of_other_legs(leg);
        let action = RuleAction::Lookup(self.ids.errors_table());
        let rule = Rule::new(self.ids.priority(position::BETWEEN_LEGS), action);
        let mut rules: Vec<Rule> = Vec::new();
        for outbound in &self.config.outbound {
            let within = |to: &&Ipv4Net| others.iter().any(|other| other.contains(*to));
            for to in outbound.to.iter().filter(within) {
                // The rules of other legs drop a source that is not behind this leg.
                let rule = Rule {
                    iif: Some(leg.interface.clone()),
                    from: (outbound.from.prefix_len() > 0).then_some(outbound.from),
                    to: Some(*to),
                    ..rule.clone()
                };
                let is_here = leg
                    .prefixes
                    .iter()
                    .any(|own| own.contains(&outbound.from) || outbound.from.contains(own));
                if is_here && !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
        rules
    }

    /// Lists the rules for packets from an outside interface.
    fn outside_rules(&self, interface: &str, table: u32) -> Vec<Rule> {
        let mut rules = Vec::new();
        let spoofed = Rule::new(self.ids.priority(position::SPOOFED), RuleAction::Blackhole);
        for prefix in self.config.inside.prefixes() {
            let iif = Some(interface.into());
            rules.push(Rule { iif, from: Some(prefix), ..spoofed.clone() });
        }
        rules.extend(self.bypass_rules(interface));
        let priority = self.ids.priority(position::FROM_OUTSIDE);
        let iif = Some(interface.into());
        rules.push(Rule { iif, ..Rule::new(priority, RuleAction::Lookup(table)) });
        rules
    }

    /// Lists the rules for the host's own packets from an address of an uplink.
    ///
    /// With several uplinks the main table's default route leads to one of them. The host's replies
    /// from its own addresses, and the kernel's errors about packets that have just arrived, may
    /// belong to another uplink.
    fn host_rules(&self) -> Vec<Rule> {
        if self.config.uplinks.len() < 2 {
            return Vec::new();
        }
        let mut of_uplinks: Vec<Vec<Ipv4Net>> = vec![Vec::new(); self.config.uplinks.len()];
        for (place, address) in self.assigned_addresses().chain(self.interface_addresses()) {
            // Uplinks that share an interface share its addresses. The uplink that publishes an
            // address gets it, or the first of them.
            let address = host_prefix(address);
            if !of_uplinks.iter().any(|known| known.contains(&address)) {
                of_uplinks[place].push(address);
            }
        }
        let priority = self.ids.priority(position::FROM_HOST);
        let mut rules: Vec<Rule> = Vec::new();
        for (place, addresses) in of_uplinks.iter().enumerate() {
            let rule = Rule::new(priority, RuleAction::Lookup(self.table_of(place)));
            // The kernel tries every rule for every packet, so the rules are as few as possible.
            rules.extend(Ipv4Net::aggregate(addresses).into_iter().map(|prefix| Rule {
                iif: Some(LOOPBACK.into()),
                from: Some(prefix),
                ..rule.clone()
            }));
        }
        rules
    }

    /// Iterates over the external addresses that are assigned to the host, each with the position
    /// of its uplink.
    fn assigned_addresses(&self) -> impl Iterator<Item = (usize, Ipv4Addr)> {
        self.addresses().filter(|(place, address)| self.assigned_to_host(*place, *address))
    }

    /// Iterates over the addresses of the uplinks' interfaces, each with the position of its
    /// uplink.
    fn interface_addresses(&self) -> impl Iterator<Item = (usize, Ipv4Addr)> {
        let uplinks = self.facts.uplinks.iter().enumerate();
        let addresses = uplinks.flat_map(|(place, facts)| {
            facts.addresses.iter().map(move |address| (place, *address))
        });
        addresses.filter(|(_, address)| !self.config.inside.contains(*address))
    }

    /// Lists the rules for packets that pass without translation by `no_nat`.
    ///
    /// Such packets carry inside addresses as their destinations. The errors table takes them to
    /// natbox, because each of its routes leads into the TUN. Natbox checks protocols and ports.
    fn bypass_rules(&self, interface: &str) -> Vec<Rule> {
        let action = RuleAction::Lookup(self.ids.errors_table());
        let bypass = Rule::new(self.ids.priority(position::BYPASS), action);
        let sources = self.config.no_nat.iter().map(|rule| rule.to).collect();
        let mut rules = Vec::new();
        for source in Ipv4Net::aggregate(&sources) {
            for prefix in self.config.inside.prefixes() {
                rules.push(Rule {
                    iif: Some(interface.into()),
                    // The kernel reports a selector of length zero as no selector.
                    from: (source.prefix_len() > 0).then_some(source),
                    to: Some(prefix),
                    ..bypass.clone()
                });
            }
        }
        rules
    }

    /// Puts natbox before the host, where an external address is assigned to the host.
    ///
    /// Packets that natbox does not translate come back out of the TUN unchanged. Only the last of
    /// these rules matches the TUN, so such packets reach the host.
    pub(super) fn precede_host(&self) -> Vec<Step> {
        if !self.facts.any_assigned_to_host() {
            return Vec::new();
        }
        // Early demux gives a packet of one of the host's connections to its socket before routing.
        // The kernel drops a packet with a socket when it forwards the packet (into the TUN).
        let mut steps = vec![sysctl("net/ipv4/ip_early_demux", 0)];
        for interface in &self.outside_interfaces() {
            let table = self.ids.outside_table(interface.number);
            for uplink in &interface.uplinks {
                let addresses = self.config.uplinks[*uplink].addresses.iter();
                for address in addresses.filter(|address| self.assigned_to_host(*uplink, **address))
                {
                    let rules =
                        self.rules_to_assigned(host_prefix(*address), interface.name, table);
                    steps.extend(rules.into_iter().map(Step::Rule));
                }
            }
        }
        let assigned: Vec<Ipv4Addr> =
            self.assigned_addresses().map(|(_, address)| address).collect();
        let prefixes = assigned.iter().map(|address| host_prefix(*address)).collect();
        for to in Ipv4Net::aggregate(&prefixes) {
            let action = RuleAction::Lookup(TABLE_LOCAL);
            let rule = Rule::new(self.ids.priority(position::TO_HOST), action);
            steps.push(Step::Rule(Rule { to: Some(to), ..rule }));
        }
        if self.facts.has_first_local_rule {
            let routes = assigned.iter().map(|address| self.local_route(*address));
            steps.extend(routes.map(Step::Route));
            steps.push(Step::SetLocalRuleAside);
        }
        steps
    }

    /// Lists the rules that take the packets to one external address before the host does.
    fn rules_to_assigned(&self, to: Ipv4Net, interface: &str, table: u32) -> Vec<Rule> {
        let rule = |offset, iif: &str, action| Rule {
            iif: Some(iif.into()),
            to: Some(to),
            ..Rule::new(self.ids.priority(offset), action)
        };
        let dhcp = rule(position::DHCP, interface, RuleAction::Lookup(TABLE_LOCAL));
        let mut rules = vec![Rule { udp: Some(DHCP_REPLY), ..dhcp }];
        for prefix in self.config.inside.prefixes() {
            let spoofed = rule(position::SPOOFED_TO_HOST, interface, RuleAction::Blackhole);
            rules.push(Rule { from: Some(prefix), ..spoofed });
        }
        rules.push(rule(position::TO_NATBOX, interface, RuleAction::Lookup(table)));
        let to_inside = RuleAction::Lookup(self.ids.inside_table());
        for leg in &self.config.inside.legs {
            for prefix in self.prefixes_of_other_legs(leg) {
                let spoofed =
                    rule(position::SPOOFED_TO_HOST, &leg.interface, RuleAction::Blackhole);
                rules.push(Rule { from: Some(prefix), ..spoofed });
            }
            rules.push(rule(position::TO_NATBOX, &leg.interface, to_inside));
        }
        rules
    }
}
