//! State of the uplinks: which new sessions each one admits, and its MTU. The MTUs of the inside
//! legs are here as well.
//!
//! There is a place for every number that an uplink can have: uplinks come and go with a reload.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering::Relaxed};

use crate::nat::policy::rules::Policy;

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

/// How well an uplink can take a new session, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Usability {
    /// It admits all new sessions.
    Open,
    /// It is used while none of the uplinks that a session may use is open.
    LastResort,
    /// It is used while none of the uplinks that a session may use is better.
    Closed,
}

/// MTUs and admission, which may change while packets flow. Relaxed: a packet or two that see the
/// old value do no harm.
pub(crate) struct UplinkStates {
    /// MTU of each inside leg.
    legs: Box<[AtomicU16]>,
    /// The least MTU of the inside legs. Almost every packet is within it, so the hit path need not
    /// look for the packet's leg.
    least_leg_mtu: AtomicU16,
    uplinks: Box<[AtomicUplink]>,
}

struct AtomicUplink {
    mtu: AtomicU16,
    admission: AtomicU8,
    is_last_resort: AtomicBool,
}

impl UplinkStates {
    pub(crate) fn new(policy: &Policy) -> Self {
        let state = |number: usize| AtomicUplink {
            mtu: AtomicU16::new(policy.uplinks.get(number).map_or(u16::MAX, |uplink| uplink.mtu)),
            admission: AtomicU8::new(AdmitNew::All as u8),
            is_last_resort: AtomicBool::new(false),
        };
        let states = Self {
            legs: policy.legs.iter().map(|leg| AtomicU16::new(leg.mtu)).collect(),
            least_leg_mtu: AtomicU16::new(u16::MAX),
            uplinks: (0..Policy::MAX_UPLINKS).map(state).collect(),
        };
        states.find_least_leg_mtu();
        states
    }

    /// Returns the least MTU of all inside legs.
    #[inline]
    pub(crate) fn least_leg_mtu(&self) -> u16 {
        self.least_leg_mtu.load(Relaxed)
    }

    /// Returns the MTU of an inside leg.
    pub(crate) fn leg_mtu(&self, leg: usize) -> u16 {
        self.legs[leg].load(Relaxed)
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

    /// Returns how well an uplink can take a new session.
    pub(crate) fn usability(&self, uplink: u8) -> Usability {
        match self.admission(uplink) {
            AdmitNew::All => Usability::Open,
            AdmitNew::KnownEndpoints | AdmitNew::None => {
                match self.uplinks[usize::from(uplink)].is_last_resort.load(Relaxed) {
                    true => Usability::LastResort,
                    false => Usability::Closed,
                }
            }
        }
    }

    /// Sets the MTU of an inside leg, in bytes.
    pub(crate) fn set_leg_mtu(&self, leg: usize, mtu: u16) {
        self.legs[leg].store(mtu, Relaxed);
        self.find_least_leg_mtu();
    }

    fn find_least_leg_mtu(&self) {
        let least = self.legs.iter().map(|mtu| mtu.load(Relaxed)).min();
        self.least_leg_mtu.store(least.unwrap_or(u16::MAX), Relaxed);
    }

    /// Sets the MTU of an uplink, in bytes.
    pub(crate) fn set_uplink_mtu(&self, uplink: u8, mtu: u16) {
        self.uplinks[usize::from(uplink)].mtu.store(mtu, Relaxed);
    }

    /// Sets which new sessions an uplink admits from now on.
    pub(crate) fn set_admission(&self, uplink: u8, admission: AdmitNew) {
        self.uplinks[usize::from(uplink)].admission.store(admission as u8, Relaxed);
    }

    /// Sets whether an uplink is a last resort.
    pub(crate) fn set_last_resort(&self, uplink: u8, is_last_resort: bool) {
        self.uplinks[usize::from(uplink)].is_last_resort.store(is_last_resort, Relaxed);
    }
}
