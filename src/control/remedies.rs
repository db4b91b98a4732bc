//! What an operator can do about each drop reason.

use crate::nat::DropReason;

/// Returns what to do about a drop, in one or two sentences.
pub(super) fn remedy(reason: DropReason) -> &'static str {
    match reason {
        DropReason::NotIpv4 | DropReason::BadIpHeader | DropReason::BadIpChecksum => {
            "Find the sender of the broken packets: capture them on the interface that they come \
             by."
        }
        DropReason::Ipv6 => "Keep IPv6 away from the TUN device: natbox translates IPv4 only.",
        DropReason::SourceRoute => "Nothing: no host needs source routes.",
        DropReason::BadTransportHeader
        | DropReason::BadIcmpError
        | DropReason::BadFragment
        | DropReason::FragmentOverlap => {
            "Nothing, if few packets are concerned. Otherwise find their sender: it is broken or \
             attacks a host."
        }
        DropReason::FragmentDuplicate => "Nothing: the first copy was forwarded.",
        DropReason::FragmentTableFull => "Raise `limits.fragments`.",
        DropReason::FragmentTimeout => {
            "Find where the first fragments are lost: a firewall may drop them. Smaller datagrams \
             need no fragments."
        }
        DropReason::Martian => {
            "Correct the address of the sender. If it is one of the box's own, find the host that \
             forges it."
        }
        DropReason::SourceNotAllowed => {
            "Add the source to `inside.prefixes` if the host is inside. Otherwise send the packet \
             to an external address of an uplink."
        }
        DropReason::NoOutboundRule => {
            "Add a rule to `outbound` whose `from` and `to` cover the packet, and whose uplinks \
             have an address."
        }
        DropReason::NoMapping => {
            "Add a forward for this address, protocol and port. Without one, the inside host must \
             send first."
        }
        DropReason::AdoptingSessions => {
            "Wait some seconds: natbox is reading the sessions of the process before it."
        }
        DropReason::Filtered => {
            "Let the inside host send to this remote endpoint first, set `nat.filtering`, or add a \
             forward."
        }
        DropReason::TcpWithoutSession => {
            "Open the connection again with a SYN. After a restart, `state.keep` keeps the \
             connections."
        }
        DropReason::UplinkUnknown => "Wait for the client's next packet: it shows the uplink.",
        DropReason::IcmpUnsolicitedReply => "Nothing: the query has expired or was never sent.",
        DropReason::IcmpErrorNoSession => {
            "Nothing: the session that the error is about has ended, or the error is forged."
        }
        DropReason::IcmpErrorMismatch => {
            "Find the sender of the error: its addresses contradict the packet that it quotes."
        }
        DropReason::UnsupportedIcmp => "Nothing: such messages do not cross a NAT.",
        DropReason::AddressConflict => {
            "Give the second inside host an external address of its own, or let one host at a time \
             use the protocol with this remote address."
        }
        DropReason::HairpinDisabled => {
            "Set `nat.hairpin: true`, or let the inside host use the server's inside address."
        }
        DropReason::TableFull => {
            "Raise `limits.sessions`, or find the host with the most sessions: `natbox sessions`."
        }
        DropReason::PortsExhausted => {
            "Add external addresses, widen `nat.ports`, or set `nat.address_pooling: paired-soft`."
        }
        DropReason::HostSessionLimit => {
            "Find out what the host does: `natbox sessions`. Raise `limits.sessions_per_host` if \
             it needs more."
        }
        DropReason::HostSessionRate => {
            "Find out what the host does. Raise `limits.new_sessions_per_host` if it needs the \
             rate."
        }
        DropReason::InboundLimit => {
            "Set a stricter `nat.filtering` if this is a flood. Otherwise raise \
             `limits.sessions_per_host` or `limits.sessions`."
        }
        DropReason::MtuExceeded => {
            "Let the ICMP error \"fragmentation needed\" reach the sender, and keep \
             `nat.mss_clamp: auto`."
        }
        DropReason::BadVnetHeader => "Set `tun.offload: none`, and report the kernel's version.",
        DropReason::TunWriteError => {
            "Read the log of the kernel: it has rejected a packet. `natbox doctor` looks at the \
             TUN device."
        }
    }
}
