//! Tests of the real `natbox` between real kernel stacks and programs, in network namespaces.
//!
//! The tests need root, /dev/net/tun and some Debian packages. `netns-tests/run` installs the
//! packages and runs every test. If something is missing, a test fails and is never skipped. Each
//! test makes namespaces with unique names and removes them, so that tests can run in parallel.
//!
//! | file | behaviour |
//! |---|---|
//! | `two_uplinks` | nginx on two uplinks, one private network or two: each reply uses its own uplink |
//! | `three_legged` | one box with several uplinks: replies, conflicting clients, added bandwidth |
//! | `failover` | an uplink fails, drains, recovers or changes its address: only its sessions notice |
//! | `exposed_host` | an exposed host or a forward of all ports: the rest of the box works beside it |
//! | `overload` | floods of five kinds: established sessions, new requests, limits, memory, counters |
//! | `exhaustion` | inside hosts take all sessions or all ports: the box's own probes still work |
//! | `uplink_quality` | loss, latency, unsteady uplinks and captive portals: uplinks fail and return without flapping |
//! | `tiers` | backup uplinks carry nothing until they are needed, and are left afterwards |
//! | `host_route` | the host's own packets follow the healthy uplinks (`host.default_route: follow`) |
//! | `operate` | commands that look at a running box and change it: sessions, drops, traces, explanations, reloads |
//! | `events` | events arrive in order, for followers and for later readers |
//! | `boot_order` | interfaces are absent or down at the start: the box waits, and serves each as it appears |
//! | `inside_legs` | several inside legs: each has its rules, and each goes and comes by itself |
//! | `interface_changes` | interfaces and addresses come and go while the box runs: each uplink recovers |
//! | `several_servers` | several servers behind both boxes, each with an address for each uplink |
//! | `shared_segment` | several interfaces of the box on one segment: each answers ARP for its own addresses |
//! | `takeover` | a box takes over an address: neighbours learn the new hardware address at once |
//! | `integrity` | downloads of up to 1 GiB over both uplinks at once, bit for bit, with every offload |
//! | `bulk` | iperf3 in both directions over both uplinks at once, TCP and UDP |
//! | `parallel` | 1,000 connections at one time |
//! | `udp` | UDP in both directions, in all sizes up to the MTU |
//! | `fragments` | datagrams larger than the MTU, in both directions |
//! | `ping` | echo to the published address, and from the servers to the Internet |
//! | `no_nat` | destinations without translation, and the routing that they need |
//! | `outbound` | the servers' own connections use the uplink of their source address |
//! | `web_session` | a session bound to the client's address survives a change of the uplink |
//! | `host_assigned_address` | the published address is assigned to the host: the host keeps other traffic |
//! | `host_firewall` | rules of other programs that drop packets show in the status while they are there |
//! | `host` | routes, rules, sysctls, proxy ARP: set, kept and restored; no traffic avoids NAT |
//! | `host_services` | published services of the host itself; no inside address leaves by an uplink untranslated; containers and VPN clients work |
//! | `other_programs` | other programs remove rules, routes and settings, or add rules before natbox's: natbox sets its own again |
//! | `chaos` | mixed traffic while everything goes wrong: sessions live on, and none gets another's payload |
//! | `kept` | sessions, and packets on their way, outlive the process: kills, restarts, stops, other configurations |
//! | `kernel_errors` | ICMP errors written by kernels: of servers, of routers, of the box's host |
//! | `malformed` | malformed packets are dropped and counted, and the box continues |
//! | `tun_device` | every offload level, with 1 and 2 workers |
//! | `operate` | an operator changes a running box: reloads of every part of the configuration |
//! | `lifecycle` | status, signals, logs, a deleted device, an idle box |
//! | `bad_input` | wrong input: one clear message, the right exit code, an unchanged host |
//! | `uplink_capture` | the capture that counts replies on the wrong uplink works |
//! | `demo` | `natbox demo`: its report and its clean-up |
//! | `doctor` | `natbox doctor` names each fault of a box or a server, and its commands fix it |
//! | `stun` | a STUN client finds the configured mapping and filtering |
//! | `dns` | dig, unbound, BIND and a plain client against DNS that follows the uplinks |
//! | `operate` | commands that look at a running box and change it |
//! | `conformance` | the RFCs' requirements, packet by packet; the table is CONFORMANCE.md |
//! | `privileges` | the privileges of each thread, and the users of the admin socket |
//! | `probe` | helpers: a box between two wires that the test holds |
//! | `single_box` | helpers: one box on one uplink, with real kernels around it |
//! | `lab` | helpers: sites, programs, waiting |

#![allow(clippy::unwrap_used, reason = "a test ends by panicking")]

mod bad_input;
mod boot_order;
mod bulk;
mod chaos;
mod conformance;
mod demo;
mod dns;
mod doctor;
mod events;
mod exhaustion;
mod exposed_host;
mod failover;
mod fragments;
mod host;
mod host_assigned_address;
mod host_firewall;
mod host_route;
mod host_services;
mod inside_legs;
mod integrity;
mod interface_changes;
mod kept;
mod kernel_errors;
mod lab;
mod lifecycle;
mod malformed;
mod no_nat;
mod operate;
mod other_programs;
mod outbound;
mod overload;
mod parallel;
mod ping;
mod privileges;
mod probe;
mod several_servers;
mod shared_segment;
mod single_box;
mod stun;
mod takeover;
mod three_legged;
mod tiers;
mod tun_device;
mod two_uplinks;
mod udp;
mod uplink_capture;
mod uplink_quality;
mod web_session;
