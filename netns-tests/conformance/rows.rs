//! The rows of the conformance table.
//!
//! An id names the requirement: UDP-n is RFC 4787 REQ-n, TCP-n RFC 5382, ICMP-n RFC 5508, RFC7857-n
//! section n of that RFC, RFC6888-n REQ-n of that one. Other ids are this project's.

/// One requirement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Ids of the requirement; one row may have several.
    pub ids: &'static [&'static str],
    /// MUST, SHOULD or MAY; `(P)` marks a requirement of this project.
    pub level: &'static str,
    /// Required behaviour.
    pub text: &'static str,
    /// Reason why natbox deliberately does not meet the requirement, or not fully.
    pub deliberate: Option<&'static str>,
}

const fn row(ids: &'static [&'static str], level: &'static str, text: &'static str) -> Row {
    Row { ids, level, text, deliberate: None }
}

const fn deliberate(
    ids: &'static [&'static str],
    level: &'static str,
    text: &'static str,
    reason: &'static str,
) -> Row {
    Row { ids, level, text, deliberate: Some(reason) }
}

/// The rows by chapter.
pub(crate) const CHAPTERS: &[(&str, &[Row])] = &[
    (
        "Addressing and mapping",
        &[
            row(
                &["UDP-1", "TCP-1"],
                "MUST",
                "An inside endpoint keeps one external endpoint towards every destination",
            ),
            row(&["ICMP-1a"], "SHOULD", "An echo identifier is mapped alike for every host pinged"),
            row(
                &["RFC7857-5"],
                "MUST",
                "Mappings of TCP, UDP and ICMP are independent of each other",
            ),
            row(
                &["UDP-2", "RFC6888-2"],
                "MUST",
                "An inside host keeps one external address for all its mappings",
            ),
            row(
                &["RFC7857-4"],
                "SHOULD",
                "A host whose external address has no port left is refused; with paired-soft it moves",
            ),
            row(
                &["UDP-7"],
                "MUST",
                "Equal addresses on both sides: distinguished or refused, never confused",
            ),
            row(
                &["UDP-11"],
                "MUST",
                "Mapping and filtering stay the same when inside hosts use one port",
            ),
            row(
                &["FWD-1"],
                "MUST (P)",
                "A forward rewrites the destination only; the client's endpoint arrives unchanged",
            ),
            row(
                &["FWD-2"],
                "MUST (P)",
                "A range forward keeps its offset and publishes nothing beside it",
            ),
            row(
                &["FWD-3"],
                "MUST (P)",
                "Sessions that a server opens from a forwarded endpoint leave as the published one",
            ),
            row(
                &["FWD-4"],
                "MUST (P)",
                "Published ports are never dynamic; a forward added over a mapping wins",
            ),
            row(
                &["FWD-5"],
                "SHOULD (P)",
                "Forwarded connections survive a killed and restarted box",
            ),
            deliberate(
                &["FWD-5 on the host's own address"],
                "SHOULD (P)",
                "The same while the box is stopped regularly, where the published address is the host's own",
                "a stopped box returns the address, and the host resets unknown connections; after a kill the host does not",
            ),
            row(
                &["FWD-6"],
                "MUST",
                "A whole-address forward carries every port, query and protocol, both ways",
            ),
            deliberate(
                &["FWD-7"],
                "MAY (P)",
                "Double rewrite, for servers whose default route leads elsewhere",
                "the client's address would be lost; policy routing and the three-legged box avoid this",
            ),
            row(
                &["FWD-8"],
                "MUST (P)",
                "A session that a server opens to its client uses the uplink of the client's request",
            ),
            row(
                &["RFC6888-6", "RFC6888-3"],
                "MUST",
                "Translation can be switched off for destinations; pools need not be contiguous",
            ),
            deliberate(
                &["RFC6888-3 at run time"],
                "SHOULD",
                "Pools grow and shrink while the box runs",
                "external addresses are part of the host's routes; changing them takes a restart, which forwards survive",
            ),
            row(
                &["MAP-1"],
                "MUST (P)",
                "Multicast, broadcast, link-local and 0/8 are never translated",
            ),
            row(
                &["MAP-2"],
                "MUST (P)",
                "A reload keeps the sessions that the new rules allow and ends the others",
            ),
        ],
    ),
    (
        "Ports",
        &[
            row(&["UDP-3", "TCP-7"], "MUST", "No two inside endpoints share an external endpoint"),
            row(
                &["UDP-3a"],
                "SHOULD",
                "Ports from 1024 up never leave below 1024; below it while the range allows",
            ),
            row(
                &["UDP-4", "RFC7857-8"],
                "SHOULD",
                "UDP ports keep their parity; this can be switched off",
            ),
            row(&["RFC7857-9"], "SHOULD", "External ports cannot be predicted and cover the range"),
            row(
                &["RFC6888-8"],
                "SHOULD",
                "A freed port is delayed before another endpoint may have it",
            ),
            row(
                &["PORT-1"],
                "MUST (P)",
                "The first and last ports work both ways; port 0 is harmless",
            ),
            row(
                &["PORT-2"],
                "MUST (P)",
                "Exhausted ports cost bounded work, and one freed port serves one mapping",
            ),
            row(&["PORT-3"], "MUST (P)", "No client shadows a port that the box itself uses"),
            row(
                &["PORT-4"],
                "MAY",
                "Where set, a mapping keeps its inside port while it is free (RFC 4787 section 4.2.1)",
            ),
            row(
                &["RFC7857-3", "RFC6888-13"],
                "SHOULD",
                "Ports may overlap for different destinations, where the mode allows",
            ),
            deliberate(
                &["DET-1"],
                "MAY",
                "Deterministic port blocks",
                "meant for carriers without logs; the mapping log answers the same question",
            ),
        ],
    ),
    (
        "Filtering",
        &[
            row(
                &["UDP-8", "TCP-3"],
                "SHOULD",
                "Filtering is endpoint-independent, address-dependent or address-and-port-dependent, as set",
            ),
            row(&["RFC7857-6"], "MUST", "A mapping of one protocol admits no other"),
            row(&["FILT-1"], "MUST (P)", "A filtered packet changes nothing"),
            row(
                &["TCP-4"],
                "MUST",
                "An unsolicited SYN gets no answer for 6 s; then an error, if set so and no host dialled",
            ),
            row(&["FILT-2"], "MUST (P)", "TCP without SYN opens no long-lived session"),
            deliberate(
                &["FILT-3"],
                "MAY",
                "Allow-lists of clients on a forward",
                "a packet filter before the box does it",
            ),
        ],
    ),
    (
        "Hairpin",
        &[
            row(
                &["UDP-9", "UDP-9a", "TCP-8", "TCP-8a"],
                "MUST",
                "Inside hosts reach each other by external endpoints and see them as source",
            ),
            row(
                &["HAIR-1"],
                "MUST (P)",
                "Hairpin to a forward, from another host and from the server itself",
            ),
            row(
                &["ICMP-7q", "RFC7857-12"],
                "MUST",
                "Echo to an external address that belongs to an inside host reaches it",
            ),
            row(
                &["ICMP-7e", "ICMP-7a"],
                "MUST",
                "ICMP errors cross the hairpin with both ends of the quote rewritten",
            ),
            row(&["HAIR-2"], "MUST (P)", "Hairpin ends: no loops, TTL falls, fragments pass"),
        ],
    ),
    (
        "Timers",
        &[
            row(
                &["UDP-5", "UDP-5a", "UDP-5b", "UDP-5c"],
                "MUST",
                "UDP lives at least 120 s, by default 300 s; only DNS may be shorter",
            ),
            row(&["UDP-6", "UDP-6a"], "MUST", "Outbound packets refresh; inbound ones as set"),
            row(&["RFC7857-7"], "SHOULD", "A filtered packet does not refresh"),
            row(&["RFC7857-7.1"], "SHOULD", "Errors and resets from inside do not refresh"),
            row(&["TCP-5e"], "MUST", "Established connections live at least 2 h 4 min idle"),
            row(
                &["TCP-5t", "RFC7857-2.1"],
                "MUST",
                "Opening and closing connections have timers of their own",
            ),
            row(&["ICMP-2", "RFC7857-11"], "MUST", "Queries live at least 60 s, as set"),
            row(&["TIM-1"], "MUST (P)", "Both directions of a session end together"),
            row(&["TIM-2"], "MUST (P)", "The first packet after the end opens a new session"),
        ],
    ),
    (
        "TCP",
        &[
            row(&["TCP-2"], "MUST", "Every legal order of segments passes"),
            row(&["TCP-2a"], "MUST", "Simultaneous open works"),
            row(
                &["RFC7857-2"],
                "SHOULD",
                "Connections are tracked through their states; one SYN alone reopens nothing",
            ),
            row(
                &["RFC7857-2.2"],
                "MUST",
                "A reset passes, and its session ends only if nothing follows",
            ),
            row(
                &["TCP-HS"],
                "MUST (P)",
                "Repeated SYNs, stale answers and challenges in a handshake pass",
            ),
            row(&["TCP-TW"], "MUST (P)", "A new SYN reopens a closed connection's tuple at once"),
            row(&["TCP-HC"], "MUST (P)", "A half-closed connection goes on as long as an open one"),
            row(&["TCP-OPT"], "MUST (P)", "All fields and options of TCP pass unchanged"),
            row(&["TCP-OOW"], "MUST (P)", "Window tracking never drops legal segments"),
        ],
    ),
    (
        "ICMP queries",
        &[
            row(&["ICMP-1"], "MUST", "Echo from inside works; replies need a live query"),
            row(
                &["ICMP-ID"],
                "MUST (P)",
                "One identifier used by two hosts, or towards two hosts, is distinguished",
            ),
            row(
                &["ICMP-10b"],
                "SHOULD NOT",
                "Timestamps pass; source quench and information messages do not",
            ),
            row(&["ICMP-11"], "MAY", "Other ICMP is dropped on purpose; echo to G has one answer"),
        ],
    ),
    (
        "ICMP errors",
        &[
            row(
                &["ICMP-3", "ICMP-3a"],
                "SHOULD",
                "Errors with a wrong checksum, their own or the quoted header's, are dropped",
            ),
            row(&["ICMP-3b"], "MUST", "The quoted ports are found behind IP options"),
            row(&["ICMP-3c"], "SHOULD", "The quoted transport checksum is not verified"),
            row(&["ICMP-3d"], "MUST", "RFC 4884 extensions pass untouched"),
            row(
                &["ICMP-4"],
                "MUST",
                "An error from outside reaches the inside host with the quote as it was sent",
            ),
            row(
                &["ICMP-5"],
                "MUST",
                "An error from inside leaves with an external address, and its quote as the receiver knows it",
            ),
            row(&["ICMP-4n"], "SHOULD", "Errors about unknown sessions are dropped"),
            row(
                &["UDP-12", "TCP-10", "ICMP-6"],
                "MUST",
                "No ICMP message ends, shortens or refreshes a session",
            ),
            row(
                &["UDP-12a", "UDP-12b", "TCP-9"],
                "SHOULD",
                "Errors are not filtered by their sender",
            ),
            row(&["ERR-TRUNC"], "MUST (P)", "Quotes of any length from 8 bytes of transport up"),
            row(&["ERR-CSUM"], "MUST (P)", "All three checksums of an error are right"),
            row(
                &["ERR-REL"],
                "MUST (P)",
                "An error's addresses agree with its quote; hosts report on their own sessions only",
            ),
            row(
                &["ERR-NEST"],
                "MUST (P)",
                "Errors about errors, or about later fragments, are dropped",
            ),
            row(
                &["RTR-NO"],
                "MUST",
                "No error is sent about errors, later fragments, broadcasts or bad sources",
            ),
            row(&["RTR-RATE"], "SHOULD", "The box's own errors are limited for each receiver"),
            row(
                &["RTR-SRC"],
                "MUST",
                "The box's errors have an address that the receiver can reach, and quote the packet as sent",
            ),
        ],
    ),
    (
        "Fragments",
        &[
            row(&["UDP-14"], "MUST", "Fragments pass in every order, both ways"),
            row(
                &["UDP-14a"],
                "MUST",
                "Fragments use bounded memory, and a flood of them disturbs nothing else",
            ),
            row(&["UDP-13a"], "MUST", "Too long without DF: fragmented on the way out, in order"),
            row(
                &["IPID-1"],
                "MUST",
                "Identifications of fragmentable packets are unique as if the box had sent them",
            ),
            row(&["FRAG-1"], "MUST (P)", "Overlapping, tiny and impossible fragments are dropped"),
            row(
                &["FRAG-2"],
                "MUST (P)",
                "Incomplete datagrams time out; late fragments join no new one",
            ),
            row(&["FRAG-3"], "MUST (P)", "Fragments that different workers read are joined"),
            row(&["FRAG-4"], "MUST (P)", "A later fragment that is too long with DF is counted"),
        ],
    ),
    (
        "Checksums",
        &[
            row(&["CSUM-1"], "MUST (P)", "Incremental updates are exact"),
            row(&["CSUM-2"], "MUST", "A UDP checksum of zero stays zero, also in quotes"),
            row(
                &["CSUM-3"],
                "MUST",
                "A computed zero of UDP is sent as 0xffff; TCP and ICMP have no such rule",
            ),
            row(&["CSUM-4"], "MUST (P)", "A wrong checksum is never repaired"),
            row(&["CSUM-5"], "MUST (P)", "Partial checksums and super-packets stay what they are"),
            row(
                &["CSUM-6"],
                "MUST (P)",
                "Checksums of UDP-Lite and DCCP follow the addresses, whatever they cover",
            ),
        ],
    ),
    (
        "TTL, MTU, header fields",
        &[
            row(
                &["TTL-1", "ICMP-10a"],
                "MUST",
                "The box is one hop; an expired packet is reported to its sender as it was sent",
            ),
            row(&["PMTU-1"], "MUST", "Fragmentation needed from the path passes with any MTU"),
            row(
                &["PMTU-2", "UDP-13"],
                "MUST",
                "Too long with DF: fragmentation needed, with the MTU of the next interface",
            ),
            row(&["PMTU-3"], "MUST (P)", "Every size within the MTU passes"),
            row(
                &["MSS-1"],
                "MAY",
                "The MSS clamp only lowers, only on SYN and SYN-ACK, and adds nothing",
            ),
            row(&["TOS-1"], "MUST (P)", "DSCP and ECN pass unchanged"),
            row(
                &["OPT-1"],
                "MUST",
                "Unknown IP options pass, source routes do not, record-route leaks nothing",
            ),
        ],
    ),
    (
        "Malformed input",
        &[
            row(&["MAL-1"], "MUST", "Broken IP headers are dropped without an answer"),
            row(&["MAL-2"], "MUST (P)", "Bytes behind the packet's end are ignored"),
            row(&["MAL-3"], "MUST (P)", "Broken transport headers are dropped and leave no state"),
            row(&["MAL-4"], "MUST (P)", "Invalid flags open nothing"),
            row(&["MAL-5"], "MUST", "Invalid sources are dropped"),
            row(&["MAL-6"], "MUST (P)", "No bytes stop the box"),
            row(
                &["MAL-7"],
                "MUST (P)",
                "Other protocols are tracked by address alone, or dropped; never as UDP",
            ),
        ],
    ),
    (
        "Limits",
        &[
            row(
                &["RFC6888-4", "RFC6888-4B", "RFC6888-4C", "RFC6888-5"],
                "MUST",
                "Sessions of one host are limited in number and rate; ended ones are freed",
            ),
            row(
                &["RFC6888-11", "ICMP-8"],
                "MUST",
                "A full table drops, rejects as set, and evicts no live session",
            ),
            row(
                &["LIM-1"],
                "SHOULD",
                "A full table evicts ended and half-open sessions, never established ones",
            ),
            row(
                &["LIM-2"],
                "MUST (P)",
                "A long-lived session never blocks the records of ended ones",
            ),
            row(&["RFC6888-1", "RFC6888-10"], "MUST", "Counters can be read while packets flow"),
        ],
    ),
    (
        "Logging and management",
        &[
            row(&["RFC6888-12"], "SHOULD", "Destinations are not logged"),
            row(
                &["LOG-1"],
                "SHOULD",
                "The mapping log names the holder of an external endpoint at a time",
            ),
            deliberate(
                &["LOG-2"],
                "SHOULD",
                "IPFIX",
                "required only if offered; the log is JSON lines",
            ),
            deliberate(
                &["RFC6888-14"],
                "SHOULD",
                "Logs by port block",
                "mappings are logged one by one, and only if configured",
            ),
            row(&["LOG-3"], "MUST (P)", "A log without a reader slows nothing; losses are counted"),
            row(&["MIB-1"], "SHOULD", "Every drop raises the counter of its reason by one"),
        ],
    ),
    (
        "Security",
        &[
            row(&["SEC-1"], "MUST (P)", "Only inside sources leave, and no private address leaks"),
            deliberate(
                &["SEC-1 for the kernel's own errors"],
                "MUST (P)",
                "The kernel sends no error from the private interface's address about packets of a spoofed inside source",
                "a packet whose TTL ends before the TUN never reaches natbox; a strict rp_filter on the private interface stops it, and hides spoofed sources from natbox's counters: the operator decides",
            ),
            row(
                &["SEC-2"],
                "MUST (P)",
                "The outside can neither address private hosts nor use private or own sources",
            ),
            row(&["SEC-3"], "MUST (P)", "Blind resets, FINs and SYNs end nothing"),
            row(&["SEC-4"], "SHOULD", "Ports and identifications come from a secure random source"),
            row(&["SEC-5"], "MUST (P)", "A SYN flood keeps no client from a published server"),
            row(&["SEC-6"], "MUST (P)", "A flood of an inside host affects only that host"),
            row(&["SEC-7"], "SHOULD (P)", "Whether a port is mapped cannot be seen from outside"),
            row(&["SEC-8"], "MUST (P)", "Hashes are keyed at each start"),
            row(&["UDP-10", "UDP-10a", "TCP-6"], "SHOULD", "No payload is read or changed"),
            row(
                &["SEC-9"],
                "MUST (P)",
                "No open port outside; privileges are dropped after the start",
            ),
        ],
    ),
    (
        "Control protocols",
        &[
            deliberate(
                &["RFC6888-9", "PCP-1", "PCP-2", "PCP-3", "PCP-4"],
                "MAY for us",
                "PCP",
                "servers are published by configuration",
            ),
            deliberate(&["NPMP-1"], "MAY", "NAT-PMP", "as PCP"),
            row(
                &["STUN-1"],
                "SHOULD (P)",
                "A STUN client finds the configured mapping and filtering",
            ),
        ],
    ),
    (
        "Threads",
        &[
            row(
                &["SMP-1"],
                "MUST (P)",
                "Translation does not depend on the worker that reads a packet",
            ),
            row(&["SMP-2"], "MUST (P)", "Racing first packets of one endpoint make one mapping"),
            row(&["SMP-3"], "MUST (P)", "Order within a flow is kept; counters add up"),
        ],
    ),
    (
        "IPv6",
        &[
            row(&["V6-1"], "MUST (P)", "IPv6 is dropped and counted, never read as IPv4"),
            deliberate(
                &["NPT-1", "V6-2", "N64-1"],
                "MUST if offered",
                "NPTv6, NAT64",
                "not offered",
            ),
        ],
    ),
];
