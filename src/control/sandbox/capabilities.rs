//! The capabilities of the calling thread.

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};

/// Drops all capabilities except CAP_NET_ADMIN, which devices, routes, rules and `/proc/sys/net`
/// need. natbox's own files belong to root, and root needs no other capability for them.
///
/// # Errors
/// A sentence about the step that failed.
pub(super) fn keep_net_admin() -> Result<(), String> {
    keep(&CapsHashSet::from([Capability::CAP_NET_ADMIN]))
}

/// Drops all capabilities.
///
/// # Errors
/// A sentence about the step that failed.
pub(super) fn keep_none() -> Result<(), String> {
    keep(&CapsHashSet::new())
}

fn keep(kept: &CapsHashSet) -> Result<(), String> {
    drop_others(kept).map_err(|error| format!("dropping capabilities: {error}"))?;
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("setting no_new_privs: {error}"))
}

fn drop_others(kept: &CapsHashSet) -> Result<(), CapsError> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    // Not more than the process has. Without CAP_NET_ADMIN, opening the TUN device reports what is
    // missing.
    let permitted = caps::read(None, CapSet::Permitted)?.intersection(kept).copied().collect();
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, &permitted)?;
    caps::set(None, CapSet::Permitted, &permitted)?;
    caps::clear(None, CapSet::Inheritable)
}
