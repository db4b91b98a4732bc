use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::nat::translate::testing::{
    HOSTS, Header, Instance, REMOTES, behaviours, first_steps, later_steps, play_alike,
};
use crate::packet::TcpFlags;
use crate::values::nat::EndpointDependence;

/// The importer's clock shows this much more than the exporter's.
const CLOCKS_APART: Span = Span(u32::MAX - 12_345);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Export and import are invisible: the same packets get the same translation, and the sessions
    /// have the same state, window, timers, mapping and place in the host's limit.
    #[test]
    fn an_imported_session_goes_on_as_if_it_had_never_moved(
        behaviour in behaviours(),
        before in prop::collection::vec(first_steps(), 1..120),
        after in prop::collection::vec(later_steps(), 1..80),
    ) {
        let mut old = Instance::new(behaviour, 1, Tick(u32::MAX - 30_000));
        old.play(&before);
        let mut new = Instance::new(behaviour, 2, old.now.after(CLOCKS_APART));
        let snapshots = old.export();
        prop_assert_eq!(snapshots.len(), old.sessions().len());
        for snapshot in snapshots.iter().rev() {
            let id = new.nat.import(snapshot, new.now).expect("the same policy and free ports");
            prop_assert!(new.nat.table().session(id).is_some());
            let again = new.nat.import(snapshot, new.now);
            prop_assert_eq!(again, Err(ImportError::TupleTaken));
        }
        prop_assert_eq!(&new.export(), &snapshots);
        for step in &after {
            play_alike(&mut old, &mut new, step)?;
            prop_assert_eq!(&new.export(), &old.export());
            prop_assert_eq!(new.nat.mappings(), old.nat.mappings());
            for host in HOSTS {
                prop_assert_eq!(new.nat.hosts.sessions_of(host), old.nat.hosts.sessions_of(host));
            }
        }
        for instance in [&mut old, &mut new] {
            instance.now = instance.now.after(Span::seconds(100));
            instance.expire();
            prop_assert_eq!((instance.nat.table().len(), instance.nat.mappings()), (0, 0));
            prop_assert!(HOSTS.iter().all(|host| instance.nat.hosts.sessions_of(*host) == 0));
        }
    }
}

/// An instance with one session from inside, and the session's snapshot.
fn one_session() -> (Instance, SessionSnapshot) {
    let independent = EndpointDependence::EndpointIndependent;
    let mut instance = Instance::new((independent, independent, false), 1, Tick(0));
    let header =
        Header { protocol: Protocol::UDP, flags: TcpFlags(0), sequence: 0, acknowledgement: 0 };
    let tuple = Tuple {
        protocol: Protocol::UDP,
        source: Endpoint::new(HOSTS[0], 5000),
        destination: Endpoint::new(REMOTES[0], 1000),
    };
    instance.send(tuple, header).expect("a session");
    let snapshot = instance.export().remove(0);
    (instance, snapshot)
}

#[test]
fn a_snapshot_that_cannot_be_imported_changes_nothing() {
    let (_, good) = one_session();
    let independent = EndpointDependence::EndpointIndependent;
    let new = Instance::new((independent, independent, false), 2, Tick(0));
    let mapping = good.mappings[0].expect("an outbound session holds a mapping");
    let elsewhere = Endpoint::new(Ipv4Addr::new(203, 0, 113, 99), 40_000);
    let moved = |external| SessionSnapshot {
        reply: Tuple { destination: external, ..good.reply },
        mappings: [Some(MappingSnapshot { external, ..mapping }), None],
        ..good.clone()
    };
    let scoped = MappingSnapshot { remote: good.original.destination, ..mapping };
    let out_of_range = Endpoint { port: 39_999, ..mapping.external };
    let cases = [
        (SessionSnapshot { version: 2, ..good.clone() }, ImportError::Version(2)),
        (SessionSnapshot { mappings: [None, None], ..good.clone() }, ImportError::Malformed),
        (SessionSnapshot { state: State::Icmp, ..good.clone() }, ImportError::Malformed),
        (SessionSnapshot { uplink: "isp9".into(), ..good.clone() }, ImportError::UnknownUplink),
        (SessionSnapshot { idle: Span::seconds(20), ..good.clone() }, ImportError::Expired),
        (moved(elsewhere), ImportError::Disallowed),
        (
            SessionSnapshot { mappings: [Some(scoped), None], ..good.clone() },
            ImportError::MappingBehaviour,
        ),
        (moved(out_of_range), ImportError::PortTaken),
    ];
    for (snapshot, error) in cases {
        assert_eq!(new.nat.import(&snapshot, new.now), Err(error));
        assert_eq!((new.nat.table().len(), new.nat.mappings()), (0, 0), "{error}");
        assert_eq!(new.nat.hosts.sessions_of(HOSTS[0]), 0, "{error}");
    }
    assert!(new.nat.import(&good, new.now).is_ok());
    // Another inside endpoint cannot have the same external port.
    let inside = Endpoint::new(HOSTS[1], 5000);
    let rival = SessionSnapshot {
        original: Tuple { source: inside, ..good.original },
        mappings: [Some(MappingSnapshot { inside, ..mapping }), None],
        ..good
    };
    assert_eq!(new.nat.import(&rival, new.now), Err(ImportError::PortTaken));
}
