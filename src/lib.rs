//! natbox: a NAT box in user space.
//!
//! Code map, in the order a packet travels (design: io -> packet -> nat -> io):
//!
//! | module      | what lives there                                                           | imports of ours        |
//! |-------------|----------------------------------------------------------------------------|------------------------|
//! | [`io`]      | `PacketIo`: TUN queues, offload ladder, poll backend, memory backend       | none                   |
//! | [`packet`]  | parse once, checksums, rewriting, building ICMP                            | none                   |
//! | [`time`]    | ticks and the clock of a batch                                             | none                   |
//! | [`nat`]     | tuples, sessions, table, ports, fast and slow path, TCP tracking, verdicts | packet, time           |
//! | [`engine`]  | workers: one queue, one thread, batch by batch; counters                   | io, packet, nat, time  |
//! | [`dns`]     | an authoritative name server, updates and a hook that follow the lines     | none                   |
//! | [`config`]  | the configuration file: read, checked, printed                             | none                   |
//! | [`host`]    | what the kernel must be told: netlink plumbing, `plan`, `doctor`           | config        |
//! | [`api`]     | the admin protocol as types, and its client                                | config, host           |
//! | [`control`] | lifecycle, logging, admin socket                            | everything above       |
//! | [`lab`]     | network namespaces, HTTP, captures: for the demo and the tests              | control                |
//! | [`cli`]     | the command line and the demo                                              | everything above       |
//!
//! Deliberately absent: `packet` knows nothing of sessions, `nat` reads no clock and does no I/O, nothing on a
//! worker thread logs, allocates on the hit path, or takes a lock of the control plane.

pub mod api;
pub mod cli;
pub mod config;
pub mod control;
pub mod dns;
pub mod engine;
pub mod host;
pub mod io;
pub mod lab;
pub mod nat;
pub mod packet;
pub mod time;
pub mod uplinks;
