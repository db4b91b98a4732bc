//! Routes of natbox's own tables and of the main table.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::planner::{OutsideInterface, StepPlanner, default_prefix, host_prefix};
use crate::host::model::step::{Route, RouteKind, TABLE_LOCAL, TABLE_MAIN};

/// Metric of the last resort: any other route to the same destination comes first.
const LAST_RESORT: u32 = u32::MAX;

/// Prefixes that no host on the Internet has (RFC 1122 section 3.2.1.3).
const RESERVED: [Ipv4Net; 2] = [
    Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];

impl StepPlanner<'_> {
    /// Lists the routes of natbox's own tables.
    pub(super) fn tables(&self) -> Vec<Route> {
        let errors_table = self.ids.errors_table();
        let mut routes =
            vec![self.to_tun(errors_table, default_prefix()), closed_without_tun(errors_table)];
        routes.extend(self.inside_table());
        for interface in &self.outside_interfaces() {
            routes.extend(self.outside_table(self.ids.outside_table(interface.number), interface));
        }
        for place in 0..self.config.uplinks.len() {
            if !self.facts.leaves_by_main_table(self.config, place) {
                routes.extend(self.uplink_table(place));
            }
        }
        routes
    }

    /// Routes for packets from the inside interface: natbox translates all that leaves by an
    /// uplink.
    fn inside_table(&self) -> Vec<Route> {
        let table = self.ids.inside_table();
        let mut routes: Vec<Route> = self.throw_inside(table).collect();
        for network in &self.facts.other_networks {
            match network.route(table) {
                Some(route) => routes.push(route),
                None => {
                    routes.extend([self.to_tun(table, network.to), unreachable(table, network.to)]);
                }
            }
        }
        routes.push(self.to_tun(table, default_prefix()));
        // If natbox dies, the host still gets the packets to its own address.
        let assigned =
            self.addresses().filter(|(place, address)| self.assigned_to_host(*place, *address));
        for (_, address) in assigned {
            routes.push(self.to_tun(table, host_prefix(address)));
            let throw = Route::new(table, RouteKind::Throw, host_prefix(address));
            routes.push(Route { metric: LAST_RESORT, ..throw });
        }
        routes.push(closed_without_tun(table));
        routes
    }

    /// Routes for packets from an outside interface: only external addresses are reachable, and the
    /// networks whose packets the host forwards.
    ///
    /// A reply to a container has the container's address here, because the kernel's NAT restores
    /// the address before the kernel looks up the route.
    fn outside_table(&self, table: u32, interface: &OutsideInterface<'_>) -> Vec<Route> {
        let uplinks = interface.uplinks.iter();
        let addresses = uplinks.flat_map(|uplink| {
            let addresses = &self.config.uplinks[*uplink].addresses;
            addresses.iter().map(|address| (*uplink, *address))
        });
        let (mut routes, mut throws) = (Vec::new(), Vec::new());
        for (uplink, address) in addresses {
            routes.push(self.to_tun(table, host_prefix(address)));
            // If natbox dies, the TUN and this route vanish, and the host must get its packets.
            if self.assigned_to_host(uplink, address) {
                let throw = Route::new(table, RouteKind::Throw, host_prefix(address));
                throws.push(Route { metric: LAST_RESORT, ..throw });
            }
        }
        routes.extend(throws);
        let blackhole = |to| Route::new(table, RouteKind::Blackhole, to);
        let others = self.facts.other_networks.iter();
        routes.extend(others.map(|one| one.route(table).unwrap_or_else(|| blackhole(one.to))));
        // A network of the host may be around an inside prefix.
        let closed = self.config.inside.prefixes().chain([default_prefix()]);
        routes.extend(closed.map(blackhole));
        routes
    }

    /// Routes for packets that leave by an uplink.
    fn uplink_table(&self, place: usize) -> Vec<Route> {
        let table = self.table_of(place);
        let (uplink, facts) = (&self.config.uplinks[place], &self.facts.uplinks[place]);
        let through = |to| Route {
            device: Some(uplink.interface.clone()),
            ..Route::new(table, RouteKind::Unicast, to)
        };
        let mut routes: Vec<Route> = self.throw_inside(table).collect();
        if facts.takes_routes() {
            let is_inside =
                |prefix: &Ipv4Net| self.config.inside.prefixes().any(|own| own == *prefix);
            let outside = facts.on_link.iter().filter(|prefix| !is_inside(prefix));
            routes.extend(outside.map(|prefix| through(*prefix)));
            routes.extend(self.static_routes(place));
            match self.facts.next_hop(self.config, place) {
                Some(gateway) => {
                    let onlink = !facts.reaches(gateway);
                    routes.push(Route { via: Some(gateway), onlink, ..through(default_prefix()) });
                }
                None if facts.is_direct() => routes.push(through(default_prefix())),
                None => {}
            }
        }
        // While the routes above are missing, packets of this uplink must not leave by the default
        // route of the main table.
        routes.push(closed_without_tun(table));
        routes
    }

    /// Copies the host's routes for the table of an uplink. An uplink with a gateway has none: its
    /// packets have an address that only the network behind that gateway expects.
    fn static_routes(&self, place: usize) -> Vec<Route> {
        let (uplink, facts) = (&self.config.uplinks[place], &self.facts.uplinks[place]);
        if uplink.gateway.is_some() && !uplink.follows_interface {
            return Vec::new();
        }
        let table = self.table_of(place);
        // The table has routes to these networks.
        let is_known = |to: &Ipv4Net| {
            facts.on_link.contains(to)
                || self.config.inside.prefixes().any(|inside| inside.contains(to))
        };
        let copied = facts.static_routes.iter().flatten().filter(|route| !is_known(&route.to));
        let copy = |route: &Route| Route {
            table,
            onlink: route.via.is_some_and(|via| !facts.reaches(via)),
            ..route.clone()
        };
        copied.map(copy).collect()
    }

    /// Lists natbox's routes of the main table.
    pub(super) fn main_table(&self) -> Vec<Route> {
        let last_resort =
            |kind, to| Route { metric: LAST_RESORT, ..Route::new(TABLE_MAIN, kind, to) };
        // An inside prefix may lack a connected route (link down, prefix wider than the network).
        // Packets to that prefix must not leave by the default route with private addresses.
        let inside = self.config.inside.prefixes();
        let mut routes: Vec<Route> =
            inside.map(|prefix| last_resort(RouteKind::Unreachable, prefix)).collect();
        // Without a route back to a claimed source the kernel cannot send ICMP errors there.
        routes.extend(RESERVED.map(|prefix| last_resort(RouteKind::Blackhole, prefix)));
        let not_assigned =
            self.addresses().filter(|(place, address)| !self.assigned_to_host(*place, *address));
        routes.extend(not_assigned.map(|(place, address)| Route {
            source: self.facts.uplinks[place].address,
            ..self.to_tun(TABLE_MAIN, host_prefix(address))
        }));
        routes
    }

    /// The route of an external address that is assigned to the host, before the kernel's own. The
    /// first rule passes over it. An address stays local, so that programs can bind to it.
    pub(super) fn local_route(&self, address: Ipv4Addr) -> Route {
        Route {
            device: Some(self.tun.into()),
            ..Route::new(TABLE_LOCAL, RouteKind::Local, host_prefix(address))
        }
    }

    pub(super) fn to_tun(&self, table: u32, to: Ipv4Net) -> Route {
        Route { device: Some(self.tun.into()), ..Route::new(table, RouteKind::Unicast, to) }
    }

    fn throw_inside(&self, table: u32) -> impl Iterator<Item = Route> {
        let prefixes = self.config.inside.prefixes();
        prefixes.map(move |prefix| Route::new(table, RouteKind::Throw, prefix))
    }
}

/// Makes the route that applies while the TUN is down or natbox is dead: the host's other tables
/// would send the packets out untranslated.
pub(super) fn closed_without_tun(table: u32) -> Route {
    unreachable(table, default_prefix())
}

fn unreachable(table: u32, to: Ipv4Net) -> Route {
    Route { metric: LAST_RESORT, ..Route::new(table, RouteKind::Unreachable, to) }
}
