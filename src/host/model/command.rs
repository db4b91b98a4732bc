//! Steps, routes and rules in the words of `ip` and `sysctl`.

use ipnet::Ipv4Net;

use super::step::{
    RTPROT_KERNEL, RTPROT_NATBOX, Route, RouteKind, Rule, RuleAction, SourcePorts, Step,
    TABLE_LOCAL, TABLE_MAIN, TUN_GROUP, TUN_MTU, UdpPorts,
};

impl Step {
    /// Formats the step as one command.
    pub(crate) fn command(&self) -> String {
        match self {
            Step::BringUpTun { device, queue_length } => {
                format!(
                    "ip link set dev {device} mtu {TUN_MTU} txqueuelen {queue_length} group \
                     {TUN_GROUP} up"
                )
            }
            Step::Address { device, address } => {
                format!("ip address replace {address}/32 dev {device} scope link")
            }
            Step::Sysctl { path, value, optional } => {
                // A dot in an interface name makes the dotted form ambiguous.
                let key = if path.contains('.') { path.clone() } else { path.replace('/', ".") };
                format!("sysctl -q{} -w {key}={value}", if *optional { " -e" } else { "" })
            }
            // `replace` would replace the kernel's own route.
            Step::Route(route) if route.kind == RouteKind::Local => {
                format!("ip route prepend {} proto {RTPROT_NATBOX}", route.words())
            }
            Step::Route(route) => {
                format!("ip route replace {} proto {RTPROT_NATBOX}", route.words())
            }
            Step::Rule(rule) => rule.command(),
            Step::ProxyNeighbour { address, device } => {
                format!("ip neighbour replace proxy {address} dev {device}")
            }
            // Without the first rule the second command would delete the only local rule.
            Step::SetLocalRuleAside => format!(
                "{} && ip rule del priority 0 from all lookup local",
                Rule::local_aside().command()
            ),
            Step::KeepMainRule => Rule::default_main().command(),
        }
    }
}

impl Route {
    /// Formats the route as `ip` does, without its protocol.
    pub(crate) fn words(&self) -> String {
        let Route { table, kind, to, device, via, onlink, source, metric, mtu } = self;
        let mut words = Vec::new();
        match kind {
            RouteKind::Unicast => {}
            RouteKind::Blackhole => words.push("blackhole".to_owned()),
            RouteKind::Throw => words.push("throw".into()),
            RouteKind::Unreachable => words.push("unreachable".into()),
            RouteKind::Broadcast => words.push("broadcast".into()),
            RouteKind::Local => words.push("local".into()),
        }
        words.push(prefix_words(*to));
        words.extend(via.map(|gateway| format!("via {gateway}")));
        words.extend(device.as_ref().map(|device| format!("dev {device}")));
        words.extend(onlink.then(|| "onlink".to_owned()));
        words.extend(source.map(|source| format!("src {source}")));
        words.extend((*metric > 0).then(|| format!("metric {metric}")));
        words.extend(mtu.map(|mtu| format!("mtu {mtu}")));
        words.extend((*table != TABLE_MAIN).then(|| format!("table {}", table_words(*table))));
        words.join(" ")
    }
}

impl Rule {
    fn command(&self) -> String {
        format!(
            "ip rule add priority {} {} protocol {} {}",
            self.priority,
            self.selector_words(),
            match self.protocol() {
                RTPROT_KERNEL => "kernel".to_owned(),
                protocol => protocol.to_string(),
            },
            self.action_words()
        )
    }

    /// Formats the rule as `ip` does, without its priority and its protocol.
    pub(crate) fn words(&self) -> String {
        format!("{} {}", self.selector_words(), self.action_words())
    }

    fn selector_words(&self) -> String {
        let Rule {
            priority: _,
            iif,
            from,
            to,
            oif,
            udp,
            udp_source,
            suppress_group,
            suppress_prefix_length: _,
            action: _,
        } = self;
        let mut words = Vec::new();
        words.push(from.map_or("from all".into(), |from| format!("from {}", prefix_words(from))));
        words.extend(to.map(|to| format!("to {}", prefix_words(to))));
        words.extend(iif.as_ref().map(|iif| format!("iif {iif}")));
        words.extend(oif.as_ref().map(|oif| format!("oif {oif}")));
        words.extend(udp.map(|UdpPorts { source, destination }| {
            format!("ipproto udp sport {source} dport {destination}")
        }));
        words.extend(udp_source.map(|ports| format!("ipproto udp sport {ports}")));
        words.extend(suppress_group.map(|group| format!("suppress_ifgroup {group}")));
        words.join(" ")
    }

    fn action_words(&self) -> String {
        let action = match self.action {
            RuleAction::Lookup(table) => format!("lookup {}", table_words(table)),
            RuleAction::Blackhole => "blackhole".into(),
        };
        match self.suppress_prefix_length {
            Some(length) => format!("{action} suppress_prefixlength {length}"),
            None => action,
        }
    }
}

impl std::fmt::Display for SourcePorts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.first == self.last {
            true => write!(formatter, "{}", self.first),
            false => write!(formatter, "{}-{}", self.first, self.last),
        }
    }
}

/// Formats a table as `ip` does.
fn table_words(table: u32) -> String {
    match table {
        TABLE_LOCAL => "local".into(),
        TABLE_MAIN => "main".into(),
        other => other.to_string(),
    }
}

/// Formats a prefix as `ip` does.
fn prefix_words(prefix: Ipv4Net) -> String {
    match prefix.prefix_len() {
        0 => "default".into(),
        32 => prefix.addr().to_string(),
        _ => prefix.to_string(),
    }
}
