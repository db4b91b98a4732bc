//! Tests of the real `natbox` between real kernel stacks and programs, in network namespaces.
//!
//! They need root, /dev/net/tun and some Debian packages; `netns-tests/run` installs those and runs everything. What
//! is missing makes a test fail, never skip. Each test builds namespaces of its own, names them so that others may run
//! beside it, and removes what it made.
//!
//! | file              | behaviour                                                                                |
//! |-------------------|------------------------------------------------------------------------------------------|
//! | `two_uplinks`       | nginx on two lines, one private network or two; replies by their own line; 1 or 2 workers |
//! | `three_legged`    | one box with several lines: one server address, replies by their own line, conflicts, sums |
//! | `failover`        | a line fails, drains, comes back, changes its address: only its own sessions notice      |
//! | `events`          | what happened is told in order, to followers and to latecomers                           |
//! | `interface_changes`     | interfaces and addresses come and go under a running box; each line comes back by itself |
//! | `several_servers` | several servers behind both boxes, each with an address for each line                    |
//! | `integrity`       | a 1 GiB download over both lines at once, bit for bit, at every combination of offloads  |
//! | `bulk`            | iperf3 in both directions over both lines at once, TCP and UDP                           |
//! | `parallel`        | 1,000 connections at one time                                                            |
//! | `udp`             | UDP there and back, all sizes up to the MTU                                              |
//! | `fragments`       | datagrams larger than the MTU, in pieces, both ways                                      |
//! | `ping`            | echo to the published address, and out from the servers                                  |
//! | `no_nat`          | destinations reached without translation, and the routing that this takes                |
//! | `outbound`        | the servers' own connections leave by the line of their source address                   |
//! | `web_session`     | a session bound to the client's address survives a change of line                        |
//! | `host_assigned_address`   | the published address is the host's own: what is not forwarded stays the host's          |
//! | `host`            | routes, rules, sysctls, proxy ARP: set, kept, taken back; nobody gets past the NAT       |
//! | `kernel_errors`   | ICMP errors that kernels write: by servers, by routers, by the host behind the box       |
//! | `malformed`       | broken packets are dropped by name, and nothing stops                                    |
//! | `tun_device`      | every rung of the offload ladder, with 1 and 2 workers                                   |
//! | `lifecycle`       | status, signals, logs, a deleted device, an idle box                                     |
//! | `bad_input`       | one clear message, the right exit code, nothing left behind                              |
//! | `uplink_capture`      | the capture that counts replies on the wrong line can count                              |
//! | `demo`            | `natbox demo`: its report, its clean-up                                                  |
//! | `doctor`          | what is broken on a box or a server is named, and mended by what is said                 |
//! | `stun`            | what a STUN server finds out about mapping and filtering                                 |
//! | `dns`             | dig, unbound, BIND and a plain client against DNS that follows the lines                 |
//! | `conformance`     | what the RFCs ask of a NAT, packet by packet; the table in CONFORMANCE.md                 |
//! | `probe`           | helpers: a box between two wires that the test holds                                     |
//! | `lab`             | helpers: sites, programs, snapshots, waiting                                             |

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

mod bad_input;
mod bulk;
mod conformance;
mod demo;
mod dns;
mod doctor;
mod events;
mod failover;
mod fragments;
mod host;
mod host_assigned_address;
mod integrity;
mod interface_changes;
mod kernel_errors;
mod lab;
mod lifecycle;
mod malformed;
mod no_nat;
mod outbound;
mod parallel;
mod ping;
mod probe;
mod several_servers;
mod single_box;
mod stun;
mod three_legged;
mod tun_device;
mod two_uplinks;
mod udp;
mod uplink_capture;
mod web_session;
