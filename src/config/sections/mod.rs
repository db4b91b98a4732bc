//! The mappings of the file. Each file declares the keys of one part, and the values that these
//! amount to.
//!
//! A type named `File...` is a mapping as the file has it: values with their locations, where keys
//! depend on one another or on the rest of the file. The checks make the effective value of it. A
//! mapping whose keys stand for themselves is its own effective value.

mod dns;
mod expect;
mod forwards;
mod health;
mod health_limits;
mod inside;
mod limits;
mod nat;
mod outbound;
mod service;
mod timeouts;
mod tun;
mod uplinks;

pub(crate) use dns::{Dns, DnsName, DnsServer, DnsUpdate};
pub(crate) use expect::Expectation;
#[cfg(test)]
pub(crate) use expect::StatusRange;
pub(crate) use forwards::Forward;
pub(crate) use health::{Health, WebTarget};
pub(crate) use health_limits::{HoldTimes, LatencyLimits, LossLimits};
pub(crate) use inside::{Inside, InsideLeg};
pub(crate) use limits::Limits;
pub(crate) use nat::{AddressPooling, Nat, PortPreservation, RejectWith, UnsolicitedSyn};
pub(crate) use outbound::{NoNatRule, OutboundRule};
pub(crate) use service::{Admin, Host, HostDefaultRoute, Log, LogFormat, LogLevel, Persistence};
pub(crate) use timeouts::Timeouts;
pub(crate) use tun::{IoBackend, OffloadLimit, Tun, Workers};
pub(crate) use uplinks::{Failback, OnFailure, Uplink, UplinkNumbers};

pub(super) use dns::{FileDns, FileDnsName, FileDnsServer, FileDnsUpdate};
pub(super) use forwards::FileForward;
pub(super) use health::FileHealth;
pub(super) use health_limits::FileLatencyLimits;
pub(super) use inside::FileInsideLeg;
pub(super) use outbound::{FileNoNatRule, FileOutboundRule};
pub(super) use service::FileAdmin;
pub(super) use uplinks::FileUplink;
