//! Checks the MTUs of a box and of a server.

use crate::config::MssClamp;
use crate::host::doctor::facts::box_facts::BoxFacts;
use crate::host::doctor::facts::first_hop::FirstHop;
use crate::host::doctor::facts::link_settings::LinkSettings;
use crate::host::doctor::facts::server_facts::ServerFacts;
use crate::host::doctor::finding::Finding;
use crate::host::kernel::route_lookup::RouteResult;

/// Smallest usual MTU in bytes: every IPv6 link has at least this MTU (RFC 8200), and so has every
/// IPv4 link in practice.
const MIN_MTU: u32 = 1280;
/// MTU of Ethernet, in bytes.
const USUAL_MTU: u32 = 1500;
/// Size of the IPv4 and TCP headers without options, in bytes.
const TCP_HEADERS: u32 = 40;

/// Checks the MTUs of a box: outside interfaces may be smaller than the inside if natbox clamps the
/// MSS.
pub(super) fn of_box(facts: &BoxFacts) -> Vec<Finding> {
    let is_inside = |link: &&LinkSettings| {
        facts.config.inside.legs.iter().any(|leg| leg.interface == link.interface)
    };
    let (legs, outside): (Vec<&LinkSettings>, Vec<&LinkSettings>) =
        facts.links.iter().partition(is_inside);
    // The inside hosts behind this leg agree on the longest segments.
    let Some(inside) = legs.into_iter().max_by_key(|link| link.mtu) else { return Vec::new() };
    let mut findings: Vec<Finding> = facts.links.iter().filter_map(too_small).collect();
    let smallest = outside.iter().map(|link| link.mtu).min();
    let unclamped = match facts.config.nat.mss_clamp {
        MssClamp::Off => smallest.filter(|mtu| *mtu < inside.mtu),
        MssClamp::To(mss) => smallest.filter(|mtu| u32::from(mss) + TCP_HEADERS > *mtu),
        MssClamp::Auto => None,
    };
    if let Some(mtu) = unclamped {
        let smaller = outside.iter().filter(|link| link.mtu < inside.mtu);
        let found = format!(
            "{}; nat.mss_clamp does not fit MTU {mtu}",
            words(smaller.copied().chain([inside]))
        );
        let why = "connections agree on segments that are too long for the uplink, and hang where \
                   ICMP errors are lost";
        findings.push(
            Finding::warning("mtu", found, why)
                .advice("set nat.mss_clamp: auto, then run: natbox reload"),
        );
    }
    if findings.is_empty() {
        findings.push(Finding::ok("mtu", words(&facts.links)));
    }
    findings
}

/// Checks the MTUs of a server, and whether large replies reach the box.
pub(super) fn of_server(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.links.iter().filter_map(too_small).collect();
    for LinkSettings { interface, mtu, .. } in &facts.links {
        let unfit = facts.configs.iter().filter_map(|config| match config.nat.mss_clamp {
            MssClamp::To(mss) if u32::from(mss) + TCP_HEADERS > *mtu => Some((&config.name, mss)),
            MssClamp::To(_) | MssClamp::Auto | MssClamp::Off => None,
        });
        findings.extend(unfit.map(|(name, mss)| {
            let found = format!("{interface} has MTU {mtu}, but nat.mss_clamp of {name} is {mss}");
            let why = "clients send segments that are too long for the private network";
            let max = mtu.saturating_sub(TCP_HEADERS);
            let advice = format!("set nat.mss_clamp of {name} to auto, or to {max} at most");
            Finding::warning("mtu", found, why).advice(advice)
        }));
    }
    findings.extend(lost_replies(facts));
    if findings.is_empty() && !facts.links.is_empty() {
        findings.push(Finding::ok("mtu", words(&facts.links)));
    }
    findings
}

/// Reports addresses whose large packets do not reach the first router.
fn lost_replies(facts: &ServerFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in &facts.addresses {
        let Some(RouteResult::Unicast { device, .. }) = &address.reply_route else { continue };
        let Some(probe) = &address.first_hop else { continue };
        let (FirstHop::Router(router), Some(size)) = (&probe.first_hop, probe.largest) else {
            continue;
        };
        let mtu = facts.snapshot.link(device).map_or(0, |link| link.mtu);
        let found = format!(
            "{device} has MTU {mtu}, but a packet of that size from {} does not reach {router}; a \
             packet of {size} bytes does",
            address.address
        );
        let why = "large replies are lost without an error: connections open, and hang as soon as \
                   a page is sent";
        let advice = format!(
            "if the MTU of {device} is right, raise the MTU of {router} and of all devices between"
        );
        findings.push(
            Finding::error("mtu", found, why)
                .fix([format!("ip link set dev {device} mtu {size}")])
                .advice(advice),
        );
    }
    findings
}

fn too_small(link: &LinkSettings) -> Option<Finding> {
    let LinkSettings { interface, mtu, .. } = link;
    (*mtu < MIN_MTU).then(|| {
        let found = format!("{interface} has MTU {mtu}");
        let why = format!(
            "an MTU below {MIN_MTU} is rarely intended, and larger packets from other machines are \
             lost"
        );
        Finding::warning("mtu", found, why)
            .fix([format!("ip link set dev {interface} mtu {USUAL_MTU}")])
    })
}

fn words<'a>(links: impl IntoIterator<Item = &'a LinkSettings>) -> String {
    let words: Vec<String> =
        links.into_iter().map(|link| format!("{} has MTU {}", link.interface, link.mtu)).collect();
    words.join(", ")
}
