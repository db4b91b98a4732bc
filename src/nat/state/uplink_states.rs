//! State of the uplinks: which new sessions each one admits, and its MTU.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering::Relaxed};

use crate::nat::policy::rules::{Policy, Uplink};

/// Which new sessions from inside an uplink admits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum AdmitNew {
    /// All.
    #[default]
    All = 0,
    /// Those of endpoints that have a mapping on the uplink. Others use another uplink while one
    /// admits them.
    KnownEndpoints = 1,
    /// None while another uplink admits them. Established sessions continue.
    None = 2,
}

/// MTUs and admission, which may change while packets flow. Relaxed: a packet or two that see the
/// old value do no harm.
pub(crate) struct UplinkStates {
    inside_mtu: AtomicU16,
    uplinks: Box<[UplinkState]>,
}

struct UplinkState {
    mtu: AtomicU16,
    admission: AtomicU8,
}

impl UplinkStates {
    pub(crate) fn new(policy: &Policy) -> Self {
        let state = |uplink: &Uplink| UplinkState {
            mtu: AtomicU16::new(uplink.mtu),
            admission: AtomicU8::new(AdmitNew::All as u8),
        };
        Self {
            inside_mtu: AtomicU16::new(policy.inside_mtu),
            uplinks: policy.uplinks.iter().map(state).collect(),
        }
    }

    #[inline]
    pub(crate) fn inside_mtu(&self) -> u16 {
        self.inside_mtu.load(Relaxed)
    }

    #[inline]
    pub(crate) fn uplink_mtu(&self, uplink: u8) -> u16 {
        self.uplinks[usize::from(uplink)].mtu.load(Relaxed)
    }

    /// Which new sessions an uplink admits.
    pub(crate) fn admission(&self, uplink: u8) -> AdmitNew {
        match self.uplinks[usize::from(uplink)].admission.load(Relaxed) {
            0 => AdmitNew::All,
            1 => AdmitNew::KnownEndpoints,
            _ => AdmitNew::None,
        }
    }

    /// Number of uplinks.
    pub(crate) fn len(&self) -> usize {
        self.uplinks.len()
    }

    /// Sets the MTU of the inside interface (None) or of an uplink, in bytes.
    pub(crate) fn set_mtu(&self, uplink: Option<u8>, mtu: u16) {
        let place = match uplink {
            None => &self.inside_mtu,
            Some(number) => &self.uplinks[usize::from(number)].mtu,
        };
        place.store(mtu, Relaxed);
    }

    /// Sets which new sessions an uplink admits from now on.
    pub(crate) fn set_admission(&self, uplink: u8, admission: AdmitNew) {
        self.uplinks[usize::from(uplink)].admission.store(admission as u8, Relaxed);
    }
}
