//! The mapping and filtering that a STUN server with two addresses detects (RFC 5780). Server and
//! client are coturn's.

use std::net::Ipv4Addr;

use natbox::lab::{Child, Namespace};

use crate::conformance::proves;
use crate::lab::require;
use crate::single_box::{CLIENT, Config, Published, SERVER, SingleBox, eventually};

/// Second address of the server.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);

const KINDS: [(&str, &str); 3] = [
    ("endpoint-independent", "Endpoint Independent"),
    ("address-dependent", "Address Dependent"),
    ("address-and-port-dependent", "Address and Port Dependent"),
];

#[test]
fn stun_client_finds_endpoint_independent_mapping_and_each_filtering() {
    let _proof = proves(&["STUN-1"]);
    assert_found(KINDS[0]);
}

#[test]
fn stun_client_finds_address_dependent_mapping_and_each_filtering() {
    let _proof = proves(&["STUN-1"]);
    assert_found(KINDS[1]);
}

#[test]
fn stun_client_finds_address_and_port_dependent_mapping_and_each_filtering() {
    let _proof = proves(&["STUN-1"]);
    assert_found(KINDS[2]);
}

/// Asserts that a STUN client finds this mapping, with each filtering.
fn assert_found((mapping, mapping_words): (&str, &str)) {
    let testbed = SingleBox::new(Published::OnLink);
    let _server = start_server(&testbed);
    for (filtering, filtering_words) in KINDS {
        let natbox = testbed.start(&Config {
            extra: format!("nat: {{ mapping: {mapping}, filtering: {filtering} }}\n"),
            ..testbed.config()
        });
        let said = ask(
            &testbed.server,
            60,
            &["turnutils_natdiscovery", "-m", "-f", "-L", &SERVER.to_string()],
        );
        for verdict in
            [format!("{mapping_words} Mapping!"), format!("{filtering_words} Filtering!")]
        {
            assert!(said.contains(&format!("NAT with {verdict}")), "{verdict} is missing:\n{said}");
        }
        drop(natbox);
    }
}

/// Starts a STUN server on both addresses of the client's host.
fn start_server(testbed: &SingleBox) -> Child {
    require("turnserver").unwrap();
    require("turnutils_natdiscovery").unwrap();
    require("turnutils_stunclient").unwrap();
    testbed.net.address("lo", OTHER, 32).unwrap();
    let mut command = testbed.net.command("turnserver");
    command.args([
        "-n",
        "--stun-only",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
        "--log-file",
        "stdout",
    ]);
    command.args(["--listening-ip", &CLIENT.to_string(), "--listening-ip", &OTHER.to_string()]);
    command.args(["--pidfile", testbed.lab.directory().join("turn.pid").to_str().unwrap()]);
    command.args(["--userdb", testbed.lab.directory().join("turn.db").to_str().unwrap()]);
    let server = testbed.net.spawn("turnserver", command).unwrap();
    eventually("the server answers", || {
        ask(&testbed.net, 1, &["turnutils_stunclient"]).contains("reflexive addr").then_some(())
    });
    server
}

/// Runs a STUN client and returns its output. The client may wait forever for the reply to a lost
/// datagram.
fn ask(namespace: &Namespace, seconds: u32, words: &[&str]) -> String {
    let mut command = namespace.command("timeout");
    command.arg(seconds.to_string()).args(words).arg(CLIENT.to_string());
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}
