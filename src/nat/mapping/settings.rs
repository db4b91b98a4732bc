//! The part of the limits that may change while mappings live.

use crate::nat::policy::limits::{Limits, Timeouts};
use crate::values::nat::PortRange;

/// The part of the limits that may change while mappings live.
#[derive(Clone, Copy)]
pub(super) struct MappingSettings {
    pub(super) timeouts: Timeouts,
    pub(super) keeps_parity: bool,
    /// Freed UDP ports that may wait on each address.
    pub(super) delayed_ports: u32,
    /// Dynamic external ports.
    pub(super) ports: PortRange,
}

impl MappingSettings {
    pub(super) fn of(limits: &Limits) -> Self {
        let Limits { timeouts, port_parity, delayed_ports, ports, .. } = *limits;
        Self { timeouts, keeps_parity: port_parity, delayed_ports, ports }
    }
}
