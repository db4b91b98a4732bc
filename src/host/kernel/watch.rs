//! Changes of the legs' interfaces and of the TUN, and of addresses, as the kernel tells them (RTNLGRP_LINK,
//! RTNLGRP_IPV4_IFADDR).

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::stream::StreamExt;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::host::error::HostError;
use crate::host::kernel::netlink::{Kernel, address_of, link_of};
use crate::host::model::snapshot::{Address, Link};

/// A change on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// Of a watched interface.
    Link(LinkChange),
    /// Of addresses; and of default routes, where an uplink follows its interface.
    Addresses,
}

/// One change of one watched interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkChange {
    /// Interface name.
    pub interface: String,
    /// What changed.
    pub event: LinkEvent,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The interface was deleted, renamed or moved to another namespace.
    Removed,
    /// Administratively down, or the other end is not there.
    Down,
    /// Up with carrier; also when it has just been made. Routes may have to be set again.
    Up,
    /// Another MTU, in bytes.
    Mtu(u32),
}

/// A subscription to changes.
pub struct LinkWatch {
    /// When addresses that have changed are told of; None: none have.
    settled: Option<Instant>,
    kernel: Kernel,
    messages: Box<dyn futures_util::Stream<Item = Note> + Send + Unpin>,
    connection: JoinHandle<()>,
    watched: Vec<Watched>,
    /// Addresses of the configuration; an external one may be the host's own on any interface.
    addresses: Vec<Ipv4Addr>,
    /// Found out, not yet told.
    pending: VecDeque<LinkChange>,
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What is known of one interface.
#[derive(Debug)]
struct Watched {
    name: String,
    /// Index, carrier and MTU; nothing while there is no such interface.
    state: Option<(u32, bool, u32)>,
}

/// What a message amounts to.
enum Note {
    New(Link),
    Deleted(u32),
    /// An address came or went.
    Address(Address),
    /// A default route came or went.
    Default,
    /// Messages were lost: look at everything again.
    Overrun,
    Other,
}

impl LinkWatch {
    /// Subscribes to the interfaces of a configuration. Changes from now on are told.
    ///
    /// # Errors
    /// When the kernel refuses the subscription.
    pub async fn start(config: &Config) -> Result<Self, HostError> {
        let mut names = vec![config.tun.name.clone(), config.inside.interface.clone()];
        names.extend(config.uplinks.iter().map(|uplink| uplink.interface.clone()));
        names.sort();
        names.dedup();
        // Subscribed first and listed then, so that nothing falls between.
        let follows = config.uplinks.iter().any(|uplink| uplink.follows_interface);
        let groups = match follows {
            true => {
                &[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route][..]
            }
            // Routes may be many, and change often.
            false => &[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr],
        };
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(groups).map_err(|source| HostError::Netlink {
                doing: "subscribing to link changes".into(),
                source,
            })?;
        let connection = tokio::spawn(connection);
        let messages = Box::new(messages.map(|(message, _)| note(message.payload)));
        let watched = names.into_iter().map(|name| Watched { name, state: None }).collect();
        let external = config.uplinks.iter().flat_map(|uplink| uplink.addresses.iter().copied());
        let addresses = external.chain(config.inside.address).collect();
        let (kernel, pending) = (Kernel::connect()?, VecDeque::new());
        let mut watch =
            Self { settled: None, kernel, messages, connection, watched, addresses, pending };
        let links = watch.kernel.links().await?;
        watch.compare_all(&links);
        watch.pending.clear();
        Ok(watch)
    }

    /// Waits for the next change. Never returns if the kernel's end of the subscription is gone, which happens only
    /// when the process ends.
    pub async fn next(&mut self) -> HostChange {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return HostChange::Link(change);
            }
            let message = tokio::select! {
                message = self.messages.next() => message,
                () = sleep_until(self.settled) => {
                    self.settled = None;
                    return HostChange::Addresses;
                }
            };
            match message {
                Some(Note::Address(address)) if !self.concerns_us(&address) => {}
                Some(Note::Address(_) | Note::Default) => {
                    self.settled.get_or_insert(Instant::now() + SETTLE);
                }
                Some(Note::New(link)) => self.compare(&link),
                Some(Note::Deleted(index)) => self.deleted(index),
                Some(Note::Overrun) => {
                    self.settled.get_or_insert(Instant::now() + SETTLE);
                    match self.kernel.links().await {
                        Ok(links) => self.compare_all(&links),
                        Err(error) => tracing::warn!(%error, "link changes may have been missed"),
                    }
                }
                Some(Note::Other) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Containers come and go on some hosts, and to look at one takes time.
    fn concerns_us(&self, address: &Address) -> bool {
        let is_ours =
            |watched: &Watched| watched.state.is_some_and(|(index, _, _)| index == address.index);
        self.addresses.contains(&address.address) || self.watched.iter().any(is_ours)
    }

    fn compare_all(&mut self, links: &[Link]) {
        let known =
            self.watched.iter().filter_map(|watched| watched.state.map(|(index, _, _)| index));
        let gone: Vec<u32> =
            known.filter(|known| !links.iter().any(|link| link.index == *known)).collect();
        gone.into_iter().for_each(|index| self.deleted(index));
        links.iter().for_each(|link| self.compare(link));
    }

    fn deleted(&mut self, index: u32) {
        for watched in &mut self.watched {
            if watched.state.is_some_and(|(known, _, _)| known == index) {
                watched.state = None;
                self.pending.push_back(LinkChange {
                    interface: watched.name.clone(),
                    event: LinkEvent::Removed,
                });
            }
        }
    }

    fn compare(&mut self, link: &Link) {
        for watched in &mut self.watched {
            let mut tell = |event| {
                self.pending.push_back(LinkChange { interface: watched.name.clone(), event });
            };
            if watched.name != link.name {
                if watched.state.is_some_and(|(index, _, _)| index == link.index) {
                    tell(LinkEvent::Removed);
                    watched.state = None;
                }
                continue;
            }
            let (carrier, mtu) = (link.carrier, link.mtu);
            match watched.state.replace((link.index, carrier, mtu)) {
                Some((index, was, before)) => {
                    if mtu != before {
                        tell(LinkEvent::Mtu(mtu));
                    }
                    if index != link.index && carrier {
                        // Replaced by another of the same name.
                        tell(LinkEvent::Up);
                    } else if carrier != was {
                        tell(if carrier { LinkEvent::Up } else { LinkEvent::Down });
                    }
                }
                None => {
                    tell(LinkEvent::Mtu(mtu));
                    tell(if carrier { LinkEvent::Up } else { LinkEvent::Down });
                }
            }
        }
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// How long after a change it is looked at how things are, since changes come in bursts.
const SETTLE: Duration = Duration::from_millis(50);

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel's messages are open-ended; others do not concern us"
)]
fn note(payload: NetlinkPayload<RouteNetlinkMessage>) -> Note {
    match payload {
        // A bridge tells about its ports with messages of its own family, also that one "is deleted" from it.
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message))
            if message.header.interface_family == AddressFamily::Unspec =>
        {
            link_of(&message).map_or(Note::Other, Note::New)
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message))
            if message.header.interface_family == AddressFamily::Unspec =>
        {
            Note::Deleted(message.header.index)
        }
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message),
        ) => address_of(&message).map_or(Note::Other, Note::Address),
        NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route),
        ) if route.header.destination_prefix_length == 0 => Note::Default,
        NetlinkPayload::Overrun(_) => Note::Overrun,
        _ => Note::Other,
    }
}
