//! Checks of what an instance reports about itself.

use crate::api::{DnsStatus, HostStatus, InstanceState, Status, UplinkStatus};
use crate::config::counted;
use crate::host;
use crate::host::doctor::{Finding, InterfaceState};
use crate::nat::DropReason;

/// Reports whether an instance runs or waits for its interfaces.
pub(super) fn instance(status: &Status) -> Finding {
    let Status { name, pid, .. } = status;
    match status.state {
        InstanceState::Running => Finding::ok("instance", format!("{name} runs, pid {pid}")),
        InstanceState::Waiting => Finding::error(
            "instance",
            format!("{name} (pid {pid}) waits: {}", status.waiting_for.join("; ")),
            "natbox translates no packet yet and has changed nothing on the host",
        )
        .advice("bring the interfaces up; natbox then starts by itself"),
    }
}

/// Makes the findings about an instance's status. `interfaces` holds those of the host.
pub(super) fn evaluate(status: &Status, interfaces: &[(String, InterfaceState)]) -> Vec<Finding> {
    let state = |name: &str| {
        let mut found = interfaces.iter().filter(|(interface, _)| interface == name);
        found.next().map_or(InterfaceState::Missing, |(_, state)| *state)
    };
    let mut findings: Vec<Finding> = status.host.iter().flat_map(disputed).collect();
    // doctor examines the host's firewall itself.
    let of_filter = status.warnings.iter().filter(|finding| finding.id == host::PRIVATE_FILTER);
    findings.extend(of_filter.cloned());
    // A missing setting of the host explains the failed uplinks that depend on it.
    let rows = status.uplinks.iter().enumerate();
    let rows = rows.filter(|(_, row)| !row.setting_missing || !row.link_ready);
    findings.extend(rows.map(|(place, row)| uplink((place, row), state(&row.interface))));
    findings.push(sessions(status));
    findings.extend(status.dns.as_ref().map(dns).unwrap_or_default());
    findings.extend(drops(status));
    findings.push(match status.log_lines_dropped {
        0 => Finding::ok("log", "no line of the log was dropped"),
        dropped => Finding::warning(
            "log",
            counted(dropped, "line of the log was dropped", "lines of the log were dropped"),
            "the reader of standard error (the journal, a pipe) is too slow, so the mapping log has \
             gaps",
        )
        .advice("check the reader, or set log.level higher"),
    });
    findings
}

/// Reports settings of the host that other programs remove again and again.
fn disputed(host: &HostStatus) -> Option<Finding> {
    let problem = host.error.as_ref()?;
    let why = "while a setting is missing, packets are lost or leave untranslated";
    let advice = "find the program that removes the settings: ip monitor rule route; for \
                  systemd-networkd set ManageForeignRoutingPolicyRules=no and ManageForeignRoutes=no \
                  in networkd.conf; for NetworkManager set unmanaged-devices for the TUN";
    Some(Finding::error("disputed", problem.clone(), why).advice(advice))
}

fn uplink((place, row): (usize, &UplinkStatus), state: InterfaceState) -> Finding {
    let UplinkStatus { name, interface, state_seconds, .. } = row;
    let failed = format!("{name} failed {state_seconds} s ago");
    let reason = row.reason.as_deref().unwrap_or("no answer");
    let why = "no packet passes this uplink";
    let down = |what: &str| Finding::error("uplink", format!("{failed}: {interface} {what}"), why);
    match (row.healthy, row.link_ready, state) {
        (true, ..) => Finding::ok("uplink", format!("{name} by {interface} is healthy")),
        (false, true, _) => Finding::error(
            "uplink",
            format!("{failed} by the health check over {interface}: {reason}"),
            "new outbound sessions use other uplinks, and clients of this uplink's addresses may get \
             no reply",
        )
        .advice(format!(
            "check the uplink's router and the targets of uplinks[{place}].health"
        )),
        // An uplink whose address follows its interface is down without an address.
        (false, false, InterfaceState::Up) => down("is up and has no address").advice(format!(
            "check the interface's DHCP client: ip address show dev {interface}; networkctl status \
             {interface}"
        )),
        (false, false, InterfaceState::NoCarrier) => down("is up and has no carrier").advice(
            format!("check the cable, the modem and the port at the other end: ip link show {interface}"),
        ),
        (false, false, InterfaceState::Missing) => down("does not exist").advice(format!(
            "find out what removed the interface (a driver, a USB modem, PPP), or correct \
             uplinks.interface: ip link show; natbox uses {interface} as soon as it exists"
        )),
        (false, false, InterfaceState::Down) => {
            down("is down").fix([format!("ip link set {interface} up")])
        }
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
    let capacity = counted(sessions.capacity, "session", "sessions");
    let found = format!("{} of {capacity} in use", sessions.now);
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
        let dropped = counted(*count, "packet was dropped", "packets were dropped");
        let found = format!("{dropped} since the start: {}", reason.name());
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

/// Returns what a person can do about a drop reason. Packets from the Internet, or a restart,
/// cause the other drops.
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
            "if the packets are not a flood, raise limits.sessions or limits.sessions_per_host, or \
             set a stricter nat.filtering"
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
        | DropReason::AdoptingSessions
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
        let down = [("wan0".to_owned(), InterfaceState::Down)];
        let evaluate = |status: &Status| evaluate(status, &down);
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
    fn each_state_of_an_interface_has_advice_that_helps() {
        let mut status = status();
        (status.uplinks[0].healthy, status.uplinks[0].link_ready) = (false, false);
        for (state, found) in [
            (InterfaceState::Up, "is up and has no address"),
            (InterfaceState::NoCarrier, "is up and has no carrier"),
            (InterfaceState::Missing, "does not exist"),
        ] {
            let interfaces = [("wan0".to_owned(), state)];
            let known = if state == InterfaceState::Missing { &[][..] } else { &interfaces };
            let finding = &evaluate(&status, known)[0];
            assert!(finding.found.ends_with(found) && finding.fix.is_empty(), "{finding:?}");
            assert!(!finding.advice.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn disputed_settings_of_the_host_are_an_error() {
        let error = Some("another program removed a rule".to_owned());
        let host = HostStatus { missing: vec!["a rule".into()], restored: 9, error };
        let mut status = Status { host: Some(host), ..status() };
        let has_uplink = |findings: &[Finding]| findings.iter().any(|found| found.id == "uplink");
        assert!(has_uplink(&evaluate(&status, &[])), "no uplink depends on the setting");
        status.uplinks[0].setting_missing = true;
        let findings = evaluate(&status, &[]);
        assert_eq!((findings[0].severity, findings[0].id.as_str()), (Severity::Error, "disputed"));
        assert!(!has_uplink(&findings), "{findings:?}");
    }

    #[test]
    fn failed_updates_and_hooks_are_errors() {
        let mut status = status();
        let dns = r#"{ "listening": [], "in_use": ["isp"], "counters": {}, "update_error": "refused", "hook_error": "not there" }"#;
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
