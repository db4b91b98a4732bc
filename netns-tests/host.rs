//! natbox configures its host, keeps the settings while links come and go, and restores the host.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use natbox::lab::capture::Capture;
use natbox::lab::http;
use natbox::packet::Protocol;
use rustix::process::Signal;

use crate::probe::{Probe, S1, at, udp};
use crate::single_box::{
    BOX_INSIDE, CLIENT, Published, RunningBox, SERVER, SingleBox, Sink, WEB, eventually, seconds,
    serve,
};

#[test]
fn a_stopped_natbox_restores_the_host() {
    for kind in [Published::OnLink, Published::Routed] {
        let testbed = SingleBox::new(kind);
        let _server = testbed.serve();
        let before = testbed.host_state();
        for signal in [Signal::TERM, Signal::INT] {
            let natbox = testbed.start(&testbed.config());
            assert_ne!(before, testbed.host_state());
            testbed.assert_traffic();
            natbox.stop(signal);
            before.assert_same(&testbed.host_state(), &format!("after {signal:?} ({kind:?})"));
        }
    }
}

#[test]
fn the_start_after_a_kill_works_and_the_stop_restores_the_host() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let before = testbed.host_state();
    for _ in 0..3 {
        testbed.start(&testbed.config()).kill();
        assert_ne!(before, testbed.host_state(), "a killed process restores nothing");
    }
    let natbox = testbed.start(&testbed.config());
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
    before.assert_same(&testbed.host_state(), "after kill -9, a restart and TERM");
}

#[test]
fn a_stop_restores_unusual_sysctls() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    testbed.natbox.sysctl("net/ipv4/conf/all/rp_filter", "1").unwrap();
    testbed.natbox.sysctl("net/ipv4/conf/wan0/rp_filter", "1").unwrap();
    testbed.natbox.sysctl("net/ipv4/ip_forward", "1").unwrap();
    testbed.natbox.sysctl("net/ipv4/conf/lan0/forwarding", "0").unwrap();
    let before = testbed.host_state();
    let natbox = testbed.start(&testbed.config());
    testbed.assert_traffic();
    natbox.stop(Signal::TERM);
    before.assert_same(&testbed.host_state(), "after TERM");
}

#[test]
fn the_host_answers_arp_for_an_on_link_address_at_once() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let _natbox = testbed.start(&testbed.config());
    let mut times: Vec<Duration> = (0..7)
        .map(|_| {
            testbed.net.ip(&["neigh", "flush", "dev", "eth0"]).unwrap();
            let start = Instant::now();
            testbed.connect(seconds(3)).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    // The median, because the machine may be busy. With proxy_delay a kernel waits 400 ms on
    // average.
    assert!(times[3] < Duration::from_millis(200), "{times:?}");
}

#[test]
fn a_routed_address_needs_no_proxy_entry() {
    let testbed = SingleBox::new(Published::Routed);
    let _server = testbed.serve();
    let _natbox = testbed.start(&testbed.config());
    assert_eq!(testbed.natbox.ip_output(&["neigh", "show", "proxy"]).unwrap(), "");
    testbed.assert_traffic();
}

#[test]
fn outside_hosts_do_not_reach_the_inside_untranslated() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let _other_port = serve(&testbed.server, SERVER, 8081);
    // An attacker on the segment: it has a route to the inside, and uses an inside address.
    testbed.net.route("10.0.0.0/24", testbed.outside).unwrap();
    let inside_address = Ipv4Addr::new(10, 0, 0, 55);
    testbed.net.address("lo", inside_address, 32).unwrap();
    let natbox = testbed.start(&testbed.config());

    // Every IPv4 packet that the server receives from now on has passed the box.
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    let capture = Capture::start(&testbed.server, move |frame| {
        if frame.ipv4().is_some() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    })
    .unwrap();
    let attempt = |from, to, port| {
        let to = SocketAddrV4::new(to, port);
        testbed.net.enter(|| http::connect(Some(from), to, Duration::from_millis(700))).unwrap()
    };
    for (from, to, port) in [
        (CLIENT, SERVER, WEB),
        (CLIENT, SERVER, 8081),
        (inside_address, SERVER, WEB),
        (inside_address, testbed.published, WEB),
        (CLIENT, testbed.published, 8081),
    ] {
        assert!(attempt(from, to, port).is_err(), "{from} must not reach {to}:{port}");
    }
    drop(capture);
    assert_eq!(seen.load(Ordering::Relaxed), 0, "untranslated packets");
    testbed.assert_traffic();

    // Without natbox, plain forwarding lets the attacker reach the server.
    natbox.stop(Signal::TERM);
    testbed.natbox.sysctl("net/ipv4/ip_forward", "1").unwrap();
    attempt(CLIENT, SERVER, WEB).unwrap();
}

/// SECURITY.md: on Linux every address of a host is reachable through every interface. It gives the
/// rule of a packet filter for a box without `host.block_private`.
#[test]
fn the_documented_filter_shuts_the_inside_address_off_from_the_outside() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    let own = testbed.natbox.enter(|| UdpSocket::bind((BOX_INSIDE, 8022))).unwrap().unwrap();
    own.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    testbed.net.route("10.0.0.0/24", testbed.outside).unwrap();
    let config = testbed.config();
    let text = config.to_string().replace("host: { ", "host: { block_private: false, ");
    let path = testbed.write("open", &text);
    let _natbox = RunningBox::launch(&testbed.natbox, "open", &path, &config.socket);
    let arrives_from = |namespace: &natbox::lab::Namespace| {
        let sender = namespace.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
        sender.send_to(b"request", (BOX_INSIDE, 8022)).unwrap();
        own.recv(&mut [0; 16]).is_ok()
    };
    assert!(arrives_from(&testbed.net), "without a filter the kernel accepts the packets");
    let policy = include_str!("../SECURITY.md");
    let rule = policy.split('`').find(|text| text.starts_with("nft add rule")).unwrap();
    for command in [
        "nft add table inet filter",
        "nft add chain inet filter input { type filter hook input priority 0; }",
        rule,
    ] {
        let mut nft = testbed.natbox.command("nft");
        nft.arg(command.strip_prefix("nft ").unwrap());
        assert!(nft.status().unwrap().success(), "{command}");
    }
    assert!(!arrives_from(&testbed.net), "the rule shuts the address off");
    assert!(arrives_from(&testbed.server), "the inside reaches it");
    testbed.assert_traffic();
}

/// The host routes such a packet itself, past the TUN. It comes back and leaves by no uplink.
#[test]
fn a_packet_from_inside_to_its_own_source_stays_inside() {
    let probe = Probe::plain();
    let packet = udp(at(S1, 5000), at(S1, 6000), b"own");
    probe.inside.send(&packet);
    let returned = eventually("the packet comes back", || {
        // The kernel may add a redirect.
        probe.inside.drain_until_quiet().into_iter().find(|seen| seen.protocol() == Protocol::UDP)
    });
    assert_eq!((returned.source(), returned.destination()), (at(S1, 5000), at(S1, 6000)));
    assert_eq!(probe.outside.drain(), []);
    assert_eq!(probe.sessions(), 0);
}

#[test]
fn traffic_comes_back_with_a_link_that_went_down() {
    for (kind, interface) in [
        (Published::OnLink, "wan0"),
        (Published::Routed, "wan0"),
        (Published::Owned, "wan0"),
        (Published::OnLink, "lan0"),
        (Published::OnLink, "nb0"),
        (Published::Owned, "nb0"),
    ] {
        let testbed = SingleBox::new(kind);
        let _server = testbed.serve();
        let before = testbed.host_state();
        let natbox = testbed.start(&testbed.config());
        testbed.assert_traffic();
        testbed.natbox.ip(&["link", "set", interface, "down"]).unwrap();
        natbox.wait_for_log(" is down");
        testbed.natbox.ip(&["link", "set", interface, "up"]).unwrap();
        eventually(&format!("traffic after {interface} was down ({kind:?})"), || {
            testbed.fetch().ok()
        });
        testbed.assert_traffic();
        natbox.stop(Signal::TERM);
        // The kernel drops the default route of a link that goes down. natbox did not set that
        // route.
        let _ = testbed.natbox.route("default", crate::single_box::PROVIDER);
        before
            .assert_same(&testbed.host_state(), &format!("after {interface} was down ({kind:?})"));
    }
}

#[test]
fn senders_learn_a_smaller_mtu_of_the_uplink_at_once() {
    let testbed = SingleBox::new(Published::OnLink);
    let natbox = testbed.start(&testbed.config());
    let sink = Sink::listen(&testbed.net, CLIENT, 9000);
    let mut upload = sink.connect(&testbed.server, None);
    sink.upload(&mut upload, 100_000);

    testbed.natbox.ip(&["link", "set", "wan0", "mtu", "1300"]).unwrap();
    testbed.net.ip(&["link", "set", "eth0", "mtu", "1300"]).unwrap();
    natbox.wait_for_log("MTU changed");

    let ping = |size: &str| {
        let mut command = testbed.server.command("ping");
        command.args(["-n", "-M", "do", "-c", "1", "-W", "2", "-s", size, &CLIENT.to_string()]);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // With 28 bytes of headers the packet has exactly 1300 bytes.
    assert!(ping("1272").0);
    let (success, text) = ping("1273");
    assert!(!success && text.contains("mtu = 1300"), "{text}");
    // Without the cached path MTU, TCP has to discover the MTU again.
    testbed.server.ip(&["route", "flush", "cache"]).unwrap();
    // This connection has negotiated segments for an MTU of 1500.
    sink.upload(&mut upload, 1_000_000);
    let learned = testbed.server.ip_output(&["route", "get", &CLIENT.to_string()]).unwrap();
    assert!(learned.contains("mtu 1300"), "{learned}");
}

#[test]
fn without_manage_nothing_changes_and_the_plan_configures_the_host() {
    for kind in [Published::OnLink, Published::Routed, Published::Owned] {
        let testbed = SingleBox::new(kind);
        let _server = testbed.serve();
        let config = crate::single_box::Config { manage: false, ..testbed.config() };
        let before = testbed.host_state();
        let natbox = testbed.start(&config);
        // The device exists with its default settings.
        let bare =
            |state: crate::single_box::HostState| state.without("nb0").without("natbox.sock");
        bare(before.clone()).assert_same(&bare(testbed.host_state()), "with manage: false");
        let link = testbed.natbox.ip_output(&["-brief", "link", "show", "nb0"]).unwrap();
        assert!(link.contains("DOWN"), "{link}");

        let planned =
            testbed.natbox(&[], &["plan", "--json", "--config", natbox.path.to_str().unwrap()]);
        assert_eq!(planned.code, Some(0), "{planned:?}");
        let plan: serde_json::Value = serde_json::from_str(&planned.stdout).unwrap();
        let commands: Vec<_> = plan["boxes"][0]["commands"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line.as_str().unwrap())
            .collect();
        let script = testbed.write("plan", &format!("set -eu\n{}\n", commands.join("\n")));
        let run_plan = || {
            let output = testbed.natbox.command("sh").arg(&script).output().unwrap();
            assert!(
                output.status.success(),
                "{}\n{commands:#?}",
                String::from_utf8_lossy(&output.stderr)
            );
        };
        run_plan();
        testbed.assert_traffic();
        natbox.stop(Signal::TERM);
        // The device vanishes, the rules and some routes stay, and a second run of the plan works.
        let natbox = testbed.start(&config);
        run_plan();
        testbed.assert_traffic();
        let local = testbed.natbox.ip_output(&["rule", "show", "lookup", "local"]).unwrap();
        assert!(local.lines().count() == 1 || kind == Published::Owned, "{local}");
        let rules = testbed.natbox.ip_output(&["rule", "show"]).unwrap();
        let unique: std::collections::BTreeSet<&str> = rules.lines().collect();
        assert_eq!(rules.lines().count(), unique.len(), "no rule twice: {rules}");
        natbox.stop(Signal::TERM);
    }
}

#[test]
fn two_instances_of_one_host_stop_in_any_order() {
    // A second uplink and a second private network on the same host.
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    testbed.lab.veth(7, (&testbed.natbox, "wan1"), (&testbed.net, "eth1")).unwrap();
    testbed.lab.veth(8, (&testbed.natbox, "lan1"), (&testbed.net, "eth2")).unwrap();
    testbed.natbox.address("wan1", Ipv4Addr::new(100, 64, 0, 1), 24).unwrap();
    testbed.natbox.address("lan1", Ipv4Addr::new(10, 1, 0, 1), 24).unwrap();
    let first = testbed.config();
    let text = first
        .to_string()
        .replace("nb0", "nb1")
        .replace("lan0", "lan1")
        .replace("wan0", "wan1")
        .replace("10.0.0.", "10.1.0.")
        .replace("203.0.113.254", "100.64.0.254")
        .replace(&testbed.published.to_string(), "100.64.0.10")
        .replace("natbox.sock", "second.sock")
        .replace("name: natbox", "name: second");
    let start_second = || {
        let path = testbed.write("second", &text);
        let mut command = testbed.natbox.command(crate::single_box::NATBOX);
        command.arg("run").arg("--config").arg(path);
        let child = testbed.natbox.spawn("second", command).unwrap();
        let socket = testbed.lab.directory().join("second.sock");
        eventually("the second instance is ready", || socket.exists().then_some(()));
        child
    };
    let before = testbed.host_state();
    for first_leaves_first in [true, false] {
        let natbox = testbed.start(&first);
        let mut second = start_second();
        testbed.assert_traffic();
        if first_leaves_first {
            natbox.stop(Signal::TERM);
            assert!(second.terminate().unwrap().success(), "{}", second.log());
        } else {
            assert!(second.terminate().unwrap().success(), "{}", second.log());
            testbed.assert_traffic();
            natbox.stop(Signal::TERM);
        }
        before.assert_same(&testbed.host_state(), "after both instances");
    }
}

#[test]
fn an_instance_ignores_other_namespaces() {
    // The journal's name contains the namespace's inode, so an instance ignores journals of other
    // namespaces.
    let testbed = SingleBox::new(Published::OnLink);
    let other = SingleBox::new(Published::OnLink);
    let running = other.start(&other.config());
    let before = testbed.host_state();
    testbed.start(&testbed.config()).stop(Signal::TERM);
    before.assert_same(&testbed.host_state(), "beside an instance of another namespace");
    let inode = std::fs::metadata(format!("/run/netns/{}", other.natbox.name())).unwrap().ino();
    assert!(std::path::Path::new(&format!("/run/natbox/host-{inode}-nb0.jsonl")).exists());
    running.stop(Signal::TERM);
}

#[test]
fn replies_leave_with_the_published_address_while_a_download_runs() {
    let testbed = SingleBox::new(Published::Routed);
    let listener = testbed.server.enter(|| TcpListener::bind((SERVER, WEB))).unwrap().unwrap();
    let natbox = testbed.start(&testbed.config());
    let server = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, &vec![1; 5_000_000]).unwrap();
        peer
    });
    let to = testbed.endpoint(WEB).into();
    let mut stream = testbed
        .net
        .enter(|| std::net::TcpStream::connect_timeout(&to, seconds(3)))
        .unwrap()
        .unwrap();
    stream.set_read_timeout(Some(seconds(5))).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 5_000_000);
    server.join().unwrap();
    let status = natbox.status();
    assert_eq!(status.drops.values().sum::<u64>(), 0, "{:?}", status.drops);
}
