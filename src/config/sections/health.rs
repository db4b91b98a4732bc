//! `uplinks[].health`: the health check of an uplink.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::config::document::Document;
use crate::config::problem::{Location, ValueError};
use crate::config::reader::cursor::Located;
use crate::config::schema::{Unresolved, ValueTypeExt as _, mapping, section};
use crate::config::types::{Format, Items, Scalar as _, duration, network, number, pattern, some};

use super::expect::{Expectation, FileExpectation};
use super::health_limits::{FileLatencyLimits, HoldTimes, LatencyLimits, LossLimits};

/// Health check of an uplink. In every interval natbox probes all targets over this uplink alone.
/// The round is good when enough of them answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Health {
    /// Targets of ICMP echo requests.
    pub ping: Vec<Ipv4Addr>,
    /// Targets of TCP connections.
    pub tcp: Vec<SocketAddrV4>,
    /// Pages to request.
    pub http: Vec<WebTarget>,
    /// The answers of pages that count.
    pub expect: Expectation,
    /// Answers that make a round good, at most the number of targets.
    pub quorum: u32,
    /// Time between rounds.
    pub interval: Duration,
    /// Intervals in a row without a good round after which the uplink is down.
    pub fall: u32,
    /// Good rounds in a row after which the uplink is healthy again.
    pub rise: u32,
    /// Rounds over which loss and latency are measured.
    pub window: u32,
    /// Limits of the loss.
    pub loss: LossLimits,
    /// Limits of the latency, if any.
    pub latency: Option<LatencyLimits>,
    /// Time that a failed uplink must answer before it is healthy again.
    pub hold: HoldTimes,
}

section! {
    /// Health check of an uplink. In every interval natbox probes all targets over this uplink
    /// alone. It needs one of `ping`, `tcp` and `http`. No target may be an address of this box or
    /// lie in the private network.
    #[derive(Debug)]
    pub(in crate::config) struct FileHealth {
        /// Addresses to send ICMP echo requests to.
        pub ping: Unresolved<Items<Ipv4Addr>> = targets(network::address(), "addresses")
            .optional("none")
            .example("[203.0.113.254]"),
        /// Endpoints to open a TCP connection to.
        pub tcp: Unresolved<Items<SocketAddrV4>> = targets(network::endpoint(), "addresses with ports")
            .optional("none")
            .example("[\"192.0.2.53:53\"]"),
        /// Pages to request. `expect` says which answers count. The host looks up names. While it
        /// cannot, natbox probes the addresses that it found last.
        pub http: Unresolved<Items<WebTarget>> = targets(web_target(), "addresses of pages")
            .optional("none")
            .example("[\"https://example.org/\"]"),
        /// The answers to `http` probes that count.
        pub expect: Unresolved<FileExpectation> = mapping::<FileExpectation>()
            .optional("a status from 200 to 399, and no redirect to another host"),
        /// Answers that make a round good. At most the number of targets.
        pub quorum: u32 = number(1..=Health::MAX_TARGETS).default(1),
        /// Time between rounds.
        pub interval: Duration = duration(Duration::from_millis(100)..=Duration::from_secs(3600))
            .default(Duration::from_secs(1)),
        /// Intervals in a row without a good round after which the uplink is down.
        pub fall: u32 = number(1..=1000).default(3),
        /// Good rounds in a row after which the uplink is healthy again.
        pub rise: u32 = number(1..=1000).default(3),
        /// Rounds over which loss and latency are measured.
        pub window: u32 = number(4..=1000).default(30),
        /// Loss at which an uplink fails and at which it may return.
        pub loss: LossLimits = mapping::<LossLimits>().with_defaults(),
        /// Latency at which an uplink fails and at which it may return.
        pub latency: Unresolved<FileLatencyLimits> = mapping::<FileLatencyLimits>()
            .optional("no latency fails the uplink"),
        /// Time that a failed uplink must answer before it is healthy again.
        pub hold: HoldTimes = mapping::<HoldTimes>().with_defaults(),
    }
}

fn targets<T: crate::config::schema::ValueType>(
    target: T,
    what: &'static str,
) -> impl crate::config::schema::ValueType<Value = Items<T::Value>> {
    some(target, Health::MAX_TARGETS as usize, what)
}

/// A page with scheme `http` or `https`, and with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebTarget(pub reqwest::Url);

impl WebTarget {
    /// Returns the address of the host, if the page names it by its address.
    fn literal(&self) -> Option<Ipv4Addr> {
        self.0.host_str()?.parse().ok()
    }
}

impl Health {
    /// Most targets of each kind.
    pub(crate) const MAX_TARGETS: u32 = 16;

    /// Makes a check of so many targets of pings, with the default of every other key.
    #[cfg(test)]
    pub(crate) fn of_pings(targets: u32) -> Self {
        let file: FileHealth = crate::config::schema::absent();
        Self {
            ping: (0..targets).map(|target| Ipv4Addr::from_bits(0xc000_0201 + target)).collect(),
            tcp: Vec::new(),
            http: Vec::new(),
            expect: Expectation::usual(),
            quorum: file.quorum,
            interval: file.interval,
            fall: file.fall,
            rise: file.rise,
            window: file.window,
            loss: file.loss,
            latency: None,
            hold: file.hold,
        }
    }

    /// Returns the number of targets of a round.
    pub(crate) fn targets(&self) -> usize {
        self.ping.len() + self.tcp.len() + self.http.len()
    }
}

impl FileHealth {
    /// Returns the addresses among the targets, with their locations.
    pub(crate) fn target_addresses(&self) -> Vec<Located<Ipv4Addr>> {
        let at = |location: &Location, value| Located { value, location: location.clone() };
        let ping = readable(&self.ping).iter().map(|target| at(&target.location, target.value));
        let tcp = readable(&self.tcp).iter().map(|target| at(&target.location, *target.value.ip()));
        let http = readable(&self.http).iter();
        let http = http.filter_map(|target| Some(at(&target.location, target.value.literal()?)));
        ping.chain(tcp).chain(http).collect()
    }
}

fn readable<T>(targets: &Unresolved<Items<T>>) -> &[Located<T>] {
    targets.given().map_or(&[], |targets| &targets.value.readable)
}

impl From<&Health> for FileHealth {
    fn from(health: &Health) -> Self {
        fn some_of<T: Clone>(targets: &[T]) -> Unresolved<Items<T>> {
            let targets = (!targets.is_empty()).then(|| Items::of(targets.iter().cloned()));
            Unresolved::from_option(targets)
        }
        Self {
            ping: some_of(&health.ping),
            tcp: some_of(&health.tcp),
            http: some_of(&health.http),
            quorum: health.quorum,
            interval: health.interval,
            fall: health.fall,
            rise: health.rise,
            // Without pages it would be a key without an effect.
            expect: Unresolved::from_option(
                (!health.http.is_empty()).then(|| FileExpectation::from(&health.expect)),
            ),
            window: health.window,
            loss: health.loss,
            latency: Unresolved::from_option(health.latency.as_ref().map(FileLatencyLimits::from)),
            hold: health.hold,
        }
    }
}

/// Returns the type of a page, by `http` or `https`.
fn web_target() -> Format<WebTarget> {
    Format {
        parse: parse_web_target,
        emit: |WebTarget(page)| Document::text(page),
        name: "address of a page",
        constraint: || pattern("^[hH][tT][tT][pP][sS]?://[^\\s#]+$"),
        free_text: false,
    }
}

fn parse_web_target(text: &str) -> Result<WebTarget, ValueError> {
    const WANTED: &str =
        "the address of a page such as https://example.org/ or http://192.0.2.80/alive";
    let error = |advice| ValueError::new(WANTED, advice);
    // The URL parser leaves them out.
    if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err(error("leave out the blanks"));
    }
    let url: reqwest::Url = text.parse().map_err(|_| error("begin it with http:// or https://"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(error("begin it with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(error("leave out the user and the password"));
    }
    if url.fragment().is_some() {
        return Err(error("leave out `#` and what follows: no server gets it"));
    }
    if url.port() == Some(0) {
        return Err(error("choose a port from 1 to 65535"));
    }
    match url.host_str() {
        Some(host) if host.starts_with('[') => {
            Err(error("natbox probes IPv4 only: write a name or an IPv4 address"))
        }
        Some("localhost") => Err(error("name a host beyond the uplink")),
        // The URL parser writes every form of an address as four plain numbers, such as 1.2.3.
        Some(host) if host.parse::<Ipv4Addr>().is_ok() && !text.contains(host) => {
            Err(error("write the address as four numbers from 0 to 255, without leading zeros"))
        }
        Some(host) if host.parse::<Ipv4Addr>().is_ok() => {
            network::address().parse(host).map_err(|error| error.wanting(WANTED))?;
            Ok(WebTarget(url))
        }
        Some(_) => Ok(WebTarget(url)),
        None => Err(error("name the host")),
    }
}
