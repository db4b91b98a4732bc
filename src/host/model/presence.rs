//! The interfaces of a configuration: whether packets can pass them, and those that a start waits
//! for.

use std::fmt;

use super::snapshot::Link;
use crate::config::Config;

/// Whether packets can pass an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InterfaceState {
    /// The interface does not exist.
    Missing,
    /// The interface is administratively down.
    Down,
    /// The interface is up without a peer.
    NoCarrier,
    /// The interface is up with a peer.
    Up,
}

impl InterfaceState {
    /// Returns the state of the interface `name` among all interfaces of the host.
    pub(crate) fn of(name: &str, links: &[Link]) -> Self {
        let found = links.iter().find(|link| link.name == name);
        match found.map(|link| (link.up, link.carrier)) {
            None => Self::Missing,
            Some((false, _)) => Self::Down,
            Some((true, false)) => Self::NoCarrier,
            Some((true, true)) => Self::Up,
        }
    }
}

/// An interface that is missing or down, and that a start waits for.
#[derive(Clone, Debug)]
pub(crate) struct AwaitedInterface {
    /// Key path in the configuration.
    key: String,
    /// Value of the key.
    interface: String,
    /// Names of the existing interfaces; None: the interface exists and is down.
    present: Option<String>,
}

impl AwaitedInterface {
    /// Returns the command that fixes an interface which exists and is down.
    pub(crate) fn command(&self) -> Option<String> {
        self.present.is_none().then(|| format!("ip link set {} up", self.interface))
    }

    fn new(key: String, interface: &str, links: &[Link]) -> Option<Self> {
        let present = match InterfaceState::of(interface, links) {
            InterfaceState::Missing => Some(names(links)),
            InterfaceState::Down => None,
            InterfaceState::NoCarrier | InterfaceState::Up => return None,
        };
        Some(Self { key, interface: interface.to_owned(), present })
    }
}

/// The names of the other interfaces do not count: they change while natbox waits.
impl PartialEq for AwaitedInterface {
    fn eq(&self, other: &Self) -> bool {
        let of = |awaited: &Self| awaited.present.is_some();
        self.key == other.key && self.interface == other.interface && of(self) == of(other)
    }
}

impl fmt::Display for AwaitedInterface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, interface, present } = self;
        match present {
            Some(present) => write!(
                f,
                "{key}: interface {interface:?} does not exist; correct the key or create the \
                 interface (present: {present})"
            ),
            None => write!(
                f,
                "{key}: interface {interface} is down; bring the interface up: ip link set \
                 {interface} up"
            ),
        }
    }
}

/// Lists the interfaces that natbox waits for before it starts: those that are missing or down,
/// while packets cannot pass from any inside leg to any uplink. Empty: natbox can start.
///
/// One leg and one uplink are enough, because the others may appear later. natbox waits for no
/// uplink if the address of one follows its interface: such an interface comes and goes at any
/// time.
pub(crate) fn awaited(config: &Config, links: &[Link]) -> Vec<AwaitedInterface> {
    let legs = config.inside.legs.iter().enumerate().map(|(place, leg)| {
        AwaitedInterface::new(config.inside.key_path(place, "interface"), &leg.interface, links)
    });
    let uplinks = config.uplinks.iter().enumerate().map(|(place, uplink)| {
        let key = format!("uplinks[{place}].interface");
        let awaited = AwaitedInterface::new(key, &uplink.interface, links);
        awaited.filter(|_| !uplink.follows_interface)
    });
    let mut awaited: Vec<_> = legs.collect::<Option<_>>().unwrap_or_default();
    awaited.extend(uplinks.collect::<Option<Vec<_>>>().unwrap_or_default());
    awaited
}

fn names(links: &[Link]) -> String {
    links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>().join(", ")
}
