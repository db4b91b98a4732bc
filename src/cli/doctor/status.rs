//! What is thought of what a box says of itself.

use crate::api::{DnsStatus, Status, UplinkStatus};
use crate::host::doctor::Finding;
use crate::nat::DropReason;

/// Findings of a box's own state. `up`: the interfaces that are up.
pub(super) fn evaluate(status: &Status, up: &[String]) -> Vec<Finding> {
    let uplinks =
        status.uplinks.iter().map(|uplink| uplink_row(uplink, up.contains(&uplink.interface)));
    let mut findings: Vec<Finding> = uplinks.collect();
    findings.push(table(status));
    findings.extend(status.dns.as_ref().map(dns).unwrap_or_default());
    let told = status.drops.iter().filter_map(|(name, count)| {
        let reason = DropReason::ALL.iter().find(|reason| reason.name() == name)?;
        drops(*reason, *count)
    });
    let told: Vec<Finding> = told.collect();
    if told.is_empty() {
        findings.push(Finding::ok(
            "drops",
            "nothing was dropped that points to a wrong setting or a shortage",
        ));
    }
    findings.extend(told);
    findings.push(match status.log_lines_dropped {
        0 => Finding::ok("log", "no line of the log was lost"),
        lost => Finding::warning(
            "log",
            format!("{lost} lines of the log were lost"),
            "whoever reads standard error (the journal, a pipe) does not keep up; the mapping log has holes",
        )
        .advice("see to the reader, or set log.level higher"),
    });
    findings
}

fn uplink_row(uplink: &UplinkStatus, up: bool) -> Finding {
    let UplinkStatus { name, interface, state_seconds, .. } = uplink;
    match (uplink.healthy, uplink.link_ready) {
        (true, _) => Finding::ok("uplink", format!("{name} by {interface} is healthy")),
        // A line whose address follows its interface is down without one.
        (false, false) if up => Finding::error(
            "uplink",
            format!("{name} has failed {state_seconds} s ago: {interface} is up and has no address"),
            "nothing goes by this line",
        )
        .advice(format!(
            "see to its DHCP client, or whatever gives it one: ip address show dev {interface}; networkctl status {interface}"
        )),
        (false, false) => Finding::error(
            "uplink",
            format!("{name} has failed {state_seconds} s ago: {interface} is down"),
            "nothing goes by this line",
        )
        .fix([format!("ip link set {interface} up")])
        .advice("if it is up already, see to its cable"),
        (false, true) => Finding::error(
            "uplink",
            format!(
                "{name} by {interface} has failed {state_seconds} s ago: its health check gets no answer"
            ),
            "what begins inside takes other lines, and who asks at this one's address gets no answer",
        )
        .advice("is the line's router on, and do the targets of uplinks.health answer anybody?"),
    }
}

/// The name server itself is told by its answers; others may not have heard.
fn dns(dns: &DnsStatus) -> Vec<Finding> {
    let update = dns.update_error.as_ref().map(|error| {
        Finding::error(
            "dns",
            format!("the zone elsewhere could not be told how the lines are: {error}"),
            "it leads clients to lines that do not work, or not to those that do",
        )
        .advice("see to dns.update: its server, key and secret; natbox tries again")
    });
    let hook = dns.hook_error.as_ref().map(|error| {
        Finding::error(
            "dns",
            format!("the hook could not be run: {error}"),
            "nobody hears that a line comes or goes",
        )
        .advice("see to the program that dns.hook names")
    });
    update.into_iter().chain(hook).collect()
}

fn table(status: &Status) -> Finding {
    let sessions = &status.sessions;
    let text = format!("{} of {} sessions are in use", sessions.now, sessions.capacity);
    match u64::from(sessions.now) * 10 >= u64::from(sessions.capacity) * 9 {
        true => Finding::warning(
            "sessions",
            text,
            "when the table is full, new sessions push out old ones or are refused",
        )
        .advice("raise limits.sessions and restart, or find who opens so many: natbox sessions"),
        false => Finding::ok("sessions", text),
    }
}

/// Drops that somebody can do something about; the rest is what the Internet sends.
fn drops(reason: DropReason, count: u64) -> Option<Finding> {
    let advice = match reason {
        DropReason::SourceNotAllowed => {
            "add the sender's network to inside.prefixes, or see who sends there with a foreign address"
        }
        DropReason::NoOutboundRule => "add an outbound rule for it, if it is to reach the Internet",
        DropReason::UplinkUnknown => {
            "normal for a while after a restart; else the server speaks to clients who never asked: see its routes (natbox doctor server)"
        }
        DropReason::HairpinDisabled => {
            "set nat.hairpin: true, if the inside is to reach published addresses"
        }
        DropReason::TableFull => "raise limits.sessions and restart",
        DropReason::PortsExhausted => {
            "add external addresses, widen nat.ports, or set nat.address_pooling: paired-soft"
        }
        DropReason::HostSessionLimit => {
            "raise limits.sessions_per_host, or see what that host does: natbox sessions"
        }
        DropReason::HostSessionRate => {
            "raise limits.new_sessions_per_host, or see what that host does: natbox sessions"
        }
        DropReason::BadVnetHeader | DropReason::TunWriteError => {
            "see the log; tun.offload: none gets round a kernel that does not do what it offers"
        }
        DropReason::FragmentTableFull => {
            "raise limits.fragments and restart, if the fragments are not an attack"
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
    };
    let found = format!("{count} packets were dropped since the start: {}", reason.name());
    Some(Finding::warning("drops", found, reason.explanation().trim()).advice(advice))
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
            "strangers' packets are nobody's fault"
        );
        bad.uplinks[0].link_ready = true;
        assert!(
            evaluate(&bad)[0].fix.is_empty() && evaluate(&bad)[0].found.contains("health check")
        );
    }

    #[test]
    fn an_uplink_that_is_up_and_has_no_address_is_not_said_to_be_down() {
        let mut status = status();
        (status.uplinks[0].healthy, status.uplinks[0].link_ready) = (false, false);
        let findings = evaluate(&status, &["wan0".into()]);
        assert!(
            findings[0].found.contains("has no address") && findings[0].fix.is_empty(),
            "{findings:?}"
        );
    }

    #[test]
    fn updates_and_a_hook_that_fail_are_errors() {
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
