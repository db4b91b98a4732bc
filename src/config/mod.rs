//! The configuration file: its keys, its reader, its checks, and what is printed of it.
//!
//! ```text
//! text ─ reader ─▶ nodes with positions ─ sections ─▶ File ─ checks ─▶ Config
//!                                                      ▲                 │
//!                            text ◀─ emit ─────────────┴─────────────────┘
//! ```
//!
//! Every key is declared once, in `sections` or `file`: its type, range, default, meaning, and
//! whether a running box takes in a change. The declaration reads and prints the key. It makes the
//! JSON Schema, the reference file and the manual (`generate`). A new key is one entry and its
//! use.
//!
//! * *position*: line and column.
//! * *location*: a position, and the key path that leads there.
//! * *value error*: the values that a key takes, where another one stands.
//! * *problem*: a value error or a contradiction, with its location.
//!
//! Invariants:
//!
//! * Every step goes on after a problem, so one run names all problems.
//! * A [`Config`] comes out only if there was no problem.
//! * No text, however hostile, makes this module panic or recurse without bound. Time and memory
//!   are linear in the length of the text, which is bounded.

mod changes;
mod checks;
mod document;
mod dynamic_address;
mod emit;
mod file;
mod generate;
mod load;
mod model;
mod problem;
mod reader;
mod schema;
mod sections;
mod types;

pub use changes::{Change, changes, reloadable_keys};
pub use dynamic_address::DynamicAddress;
pub use emit::{to_json, to_yaml};
pub use generate::{json_schema, reference};
pub use load::{Loaded, load, parse};
pub use model::Config;
pub use problem::{Position, Problem, Problems};
pub use sections::{
    AddressPooling, Admin, Dns, DnsName, DnsServer, DnsUpdate, EndpointDependence, Failback,
    Forward, ForwardProtocol, HashBy, Health, Host, Inside, IoBackend, Limits, Log, LogFormat,
    LogLevel, MssClamp, Nat, NoNatRule, OffloadLimit, OnFailure, OutboundRule, Persistence,
    RejectWith, Timeouts, Tun, UnsolicitedSyn, Uplink, WebTarget, Workers,
};
pub use types::ConfigEnum;
pub use types::network::PortRange;

#[cfg(test)]
mod tests;
