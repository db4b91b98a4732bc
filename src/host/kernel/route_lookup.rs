//! Asks the kernel for the route of one packet, and makes the kernel probe its neighbours.

use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState as Nud};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::decode::neighbour_address;
use super::netlink::{Kernel, dump, error_number};
use super::sysctl;
use crate::host::error::HostError;
use crate::host::model::snapshot::Snapshot;

/// Discard port (RFC 863).
const DISCARD: u16 = 9;

/// A packet to route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteQuery {
    /// Source; an address of the host when the packet has no incoming interface.
    pub(crate) from: Ipv4Addr,
    /// Destination.
    pub(crate) to: Ipv4Addr,
    /// Incoming interface.
    pub(crate) iif: Option<String>,
}

/// The kernel's decision about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteResult {
    /// The packet leaves by an interface.
    Unicast {
        /// Outgoing interface.
        device: String,
        /// Next hop, if it is not the destination itself.
        via: Option<Ipv4Addr>,
    },
    /// The host delivers the packet to itself.
    Local,
    /// The kernel drops the packet, for this reason.
    Dropped(String),
}

impl std::fmt::Display for RouteResult {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RouteResult::Unicast { device, via: Some(via) } => {
                write!(formatter, "go to {via} by {device}")
            }
            RouteResult::Unicast { device, via: None } => {
                write!(formatter, "leave by {device} without a next hop")
            }
            RouteResult::Local => write!(formatter, "are delivered to the host itself"),
            RouteResult::Dropped(reason) => write!(formatter, "are dropped: {reason}"),
        }
    }
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) address: Ipv4Addr,
    /// Interface index.
    pub(crate) index: u32,
    pub(crate) state: NeighbourState,
    /// True when an earlier reply gave the hardware address and no probe is under way.
    pub(crate) learned: bool,
}

/// Whether a neighbour answers ARP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NeighbourState {
    /// The neighbour has answered recently.
    Reachable,
    /// The neighbour has not answered the kernel's probes.
    Failed,
    /// A probe is under way or due.
    Unconfirmed,
}

impl Kernel {
    /// Looks up the route of a packet.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) async fn route(
        &self,
        query: &RouteQuery,
        snapshot: &Snapshot,
    ) -> Result<RouteResult, HostError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.header.source_prefix_length = 32;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(query.to)));
        message.attributes.push(RouteAttribute::Source(RouteAddress::Inet(query.from)));
        if let Some(name) = &query.iif {
            let Some(link) = snapshot.link(name) else {
                return Ok(RouteResult::Dropped(format!("interface {name} does not exist")));
            };
            message.attributes.push(RouteAttribute::Iif(link.index));
        }
        let mut stream = std::pin::pin!(self.handle().route().get(message).execute());
        match futures_util::StreamExt::next(&mut stream).await {
            Some(Ok(reply)) => Ok(route_result(&reply, snapshot)),
            Some(Err(error)) => match error_number(&error) {
                Some(number) => Ok(RouteResult::Dropped(drop_reason(number, query.iif.as_deref()))),
                None => Err(HostError::netlink("looking up a route", error)),
            },
            None => Ok(RouteResult::Dropped("the kernel sent no reply".into())),
        }
    }

    /// Reads the neighbour table.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub(crate) async fn neighbours(&self) -> Result<Vec<Neighbour>, HostError> {
        let all =
            self.handle().neighbours().get().set_address_family(AddressFamily::Inet).execute();
        Ok(dump("listing neighbours", all).await?.iter().filter_map(neighbour).collect())
    }

    /// Makes the kernel probe a known neighbour at once.
    ///
    /// Otherwise the kernel waits for a packet to send and for a delay. Packets to the neighbour
    /// still use the known hardware address during the probe.
    pub(crate) async fn probe_again(&self, known: &Neighbour) {
        let neighbours = self.handle().neighbours();
        let request = neighbours.add(known.index, known.address.into()).state(Nud::Probe).replace();
        // Without the privilege the neighbour table shows the old state.
        let _ = request.execute().await;
    }

    /// Makes the kernel send an ARP request for an address on an interface, whatever the routes
    /// are. Returns true on success.
    pub(crate) async fn resolve(&self, address: Ipv4Addr, index: u32) -> bool {
        let neighbours = self.handle().neighbours();
        let request = neighbours.add(index, address.into()).state(Nud::None);
        request.flags(NeighbourFlags::Use).replace().execute().await.is_ok()
    }
}

/// Makes the kernel resolve a neighbour, by a datagram to the neighbour's discard port.
pub(crate) fn trigger_resolution(address: Ipv4Addr) {
    // The neighbour table shows the outcome.
    let _ = std::net::UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))
        .and_then(|socket| socket.send_to(&[], (address, DISCARD)));
}

fn route_result(reply: &RouteMessage, snapshot: &Snapshot) -> RouteResult {
    let (mut device, mut via) = (None, None);
    for attribute in &reply.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            device = snapshot
                .links
                .iter()
                .find(|link| link.index == *index)
                .map(|link| link.name.clone());
        } else if let RouteAttribute::Gateway(RouteAddress::Inet(gateway)) = attribute {
            via = Some(*gateway);
        }
    }
    match (reply.header.kind == RouteType::Unicast, device) {
        (true, Some(device)) => RouteResult::Unicast { device, via },
        (true, None) => RouteResult::Dropped("the route has no interface".into()),
        (false, _) => RouteResult::Local,
    }
}

/// Explains the kernel's error number (net/ipv4/route.c, fib_frontend.c).
fn drop_reason(number: i32, iif: Option<&str>) -> String {
    match number {
        libc::EXDEV => {
            "rp_filter rejects the source, whose route leads by another interface".into()
        }
        // Both an unreachable route and an interface without forwarding give this number.
        libc::EHOSTUNREACH => match iif.filter(|iif| !forwards(iif)) {
            Some(iif) => format!("forwarding is off on {iif}"),
            None => "an unreachable route takes them (ip route show table all type unreachable), \
                     because the route to a next hop is missing"
                .into(),
        },
        libc::ENETUNREACH => "there is no route".into(),
        libc::EACCES => "a prohibit route or rule takes them".into(),
        libc::EINVAL => "a blackhole route, or rp_filter rejects the source".into(),
        other => std::io::Error::from_raw_os_error(other).to_string(),
    }
}

/// Returns true when the kernel forwards packets that arrive on an interface.
fn forwards(interface: &str) -> bool {
    let path = format!("net/ipv4/conf/{interface}/forwarding");
    !matches!(sysctl::read(&path), Ok(Some(value)) if value == "0")
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let address = neighbour_address(message)?;
    let nud = message.header.state;
    let state = if [Nud::Failed, Nud::None].contains(&nud) {
        NeighbourState::Failed
    } else if [Nud::Reachable, Nud::Permanent, Nud::Noarp].contains(&nud) {
        NeighbourState::Reachable
    } else {
        // Incomplete: never answered. Stale, delay, probe: not answered recently, possibly dead.
        NeighbourState::Unconfirmed
    };
    let learned = [Nud::Reachable, Nud::Stale, Nud::Delay].contains(&nud);
    Some(Neighbour { address, index: message.header.ifindex, state, learned })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};

    use super::*;

    #[test]
    fn only_a_neighbour_that_answered_recently_is_reachable() {
        let of = |state| {
            let mut message = NeighbourMessage::default();
            message.header.state = state;
            let address = NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 1));
            message.attributes.push(NeighbourAttribute::Destination(address));
            let found = neighbour(&message).unwrap();
            (found.state, found.learned)
        };
        assert_eq!(of(Nud::Reachable), (NeighbourState::Reachable, true));
        assert_eq!(
            of(Nud::Permanent),
            (NeighbourState::Reachable, false),
            "a probe would delete the permanent entry"
        );
        assert_eq!(of(Nud::Stale), (NeighbourState::Unconfirmed, true));
        assert_eq!(of(Nud::Delay), (NeighbourState::Unconfirmed, true));
        assert_eq!(of(Nud::Probe), (NeighbourState::Unconfirmed, false));
        assert_eq!(of(Nud::Incomplete), (NeighbourState::Unconfirmed, false));
        assert_eq!(of(Nud::Failed), (NeighbourState::Failed, false));
    }
}
