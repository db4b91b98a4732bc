//! What an operator can do about each drop reason.

use crate::nat::verdict::DropReason;

impl DropReason {
    /// Returns what to do about packets that are dropped for this reason, in one or two sentences.
    pub const fn advice(self) -> &'static str {
        ADVICE[self as usize].1
    }
}

/// Each reason with its advice, in the order of the reasons.
const ADVICE: [(DropReason, &str); DropReason::ALL.len()] = [
    (DropReason::NotIpv4, "Find the program that writes such packets to the TUN device."),
    (DropReason::Ipv6, "Route IPv6 past the box; no route of IPv6 may lead into the TUN device."),
    (
        DropReason::BadIpHeader,
        "Nothing on the box. The sender is broken, or it attacks: look for it by the source \
         address.",
    ),
    (
        DropReason::BadIpChecksum,
        "Nothing on the box. The sender is broken, or it attacks: look for it by the source \
         address.",
    ),
    (DropReason::SourceRoute, "Nothing: no honest sender needs source routes."),
    (
        DropReason::BadTransportHeader,
        "Nothing on the box. The sender is broken, or it attacks: look for it by the source \
         address.",
    ),
    (
        DropReason::BadIcmpError,
        "Nothing on the box. The sender is broken, or it attacks: look for it by the source \
         address.",
    ),
    (
        DropReason::BadFragment,
        "Nothing on the box. The fragments are broken or an attack: look for the sender.",
    ),
    (
        DropReason::FragmentOverlap,
        "Nothing on the box. The fragments are broken or an attack: look for the sender.",
    ),
    (
        DropReason::FragmentDuplicate,
        "Nothing. If there are many, look for a loop or a mirrored port on the way.",
    ),
    (
        DropReason::FragmentTableFull,
        "Raise `limits.fragments`, or find the sender of the incomplete datagrams.",
    ),
    (
        DropReason::FragmentTimeout,
        "Look for loss on the way to the box, or raise `timeouts.fragment`. Avoid fragments: use \
         a smaller MTU at the sender.",
    ),
    (
        DropReason::Martian,
        "Find the host with this source. If the address is one of the box, check for a loop or \
         for another host with the same address.",
    ),
    (
        DropReason::SourceNotAllowed,
        "Add the network to `inside.prefixes`, or correct the address of the host. If the packet \
         came from outside, no uplink has its destination address.",
    ),
    (
        DropReason::NoOutboundRule,
        "Add a rule to `outbound` that covers the source and the destination.",
    ),
    (
        DropReason::NoMapping,
        "If the service must be reachable, add a forward for this address and port. Otherwise \
         this is a scan, or a late reply to a session that has ended.",
    ),
    (
        DropReason::AdoptingSessions,
        "Wait: it lasts seconds after a restart. `natbox events` shows its end.",
    ),
    (
        DropReason::Filtered,
        "If remote hosts must reach the mapping, set `nat.filtering` to endpoint-independent, or \
         add a forward.",
    ),
    (
        DropReason::TcpWithoutSession,
        "Raise `timeouts.tcp_established` if connections are idle for longer, and let programs \
         use keepalives. After a restart without `state.keep` this is normal.",
    ),
    (
        DropReason::UplinkUnknown,
        "Wait for the next packet of the client. Set `state.keep` so that a restart keeps the \
         sessions.",
    ),
    (
        DropReason::IcmpUnsolicitedReply,
        "Nothing, unless pings are slow: then raise `timeouts.icmp`.",
    ),
    (DropReason::IcmpErrorNoSession, "Nothing: the session has ended, or the error is forged."),
    (
        DropReason::IcmpErrorMismatch,
        "Nothing. If the sender is your own router, check the addresses of its interfaces.",
    ),
    (
        DropReason::UnsupportedIcmp,
        "Nothing. If redirects arrive, correct the routes of the hosts that cause them.",
    ),
    (
        DropReason::AddressConflict,
        "Add another external address, or let only one inside host use this protocol with this \
         remote address.",
    ),
    (
        DropReason::HairpinDisabled,
        "Set `nat.hairpin`, or let inside hosts use the inside address of the server.",
    ),
    (
        DropReason::TableFull,
        "Raise `limits.sessions`. Find out who opens the sessions: `natbox sessions`.",
    ),
    (
        DropReason::PortsExhausted,
        "Add external addresses, widen `nat.ports`, or shorten the idle timeouts.",
    ),
    (
        DropReason::HostSessionLimit,
        "Find out what the inside host does; raise `limits.sessions_per_host` if it may.",
    ),
    (
        DropReason::HostSessionRate,
        "Find out what the inside host does; raise `limits.new_sessions_per_host` if it may.",
    ),
    (
        DropReason::InboundLimit,
        "Publish the service by a forward, or raise `limits.sessions` and \
         `limits.sessions_per_host`.",
    ),
    (
        DropReason::MtuExceeded,
        "Nothing, if the sender obeys the ICMP error. Otherwise let ICMP pass on the way to the \
         sender, or set `nat.mss_clamp`.",
    ),
    (
        DropReason::BadVnetHeader,
        "Set `tun.offload` to a lower level, and report the kernel's version.",
    ),
    (DropReason::TunWriteError, "Check that the TUN device is up, and run `natbox doctor`."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_advice_in_whole_sentences() {
        for (reason, (of, _)) in DropReason::ALL.iter().zip(ADVICE) {
            assert_eq!(*reason, of);
            let advice = reason.advice();
            assert!(advice.ends_with('.') && !advice.contains("  "), "{reason:?}: {advice}");
        }
    }
}
