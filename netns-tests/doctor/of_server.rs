//! `natbox doctor server` on a server.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use natbox::cli::doctor::Severity;
use natbox::lab::boxes::NatBox;
use natbox::lab::topology::{Private, ThreeLeggedPlan};

use crate::doctor::{assert_named_and_fixed, broken, examine};
use crate::lab::{Site, datagrams, listen};

/// Starts two boxes that publish a TCP and a UDP port of one server. Returns the arguments of
/// doctor as well.
fn two_boxes(private: Private) -> Result<(Site, [NatBox; 2], Vec<PathBuf>)> {
    let site = Site::new(private, 1)?;
    let start = |uplink: usize| {
        let server = site.server_address(uplink);
        site.start(
            uplink,
            &site.config(uplink).forward("tcp", 80, server, 80).forward("udp", 7, server, 7),
        )
    };
    let boxes = [start(0)?, start(1)?];
    let file = |number: u8| site.lab.directory().join(format!("natbox{number}.yaml"));
    let arguments = vec!["server".into(), "--config".into(), file(1), file(2)];
    Ok((site, boxes, arguments))
}

#[test]
fn doctor_names_and_fixes_each_breakage_of_a_server() -> Result<()> {
    let (site, _boxes, arguments) = two_boxes(Private::Shared)?;
    let arguments: Vec<&Path> = arguments.iter().map(PathBuf::as_path).collect();
    let server = site.server();
    let (first, second) = (site.server_address(0), site.server_address(1));
    let _tcp = [listen(server, first, 80)?, listen(server, second, 80)?];
    let _udp = [datagrams(server, first, 7)?, datagrams(server, second, 7)?];
    let healthy = examine(server, &[], &arguments)?;
    ensure!(healthy.healthy, "{healthy:#?}");
    let proven = healthy.of(Severity::Ok, "replies");
    for (finding, uplink) in proven.iter().zip(0..) {
        let died = format!("packet with TTL 1 died at {}", site.uplink(uplink).inside);
        ensure!(finding.found.contains(&died), "{died:?} in {healthy:#?}");
    }
    ensure!(proven.len() == 2 && healthy.of(Severity::Ok, "service").len() == 4, "{healthy:#?}");

    let other = site.uplink(1).inside;
    let all = [
        broken("ip address del 10.0.0.202/24 dev eth0", "address", "10.0.0.202 is missing"),
        broken(
            "sysctl -qw net.ipv4.conf.eth0.rp_filter=1; ip rule del from 10.0.0.202",
            "arrival",
            "rp_filter",
        ),
        broken("ip rule del from 10.0.0.202", "replies", "there is no route"),
        broken("ip route del default table 7202", "replies", "from 10.0.0.202"),
        broken(
            "ip route replace default via 10.0.0.100 table 7202",
            "replies",
            "go to 10.0.0.100 by eth0",
        ),
        broken(
            "ip route add default via 10.0.0.100; ip rule del from 10.0.0.202",
            "replies",
            "dies at 10.0.0.100",
        ),
        // A rule for both addresses. Its table must not change.
        broken(
            "ip route add default via 10.0.0.100 dev eth0 table 300; ip rule del from 10.0.0.202; \
             ip rule add priority 1000 from 10.0.0.0/24 lookup 300",
            "replies",
            "from 10.0.0.202",
        ),
        broken("ip rule add priority 5 lookup 101", "replies", "go to 10.0.0.100 by eth0"),
        // The kernel's tables are right, but another box receives the packets.
        broken(
            format!("ip neighbour replace {other} lladdr 02:00:00:00:14:01 dev eth0 nud permanent"),
            "replies",
            "died at 10.0.0.100, another box",
        )
        .undone_by(format!("ip neighbour del {other} dev eth0")),
        broken(
            "nft 'add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; policy drop; }; \
             add rule ip filter INPUT ct state established,related accept'",
            "firewall",
            "`ip filter INPUT` drops requests to 10.0.0.202:80",
        ),
        broken("ip link set eth0 mtu 1000", "mtu", "eth0 has MTU 1000").into_warning(),
        broken(
            "ip link set eth0 mtu 9000",
            "mtu",
            "of that size from 10.0.0.101 does not reach 10.0.0.100; a packet of 1500 bytes does",
        ),
    ];
    assert_named_and_fixed(server, &arguments, &all)
}

#[test]
fn doctor_distinguishes_missing_and_wildcard_listeners() -> Result<()> {
    let (site, _boxes, arguments) = two_boxes(Private::Separate)?;
    let arguments: Vec<&Path> = arguments.iter().map(PathBuf::as_path).collect();
    let server = site.server();
    let (first, second) = (site.server_address(0), site.server_address(1));
    let silent = examine(server, &[], &arguments)?;
    ensure!(
        silent.errors().len() == 4 && silent.of(Severity::Error, "service").len() == 4,
        "{silent:#?}"
    );

    let _first = listen(server, first, 80)?;
    let _everywhere = datagrams(server, [0, 0, 0, 0].into(), 7)?;
    let report = examine(server, &[], &arguments)?;
    let wrong = report.errors();
    let wanted =
        format!("no program listens at {second}:80 (tcp), the target of f0, only at {first}:80");
    ensure!(wrong.len() == 1 && wrong[0].found == wanted, "{report:#?}");
    ensure!(report.of(Severity::Warning, "service").len() == 2, "a UDP wildcard: {report:#?}");

    // Root without any privilege: doctor reports what it cannot read, and checks the rest.
    let powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let report = examine(server, &powerless, &arguments)?;
    ensure!(report.errors().len() == 1, "{report:#?}");
    let unproven = report.of(Severity::Warning, "replies");
    ensure!(
        unproven.len() == 2 && unproven[0].advice == "run natbox doctor as root",
        "{report:#?}"
    );
    let unseen = report.of(Severity::Warning, "firewall");
    ensure!(
        unseen.len() == 1 && unseen[0].found.contains("could not read the rules"),
        "{report:#?}"
    );
    Ok(())
}

#[test]
fn doctor_wants_one_address_and_a_default_route_behind_a_three_legged_box() -> Result<()> {
    let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
    let address = site.server_address(0);
    let _natbox = site.start(0, &site.three_legged_config().forward("tcp", 80, address, 80))?;
    let _tcp = listen(site.server(), [0, 0, 0, 0].into(), 80)?;
    let file = site.lab.directory().join("natbox1.yaml");
    let arguments = [Path::new("server"), Path::new("--config"), &file];
    let healthy = examine(site.server(), &[], &arguments)?;
    let proven = healthy.of(Severity::Ok, "replies");
    ensure!(
        healthy.healthy
            && proven.len() == 1
            && proven[0].found.contains("go to 10.0.0.1 by eth0, which is natbox1; proven"),
        "{healthy:#?}"
    );
    let all = [
        broken("ip route del default", "replies", "there is no route"),
        broken("ip route replace default via 10.0.0.77", "replies", "go to 10.0.0.77"),
    ];
    assert_named_and_fixed(site.server(), &arguments, &all)?;
    // On another machine doctor reports the missing address.
    let elsewhere = examine(site.client(), &[], &arguments)?;
    ensure!(
        !elsewhere.healthy && !elsewhere.of(Severity::Error, "address").is_empty(),
        "{elsewhere:#?}"
    );
    Ok(())
}
