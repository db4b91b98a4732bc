//! Another program removes natbox's settings.

use std::time::{Duration, Instant};

use natbox::api::EventKind;
use rustix::process::Signal;

use super::{
    OWN_PORT, events, host_status, own_service, pause, reaches, reaches_from, restored,
    rules_and_routes, settled, shell, soon,
};
use crate::single_box::{PROVIDER, Published, SingleBox, WEB, eventually, seconds};

/// Deletes every rule that does not count as the kernel's, as systemd-networkd does.
const DELETE_FOREIGN: &str = "ip -4 -d rule show | grep -v 'proto kernel' | \
    sed 's/^\\([0-9]*\\):/priority \\1/' | while read rule; do ip rule del $rule; done";
/// Deletes the rule of every priority that the kernel does not use.
const DELETE_PRIORITIES: &str = "for priority in $(ip -4 rule show | cut -d: -f1); do case $priority in \
    0|32766|32767) ;; *) ip rule del priority $priority;; esac; done";
/// Flushes all rules, and adds those that most scripts add.
const FLUSH: &str = "ip rule flush; ip rule add priority 32766 lookup main; \
    ip rule add priority 32767 lookup default";

fn at_all_times(published: Published) -> Vec<&'static str> {
    let mut scripts = vec![
        DELETE_FOREIGN,
        DELETE_PRIORITIES,
        FLUSH,
        "ip rule del iif lan0",
        "ip route flush table 7100",
        "ip route flush table 7102",
        "ip route del unreachable 10.0.0.0/24",
        "ip route flush cache; ip address del 169.254.71.1/32 dev nb0",
        "ip address flush dev nb0",
        "ip link set nb0 mtu 1500",
        "ip link set nb0 group 0",
        "ip link set nb0 down",
        "sysctl -qw net.ipv4.ip_forward=0",
        "sysctl -qw net.ipv4.conf.lan0.forwarding=0",
        "sysctl -qw net.ipv4.conf.nb0.forwarding=0",
        "sysctl -qw net.ipv4.conf.wan0.rp_filter=1 net.ipv4.conf.nb0.accept_local=0",
        "ip neighbour del proxy 203.0.113.10 dev wan0",
    ];
    scripts.push(match published {
        Published::Owned => "ip route del local 203.0.113.10 dev nb0 table local",
        Published::OnLink | Published::Routed => "ip route del 203.0.113.10 dev nb0",
    });
    scripts
}

#[test]
fn everything_that_another_program_removes_comes_back() {
    for published in [Published::OnLink, Published::Owned] {
        let testbed = SingleBox::new(published);
        let _server = testbed.serve();
        let before = testbed.host_state();
        // A box for each part, so that no removal counts as a dispute.
        for scripts in at_all_times(published).chunks(4) {
            let natbox = testbed.start(&testbed.config());
            pause();
            let (wanted, state) = (rules_and_routes(&testbed), testbed.host_state());
            for script in scripts {
                shell(&testbed.natbox, script);
                settled(&testbed, &wanted, script);
                soon(&format!("the sysctls after `{script}`"), || {
                    state.same_sysctls(&testbed.host_state()).then_some(())
                });
                soon("the page", || testbed.fetch().ok());
                let status = natbox.status();
                assert!(status.uplinks[0].healthy && host_status(&natbox).missing.is_empty());
            }
            testbed.assert_traffic();
            natbox.stop(Signal::TERM);
            before.assert_same(&testbed.host_state(), &format!("after {scripts:?}"));
        }
    }
}

/// Sysctls on which the way of a packet depends, for each interface that it passes.
const OF_EACH_INTERFACE: [&str; 2] = ["forwarding", "rp_filter"];

/// The list of what is watched is the list of what natbox sets: both come from the plan.
#[test]
fn every_sysctl_that_natbox_sets_comes_back() {
    for published in [Published::OnLink, Published::Owned] {
        let testbed = SingleBox::new(published);
        let _server = testbed.serve();
        // Another program has switched source filters on.
        testbed.natbox.sysctl("net/ipv4/conf/all/rp_filter", "1").unwrap();
        let natbox = testbed.start(&testbed.config());
        let plan = testbed.natbox(&[], &["plan", "--config", natbox.path.to_str().unwrap()]).stdout;
        let lines = plan.lines().filter(|line| line.starts_with("sysctl "));
        let settings = lines.filter_map(|line| line.rsplit_once(' ')?.1.split_once('='));
        // A change of ip_forward would change others.
        let settings: Vec<(String, &str)> = settings
            .map(|(key, value)| (key.replace('.', "/"), value))
            .filter(|(key, _)| key != "net/ipv4/ip_forward")
            .collect();
        for interface in ["lan0", "wan0", "nb0"] {
            for key in OF_EACH_INTERFACE {
                let path = format!("net/ipv4/conf/{interface}/{key}");
                assert!(settings.iter().any(|(known, _)| *known == path), "{path}: {plan}");
            }
        }
        for (path, value) in &settings {
            // A delay of one unit may be none in the kernel's ticks.
            let other = match *value {
                "0" if path.ends_with("/proxy_delay") => "80",
                "0" => "1",
                _ => "0",
            };
            testbed.natbox.sysctl(path, other).unwrap();
        }
        for (path, value) in &settings {
            let is_back = || testbed.natbox.read_sysctl(path).unwrap() == *value;
            soon(&format!("{path}={value}"), || is_back().then_some(()));
        }
        testbed.assert_traffic();
        let missing = || {
            let restored = restored(&testbed, &natbox);
            let is_mentioned = |(path, value): &&(String, &str)| {
                let end = format!("{}={value}", path.replace('/', "."));
                restored.iter().any(|command| command.ends_with(&end))
            };
            settings.iter().filter(|setting| !is_mentioned(setting)).collect::<Vec<_>>()
        };
        pause();
        assert!(missing().is_empty(), "{:?}", missing());
    }
}

#[test]
fn one_event_names_what_was_removed() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    pause();
    assert_eq!(host_status(&natbox).restored, 0);
    assert!(
        !events(&testbed, &natbox)
            .iter()
            .any(|event| matches!(event, EventKind::HostRestored { .. }))
    );
    shell(&testbed.natbox, DELETE_FOREIGN);
    let restored = || {
        let restored = events(&testbed, &natbox).into_iter().filter_map(|event| {
            if let EventKind::HostRestored { changed } = event { Some(changed) } else { None }
        });
        Some(restored.collect::<Vec<_>>()).filter(|restored| !restored.is_empty())
    };
    soon("the event", restored);
    std::thread::sleep(seconds(2));
    let restored = restored().unwrap();
    // The commands of the script may take longer than a burst on a busy machine. Each setting comes
    // once.
    let changed: Vec<&String> = restored.iter().flatten().collect();
    let unique: std::collections::BTreeSet<&String> = changed.iter().copied().collect();
    assert!(restored.len() <= 2 && changed.len() == unique.len(), "{restored:#?}");
    let rule = "ip rule add priority 1008 from all iif lan0 protocol 110 lookup 7100";
    assert!(changed.iter().any(|command| *command == rule), "{restored:#?}");
    assert_eq!(host_status(&natbox).restored, changed.len() as u64);
}

#[test]
fn a_program_that_removes_a_rule_again_and_again_is_an_error_in_the_status() {
    let testbed = SingleBox::new(Published::Owned);
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    let start = Instant::now();
    let mut removals = 0;
    // For six seconds; the pauses grow to 2 s and 4 s.
    while start.elapsed() < seconds(6) {
        let command = ["rule", "del", "priority", "1008"];
        removals += u32::from(testbed.natbox.ip(&command).is_ok());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!((5..=8).contains(&removals), "{removals}");
    let status = natbox.status();
    let host = status.host.unwrap();
    let error = host.error.expect("an error");
    let words = ["priority 1008 from all iif lan0", "ManageForeignRoutingPolicyRules=no"];
    assert!(words.iter().all(|words| error.contains(words)), "{error}");
    assert!(!host.missing.is_empty() && !status.uplinks[0].healthy, "{:?}", host.missing);
    let socket = natbox.socket().to_str().unwrap();
    let text = testbed.natbox(&[], &["status", "--socket", socket]).stdout;
    assert!(
        text.contains("error: another program removed") && !text.contains(": healthy"),
        "{text}"
    );
    let disputes = events(&testbed, &natbox).into_iter();
    let disputes = disputes.filter(|event| matches!(event, EventKind::HostDisputed { .. }));
    assert_eq!(disputes.count(), 1);
    eventually("the rule comes back", || host_status(&natbox).missing.is_empty().then_some(()));
    testbed.fetch().unwrap();
}

/// A program that takes the TUN for its own, as NetworkManager may.
#[test]
fn a_program_that_flushes_the_tun_again_and_again_is_an_error_in_the_status() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let natbox = testbed.start(&testbed.config());
    pause();
    let start = Instant::now();
    while start.elapsed() < seconds(6) {
        shell(&testbed.natbox, "ip address flush dev nb0");
        std::thread::sleep(seconds(1) / 5);
    }
    let host = host_status(&natbox);
    let error = host.error.clone().expect("an error");
    assert!(error.contains("nb0") && error.contains("NetworkManager"), "{error}");
    // Counted, and with growing pauses: thirty flushes would have met thirty answers.
    let address = "ip address replace 169.254.71.1/32 dev nb0 scope link";
    let restored = restored(&testbed, &natbox);
    assert!(restored.iter().any(|command| command == address), "{restored:#?}");
    assert!(host.restored > 2 && !host.missing.is_empty(), "{host:?}");
    let disputes = events(&testbed, &natbox).into_iter();
    let disputes = disputes.filter(|event| matches!(event, EventKind::HostDisputed { .. }));
    assert_eq!(disputes.count(), 1);
    eventually("the address comes back", || host_status(&natbox).missing.is_empty().then_some(()));
    testbed.assert_traffic();
}

#[test]
fn the_hosts_own_service_stays_reachable_while_rules_are_removed() {
    let testbed = SingleBox::new(Published::Owned);
    let (_server, _own) = (testbed.serve(), own_service(&testbed));
    let natbox = testbed.start(&testbed.config());
    pause();
    for script in [DELETE_FOREIGN, DELETE_PRIORITIES, FLUSH, "ip rule flush"] {
        shell(&testbed.natbox, script);
        soon(&format!("the host after `{script}`"), || reaches(&testbed, OWN_PORT).then_some(()));
        soon(&format!("the forward after `{script}`"), || reaches(&testbed, WEB).then_some(()));
        // Addresses other than the published one are never affected.
        let route = ["route", "get", "10.0.0.1", "from", "10.0.0.101", "iif", "lan0"];
        assert!(testbed.natbox.ip_output(&route).unwrap().starts_with("local 10.0.0.1 "));
    }
    natbox.stop(Signal::TERM);
}

#[test]
fn the_host_is_reachable_after_natbox_dies_without_its_rules() {
    let testbed = SingleBox::new(Published::Owned);
    let (_server, _own) = (testbed.serve(), own_service(&testbed));
    let before = testbed.host_state();
    for script in [DELETE_FOREIGN, DELETE_PRIORITIES, FLUSH] {
        let mut natbox = testbed.start(&testbed.config());
        // natbox cannot set anything again.
        natbox.process.signal(Signal::STOP).unwrap();
        shell(&testbed.natbox, script);
        natbox.kill();
        soon(&format!("the host after `{script}`"), || reaches(&testbed, OWN_PORT).then_some(()));
        let natbox = testbed.start(&testbed.config());
        soon("the forward", || reaches(&testbed, WEB).then_some(()));
        natbox.stop(Signal::TERM);
        before.assert_same(&testbed.host_state(), &format!("after `{script}`"));
    }
    // A VPN starts after natbox has died, before the rules that natbox left.
    testbed.start(&testbed.config()).kill();
    shell(&testbed.natbox, super::vpn::WG_QUICK);
    // Replies to hosts further away take the VPN.
    soon("the host beside a VPN's rules", || {
        reaches_from(&testbed, PROVIDER, OWN_PORT).then_some(())
    });
}

#[test]
fn lost_reports_of_the_kernel_lead_to_a_look_at_everything() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let mut natbox = testbed.start(&testbed.config());
    pause();
    let wanted = rules_and_routes(&testbed);
    natbox.process.signal(Signal::STOP).unwrap();
    // More reports than the socket holds, then the removal of a route, which the periodic
    // comparison does not find.
    shell(
        &testbed.natbox,
        "ip link add many type veth peer name few; ip link set many up; ip link set few up; \
         for add in add del; do \
           seq 8000 | sed \"s/.*/route $add 198.19.0.&\\/32 dev many table &/\" | \
           sed 's/198.19.0.[0-9]*/198.19.0.1/' > /tmp/natbox-routes-$$; \
           ip -batch /tmp/natbox-routes-$$; rm /tmp/natbox-routes-$$; \
         done; \
         ip link del many; ip route flush table 7102",
    );
    natbox.process.signal(Signal::CONT).unwrap();
    settled(&testbed, &wanted, "lost reports");
    natbox.wait_for_log("dropped reports of changes");
    // The subscription goes on.
    shell(&testbed.natbox, "ip route flush table 7102");
    settled(&testbed, &wanted, "a later removal");
    testbed.assert_traffic();
}
