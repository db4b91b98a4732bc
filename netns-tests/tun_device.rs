//! Every offload level, with one queue and with several.

use std::net::{SocketAddrV4, UdpSocket};
use std::ops::ControlFlow;

use natbox::lab::Namespace;
use natbox::lab::http::{self, Pattern};
use natbox::nat::DropReason;
use natbox::packet::{Protocol, builder};
use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::single_box::{
    CLIENT, Config, DATAGRAMS, Injector, Published, SERVER, SingleBox, Sink, WEB, eventually,
    seconds, serve,
};

/// Bytes of each download.
const LENGTH: usize = 20_000_000;

/// `tun.offload`, its name in the status, and the features that the kernel shows: checksum, TCP and
/// UDP segmentation.
const LEVELS: [(&str, &str, [bool; 3]); 5] = [
    ("auto", "tso4+uso4+checksum", [true, true, true]),
    ("tso+uso", "tso4+uso4+checksum", [true, true, true]),
    ("tso", "tso4+checksum", [true, true, false]),
    ("checksum", "checksum", [true, false, false]),
    ("none", "none", [false, false, false]),
];

#[test]
fn status_names_each_offload_level_and_downloads_are_intact() {
    for (io, workers) in [("poll", "1"), ("poll", "2"), ("uring", "1"), ("uring", "2")] {
        let testbed = SingleBox::new(Published::OnLink);
        let _server = testbed.serve();
        let _outside = serve(&testbed.net, CLIENT, 8080);
        for (offload, name, features) in LEVELS {
            let what = format!("io {io}, offload {offload}, {workers} workers");
            let config = Config {
                io: io.into(),
                workers: workers.into(),
                offload: offload.into(),
                ..testbed.config()
            };
            let natbox = testbed.start(&config);
            let status = natbox.status();
            assert_eq!(status.tun.offload, name, "{what}");
            assert_eq!(status.tun.io, io);
            let wanted = ["tx-checksum-ip-generic", "tx-tcp-segmentation", "tx-udp-segmentation"];
            for (feature, on) in wanted.iter().zip(features) {
                assert_eq!(is_on(&testbed.natbox, feature), on, "{feature} with {what}");
            }
            download(&testbed.net, testbed.endpoint(WEB), &what);
            download(&testbed.server, SocketAddrV4::new(CLIENT, 8080), &what);
            let totals = natbox.status().totals;
            let mean = totals["bytes_in"] / totals["packets_in"];
            // Half of the packets are bare acknowledgements.
            match features[1] {
                true => assert!(mean > 1500, "super-packets with {what}: {mean} bytes a packet"),
                false => {
                    assert!(mean <= 1500, "no super-packets with {what}: {mean} bytes a packet")
                }
            }
            // Other drops may come from the last segments of earlier connections through the box.
            let drops = natbox.status().drops;
            for reason in
                [DropReason::BadVnetHeader, DropReason::TunWriteError, DropReason::MtuExceeded]
            {
                assert_eq!(drops.get(reason.name()), None, "{what}");
            }
            natbox.stop(Signal::TERM);
        }
    }
}

#[test]
fn uploads_are_intact_at_each_offload_level() {
    let testbed = SingleBox::new(Published::Routed);
    for (offload, _, _) in LEVELS {
        let natbox = testbed.start(&Config { offload: offload.into(), ..testbed.config() });
        let sink = Sink::listen(&testbed.server, crate::single_box::SERVER, WEB);
        let mut upload = sink.connect(&testbed.net, Some(testbed.endpoint(WEB)));
        sink.upload(&mut upload, LENGTH);
        drop((upload, sink));
        natbox.stop(Signal::TERM);
    }
}

#[test]
fn io_auto_uses_poll_where_io_uring_is_forbidden() {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = testbed.serve();
    std::thread::scope(|scope| {
        // The filter applies to this thread and its children only.
        scope.spawn(|| {
            forbid_io_uring();
            let natbox = testbed.start(&testbed.config());
            assert_eq!(natbox.status().tun.io, "poll");
            natbox.wait_for_log("io_uring is not available");
            testbed.assert_traffic();
            natbox.stop(Signal::TERM);
            let config = Config { io: "uring".into(), ..testbed.config() };
            let path = testbed.write("uring", &config.to_string());
            testbed
                .refused(&[], &path)
                .assert_says(1, &["tun.io: io_uring is not available", "poll or auto"]);
        });
    });
}

fn forbid_io_uring() {
    let refused = [(libc::SYS_io_uring_setup, Vec::new())].into_iter().collect();
    let answer = SeccompAction::Errno(libc::EPERM as u32);
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, answer, architecture).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    rustix::thread::set_no_new_privs(true).unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

#[test]
fn receivers_count_no_wrong_checksum() {
    let _proof = crate::conformance::proves(&["CSUM-5"]);
    for interface_offloads in [true, false] {
        let testbed = SingleBox::new(Published::OnLink);
        if !interface_offloads {
            for (namespace, interface) in [
                (&testbed.server, "eth0"),
                (&testbed.net, "eth0"),
                (&testbed.natbox, "wan0"),
                (&testbed.natbox, "lan0"),
            ] {
                let mut command = namespace.command("ethtool");
                command.args([
                    "-K", interface, "tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro",
                    "off",
                ]);
                assert!(command.output().unwrap().status.success());
            }
        }
        let _server = testbed.serve();
        let _outside = serve(&testbed.net, CLIENT, 8080);
        let published =
            testbed.server.enter(|| UdpSocket::bind((SERVER, DATAGRAMS))).unwrap().unwrap();
        let client = testbed.net.enter(|| UdpSocket::bind((CLIENT, 4000))).unwrap().unwrap();
        for socket in [&published, &client] {
            socket.set_read_timeout(Some(seconds(3))).unwrap();
        }
        for (offload, workers) in [
            ("auto", "1"),
            ("auto", "2"),
            ("tso", "2"),
            ("checksum", "1"),
            ("none", "1"),
            ("none", "2"),
        ] {
            let what = format!(
                "offload {offload}, {workers} workers, interfaces' own {interface_offloads}"
            );
            let config =
                Config { workers: workers.into(), offload: offload.into(), ..testbed.config() };
            let natbox = testbed.start(&config);
            download(&testbed.net, testbed.endpoint(WEB), &what);
            download(&testbed.server, SocketAddrV4::new(CLIENT, 8080), &what);
            let mut buffer = [0; 2048];
            for size in (0..1400).step_by(13) {
                client.send_to(&vec![7; size], testbed.endpoint(DATAGRAMS)).unwrap();
                let (length, from) = published.recv_from(&mut buffer).unwrap();
                published.send_to(&buffer[..length], from).unwrap();
                assert_eq!(client.recv(&mut buffer).unwrap(), size);
            }
            let mut ping = testbed.server.command("ping");
            ping.args(["-n", "-c", "3", "-i", "0.05", "-W", "2", "-s", "777", &CLIENT.to_string()]);
            assert!(ping.output().unwrap().status.success(), "{what}");
            assert_eq!(
                wrong_checksums(&testbed.server) + wrong_checksums(&testbed.net),
                0,
                "{what}"
            );
            natbox.stop(Signal::TERM);
        }
        // The counters can count.
        let _natbox = testbed.start(&testbed.config());
        let injector = Injector::new(&testbed);
        let tuple = builder::tuple(
            Protocol::UDP,
            (Injector::UNUSED_CLIENT, 4000),
            (testbed.published, DATAGRAMS),
        );
        let mut wrong = builder::udp(tuple, b"wrong");
        wrong[26] ^= 1;
        injector.send(&wrong);
        eventually("it is counted", || (wrong_checksums(&testbed.server) == 1).then_some(()));
    }
}

/// Returns the number of packets that a namespace's stack has received with a wrong TCP, UDP or
/// ICMP checksum.
fn wrong_checksums(namespace: &Namespace) -> u64 {
    let text =
        namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).unwrap().unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let counts = lines.chunks(2).filter_map(|pair| {
        let at = pair[0].split_whitespace().position(|name| name == "InCsumErrors")?;
        pair[1].split_whitespace().nth(at)?.parse::<u64>().ok()
    });
    counts.sum()
}

/// Downloads and compares every byte.
#[track_caller]
fn download(from: &Namespace, to: SocketAddrV4, what: &str) {
    let mut connection = from.enter(|| http::connect(None, to, seconds(5))).unwrap().unwrap();
    let (mut pattern, mut total) = (Pattern::new(), 0);
    let status = connection.stream(&format!("/bytes/{LENGTH}"), |bytes| {
        assert!(pattern.matches(bytes), "wrong bytes with {what}");
        total += bytes.len();
        ControlFlow::Continue(())
    });
    assert_eq!((status.unwrap(), total), (200, LENGTH), "{what}");
}

/// Returns whether `ethtool -k` shows a feature of the TUN as on.
fn is_on(namespace: &Namespace, feature: &str) -> bool {
    let mut command = namespace.command("ethtool");
    command.args(["-k", "nb0"]);
    let output = command.output().expect("ethtool is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{feature}: ")));
    line.unwrap_or_else(|| panic!("no {feature} in {text}")).starts_with("on")
}
