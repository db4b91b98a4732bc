//! The address of a published service of the host comes and goes while natbox runs.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use natbox::lab::Namespace;

use crate::lab::Echo;
use crate::single_box::{CLIENT, DATAGRAMS, Published, RunningBox, SingleBox, eventually, seconds};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 0, 7, 7);

/// Regression: natbox watched only addresses of the configuration and of its interfaces. A service
/// at a later address of `lo` got no packets, and `status` said that the host has no route to it.
#[test]
fn a_service_at_a_later_address_of_any_interface_answers() {
    let scene = SingleBox::new(Published::OnLink);
    let natbox_host = &scene.natbox;
    scene.lab.veth(3, (natbox_host, "other0"), (&scene.server, "other1")).unwrap();
    let _echo = Echo::start(natbox_host, Ipv4Addr::UNSPECIFIED, DATAGRAMS).unwrap();
    let text = scene.config().to_string();
    let text = text.replace("10.0.0.0/24] }", "10.0.0.0/16] }");
    let text = text.replace("to: '10.0.0.101:7'", &format!("to: '{SERVICE}:7'"));
    let path = scene.write("natbox", &text);
    let natbox = RunningBox::launch(natbox_host, "natbox", &path, &scene.config().socket);
    // natbox has set up everything of the start.
    std::thread::sleep(seconds(2));
    assert!(is_unreachable(&natbox) && !answers(&scene));
    for interface in ["lo", "other0", "lan0"] {
        let change = |verb| address(natbox_host, verb, interface);
        change("add");
        soon(&format!("the service on {interface}"), || answers(&scene));
        soon("the end of the warning", || !is_unreachable(&natbox));
        change("del");
        soon(&format!("the warning after {interface}"), || is_unreachable(&natbox));
    }
}

fn address(host: &Namespace, verb: &str, interface: &str) {
    host.ip(&["address", verb, &format!("{SERVICE}/32"), "dev", interface]).unwrap();
}

/// Waits for a condition that no other change of the host helps.
#[track_caller]
fn soon(what: &str, is_true: impl Fn() -> bool) {
    eventually(what, || is_true().then_some(()));
}

fn is_unreachable(natbox: &RunningBox) -> bool {
    natbox.status().warnings.iter().any(|warning| warning.found.contains("no route by lan0"))
}

fn answers(scene: &SingleBox) -> bool {
    let client = scene.net.enter(|| UdpSocket::bind((CLIENT, 0))).unwrap().unwrap();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    client.connect(scene.endpoint(DATAGRAMS)).unwrap();
    client.send(b"x").unwrap();
    client.recv(&mut [0; 9]).is_ok()
}
