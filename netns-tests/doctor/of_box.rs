//! `natbox doctor` on a box.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use natbox::cli::doctor::Severity;
use natbox::lab::boxes::NatBox;
use natbox::lab::topology::{Private, ThreeLeggedPlan};

use crate::dns::{self, Address};
use crate::doctor::{assert_named_and_fixed, broken, examine, shell, text};
use crate::lab::{NATBOX, Site, output};

/// Starts an instance that does not manage its host, and makes the planned settings. An instance
/// that manages its host would repair most breakages before doctor finds them.
fn start_unmanaged(site: &Site) -> Result<NatBox> {
    let natbox = site.start(0, &site.web_config(0).unmanaged())?;
    let host = &site.uplink(0).natbox;
    let mut plan = host.command(NATBOX);
    plan.args(["plan", "--json", "--config"]).arg(site.lab.directory().join("natbox1.yaml"));
    let plan: serde_json::Value = serde_json::from_str(&output(plan)?)?;
    for command in plan["boxes"][0]["commands"].as_array().context("commands")? {
        shell(host, command.as_str().context("a command")?)?;
    }
    Ok(natbox)
}

#[test]
fn doctor_names_and_fixes_each_breakage_of_a_box() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let natbox = start_unmanaged(&site)?;
    let arguments = [Path::new("--socket"), natbox.socket()];
    let host = &site.uplink(0).natbox;
    let healthy = examine(host, &[], &arguments)?;
    ensure!(healthy.healthy, "{healthy:#?}");
    for id in [
        "instance",
        "uplink",
        "host",
        "path",
        "gateway",
        "firewall",
        "conntrack",
        "mtu",
        "sessions",
        "drops",
    ] {
        ensure!(!healthy.of(Severity::Ok, id).is_empty(), "{id} in {healthy:#?}");
    }
    let published = site.uplink(0).published;
    let all = [
        broken("ip rule del priority 1024", "rules", "iif lan0"),
        broken("ip rule del priority 1021", "rules", "blackhole"),
        broken("ip route del default table 7164", "routes", "default dev nb1 table 7164"),
        broken("ip route replace 203.0.113.10 dev lan0", "routes", "dev lan0` has the place of"),
        broken("ip address del 169.254.71.2/32 dev nb1", "tun", "169.254.71.2/32"),
        broken("ip link set nb1 mtu 1400", "tun", "mtu 65535"),
        broken("sysctl -qw net.ipv4.conf.lan0.rp_filter=1", "sysctls", "conf/lan0/rp_filter is 1"),
        broken(
            "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.nb1.rp_filter=1",
            "sysctls",
            "nb1/rp_filter is 1",
        ),
        broken("sysctl -qw net.ipv4.ip_forward=0", "sysctls", "ip_forward is 0"),
        broken("sysctl -qw net.ipv4.conf.wan0.forwarding=0", "sysctls", "wan0/forwarding is 0"),
        broken("sysctl -qw net.ipv4.neigh.wan0.proxy_delay=80", "sysctls", "proxy_delay")
            .into_warning(),
        broken(
            format!("ip neighbour del proxy {published} dev wan0"),
            "proxy-arp",
            published.to_string(),
        ),
        // A VPN's catch-all rule.
        broken(
            "ip route add default dev lo table 52; ip rule add priority 10 lookup 52",
            "path",
            "leave by lo",
        ),
        broken(
            "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
            "firewall",
            "`ip filter FORWARD` drops",
        ),
        // A leftover of an earlier use as a router.
        broken(
            "nft 'add table ip nat; add chain ip nat POSTROUTING { type nat hook postrouting priority 100; }; \
             add rule ip nat POSTROUTING oifname \"wan0\" masquerade'",
            "firewall",
            "`ip nat POSTROUTING` rewrites",
        ),
        broken(
            "nft 'add table inet guard; add chain inet guard by { type filter hook forward priority 10; }; \
             add rule inet guard by iifname vmap { \"wan0\" : drop }'",
            "firewall",
            "`inet guard by` drops requests of f0 from wan0",
        ),
        broken(
            "nft 'add table inet ports; add chain inet ports from { type filter hook forward priority 20; }; \
             add rule inet ports from tcp sport 80 drop'",
            "firewall",
            "`inet ports from` drops replies of",
        ),
        // The masquerade table above makes the kernel track; no rule matches a state.
        broken("true", "conntrack", "nf_conntrack is in the path").into_warning(),
        broken("ip link set wan0 mtu 1200", "mtu", "wan0 has MTU 1200").into_warning(),
        broken(
            "ip address del 10.0.0.100/24 dev lan0",
            "configuration",
            "inside.address: 10.0.0.100",
        ),
    ];
    assert_named_and_fixed(host, &arguments, &all)?;

    // A firewall that accepts known connections, and notrack rules for natbox's packets.
    shell(
        host,
        "nft 'add table inet known; add chain inet known in { type filter hook input priority 0; policy drop; }; \
         add rule inet known in ct state established,related accept'",
    )?;
    let report = examine(host, &[], &arguments)?;
    let untracked = report.of(Severity::Ok, "conntrack");
    ensure!(untracked.len() == 1 && untracked[0].found.contains("are untracked"), "{report:#?}");
    shell(host, "nft delete table ip natbox")?;
    let report = examine(host, &[], &arguments)?;
    let beside = report.of(Severity::Warning, "conntrack");
    ensure!(beside.len() == 1 && beside[0].fix.is_empty() && report.healthy, "{report:#?}");

    // Another machine on the uplink's segment.
    shell(&site.uplink(0).provider, &format!("ip address add {published}/32 dev box0"))?;
    let report = examine(host, &[], &arguments)?;
    let duplicates = report.of(Severity::Error, "duplicate-address");
    ensure!(
        duplicates.len() == 1 && duplicates[0].found.contains(&published.to_string()),
        "{report:#?}"
    );
    shell(&site.uplink(0).provider, &format!("ip address del {published}/32 dev box0"))?;
    let report = examine(host, &[], &arguments)?;
    ensure!(
        report.healthy && !report.of(Severity::Ok, "duplicate-address").is_empty(),
        "{report:#?}"
    );
    Ok(())
}

#[test]
fn doctor_names_and_fixes_a_filter_that_drops_dns_queries() -> Result<()> {
    for (address, rule) in
        [(Address::Owned, "udp dport 53 drop"), (Address::Nobodys, "iifname nb1 drop")]
    {
        let site = Site::new(Private::Shared, 1)?;
        let zone = "zone: example.org, name_servers: [{ name: ns1, address: 203.0.113.10 }, { name: ns2, address: 198.51.100.10 }], \
                    names: [{ name: www }]";
        let natbox = dns::start(&site, 0, address, zone)?;
        let (host, published) = (&site.uplink(0).natbox, site.uplink(0).published);
        let arguments = [Path::new("--socket"), natbox.socket()];
        let broken = broken(
            format!(
                "nft 'add table ip filter; add chain ip filter INPUT {{ type filter hook input priority 0; }}; \
                 add rule ip filter INPUT {rule}'"
            ),
            "firewall",
            format!("`ip filter INPUT` drops queries (udp) to the name server at {published}"),
        );
        assert_named_and_fixed(host, &arguments, &[broken])?;
        let answer = dns::programs::short(site.client(), published, &["www.example.org"])?;
        ensure!(answer == [published.to_string()], "{address:?}: {answer:?}");
    }
    Ok(())
}

#[test]
fn doctor_names_a_silent_gateway_and_a_stopped_box() -> Result<()> {
    let site = Site::three_legged(ThreeLeggedPlan::TWO_UPLINKS)?;
    let config = site.three_legged_config().forward("tcp", 80, site.server_address(0), 80);
    let mut natbox = site.start(0, &config)?;
    let host = &site.uplink(0).natbox;
    let file = site.lab.directory().join("natbox1.yaml");
    let by_file = [Path::new("--config"), file.as_path()];
    let healthy = examine(host, &[], &by_file)?;
    ensure!(healthy.healthy && healthy.of(Severity::Ok, "gateway").len() == 2, "{healthy:#?}");

    let gateway = site.uplink(1).gateway;
    shell(&site.uplink(1).provider, &format!("ip address del {gateway}/24 dev box0"))?;
    // A known neighbour: the kernel would probe it again only with a packet to send.
    shell(host, &format!("ip neighbour change {gateway} dev wan1 nud stale"))?;
    let report = examine(host, &[], &by_file)?;
    let errors = report.errors();
    ensure!(errors.len() == 1 && errors[0].found.contains(&gateway.to_string()), "{report:#?}");
    shell(&site.uplink(1).provider, &format!("ip address add {gateway}/24 dev box0"))?;

    // The file differs from the running configuration.
    let written = std::fs::read_to_string(&file)?;
    std::fs::write(&file, written.replace("port: 80", "port: 81"))?;
    let report = examine(host, &[], &by_file)?;
    let fix: Vec<&String> =
        report.of(Severity::Warning, "configuration").iter().flat_map(|f| &f.fix).collect();
    ensure!(report.healthy && fix.len() == 1, "{report:#?}");
    shell(host, &fix[0].replacen("natbox", NATBOX, 1))?;
    let report = examine(host, &[], &by_file)?;
    ensure!(report.of(Severity::Warning, "configuration").is_empty(), "{report:#?}");

    // Another namespace does not show the box's host.
    let mut elsewhere = site.server().command(NATBOX);
    elsewhere.args(["doctor", "--socket"]).arg(natbox.socket());
    let refused = elsewhere.output()?;
    ensure!(
        refused.status.code() == Some(2) && text(&refused.stderr).contains("nsenter"),
        "{refused:?}"
    );

    natbox.process().terminate()?;
    let report = examine(host, &[], &by_file)?;
    let errors = report.errors();
    ensure!(
        errors.len() == 1 && errors[0].id == "instance" && errors[0].advice.contains("natbox run"),
        "{report:#?}"
    );
    Ok(())
}

/// Programs of these names run in the box's namespace, with files of their own.
#[test]
fn doctor_names_the_settings_of_network_programs_before_they_remove_anything() -> Result<()> {
    let site = Site::new(Private::Shared, 1)?;
    let natbox = site.start(0, &site.web_config(0))?;
    let arguments = [Path::new("--socket"), natbox.socket()];
    let host = &site.uplink(0).natbox;
    let report = examine(host, &[], &arguments)?;
    for id in ["networkd", "network-manager"] {
        ensure!(report.findings.iter().all(|found| found.id != id), "{id} runs elsewhere");
    }
    let mut running = Vec::new();
    for name in ["systemd-network", "NetworkManager"] {
        let script = format!("printf {name} > /proc/self/comm; while :; do sleep 1; done");
        let mut command = host.command("sh");
        command.args(["-c", &script]);
        running.push(host.spawn(name, command)?);
    }
    let files = |networkd: &str, manager: &str| {
        format!(
            "mount -t tmpfs tmpfs /etc; \
             mkdir -p /etc/systemd/networkd.conf.d /etc/NetworkManager/conf.d; \
             printf '[Network]\\n{networkd}' > /etc/systemd/networkd.conf.d/zz-natbox.conf; \
             printf '[keyfile]\\n{manager}' > /etc/NetworkManager/conf.d/zz-natbox.conf; \
             exec \"$@\""
        )
    };
    let with_files = |networkd: &str, manager: &str| {
        let script = files(networkd, manager);
        let before = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        examine(host, &before, &arguments)
    };
    let report = with_files("", "")?;
    for (id, lines) in [
        ("networkd", ["ManageForeignRoutingPolicyRules=no", "ManageForeignRoutes=no"]),
        ("network-manager", ["unmanaged-devices+=interface-name:nb1", "[keyfile]"]),
    ] {
        let [found] = report.of(Severity::Warning, id)[..] else { anyhow::bail!("{report:#?}") };
        ensure!(lines.iter().all(|line| found.advice.contains(line)), "{found:?}");
    }
    // The lines of the advice.
    let report = with_files(
        "ManageForeignRoutingPolicyRules=no\\nManageForeignRoutes=no\\n",
        "unmanaged-devices+=interface-name:nb1\\n",
    )?;
    for id in ["networkd", "network-manager"] {
        ensure!(report.of(Severity::Ok, id).len() == 1, "{report:#?}");
    }
    Ok(())
}
