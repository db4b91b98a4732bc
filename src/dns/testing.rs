//! A zone and its lines for the tests of this room.

use std::net::Ipv4Addr;

use hickory_proto::rr::Name;

use super::{NameServer, PublishedName, UplinkState, UplinkStates, Zone};

/// An absolute name.
pub(super) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

/// `www`, the apex and `a.b`, with two name servers.
pub(super) fn zone() -> Zone {
    let published =
        |text, lines: &[usize]| PublishedName { name: name(text), lines: lines.to_vec() };
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

/// Three usable lines.
pub(super) fn lines() -> UplinkStates {
    let line = |number: u8| UplinkState {
        name: format!("isp{number}"),
        address: Some(Ipv4Addr::new(203, 0, 113, number)),
        source: None,
        weight: 1,
        up: true,
    };
    UplinkStates { lines: vec![line(1), line(2), line(3)], serial: 77 }
}
