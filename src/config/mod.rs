//! The configuration file: its keys, its reader, its checks, and what is printed of it.
//!
//! ```text
//! text ─ reader ─▶ nodes with positions ─ sections ─▶ File ─ checks ─▶ Config
//!                                                      ▲                 │
//!                            text ◀─ emit ─────────────┴─────────────────┘
//! ```
//!
//! Every key is declared once, in `sections` or `file`: its type, range, default, meaning, and
//! whether a reload applies a change. The declaration reads and prints the key. It makes the
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
mod counted;
mod document;
mod dynamic_address;
mod emit;
mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod generate;
mod load;
mod model;
mod problem;
mod reader;
mod schema;
mod sections;
mod types;
mod uplink_numbers;

pub(crate) use crate::values::nat::{ForwardProtocol, HashBy, MssClamp, PortRange};
pub(crate) use changes::{changes, fixed_keys};
pub(crate) use counted::counted;
pub(crate) use dynamic_address::DynamicAddress;
pub(crate) use emit::{to_json, to_yaml};
pub(crate) use generate::{json_schema, reference};
pub(crate) use load::{Loaded, load, parse};
pub(crate) use model::Config;
pub(crate) use problem::{Problem, Problems};
pub(crate) use sections::{
    AddressPooling, Admin, Dns, DnsUpdate, Expectation, Failback, Forward, Health, HoldTimes,
    HostDefaultRoute, Inside, InsideLeg, IoBackend, LatencyLimits, Log, LogFormat, LogLevel,
    LossLimits, OffloadLimit, OnFailure, OutboundRule, PortPreservation, RejectWith,
    UnsolicitedSyn, Uplink, UplinkNumbers, WebTarget, Workers,
};
#[cfg(test)]
pub(crate) use sections::{
    DnsName, DnsServer, Host, Limits, Nat, NoNatRule, Persistence, StatusRange, Timeouts, Tun,
};
pub(crate) use types::ConfigEnum;
pub(crate) use types::names::wanted_instance_name;
#[cfg(test)]
pub(crate) use uplink_numbers::number_in_order;

#[cfg(test)]
mod tests;
