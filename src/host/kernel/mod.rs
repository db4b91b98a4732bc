//! The kernel's side: netlink, `/proc/sys` and `/proc/net`.

pub(crate) mod listeners;
pub(crate) mod netlink;
pub(crate) mod route_lookup;
pub(crate) mod sysctl;
pub(crate) mod watch;
