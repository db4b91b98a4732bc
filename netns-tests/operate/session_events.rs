//! `natbox events` with a filter: the life of the sessions that match.

use std::io::{BufRead as _, BufReader};

use natbox::api::{SessionChangeKind, SessionChanged};

use super::site::Operated;

#[test]
fn a_follower_sees_the_life_of_the_sessions_that_match() {
    let operated = Operated::start("");
    let filter = ["events", "tcp", "server", ":8001", "--json"];
    let mut process = operated.command(&filter).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    // The subscription begins at some moment after the start of the command.
    let mut next = || -> SessionChangeKind {
        let line = lines.next().unwrap().unwrap();
        serde_json::from_str::<SessionChanged>(&line).unwrap().change
    };
    let (sender, stop) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let operated = &operated;
        scope.spawn(move || {
            let _other = operated.inbound();
            while stop.try_recv().is_err() {
                drop(operated.outbound(8001));
                operated.run(&["kill", "--yes", "server", ":8001"]);
            }
        });
        let opened = loop {
            if let SessionChangeKind::Opened { session } = next() {
                break session;
            }
        };
        let SessionChangeKind::Established { session } = next() else { panic!("no handshake") };
        assert_eq!((session.id, session.state.as_str()), (opened.id, "established"));
        let SessionChangeKind::Ended { session, reason } = next() else { panic!("no end") };
        assert_eq!((session.id, reason.as_str()), (opened.id, "requested"));
        sender.send(()).unwrap();
    });
    process.kill().unwrap();
    process.wait().unwrap();
}
