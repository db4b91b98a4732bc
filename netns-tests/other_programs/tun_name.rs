//! Another program renames or moves the TUN, or renames another interface of the configuration.

use std::time::Instant;

use natbox::api::EventKind;
use natbox::lab::Namespace;
use rustix::process::Signal;

use super::{events, host_status, pause, restored, rules_and_routes, settled, shell, soon};
use crate::single_box::{Published, SingleBox, eventually, seconds};

const RENAME: &str = "ip link set nb0 name nbx";
const RENAME_BACK: &str = "ip link set nbx name nb0";

/// Regression: natbox took its own routes for another program's and removed them, and translated
/// nothing until it was restarted.
#[test]
fn a_renamed_tun_gets_its_name_back() {
    for published in [Published::OnLink, Published::Owned] {
        let scene = SingleBox::new(published);
        let _server = scene.serve();
        let before = scene.host_state();
        let natbox = scene.start(&scene.config());
        pause();
        let (wanted, state) = (rules_and_routes(&scene), scene.host_state());
        // Kernels before Linux 6.2 rename only an interface that is down.
        for script in [RENAME, "ip link set nb0 down; ip link set nb0 name nbx"] {
            shell(&scene.natbox, script);
            settled(&scene, &wanted, script);
            assert!(state.same_sysctls(&scene.host_state()), "the sysctls after `{script}`");
            scene.assert_traffic();
            assert_eq!(host_status(&natbox).missing, [""; 0], "{script}");
        }
        let restored = restored(&scene, &natbox);
        assert_eq!(restored.iter().filter(|command| *command == RENAME_BACK).count(), 2);
        assert!(!restored.iter().any(|command| command.starts_with("ip route del")));
        natbox.stop(Signal::TERM);
        before.assert_same(&scene.host_state(), "after the TUN was renamed");
    }
}

#[test]
fn another_interface_with_the_name_of_the_tun_is_an_error_until_it_is_gone() {
    let scene = SingleBox::new(Published::OnLink);
    let _server = scene.serve();
    let natbox = scene.start(&scene.config());
    pause();
    let (wanted, routes) = (rules_and_routes(&scene), routes_of_natbox(&scene.natbox));
    // natbox may be faster than the second command.
    let take = "ip link set nb0 name nbx; ip link add nb0 type veth peer name nbpeer";
    eventually("the other interface", || {
        let output = scene.natbox.command("sh").args(["-c", take]).output().unwrap();
        output.status.success().then_some(())
    });
    let settings = |namespace: &Namespace| {
        let keys = ["forwarding", "rp_filter", "accept_local"];
        let read = |key| namespace.read_sysctl(&format!("net/ipv4/conf/nb0/{key}")).unwrap();
        (keys.map(read), namespace.ip_output(&["-4", "address", "show", "dev", "nb0"]).unwrap())
    };
    let of_other = settings(&scene.natbox);
    soon("the message", || {
        let missing = host_status(&natbox).missing;
        missing.iter().any(|text| text.contains("another interface is named nb0")).then_some(())
    });
    // At least one more look.
    std::thread::sleep(seconds(2));
    assert_eq!(settings(&scene.natbox), of_other, "the other interface is not natbox's");
    assert_eq!(routes_of_natbox(&scene.natbox), routes.replace("dev nb0", "dev nbx"));
    assert!(!natbox.status().uplinks[0].healthy);
    shell(&scene.natbox, "ip link del nb0");
    settled(&scene, &wanted, "the name is free again");
    scene.assert_traffic();
    assert_eq!(host_status(&natbox).missing, [""; 0]);
    // A stop while the other interface has the name.
    eventually("the other interface", || {
        let output = scene.natbox.command("sh").args(["-c", take]).output().unwrap();
        output.status.success().then_some(())
    });
    let of_other = settings(&scene.natbox);
    natbox.stop(Signal::TERM);
    let after = settings(&scene.natbox);
    // Forwarding of every interface goes with `ip_forward`, which natbox had set.
    assert_eq!((&after.0[1..], after.1), (&of_other.0[1..], of_other.1));
    let links = scene.natbox.ip_output(&["-brief", "link"]).unwrap();
    assert!(!links.contains("nbx"), "the TUN is gone: {links}");
}

fn routes_of_natbox(namespace: &Namespace) -> String {
    namespace.ip_output(&["-4", "route", "show", "table", "all", "proto", "110"]).unwrap()
}

#[test]
fn a_program_that_renames_the_tun_again_and_again_is_an_error_in_the_status() {
    let scene = SingleBox::new(Published::OnLink);
    let _server = scene.serve();
    let natbox = scene.start(&scene.config());
    pause();
    let (start, mut times) = (Instant::now(), 0);
    while start.elapsed() < seconds(6) {
        times += u32::from(scene.natbox.ip(&["link", "set", "nb0", "name", "nbx"]).is_ok());
        std::thread::sleep(seconds(1) / 5);
    }
    assert!((5..=8).contains(&times), "with growing pauses: {times}");
    let host = host_status(&natbox);
    let error = host.error.clone().expect("an error");
    assert!(
        error.contains("renamed the TUN device nb0") && error.contains("ip monitor"),
        "{error}"
    );
    assert!(host.missing.iter().any(|command| command.starts_with(RENAME_BACK)), "{host:?}");
    let disputes = events(&scene, &natbox).into_iter();
    let disputes = disputes.filter(|event| matches!(event, EventKind::HostDisputed { .. }));
    assert_eq!(disputes.count(), 1);
    eventually("the name comes back", || host_status(&natbox).missing.is_empty().then_some(()));
    scene.assert_traffic();
}

/// Regression: the workers waited for ever for packets of a device that no route led to.
#[test]
fn a_tun_in_another_namespace_ends_the_box_with_a_message() {
    let scene = SingleBox::new(Published::OnLink);
    let _server = scene.serve();
    let before = scene.host_state();
    let mut natbox = scene.start(&scene.config());
    scene.assert_traffic();
    shell(&scene.natbox, &format!("ip link set nb0 netns {}", scene.server.name()));
    let status = natbox.process.wait(seconds(5)).unwrap().expect("the box ends");
    let log = natbox.process.log();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains("the TUN device nb0 is gone"), "{log}");
    before.assert_same(&scene.host_state(), "after the device was moved");
    let natbox = scene.start(&scene.config());
    scene.assert_traffic();
    natbox.stop(Signal::TERM);
}

#[test]
fn the_box_works_again_when_a_renamed_interface_has_its_name_again() {
    let scene = SingleBox::new(Published::OnLink);
    let _server = scene.serve();
    let natbox = scene.start(&scene.config());
    pause();
    let wanted = rules_and_routes(&scene);
    for interface in ["lan0", "wan0"] {
        shell(&scene.natbox, &format!("ip link set {interface} name other0"));
        soon("the event", || {
            let is_said = |event: &EventKind| matches!(event, EventKind::InterfaceRemoved { interface: name } if name == interface);
            events(&scene, &natbox).iter().any(is_said).then_some(())
        });
        shell(&scene.natbox, &format!("ip link set other0 name {interface}"));
        settled(&scene, &wanted, interface);
        soon("the page", || scene.fetch().ok());
        scene.assert_traffic();
        assert_eq!(host_status(&natbox).missing, [""; 0], "{interface}");
    }
}
