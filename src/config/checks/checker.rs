//! The file under check: its diagnostics, locations and uplinks.

use std::net::Ipv4Addr;

use crate::config::problem::{Diagnostics, Location, quoted};
use crate::config::reader::cursor::{Located, location_of};
use crate::config::reader::tree::Node;
use crate::config::schema::Unresolved;
use crate::config::sections::FileUplink;
use crate::config::types::Items;
use crate::nearest;

/// The file under check.
pub(super) struct Checker<'t> {
    root: &'t Node,
    /// Collects the problems and warnings.
    pub(super) diagnostics: &'t Diagnostics,
    uplinks: &'t [Located<FileUplink>],
}

impl<'t> Checker<'t> {
    /// Makes the checker of a file. `uplinks`: all of the file; empty if they could not be read.
    pub(super) fn new(
        root: &'t Node,
        diagnostics: &'t Diagnostics,
        uplinks: &'t [Located<FileUplink>],
    ) -> Self {
        Self { root, diagnostics, uplinks }
    }

    /// The uplinks of the file; empty if they could not be read.
    pub(super) fn uplinks(&self) -> &'t [Located<FileUplink>] {
        self.uplinks
    }

    /// Returns the location of the value at a key path. If the file leaves the key out, the
    /// position is that of the mapping around it.
    pub(super) fn location_of(&self, path: &str) -> Location {
        location_of(self.root, path)
    }

    /// Returns the external addresses of all uplinks that could be read, item by item.
    pub(super) fn external_addresses(&self) -> impl Iterator<Item = &'t Located<Vec<Ipv4Addr>>> {
        self.uplinks.iter().filter_map(|uplink| uplink.addresses()).flatten()
    }

    /// Finds the uplink of a name. Reports an unknown name, but not while the name of some uplink
    /// is unknown.
    pub(super) fn uplink_index(&self, name: &Located<String>) -> Option<usize> {
        let known = |uplink: &'t Located<FileUplink>| Some(uplink.name()?.value.as_str());
        let names: Option<Vec<&str>> = self.uplinks.iter().map(known).collect();
        let names = names.filter(|names| !names.is_empty())?;
        let index = names.iter().position(|known| *known == name.value);
        if index.is_none() {
            let advice = nearest::advise(&name.value, names.iter().copied());
            self.diagnostics.report(
                &name.location,
                quoted(&name.value),
                "the name of an uplink",
                advice,
            );
        }
        index
    }

    /// Finds the uplinks of a list of names, each once; every uplink if the file leaves the list
    /// out.
    pub(super) fn chosen_uplinks(&self, names: &Unresolved<Items<String>>) -> Option<Vec<usize>> {
        let names = match names {
            Unresolved::Unreadable => return None,
            Unresolved::Absent => return Some((0..self.uplinks.len()).collect()),
            Unresolved::Given(names) => names.value.all()?,
        };
        let mut chosen: Vec<usize> = Vec::new();
        for name in names {
            let Some(index) = self.uplink_index(name) else { continue };
            if chosen.contains(&index) {
                let found = format!("`{}` again", name.value);
                self.diagnostics.report(&name.location, found, "each uplink once", "remove one");
            } else {
                chosen.push(index);
            }
        }
        Some(chosen)
    }
}
