//! What an operator can do about each drop reason.

use crate::nat::verdict::DropReason;

impl DropReason {
    /// Returns what to do about packets that are dropped for this reason, in one or two sentences.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NotIpv4 => "Find the program that writes such packets to the TUN device.",
            Self::Ipv6 => "Route IPv6 past the box; no route of IPv6 may lead into the TUN device.",
            Self::BadIpHeader
            | Self::BadIpChecksum
            | Self::BadTransportHeader
            | Self::BadIcmpError => {
                "Nothing on the box. The sender is broken, or it attacks: look for it by the \
                 source address."
            }
            Self::SourceRoute => "Nothing: no honest sender needs source routes.",
            Self::BadFragment | Self::FragmentOverlap => {
                "Nothing on the box. The fragments are broken or an attack: look for the sender."
            }
            Self::FragmentDuplicate => {
                "Nothing. If there are many, look for a loop or a mirrored port on the way."
            }
            Self::FragmentTableFull => {
                "Raise `limits.fragments`, or find the sender of so many incomplete datagrams."
            }
            Self::FragmentTimeout => {
                "Look for loss on the way to the box, or raise `timeouts.fragment`. Avoid \
                 fragments: use a smaller MTU at the sender."
            }
            Self::Martian => {
                "Find the host with this source. If the address is one of the box, check for a \
                 loop or for another host with the same address."
            }
            Self::SourceNotAllowed => {
                "Add the network to `inside.prefixes`, or correct the address of the host. If the \
                 packet came from outside, no uplink has its destination address."
            }
            Self::NoOutboundRule => {
                "Add a rule to `outbound` that covers the source and the destination."
            }
            Self::NoMapping => {
                "If the service must be reachable, add a forward for this address and port. \
                 Otherwise this is a scan, or a late reply to a session that has ended."
            }
            Self::AdoptingSessions => {
                "Wait: it lasts seconds after a restart. `natbox events` shows its end."
            }
            Self::Filtered => {
                "If remote hosts must reach the mapping, set `nat.filtering` to \
                 endpoint-independent, or add a forward."
            }
            Self::TcpWithoutSession => {
                "Raise `timeouts.tcp_established` if connections are idle for longer, and let \
                 programs use keepalives. After a restart without `state.keep` this is normal."
            }
            Self::UplinkUnknown => {
                "Wait for the next packet of the client. Set `state.keep` so that a restart keeps \
                 the sessions."
            }
            Self::IcmpUnsolicitedReply => {
                "Nothing, unless pings are slow: then raise `timeouts.icmp`."
            }
            Self::IcmpErrorNoSession => "Nothing: the session has ended, or the error is forged.",
            Self::IcmpErrorMismatch => {
                "Nothing. If the sender is your own router, check the addresses of its interfaces."
            }
            Self::UnsupportedIcmp => {
                "Nothing. If redirects arrive, correct the routes of the hosts that cause them."
            }
            Self::AddressConflict => {
                "Add another external address, or let only one inside host use this protocol with \
                 this remote address."
            }
            Self::HairpinDisabled => {
                "Set `nat.hairpin`, or let inside hosts use the inside address of the server."
            }
            Self::TableFull => {
                "Raise `limits.sessions`. Find out who opens the sessions: `natbox sessions`."
            }
            Self::PortsExhausted => {
                "Add external addresses, widen `nat.ports`, or shorten the idle timeouts."
            }
            Self::HostSessionLimit => {
                "Find out what the inside host does; raise `limits.sessions_per_host` if it may."
            }
            Self::HostSessionRate => {
                "Find out what the inside host does; raise `limits.new_sessions_per_host` if it may."
            }
            Self::InboundLimit => {
                "Publish the service by a forward, or raise `limits.sessions` and \
                 `limits.sessions_per_host`."
            }
            Self::MtuExceeded => {
                "Nothing, if the sender obeys the ICMP error. Otherwise let ICMP pass on the way \
                 to the sender, or set `nat.mss_clamp`."
            }
            Self::BadVnetHeader => {
                "Set `tun.offload` to a lower level, and report the kernel's version."
            }
            Self::TunWriteError => "Check that the TUN device is up, and run `natbox doctor`.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_advice_in_whole_sentences() {
        for reason in DropReason::ALL {
            let advice = reason.advice();
            assert!(advice.ends_with('.') && !advice.contains("  "), "{reason:?}: {advice}");
        }
    }
}
