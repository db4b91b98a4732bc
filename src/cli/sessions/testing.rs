//! A session for the tests.

use crate::api::{SessionView, TupleView};

/// A session through a forward, without accounting.
pub(super) fn session() -> SessionView {
    let tuple = |source: &str, destination: &str| TupleView {
        source: source.to_owned(),
        destination: destination.to_owned(),
    };
    SessionView {
        id: 1,
        protocol: "tcp".to_owned(),
        state: "established".to_owned(),
        origin: "forward".to_owned(),
        uplink: "isp1".to_owned(),
        forward: Some("web".to_owned()),
        client: "192.0.2.7:4242".to_owned(),
        published: "203.0.113.10:80".to_owned(),
        server: "10.0.0.5:8080".to_owned(),
        original: tuple("192.0.2.7:4242", "203.0.113.10:80"),
        reply: tuple("10.0.0.5:8080", "192.0.2.7:4242"),
        idle_seconds: 0,
        expires_in_seconds: 7439,
        traffic: None,
    }
}
