//! DNS that follows the uplinks, tested with dig, a recursive resolver, a plain client, and the
//! server of a zone elsewhere.
//!
//! | file | behaviour |
//! |---|---|
//! | `answers` | what dig sees; the limit of answers; names in `natbox status` |
//! | `dead_uplink` | two boxes, one uplink fails: where each client goes, and when |
//! | `healthy_uplinks` | one box with two uplinks: clients reach the healthy ones, at their present addresses |
//! | `letter_case` | a resolver that checks the letter case of the answers |
//! | `tiers` | a backup uplink is named only while it is in use |
//! | `updates` | RFC 2136 against BIND; the hook |
//! | `named_targets` | targets of health checks by name, when no name can be looked up |
//! | `update_ways` | an update leaves by a healthy uplink |
//! | `programs` | helpers: dig, unbound, named |

mod answers;
mod dead_uplink;
mod healthy_uplinks;
mod letter_case;
mod named_targets;
pub(crate) mod programs;
mod tiers;
mod update_ways;
mod updates;

use std::path::Path;

use anyhow::Result;
use natbox::lab::boxes::NatBox;
use natbox::lab::interrupt::Interrupt;
use natbox::lab::{Lab, Namespace};

use crate::lab::{NATBOX, Site};

/// The names of the zone for both boxes: each leads to its own uplink, and each uplink has a name
/// server.
const ZONE: &str = "zone: example.org, name_servers: [{ name: ns1, address: 203.0.113.10 }, { name: ns2, address: 198.51.100.10 }]";

/// The owner of the published address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Address {
    /// The host: the name server listens at the address.
    Owned,
    /// No host: queries to the name server are translated.
    Nobodys,
}

/// Starts the box of an uplink with a `dns` section.
pub(crate) fn start(site: &Site, uplink: usize, address: Address, dns: &str) -> Result<NatBox> {
    let host = &site.uplink(uplink).natbox;
    if address == Address::Owned {
        host.address("wan0", site.uplink(uplink).published, 24)?;
    }
    let text = format!("{}dns: {{ {dns} }}\n", site.web_config(uplink).text());
    start_box(&site.lab, host, &format!("natbox{}", uplink + 1), &text)
}

pub(crate) fn start_box(lab: &Lab, host: &Namespace, name: &str, text: &str) -> Result<NatBox> {
    let mut natbox = NatBox::start(Path::new(NATBOX), host, lab.directory(), name, text)?;
    natbox.wait_ready(&Interrupt::default())?;
    Ok(natbox)
}
