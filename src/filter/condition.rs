//! The conditions of a filter.

use std::fmt;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::subject::Subject;
use crate::packet::{Endpoint, Protocol};

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The protocol.
    Protocol(Protocol),
    /// An endpoint.
    Endpoint(End, EndpointPattern),
    /// A name.
    Name(Property, String),
    /// A duration.
    Time(Property, Comparison, Duration),
}

/// The ends of a session that a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Any endpoint of the session.
    Any,
    /// The source of the client's packets, before or after translation.
    From,
    /// The destination of the client's packets, before or after translation.
    To,
    /// The endpoint that opened the session.
    Client,
    /// The endpoint that answers.
    Server,
    /// An external endpoint.
    Published,
    /// An endpoint inside.
    Inside,
    /// The endpoint outside.
    Outside,
}

/// A property with a name or a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    /// Name of the uplink.
    Uplink,
    /// Name of the forward.
    Forward,
    /// Name of the state.
    State,
    /// Name of the kind.
    Origin,
    /// Time since the last packet.
    Idle,
    /// Time since the first packet.
    Age,
    /// Time until the end.
    Expires,
}

/// How a duration is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Shorter.
    Less,
    /// Shorter or equal.
    LessOrEqual,
    /// Longer.
    Greater,
    /// Longer or equal.
    GreaterOrEqual,
    /// Equal, in whole seconds.
    Equal,
}

/// Addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EndpointPattern {
    /// Network. A single address has the length 32. None: any address.
    pub(crate) network: Option<Ipv4Net>,
    /// First and last port. None: any port.
    pub(crate) ports: Option<(u16, u16)>,
}

impl Condition {
    pub(super) fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Protocol(protocol) => subject.protocol() == *protocol,
            Self::Endpoint(end, pattern) => {
                end.of(subject).into_iter().flatten().any(|found| pattern.matches(found))
            }
            Self::Name(property, name) => property.name_of(subject) == Some(name.as_str()),
            Self::Time(property, comparison, limit) => {
                property.time_of(subject).is_some_and(|found| comparison.holds(found, *limit))
            }
        }
    }
}

impl End {
    /// All ends with their words.
    pub(super) const WORDS: [(&'static str, Self); 7] = [
        ("from", Self::From),
        ("to", Self::To),
        ("client", Self::Client),
        ("server", Self::Server),
        ("published", Self::Published),
        ("inside", Self::Inside),
        ("outside", Self::Outside),
    ];

    fn of(self, subject: &Subject<'_>) -> [Option<Endpoint>; 4] {
        let pair = |[first, second]: [Option<Endpoint>; 2]| [first, second, None, None];
        match self {
            Self::Any => {
                let ([first, second], [third, fourth]) =
                    (subject.sources(), subject.destinations());
                [first, second, third, fourth]
            }
            Self::From => pair(subject.sources()),
            Self::To => pair(subject.destinations()),
            Self::Client => pair([Some(subject.client()), None]),
            Self::Server => pair([Some(subject.server()), None]),
            Self::Published => pair(subject.published()),
            Self::Inside => pair(subject.inside()),
            Self::Outside => pair([subject.outside(), None]),
        }
    }
}

impl Property {
    /// All properties with a name, and their words.
    pub(super) const NAMES: [(&'static str, Self); 4] = [
        ("uplink", Self::Uplink),
        ("forward", Self::Forward),
        ("state", Self::State),
        ("origin", Self::Origin),
    ];
    /// All properties with a duration, and their words.
    pub(super) const TIMES: [(&'static str, Self); 3] =
        [("idle", Self::Idle), ("age", Self::Age), ("expires", Self::Expires)];

    /// Returns the word of the property.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Idle | Self::Age | Self::Expires => word(&Self::TIMES, &self),
            Self::Uplink | Self::Forward | Self::State | Self::Origin => word(&Self::NAMES, &self),
        }
    }

    fn name_of<'a>(self, subject: &Subject<'a>) -> Option<&'a str> {
        match self {
            Self::Uplink => subject.uplink,
            Self::Forward => subject.forward,
            Self::State => subject.state,
            Self::Origin => subject.origin,
            Self::Idle | Self::Age | Self::Expires => None,
        }
    }

    fn time_of(self, subject: &Subject<'_>) -> Option<Duration> {
        match self {
            Self::Idle => subject.idle,
            Self::Age => subject.age,
            Self::Expires => subject.expires,
            Self::Uplink | Self::Forward | Self::State | Self::Origin => None,
        }
    }
}

impl Comparison {
    /// All comparisons with their signs.
    pub(super) const SIGNS: [(&'static str, Self); 5] = [
        ("<", Self::Less),
        ("<=", Self::LessOrEqual),
        (">", Self::Greater),
        (">=", Self::GreaterOrEqual),
        ("=", Self::Equal),
    ];

    fn holds(self, found: Duration, limit: Duration) -> bool {
        match self {
            Self::Less => found < limit,
            Self::LessOrEqual => found <= limit,
            Self::Greater => found > limit,
            Self::GreaterOrEqual => found >= limit,
            Self::Equal => found.as_secs() == limit.as_secs(),
        }
    }
}

impl EndpointPattern {
    fn matches(&self, endpoint: Endpoint) -> bool {
        self.network.is_none_or(|network| network.contains(&endpoint.address))
            && self.ports.is_none_or(|(first, last)| (first..=last).contains(&endpoint.port))
    }
}

/// Finds the word of a value in a table of words.
fn word<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, found)| found == value).map_or("", |(word, _)| word)
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(protocol) => match protocol_word(*protocol) {
                Some(word) => formatter.write_str(word),
                None => write!(formatter, "protocol {}", protocol.0),
            },
            Self::Endpoint(End::Any, pattern) => pattern.fmt(formatter),
            Self::Endpoint(end, pattern) => {
                write!(formatter, "{} {pattern}", word(&End::WORDS, end))
            }
            Self::Name(property, name) => {
                write!(formatter, "{} {name}", property.word())
            }
            Self::Time(property, comparison, limit) => write!(
                formatter,
                "{}{}{}s",
                property.word(),
                word(&Comparison::SIGNS, comparison),
                limit.as_secs()
            ),
        }
    }
}

impl fmt::Display for EndpointPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network {
            Some(network) if network.prefix_len() == 32 => write!(formatter, "{}", network.addr())?,
            Some(network) => write!(formatter, "{network}")?,
            None => {}
        }
        match self.ports {
            Some((first, last)) if first == last => write!(formatter, ":{first}"),
            Some((first, last)) => write!(formatter, ":{first}-{last}"),
            None => Ok(()),
        }
    }
}

/// Returns the word of a protocol that has one.
fn protocol_word(protocol: Protocol) -> Option<&'static str> {
    PROTOCOLS.iter().find(|(_, found)| *found == protocol).map(|(word, _)| *word)
}

/// Protocols with a word.
pub(super) const PROTOCOLS: [(&str, Protocol); 7] = [
    ("tcp", Protocol::TCP),
    ("udp", Protocol::UDP),
    ("icmp", Protocol::ICMP),
    ("gre", Protocol(47)),
    ("esp", Protocol(50)),
    ("sctp", Protocol(132)),
    ("udplite", Protocol(136)),
];
