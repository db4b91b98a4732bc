//! Asking the kernel which way a packet would take, and having it ask for neighbours on a segment.

use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState as Nud};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use crate::host::error::HostError;
use crate::host::kernel::netlink::{Kernel, code, dump, neighbour_address};
use crate::host::model::snapshot::Snapshot;

/// A packet to be routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteQuery {
    /// Its source; the host's own if it comes in by no interface.
    pub(crate) from: Ipv4Addr,
    pub(crate) to: Ipv4Addr,
    /// Interface by which it comes in.
    pub(crate) by: Option<String>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteResult {
    /// It leaves.
    Unicast {
        /// Interface.
        device: String,
        /// Next hop, if it is not the destination itself.
        via: Option<Ipv4Addr>,
    },
    /// The host takes it for itself.
    Local,
    /// It is dropped, for this reason.
    Dropped(String),
}

impl std::fmt::Display for RouteResult {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RouteResult::Unicast { device, via: Some(via) } => {
                write!(formatter, "goes to {via} by {device}")
            }
            RouteResult::Unicast { device, via: None } => {
                write!(formatter, "goes out by {device} without a next hop")
            }
            RouteResult::Local => write!(formatter, "is taken for the host itself"),
            RouteResult::Dropped(why) => write!(formatter, "is dropped: {why}"),
        }
    }
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) address: Ipv4Addr,
    pub(crate) index: u32,
    pub(crate) answers: NeighbourState,
    /// Its hardware address was learned from an answer, some time ago, and nobody is asking now.
    pub(crate) learned: bool,
}

/// Whether a neighbour answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NeighbourState {
    Reachable,
    /// It was asked and does not.
    Failed,
    /// It is being asked, or has to be.
    Unconfirmed,
}

impl Kernel {
    /// Asks for the way of a packet.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(crate) async fn way(
        &self,
        question: &RouteQuery,
        snapshot: &Snapshot,
    ) -> Result<RouteResult, HostError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.header.source_prefix_length = 32;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(question.to)));
        message.attributes.push(RouteAttribute::Source(RouteAddress::Inet(question.from)));
        if let Some(name) = &question.by {
            let Some(link) = snapshot.link(name) else {
                return Ok(RouteResult::Dropped(format!("there is no interface {name}")));
            };
            message.attributes.push(RouteAttribute::Iif(link.index));
        }
        let mut stream = std::pin::pin!(self.handle().route().get(message).execute());
        match futures_util::StreamExt::next(&mut stream).await {
            Some(Ok(answer)) => Ok(way(&answer, snapshot)),
            Some(Err(error)) => match code(&error) {
                Some(number) => Ok(RouteResult::Dropped(reason(number))),
                None => Err(HostError::netlink("asking for a route", error)),
            },
            None => Ok(RouteResult::Dropped("the kernel says nothing".into())),
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

    /// Has the kernel ask a known neighbour at once whether it is still there; by itself it takes its time and a packet to send.
    /// What goes there meanwhile goes where it went.
    pub(crate) async fn ask_again(&self, known: &Neighbour) {
        let neighbours = self.handle().neighbours();
        let request = neighbours.add(known.index, known.address.into()).state(Nud::Probe).replace();
        // Without the privilege the table shows later what becomes of it.
        let _ = request.execute().await;
    }

    /// Has the kernel ask on an interface who has an address, whatever the routes say of it; whether it could.
    pub(crate) async fn ask_for(&self, address: Ipv4Addr, index: u32) -> bool {
        let neighbours = self.handle().neighbours();
        let request = neighbours.add(index, address.into()).state(Nud::None);
        request.flags(NeighbourFlags::Use).replace().execute().await.is_ok()
    }
}

fn way(answer: &RouteMessage, snapshot: &Snapshot) -> RouteResult {
    let (mut device, mut via) = (None, None);
    for attribute in &answer.attributes {
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
    match (answer.header.kind == RouteType::Unicast, device) {
        (true, Some(device)) => RouteResult::Unicast { device, via },
        (true, None) => RouteResult::Dropped("no interface".into()),
        (false, _) => RouteResult::Local,
    }
}

/// The kernel's error as a sentence (net/ipv4/route.c, fib_frontend.c).
fn reason(number: i32) -> String {
    match number {
        libc::EXDEV => "its source is not reached by that interface, which rp_filter wants".into(),
        libc::EHOSTUNREACH => "it is not forwarded".into(),
        libc::ENETUNREACH => "there is no route".into(),
        libc::EINVAL => {
            "a blackhole, or its source is not expected by that interface (rp_filter)".into()
        }
        other => std::io::Error::from_raw_os_error(other).to_string(),
    }
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let address = neighbour_address(message)?;
    let state = message.header.state;
    let is_one_of = |states: &[Nud]| states.contains(&state);
    let answers = if is_one_of(&[Nud::Failed, Nud::None]) {
        NeighbourState::Failed
    } else if is_one_of(&[Nud::Reachable, Nud::Permanent, Nud::Noarp]) {
        NeighbourState::Reachable
    } else {
        // Incomplete: never heard of. Stale, delay, probe: not for a while, so that it may be long dead.
        NeighbourState::Unconfirmed
    };
    let learned = is_one_of(&[Nud::Reachable, Nud::Stale, Nud::Delay]);
    Some(Neighbour { address, index: message.header.ifindex, answers, learned })
}

/// Has the kernel ask for a neighbour, by a datagram to its discard port.
pub(crate) fn rouse(address: Ipv4Addr) {
    // Whether it can be sent shows in the neighbour table.
    let _ = std::net::UdpSocket::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))
        .and_then(|socket| socket.send_to(&[], (address, DISCARD)));
}

/// RFC 863.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};

    use super::*;

    #[test]
    fn only_a_neighbour_heard_of_lately_counts_as_answering() {
        let of = |state| {
            let mut message = NeighbourMessage::default();
            message.header.state = state;
            let address = NeighbourAddress::Inet(Ipv4Addr::new(10, 0, 0, 1));
            message.attributes.push(NeighbourAttribute::Destination(address));
            let found = neighbour(&message).unwrap();
            (found.answers, found.learned)
        };
        assert_eq!(of(Nud::Reachable), (NeighbourState::Reachable, true));
        assert_eq!(
            of(Nud::Permanent),
            (NeighbourState::Reachable, false),
            "asking would make it forget"
        );
        assert_eq!(of(Nud::Stale), (NeighbourState::Unconfirmed, true));
        assert_eq!(of(Nud::Delay), (NeighbourState::Unconfirmed, true));
        assert_eq!(of(Nud::Probe), (NeighbourState::Unconfirmed, false));
        assert_eq!(of(Nud::Incomplete), (NeighbourState::Unconfirmed, false));
        assert_eq!(of(Nud::Failed), (NeighbourState::Failed, false));
    }
}
