//! Interface indices by name.

use std::collections::HashMap;

use crate::host::error::HostError;
use crate::host::model::snapshot::Link;

/// Interface indices by name, as of one moment.
pub(crate) struct Indices(HashMap<String, u32>);

impl Indices {
    pub(crate) fn new(links: &[Link]) -> Self {
        Self(links.iter().map(|link| (link.name.clone(), link.index)).collect())
    }

    /// Returns the index of an interface.
    ///
    /// # Errors
    /// When the interface does not exist.
    pub(crate) fn of(&self, name: &str) -> Result<u32, HostError> {
        self.0.get(name).copied().ok_or_else(|| HostError::Netlink {
            doing: format!("interface {name}"),
            source: std::io::Error::from_raw_os_error(libc::ENODEV),
        })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}
