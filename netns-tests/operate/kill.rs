//! `natbox kill`: what ends, what the inside learns, and what stays.

use std::io::{ErrorKind, Read as _};
use std::time::Duration;

use natbox::api::EventKind;

use super::site::{Ends, Operated};

#[test]
fn nothing_ends_without_a_filter_an_answer_or_within_the_limit() {
    let operated = Operated::start("");
    let _connections: Vec<_> = (0..3).map(|_| operated.inbound()).collect();
    for (arguments, wanted) in [
        (&["kill", "--yes"][..], "to end every session: --all"),
        (&["kill", "tcp"], "3 sessions match; to end them without a question: --yes"),
        (&["kill", "tcp", "--yes", "--max", "2"], "3 sessions match, wanted at most 2"),
    ] {
        let message = operated.refusal(arguments);
        assert!(message.contains(wanted), "{arguments:?}: {message}");
    }
    assert_eq!(operated.count(""), 3);
    assert_eq!(operated.output(&["kill", "udp", "--yes"]).trim(), "0 sessions ended");
}

#[test]
fn the_inside_end_gets_a_reset_and_other_sessions_stay() {
    let operated = Operated::start("");
    let mut doomed: Vec<Ends> = (0..3).map(|_| operated.inbound()).collect();
    let mut kept = operated.outbound(8001);
    operated.wait_for_sessions("state established", 4);
    let ended = operated.output(&["kill", "forward", "web", "--yes", "--max", "3", "--json"]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&ended).unwrap(),
        serde_json::json!({ "ended": 3, "complete": true })
    );
    for ends in &mut doomed {
        let error = ends.server.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!((operated.count(""), operated.count("origin outbound")), (1, 1));
    std::io::Write::write_all(&mut kept.client, b"still here").unwrap();
    kept.server.read_exact(&mut [0; 10]).unwrap();
    let events = operated.output(&["events", "--json"]);
    let wanted = EventKind::SessionsKilled { filter: "forward web".to_owned(), sessions: 3 };
    let wanted = serde_json::to_string(&wanted).unwrap();
    let is_wanted = |line: &str| line.ends_with(wanted.trim_start_matches('{'));
    assert!(events.lines().any(is_wanted), "{events}");
}

#[test]
fn a_silent_end_tells_the_inside_nothing() {
    let operated = Operated::start("");
    let mut ends = operated.inbound();
    let _datagrams = operated.datagram();
    operated.wait_for_sessions("", 2);
    assert_eq!(operated.output(&["kill", "--all", "--yes", "--silent"]).trim(), "2 sessions ended");
    assert_eq!(operated.count(""), 0);
    ends.server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let error = ends.server.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}
