//! Sessions as lines of `conntrack -L` (conntrack-tools 1.4), for scripts that read those.
//!
//! Both tuples are the packets as they arrive, as in conntrack. natbox has no mark and no zone. The
//! state of a TCP session is the one of netfilter that is nearest.

use std::fmt::Write as _;

use crate::api::{SessionTraffic, SessionView, TupleView};

/// Formats a session.
pub(super) fn line(session: &SessionView) -> String {
    let number = protocol_number(&session.protocol);
    let mut line =
        format!("{:<8} {number} {}", name(&session.protocol), session.expires_in_seconds);
    if let Some(state) = tcp_state(session) {
        let _ = write!(line, " {state}");
    }
    let traffic = session.traffic;
    let counters = |packets: fn(&SessionTraffic) -> u64, bytes: fn(&SessionTraffic) -> u64| {
        traffic.map_or_else(String::new, |traffic| {
            format!(" packets={} bytes={}", packets(&traffic), bytes(&traffic))
        })
    };
    let is_replied = is_replied(session);
    line += &tuple(session, &session.original, 8);
    line += &counters(|traffic| traffic.packets, |traffic| traffic.bytes);
    if !is_replied {
        line += " [UNREPLIED]";
    }
    line += &tuple(session, &session.reply, 0);
    line += &counters(|traffic| traffic.reply_packets, |traffic| traffic.reply_bytes);
    if is_replied && session.state != "syn-recv" {
        line += " [ASSURED]";
    }
    line + " mark=0 use=1"
}

/// Formats a tuple. `icmp_type`: the type of an echo message of this direction.
fn tuple(session: &SessionView, tuple: &TupleView, icmp_type: u8) -> String {
    let end = |text: &str| match text.rsplit_once(':') {
        Some((address, port)) => (address.to_owned(), port.to_owned()),
        None => (text.to_owned(), "0".to_owned()),
    };
    let ((source, sport), (destination, dport)) = (end(&tuple.source), end(&tuple.destination));
    let addresses = format!(" src={source} dst={destination}");
    match session.protocol.as_str() {
        "tcp" | "udp" => format!("{addresses} sport={sport} dport={dport}"),
        "icmp" => {
            let id = if sport == "0" { dport } else { sport };
            format!("{addresses} type={icmp_type} code=0 id={id}")
        }
        _ => addresses,
    }
}

/// The state of netfilter for a TCP session.
fn tcp_state(session: &SessionView) -> Option<&'static str> {
    let state = match session.state.as_str() {
        "syn" => "SYN_SENT",
        "syn-recv" => "SYN_RECV",
        "half-closed" => "CLOSE_WAIT",
        "closed" => "TIME_WAIT",
        "reset" => "CLOSE",
        _ => "ESTABLISHED",
    };
    (session.protocol == "tcp").then_some(state)
}

/// Reports whether both ends have sent packets, as far as the listing tells. Without accounting a
/// session other than TCP counts as replied.
fn is_replied(session: &SessionView) -> bool {
    match (&session.traffic, session.protocol.as_str()) {
        (Some(traffic), _) => traffic.reply_packets != 0,
        (None, "tcp") => session.state != "syn",
        (None, _) => session.state != "tentative",
    }
}

/// conntrack prints `unknown` for protocols without a name of their own.
fn name(protocol: &str) -> &str {
    match protocol {
        "tcp" | "udp" | "icmp" => protocol,
        "ip-47" => "gre",
        "ip-132" => "sctp",
        _ => "unknown",
    }
}

fn protocol_number(protocol: &str) -> &str {
    match protocol {
        "tcp" => "6",
        "udp" => "17",
        "icmp" => "1",
        other => other.trim_start_matches("ip-"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(protocol: &str, state: &str, ends: [&str; 4]) -> SessionView {
        let [source, destination, reply_source, reply_destination] = ends.map(str::to_owned);
        SessionView {
            id: 1,
            protocol: protocol.to_owned(),
            state: state.to_owned(),
            origin: "forward".to_owned(),
            uplink: "isp1".to_owned(),
            forward: None,
            client: source.clone(),
            published: destination.clone(),
            server: reply_source.clone(),
            original: TupleView { source, destination },
            reply: TupleView { source: reply_source, destination: reply_destination },
            idle_seconds: 0,
            expires_in_seconds: 7439,
            traffic: None,
        }
    }

    /// The form is that of `src/conntrack/snprintf_default.c` of libnetfilter_conntrack 1.0.9.
    #[test]
    fn lines_are_those_of_conntrack() {
        let ends = ["192.0.2.7:4242", "203.0.113.10:80", "10.0.0.5:8080", "192.0.2.7:4242"];
        let web = session("tcp", "established", ends);
        assert_eq!(
            line(&web),
            "tcp      6 7439 ESTABLISHED src=192.0.2.7 dst=203.0.113.10 sport=4242 dport=80 \
             src=10.0.0.5 dst=192.0.2.7 sport=8080 dport=4242 [ASSURED] mark=0 use=1"
        );
        let traffic = SessionTraffic {
            age_seconds: 1,
            packets: 1,
            bytes: 60,
            reply_packets: 0,
            reply_bytes: 0,
        };
        let syn = SessionView { traffic: Some(traffic), ..session("tcp", "syn", ends) };
        assert_eq!(
            line(&syn),
            "tcp      6 7439 SYN_SENT src=192.0.2.7 dst=203.0.113.10 sport=4242 dport=80 packets=1 \
             bytes=60 [UNREPLIED] src=10.0.0.5 dst=192.0.2.7 sport=8080 dport=4242 packets=0 \
             bytes=0 mark=0 use=1"
        );
        let ends = ["10.0.0.5:77", "192.0.2.7:0", "192.0.2.7:0", "203.0.113.10:1077"];
        assert_eq!(
            line(&session("icmp", "icmp", ends)),
            "icmp     1 7439 src=10.0.0.5 dst=192.0.2.7 type=8 code=0 id=77 src=192.0.2.7 \
             dst=203.0.113.10 type=0 code=0 id=1077 [ASSURED] mark=0 use=1"
        );
        let ends = ["10.0.0.5:0", "192.0.2.7:0", "192.0.2.7:0", "203.0.113.10:0"];
        assert!(line(&session("ip-47", "other", ends)).starts_with("gre      47 7439 src="));
    }
}
