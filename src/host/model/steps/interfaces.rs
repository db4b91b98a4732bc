//! Settings of interfaces and of the kernel: the TUN, sysctls, proxy ARP.

use super::planner::{StepPlanner, sysctl};
use crate::host::model::presence::InterfaceState;
use crate::host::model::step::{Step, TUN_QUEUE_LENGTH};

impl StepPlanner<'_> {
    pub(super) fn tun(&self) -> Vec<Step> {
        let conf = |key: &str| format!("net/ipv4/conf/{}/{key}", self.tun);
        // Packets of any source come out of the TUN. The kernel takes the greater of `all` and the
        // device's value, and 1 (strict) would drop the packets that natbox passes to the host. 0
        // saves a look-up per packet where it is enough.
        let is_loose = self.facts.any_assigned_to_host() || self.facts.settings.rp_filter_all != 0;
        let mut steps = vec![
            Step::Sysctl {
                path: format!("net/ipv6/conf/{}/disable_ipv6", self.tun),
                value: "1".into(),
                optional: true,
            },
            // Packets that natbox and the kernel send from the host's own addresses come out of the
            // TUN.
            sysctl(conf("accept_local"), 1),
            sysctl(conf("rp_filter"), if is_loose { 2 } else { 0 }),
            Step::BringUpTun { device: self.tun.into(), queue_length: self.queue_length() },
            Step::Address { device: self.tun.into(), address: self.ids.tun_address },
        ];
        let probes = self.facts.probe_addresses.iter().flatten().chain(&self.facts.host_address);
        steps.extend(
            probes.map(|address| Step::Address { device: self.tun.into(), address: *address }),
        );
        steps
    }

    /// Returns the length of the TUN's queues, in packets.
    fn queue_length(&self) -> u32 {
        match &self.config.state {
            state if state.keep => state.hold,
            _ => TUN_QUEUE_LENGTH,
        }
    }

    /// Makes source filters loose.
    ///
    /// On an uplink the route back to a source often leads by another interface. On the inside a
    /// loose filter lets natbox receive and count packets with foreign sources.
    pub(super) fn source_filters(&self) -> Vec<Step> {
        let names = self.present_interfaces();
        names.iter().map(|name| sysctl(format!("net/ipv4/conf/{name}/rp_filter"), 2)).collect()
    }

    /// Raises the kernel's limit of ICMP errors.
    ///
    /// The limit counts the errors to all receivers together, so packets of many sources could use
    /// up what is due to the others. The kernel's limit per receiver (`icmp_ratelimit`) stays.
    pub(super) fn icmp_sysctls(&self) -> Vec<Step> {
        let mut steps = vec![sysctl("net/ipv4/icmp_errors_use_inbound_ifaddr", 1)];
        for (key, value) in [("icmp_msgs_per_sec", "100000"), ("icmp_msgs_burst", "10000")] {
            steps.push(Step::Sysctl {
                path: format!("net/ipv4/{key}"),
                value: value.into(),
                optional: true,
            });
        }
        steps
    }

    /// Switches forwarding on. `ip_forward` reaches every interface at the moment of the change. It
    /// does not reach an interface on which forwarding is switched off later, nor one that is made
    /// while `default` has it off.
    pub(super) fn forwarding(&self) -> Vec<Step> {
        let mut steps = vec![sysctl("net/ipv4/ip_forward", 1)];
        let names = self.present_interfaces().into_iter().chain([self.tun]);
        steps.extend(names.map(|name| sysctl(format!("net/ipv4/conf/{name}/forwarding"), 1)));
        steps
    }

    /// Lists the existing interfaces of the configuration without repeats, the inside legs first.
    fn present_interfaces(&self) -> Vec<&str> {
        let interfaces = self.facts.legs.iter().chain(&self.facts.uplinks);
        let mut names: Vec<&str> = Vec::new();
        for facts in interfaces.filter(|facts| facts.state != InterfaceState::Missing) {
            if !names.contains(&facts.interface.as_str()) {
                names.push(&facts.interface);
            }
        }
        names
    }

    /// Answers ARP for external addresses on the segment.
    ///
    /// The kernel stops answering ARP for an address that it would forward, so an address that is
    /// assigned to the host needs an entry as well. The entries work without `proxy_arp`.
    pub(super) fn proxies(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (place, address) in self.addresses() {
            let facts = &self.facts.uplinks[place];
            let is_here = self.assigned_to_host(place, address) || self.on_link(place, address);
            if facts.takes_routes() && facts.arp && is_here {
                // By default the kernel waits a random time of up to 0.8 s before it answers.
                let delay = sysctl(format!("net/ipv4/neigh/{}/proxy_delay", facts.interface), 0);
                if !steps.contains(&delay) {
                    steps.push(delay);
                }
                steps.push(Step::ProxyNeighbour { address, device: facts.interface.clone() });
            }
        }
        steps
    }
}
