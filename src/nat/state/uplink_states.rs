//! What each uplink admits and carries at the moment.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering::Relaxed};

use crate::nat::policy::rules::{Policy, Uplink};

/// What a line takes on from the inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum AdmitNew {
    /// Whatever comes.
    #[default]
    All = 0,
    /// What comes from endpoints that have a mapping on it; others go elsewhere as long as some line is open to them.
    KnownEndpoints = 1,
    /// Nothing new, as long as some other line is open to it. What is under way goes on.
    None = 2,
}

/// What the legs can carry; may change while packets flow. Relaxed: a packet or two judged by the old value do no harm.
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

    /// What the uplink admits.
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

    /// Sets what an uplink admits from now on.
    pub(crate) fn set_admission(&self, uplink: u8, admission: AdmitNew) {
        self.uplinks[usize::from(uplink)].admission.store(admission as u8, Relaxed);
    }
}
