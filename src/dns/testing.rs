//! A zone and its uplinks for the tests and the fuzz targets of this module.

use std::net::Ipv4Addr;

use hickory_proto::rr::Name;

use super::{NameServer, PublishedName, Zone};
use crate::uplinks::{UplinkState, UplinkStates, Uplinks};

/// Makes an absolute name.
pub(super) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

/// Makes a zone with `www`, the apex and `a.b`, and with two name servers.
pub(super) fn zone() -> Zone {
    let published =
        |text, uplinks: &[u8]| PublishedName { name: name(text), uplinks: uplinks.to_vec() };
    Zone {
        origin: name("example.org"),
        published: vec![
            published("www.example.org", &[0, 1, 2]),
            published("example.org", &[0]),
            published("a.b.example.org", &[1]),
        ],
        name_servers: vec![
            NameServer { name: name("ns1.example.org"), address: Ipv4Addr::new(203, 0, 113, 1) },
            NameServer { name: name("ns2.example.org"), address: Ipv4Addr::new(198, 51, 100, 1) },
        ],
        mailbox: name("hostmaster.example.org"),
        ttl: 30,
        negative_ttl: 20,
    }
}

/// Makes three uplinks that are up.
pub(super) fn states() -> UplinkStates {
    let uplink = |number: u8| UplinkState {
        address: Some(Ipv4Addr::new(203, 0, 113, number)),
        ..UplinkState::new(format!("isp{number}"), number - 1)
    };
    UplinkStates { uplinks: vec![uplink(1), uplink(2), uplink(3)], serial: 77 }
}

/// Makes the channel of [`states`].
pub(super) fn uplinks() -> Uplinks {
    Uplinks::new(states().uplinks)
}

/// Sets whether an uplink is up.
pub(super) fn set_up(uplinks: &Uplinks, uplink: usize, up: bool) {
    uplinks.update(uplink, |state| state.up = up);
}
