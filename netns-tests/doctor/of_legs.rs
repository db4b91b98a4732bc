//! `natbox doctor` on a box with several inside legs.

use std::path::Path;

use anyhow::{Result, ensure};
use natbox::cli::doctor::Severity;
use natbox::lab::http::HttpServer;

use crate::doctor::{assert_named_and_fixed, broken, examine};
use crate::inside_legs::{DMZ, Legs, WEB};
use crate::lab::listen;

#[test]
fn doctor_names_and_fixes_each_fault_of_the_second_and_third_leg() -> Result<()> {
    let legs = Legs::new()?;
    let _web = HttpServer::start(vec![listen(&legs.dmz, DMZ, WEB)?], None)?;
    let natbox = legs.start(&legs.text(""))?;
    let arguments = [Path::new("--socket"), natbox.socket()];
    let healthy = examine(legs.natbox(), &[], &arguments)?;
    ensure!(healthy.healthy && !healthy.of(Severity::Ok, "path").is_empty(), "{healthy:#?}");
    let all = [
        broken("ip link set dmz0 down", "interface", "inside[1].interface: dmz0 is down"),
        broken(
            "ip address del 10.1.0.1/24 dev dmz0",
            "configuration",
            "inside[1].address: 10.1.0.1",
        ),
        broken(
            "ip address del 10.2.0.1/24 dev guest0",
            "configuration",
            "inside[2].interface: guest0 has no IPv4 address",
        )
        .undone_by("ip address add 10.2.0.1/24 dev guest0"),
        broken(
            "nft 'add table inet guard; add chain inet guard by { type filter hook forward priority 10; }; \
             add rule inet guard by iifname \"dmz0\" oifname \"nb1\" drop'",
            "firewall",
            "`inet guard by` drops replies of 10.1.0.5",
        ),
        // No server is behind this leg.
        broken(
            "ip route add default dev lo table 52; ip rule add priority 10 iif guest0 lookup 52",
            "path",
            "iif guest0) must leave by nb1 but",
        ),
    ];
    assert_named_and_fixed(legs.natbox(), &arguments, &all)
}
