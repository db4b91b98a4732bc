//! `natbox sessions`: filters, columns, order, counts and forms, against a box with real traffic.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use natbox::api::SessionView;
use serde_json::Value;

use super::site::Operated;
use crate::single_box::{CLIENT, SERVER};

#[test]
fn every_filter_selects_what_a_reading_of_the_whole_list_selects() {
    let operated = Operated::start(", accounting: true");
    let _inbound: Vec<_> = (0..5).map(|_| operated.inbound()).collect();
    let _outbound: Vec<_> = [8001, 8002, 8003].map(|port| operated.outbound(port)).into();
    let _datagrams: Vec<_> = (0..2).map(|_| operated.datagram()).collect();
    operated.wait_for_sessions("state established", 8);
    let all: Vec<SessionView> =
        serde_json::from_str(&operated.output(&["sessions", "--json"])).unwrap();
    assert_eq!(all.len(), 10);

    type Test = fn(&SessionView) -> bool;
    let filters: [(&str, u64, Test); 14] = [
        ("", 10, |_| true),
        ("tcp", 8, |session| session.protocol == "tcp"),
        ("udp or (tcp origin outbound)", 5, |session| {
            session.protocol == "udp" || session.origin == "outbound"
        }),
        ("forward web", 5, |session| session.forward.as_deref() == Some("web")),
        ("not forward web not udp", 3, |session| {
            session.forward.is_none() && session.protocol == "tcp"
        }),
        ("uplink isp", 10, |session| session.uplink == "isp"),
        ("published :80", 5, |session| session.published.ends_with(":80")),
        ("client 192.0.2.0/24 to :80", 5, |session| session.published.ends_with(":80")),
        ("server 192.0.2.11:8001-8002", 2, |session| {
            session.server.ends_with(":8001") || session.server.ends_with(":8002")
        }),
        ("inside 10.0.0.101", 10, |_| true),
        ("outside 10.0.0.101", 0, |_| false),
        ("10.0.0.0/8 and :8003", 1, |session| session.server.ends_with(":8003")),
        ("state established idle<1h age<1h expires>1m", 8, |session| {
            session.state == "established"
        }),
        ("age>1h or idle over 1d", 0, |_| false),
    ];
    for (filter, wanted, test) in filters {
        assert_eq!(operated.count(filter), wanted, "{filter}");
        let listed = operated.output(&["sessions", "--json", filter]);
        let listed: Vec<SessionView> = serde_json::from_str(&listed).unwrap();
        assert!(listed.iter().all(test) && listed.len() as u64 == wanted, "{filter}: {listed:?}");
        assert_eq!(all.iter().filter(|session| test(session)).count() as u64, wanted, "{filter}");
    }
    // The shell may split the words, and options may follow them.
    assert_eq!(operated.output(&["sessions", "tcp", "to", ":80", "--count"]).trim(), "5");
}

#[test]
fn wrong_words_and_names_are_answered_with_the_nearest() {
    let operated = Operated::start("");
    for (filter, wanted) in [
        ("tpc", "did you mean `tcp`?"),
        ("uplink ips", "did you mean `isp`?"),
        ("forward wep", "did you mean `web`?"),
        ("state establishd", "did you mean `established`?"),
        ("origin zebra", "choose one of `forward`, `outbound`"),
        ("idle>soon", "found `soon`"),
        ("age>5m", "set limits.accounting to true"),
    ] {
        for verb in [&["sessions"][..], &["sessions", "--count"], &["kill", "--yes"], &["events"]] {
            let message = operated.refusal(&[verb, &[filter]].concat());
            assert!(message.contains(wanted), "{verb:?} {filter}: {message}");
        }
    }
    let _connection = operated.inbound();
    let message = operated.refusal(&["sessions", "--columns", "client,bytes"]);
    assert!(message.contains("limits.accounting"), "{message}");
}

#[test]
fn columns_order_and_forms_are_as_asked() {
    let operated = Operated::start(", accounting: true");
    let mut connections: Vec<_> = (0..4).map(|_| operated.inbound()).collect();
    // The third connection carries most, the first one next.
    for (index, length) in [(2, 300_000), (0, 100_000)] {
        let ends = &mut connections[index];
        ends.server.write_all(&vec![7; length]).unwrap();
        ends.client.read_exact(&mut vec![0; length]).unwrap();
    }
    let client = |index: usize| connections[index].client.local_addr().unwrap().to_string();
    let columns = "client,server,reply-bytes,packets,age";
    let listed = operated.output(&["sessions", "--top", "2", "--columns", columns]);
    let lines: Vec<Vec<&str>> =
        listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["CLIENT", "SERVER", "REPLY-BYTES", "PACKETS", "AGE"]);
    assert_eq!(lines.len(), 3, "{listed}");
    for (line, (index, length)) in lines[1..].iter().zip([(2, 300_000), (0, 100_000)]) {
        assert_eq!(line[0], client(index), "{listed}");
        assert_eq!(line[1], format!("{SERVER}:80"));
        let bytes: u64 = line[2].parse().unwrap();
        assert!(bytes > length && bytes < length + length / 5, "{listed}");
    }
    // Addresses ascend, and --reverse turns the order round.
    let ascending = operated.output(&["sessions", "--sort", "client", "--columns", "client"]);
    let descending =
        operated.output(&["sessions", "--sort", "client", "--reverse", "--columns", "client"]);
    let mut reversed: Vec<&str> = descending.lines().skip(1).collect();
    reversed.reverse();
    assert_eq!(ascending.lines().skip(1).collect::<Vec<_>>(), reversed);

    for line in operated.output(&["sessions", "--json-lines"]).lines() {
        let session: SessionView = serde_json::from_str(line).unwrap();
        assert_eq!((session.forward.as_deref(), session.traffic.is_some()), (Some("web"), true));
    }
    let conntrack =
        operated.output(&["sessions", "-o", "conntrack", &format!("client {}", client(1))]);
    let (published, port) = (operated.site.published, client(1));
    let port = port.rsplit_once(':').unwrap().1;
    let wanted = [
        "ESTABLISHED".to_owned(),
        format!("src={CLIENT} dst={published} sport={port} dport=80 packets="),
        format!("src={SERVER} dst={CLIENT} sport=80 dport={port} packets="),
        "[ASSURED] mark=0 use=1".to_owned(),
    ];
    assert!(conntrack.starts_with("tcp      6 "), "{conntrack}");
    assert!(wanted.iter().all(|part| conntrack.contains(part)), "{conntrack}");

    let groups: Value =
        serde_json::from_str(&operated.output(&["sessions", "--group-by", "client", "--json"]))
            .unwrap();
    let group = &groups["groups"][0];
    assert_eq!(
        (group["value"].as_str(), group["sessions"].as_u64()),
        (Some("192.0.2.11"), Some(4))
    );
    assert!(group["bytes"].as_u64().is_some_and(|bytes| bytes > 400_000), "{groups}");
    let text = operated.output(&["sessions", "--group-by", "forward"]);
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["4", "web", "4", "in", "all"]);
}

#[test]
fn a_watched_listing_is_printed_again_until_the_reader_goes() {
    let operated = Operated::start("");
    let mut watching = operated.command(&["sessions", "--watch", "--count"]).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "0");
    let _connection = operated.inbound();
    assert!(lines.by_ref().any(|line| line.unwrap() == "1"));
    drop(lines);
    assert!(watching.wait().unwrap().success());
}
