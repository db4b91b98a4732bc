//! Asking the kernel which way a packet would take, and having it ask for neighbours on a segment.

use std::net::{IpAddr, Ipv4Addr};

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};

use super::error::HostError;
use super::netlink::{Kernel, code, dump, neighbour_address};
use super::snapshot::Snapshot;

/// A packet to be routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// Its source; the host's own if it comes in by no interface.
    pub(super) from: Ipv4Addr,
    pub(super) to: Ipv4Addr,
    /// Interface by which it comes in.
    pub(super) by: Option<String>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It leaves.
    By {
        /// Interface.
        device: String,
        /// Next hop, if it is not the destination itself.
        via: Option<Ipv4Addr>,
    },
    /// The host takes it for itself.
    Local,
    /// It is dropped, for this reason.
    Refused(String),
}

impl std::fmt::Display for Way {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::By { device, via: Some(via) } => write!(formatter, "goes to {via} by {device}"),
            Way::By { device, via: None } => {
                write!(formatter, "goes out by {device} without a next hop")
            }
            Way::Local => write!(formatter, "is taken for the host itself"),
            Way::Refused(why) => write!(formatter, "is dropped: {why}"),
        }
    }
}

/// An entry of the neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) address: Ipv4Addr,
    pub(super) index: u32,
    pub(super) answers: Answers,
    /// Its hardware address was learned from an answer, some time ago, and nobody is asking now.
    pub(super) learned: bool,
}

/// Whether a neighbour answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    Yes,
    /// It was asked and does not.
    No,
    /// It is being asked, or has to be.
    Asked,
}

impl Kernel {
    /// Asks for the way of a packet.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub(super) async fn way(
        &self,
        question: &Question,
        snapshot: &Snapshot,
    ) -> Result<Way, HostError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.header.source_prefix_length = 32;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet(question.to)));
        message.attributes.push(RouteAttribute::Source(RouteAddress::Inet(question.from)));
        if let Some(name) = &question.by {
            let Some(link) = snapshot.link(name) else {
                return Ok(Way::Refused(format!("there is no interface {name}")));
            };
            message.attributes.push(RouteAttribute::Iif(link.index));
        }
        let mut stream = std::pin::pin!(self.handle().route().get(message).execute());
        match futures_util::StreamExt::next(&mut stream).await {
            Some(Ok(answer)) => Ok(way(&answer, snapshot)),
            Some(Err(error)) => match code(&error) {
                Some(number) => Ok(Way::Refused(reason(number))),
                None => Err(HostError::netlink("asking for a route", error)),
            },
            None => Ok(Way::Refused("the kernel says nothing".into())),
        }
    }

    /// Reads the neighbour table.
    ///
    /// # Errors
    /// When the kernel refuses the dump.
    pub(super) async fn neighbours(&self) -> Result<Vec<Neighbour>, HostError> {
        let all =
            self.handle().neighbours().get().set_address_family(AddressFamily::Inet).execute();
        Ok(dump("listing neighbours", all).await?.iter().filter_map(neighbour).collect())
    }

    /// Has the kernel ask a known neighbour at once whether it is still there; by itself it takes its time and a packet to send.
    /// What goes there meanwhile goes where it went.
    pub(super) async fn ask_again(&self, known: &Neighbour) {
        let neighbours = self.handle().neighbours();
        let request = neighbours
            .add(known.index, known.address.into())
            .state(NeighbourState::Probe)
            .replace();
        // Without the privilege the table shows later what becomes of it.
        let _ = request.execute().await;
    }

    /// Has the kernel ask on an interface who has an address, whatever the routes say of it; whether it could.
    pub(super) async fn ask_for(&self, address: Ipv4Addr, index: u32) -> bool {
        let neighbours = self.handle().neighbours();
        let request = neighbours.add(index, address.into()).state(NeighbourState::None);
        request.flags(NeighbourFlags::Use).replace().execute().await.is_ok()
    }
}

fn way(answer: &RouteMessage, snapshot: &Snapshot) -> Way {
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
        (true, Some(device)) => Way::By { device, via },
        (true, None) => Way::Refused("no interface".into()),
        (false, _) => Way::Local,
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
    let is_one_of = |states: &[NeighbourState]| states.contains(&state);
    let answers = if is_one_of(&[NeighbourState::Failed, NeighbourState::None]) {
        Answers::No
    } else if is_one_of(&[
        NeighbourState::Reachable,
        NeighbourState::Permanent,
        NeighbourState::Noarp,
    ]) {
        Answers::Yes
    } else {
        // Incomplete: never heard of. Stale, delay, probe: not for a while, so that it may be long dead.
        Answers::Asked
    };
    let learned =
        is_one_of(&[NeighbourState::Reachable, NeighbourState::Stale, NeighbourState::Delay]);
    Some(Neighbour { address, index: message.header.ifindex, answers, learned })
}

/// Has the kernel ask for a neighbour, by a datagram to its discard port.
pub(super) fn rouse(address: Ipv4Addr) {
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
        assert_eq!(of(NeighbourState::Reachable), (Answers::Yes, true));
        assert_eq!(
            of(NeighbourState::Permanent),
            (Answers::Yes, false),
            "asking would make it forget"
        );
        assert_eq!(of(NeighbourState::Stale), (Answers::Asked, true));
        assert_eq!(of(NeighbourState::Delay), (Answers::Asked, true));
        assert_eq!(of(NeighbourState::Probe), (Answers::Asked, false));
        assert_eq!(of(NeighbourState::Incomplete), (Answers::Asked, false));
        assert_eq!(of(NeighbourState::Failed), (Answers::No, false));
    }
}
