//! What a filter judges.

use std::time::Duration;

use crate::packet::{Endpoint, Protocol, Tuple};

/// A session, or a packet with what is known of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject<'a> {
    /// The packets of the side that opened the session, as they arrive.
    pub(crate) original: Tuple,
    /// The packets of the other side, as they arrive. None: a packet that belongs to no session.
    pub(crate) reply: Option<Tuple>,
    /// True when the side that opened the session is inside.
    pub(crate) opened_from_inside: bool,
    /// True when the other side is inside.
    pub(crate) answered_from_inside: bool,
    /// Name of the uplink.
    pub(crate) uplink: Option<&'a str>,
    /// Name of the forward.
    pub(crate) forward: Option<&'a str>,
    /// Name of the state.
    pub(crate) state: Option<&'a str>,
    /// Name of the kind of the session.
    pub(crate) origin: Option<&'a str>,
    /// Time since the last packet.
    pub(crate) idle: Option<Duration>,
    /// Time since the first packet.
    pub(crate) age: Option<Duration>,
    /// Time until the session ends if no packet arrives.
    pub(crate) expires: Option<Duration>,
}

impl Subject<'_> {
    pub(super) fn protocol(&self) -> Protocol {
        self.original.protocol
    }

    /// The endpoint that opened the session, by its own address.
    pub(super) fn client(&self) -> Endpoint {
        self.original.source
    }

    /// The endpoint that answers, by its own address.
    pub(super) fn server(&self) -> Endpoint {
        self.reply.map_or(self.original.destination, |reply| reply.source)
    }

    /// The external endpoints: that of the client, that of the server.
    pub(super) fn published(&self) -> [Option<Endpoint>; 2] {
        [
            self.reply.filter(|_| self.opened_from_inside).map(|reply| reply.destination),
            self.answered_from_inside.then_some(self.original.destination),
        ]
    }

    /// The endpoints inside.
    pub(super) fn inside(&self) -> [Option<Endpoint>; 2] {
        [
            self.opened_from_inside.then(|| self.client()),
            self.answered_from_inside.then(|| self.server()),
        ]
    }

    /// The endpoint outside. None for a session between two inside hosts.
    pub(super) fn outside(&self) -> Option<Endpoint> {
        match (self.opened_from_inside, self.answered_from_inside) {
            (true, true) => None,
            (true, false) => Some(self.server()),
            (false, _) => Some(self.client()),
        }
    }

    /// Sources of the client's packets, before and after translation.
    pub(super) fn sources(&self) -> [Option<Endpoint>; 2] {
        [Some(self.original.source), self.reply.map(|reply| reply.destination)]
    }

    /// Destinations of the client's packets, before and after translation.
    pub(super) fn destinations(&self) -> [Option<Endpoint>; 2] {
        [Some(self.original.destination), self.reply.map(|reply| reply.source)]
    }
}
