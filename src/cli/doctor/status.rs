//! Checks of what an instance reports about itself.

use crate::api::{DnsStatus, InstanceState, Status, UplinkStatus};
use crate::host::doctor::Finding;
use crate::nat::DropReason;

/// Reports whether an instance runs or waits for its interfaces.
pub(super) fn instance(status: &Status) -> Finding {
    let Status { name, pid, .. } = status;
    match status.state {
        InstanceState::Running => Finding::ok("box", format!("{name} runs, pid {pid}")),
        InstanceState::Waiting => Finding::error(
            "box",
            format!("{name} (pid {pid}) waits: {}", status.waiting_for.join("; ")),
            "natbox translates no packet yet and has changed nothing on the host",
        )
        .advice("bring the interfaces up; natbox then starts by itself"),
    }
}

/// Makes the findings about an instance's status. `up` holds the interfaces that are up.
pub(super) fn evaluate(status: &Status, up: &[String]) -> Vec<Finding> {
    let uplinks = status.uplinks.iter().map(|row| uplink(row, up.contains(&row.interface)));
    let mut findings: Vec<Finding> = uplinks.collect();
    findings.push(sessions(status));
    findings.extend(status.dns.as_ref().map(dns).unwrap_or_default());
    findings.extend(drops(status));
    findings.push(match status.log_lines_dropped {
        0 => Finding::ok("log", "no line of the log was dropped"),
        dropped => Finding::warning(
            "log",
            format!("{dropped} lines of the log were dropped"),
            "the reader of standard error (the journal, a pipe) is too slow, so the mapping log has \
             gaps",
        )
        .advice("check the reader, or set log.level higher"),
    });
    findings
}

fn uplink(row: &UplinkStatus, is_up: bool) -> Finding {
    let UplinkStatus { name, interface, state_seconds, .. } = row;
    let failed = format!("{name} failed {state_seconds} s ago");
    match (row.healthy, row.link_ready) {
        (true, _) => Finding::ok("uplink", format!("{name} by {interface} is healthy")),
        (false, true) => Finding::error(
            "uplink",
            format!("{failed}: the health check over {interface} gets no reply"),
            "new outbound sessions use other uplinks, and clients of this uplink's addresses get no \
             reply",
        )
        .advice("check the uplink's router and the targets of uplinks.health"),
        // An uplink whose address follows its interface is down without an address.
        (false, false) if is_up => Finding::error(
            "uplink",
            format!("{failed}: {interface} is up and has no address"),
            "no packet passes this uplink",
        )
        .advice(format!(
            "check the interface's DHCP client: ip address show dev {interface}; networkctl status \
             {interface}"
        )),
        (false, false) => Finding::error(
            "uplink",
            format!("{failed}: {interface} is down"),
            "no packet passes this uplink",
        )
        .fix([format!("ip link set {interface} up")])
        .advice("if the interface is up already, check its cable"),
    }
}

/// Reports failed updates of the zone and failed hooks.
fn dns(dns: &DnsStatus) -> Vec<Finding> {
    let update = dns.update_error.as_ref().map(|error| {
        Finding::error(
            "dns",
            format!("dns.update: natbox could not update the zone: {error}"),
            "the zone may lead clients to failed uplinks, and not to healthy ones",
        )
        .advice("check dns.update: its server, key and secret; natbox tries again by itself")
    });
    let hook = dns.hook_error.as_ref().map(|error| {
        Finding::error(
            "dns",
            format!("dns.hook: natbox could not run the hook: {error}"),
            "no hook reports the state of the uplinks",
        )
        .advice("check the program that dns.hook names")
    });
    update.into_iter().chain(hook).collect()
}

fn sessions(status: &Status) -> Finding {
    let sessions = &status.sessions;
    let found = format!("{} of {} sessions are in use", sessions.now, sessions.capacity);
    match u64::from(sessions.now) * 10 >= u64::from(sessions.capacity) * 9 {
        true => Finding::warning(
            "sessions",
            found,
            "when the table is full, natbox evicts old sessions or rejects new ones",
        )
        .advice(
            "raise limits.sessions and restart, or find the host that opens them: natbox sessions",
        ),
        false => Finding::ok("sessions", found),
    }
}

/// Reports the drops that point to a wrong setting or an exhausted resource.
fn drops(status: &Status) -> Vec<Finding> {
    let counts = status.drops.iter().filter_map(|(name, count)| {
        let reason = *DropReason::ALL.iter().find(|reason| reason.name() == name)?;
        let found = format!("{count} packets were dropped since the start: {}", reason.name());
        let why = reason.explanation().trim();
        Some(Finding::warning("drops", found, why).advice(drop_advice(reason)?))
    });
    let findings: Vec<Finding> = counts.collect();
    if !findings.is_empty() {
        return findings;
    }
    let found = "no drop points to a wrong setting or an exhausted resource";
    vec![Finding::ok("drops", found)]
}

/// Returns what a person can do about a drop reason. Packets from the Internet cause the other
/// drops.
fn drop_advice(reason: DropReason) -> Option<&'static str> {
    Some(match reason {
        DropReason::SourceNotAllowed => {
            "add the sender's network to inside.prefixes, or find the host that sends with a foreign \
             source"
        }
        DropReason::NoOutboundRule => {
            "if the sender must reach the Internet, add a rule to outbound"
        }
        DropReason::UplinkUnknown => {
            "shortly after a restart this is normal; later, check the server's routes: natbox doctor \
             server"
        }
        DropReason::HairpinDisabled => {
            "if inside hosts must reach published addresses, set nat.hairpin: true"
        }
        DropReason::TableFull => "raise limits.sessions and restart",
        DropReason::PortsExhausted => {
            "add external addresses, widen nat.ports, or set nat.address_pooling: paired-soft"
        }
        DropReason::HostSessionLimit => {
            "raise limits.sessions_per_host, or check the sessions of that host: natbox sessions"
        }
        DropReason::HostSessionRate => {
            "raise limits.new_sessions_per_host, or check the sessions of that host: natbox sessions"
        }
        DropReason::InboundLimit => {
            "if the packets are no flood, raise limits.sessions or limits.sessions_per_host, or set a \
             stricter nat.filtering"
        }
        DropReason::BadVnetHeader | DropReason::TunWriteError => {
            "check the log; if the kernel fails at an offload that it offers, set tun.offload: none"
        }
        DropReason::FragmentTableFull => {
            "if the fragments are not an attack, raise limits.fragments and restart"
        }
        DropReason::NotIpv4
        | DropReason::Ipv6
        | DropReason::BadIpHeader
        | DropReason::BadIpChecksum
        | DropReason::SourceRoute
        | DropReason::BadTransportHeader
        | DropReason::BadIcmpError
        | DropReason::BadFragment
        | DropReason::FragmentOverlap
        | DropReason::FragmentDuplicate
        | DropReason::FragmentTimeout
        | DropReason::Martian
        | DropReason::NoMapping
        | DropReason::Filtered
        | DropReason::TcpWithoutSession
        | DropReason::IcmpUnsolicitedReply
        | DropReason::IcmpErrorNoSession
        | DropReason::IcmpErrorMismatch
        | DropReason::UnsupportedIcmp
        | DropReason::AddressConflict
        | DropReason::MtuExceeded => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::host::doctor::Severity;

    #[test]
    fn each_part_of_the_status_is_evaluated() {
        let good = status();
        let evaluate = |status: &Status| evaluate(status, &[]);
        assert!(
            evaluate(&good).iter().all(|finding| finding.severity == Severity::Ok),
            "{:?}",
            evaluate(&good)
        );
        let mut bad = good.clone();
        (bad.uplinks[0].healthy, bad.uplinks[0].link_ready) = (false, false);
        bad.sessions.now = 900;
        bad.drops = BTreeMap::from([("source-not-allowed".into(), 3), ("no-mapping".into(), 9)]);
        bad.log_lines_dropped = 1;
        let findings = evaluate(&bad);
        let of = |id: &str| findings.iter().find(|finding| finding.id == id).unwrap();
        assert_eq!(
            (of("uplink").severity, of("uplink").fix.as_slice()),
            (Severity::Error, &["ip link set wan0 up".to_owned()][..])
        );
        for id in ["sessions", "drops", "log"] {
            assert_eq!(of(id).severity, Severity::Warning, "{id}");
        }
        assert!(of("drops").found.starts_with("3 packets"), "{:?}", of("drops"));
        assert_eq!(
            findings.iter().filter(|finding| finding.id == "drops").count(),
            1,
            "a packet to a port without a mapping is not a fault of the box"
        );
        bad.uplinks[0].link_ready = true;
        assert!(
            evaluate(&bad)[0].fix.is_empty() && evaluate(&bad)[0].found.contains("health check")
        );
    }

    #[test]
    fn an_uplink_without_an_address_is_an_error_of_its_own() {
        let mut status = status();
        (status.uplinks[0].healthy, status.uplinks[0].link_ready) = (false, false);
        let findings = evaluate(&status, &["wan0".into()]);
        assert!(
            findings[0].found.contains("has no address") && findings[0].fix.is_empty(),
            "{findings:?}"
        );
    }

    #[test]
    fn failed_updates_and_hooks_are_errors() {
        let mut status = status();
        let dns = r#"{ "listening": [], "usable": ["isp"], "counters": {}, "update_error": "refused", "hook_error": "not there" }"#;
        status.dns = Some(serde_json::from_str(dns).unwrap());
        let findings = evaluate(&status, &[]);
        let errors = findings
            .iter()
            .filter(|finding| (finding.severity, finding.id.as_str()) == (Severity::Error, "dns"));
        assert_eq!(errors.count(), 2, "{findings:?}");
    }

    fn status() -> Status {
        let json = r#"{
            "name": "a", "version": "0", "pid": 1, "uptime_seconds": 1, "tun": { "name": "nb0", "io": "poll", "offload": "none" },
            "uplinks": [{ "name": "isp", "interface": "wan0", "healthy": true, "state_seconds": 5, "link_ready": true,
                "health_check": false, "latency_milliseconds": null, "loss_percent": null }],
            "sessions": { "now": 10, "capacity": 1000, "created": 0, "expired": 0, "evicted": 0 },
            "mappings": 0, "totals": {}, "drops": { "no-mapping": 9 }, "log_lines_dropped": 0, "workers": []
        }"#;
        serde_json::from_str(json).unwrap()
    }
}
