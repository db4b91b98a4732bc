//! A missing setting of the host fails the uplinks that depend on it, and no others.

use std::time::Instant;

use natbox::api::UplinkStatus;

use super::{host_status, pause, shell};
use crate::single_box::{Published, RunningBox, SingleBox, eventually, seconds};

/// An interface that the configuration does not name, and a second uplink.
const INTERFACES: &str = "ip link add other0 type veth peer name other1; ip link set other0 up; \
    ip link set other1 up; ip link add wan1 type veth peer name peer1; ip link set wan1 up; \
    ip link set peer1 up; ip address add 198.18.1.1/24 dev wan1";

/// Regression: one disputed sysctl of an interface outside the configuration marked every uplink as
/// failed.
#[test]
fn a_missing_setting_fails_only_the_uplinks_that_depend_on_it() {
    let uplinks = "gateway: 203.0.113.254 }\n  \
        - { name: second, interface: wan1, addresses: [198.18.1.10], gateway: 198.18.1.254 }";
    for (interface, words, healthy) in [
        ("other0", "no translated packet depends on it", [true, true]),
        ("wan1", "uplink second depends on it", [true, false]),
    ] {
        let scene = SingleBox::new(Published::OnLink);
        let _server = scene.serve();
        shell(&scene.natbox, INTERFACES);
        let text = scene.config().to_string().replace("gateway: 203.0.113.254 }", uplinks);
        let path = scene.write("natbox", &text);
        let natbox = RunningBox::launch(&scene.natbox, "natbox", &path, &scene.config().socket);
        pause();
        assert_eq!(states(&natbox), [true, true]);
        let key = format!("net.ipv4.conf.{interface}.arp_announce");
        let start = Instant::now();
        while host_status(&natbox).missing.is_empty() && start.elapsed() < seconds(20) {
            shell(&scene.natbox, &format!("sysctl -qw {key}=0"));
            std::thread::sleep(seconds(1) / 5);
        }
        let status = natbox.status();
        let host = status.host.clone().unwrap();
        let command = format!("sysctl -q -w {key}=2");
        assert_eq!(host.missing, [format!("{command} ({words})")]);
        let error = host.error.expect("an error");
        assert!(error.contains(&command) && error.contains(words), "{error}");
        assert_eq!(status.uplinks.iter().map(|uplink| uplink.healthy).collect::<Vec<_>>(), healthy);
        let failed = |uplink: &UplinkStatus| uplink.setting_missing;
        assert_eq!(status.uplinks.iter().map(failed).collect::<Vec<_>>(), healthy.map(|up| !up));
        let socket = natbox.socket().to_str().unwrap();
        let text = scene.natbox(&[], &["status", "--socket", socket]).stdout;
        let failed = text.matches("failed (settings of the host are missing)").count();
        assert_eq!(failed, healthy.iter().filter(|up| !**up).count(), "{text}");
        assert_eq!(scene.fetch().unwrap(), crate::single_box::CLIENT.to_string());
        eventually("the setting is back", || host_status(&natbox).missing.is_empty().then_some(()));
        assert_eq!(states(&natbox), [true, true]);
    }
}

fn states(natbox: &RunningBox) -> Vec<bool> {
    natbox.status().uplinks.iter().map(|uplink| uplink.healthy).collect()
}
