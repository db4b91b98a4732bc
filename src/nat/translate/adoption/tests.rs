use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::nat::policy::limits::EndpointDependence;
use crate::nat::translate::testing::{
    EXTERNAL, HOSTS, Header, Instance, REMOTES, SESSIONS, Step, behaviours, first_steps, headers,
    later_steps,
};
use crate::nat::verdict::Verdict;
use crate::packet::{Endpoint, Protocol, TcpFlags, Tuple};
use crate::time::Span;

/// The files as a process that dies now leaves them.
fn copy(files: &SessionFiles) -> SessionFiles {
    let copies = SessionFiles::temporary(SESSIONS);
    let pairs = [
        (&files.records, &copies.records),
        (&files.index, &copies.index),
        (&files.accounts, &copies.accounts),
    ];
    for (from, to) in pairs {
        let mut content = vec![0; from.metadata().expect("a length").len() as usize];
        from.read_exact_at(&mut content, 0).expect("its content");
        to.write_all_at(&content, 0).expect("room");
    }
    copies
}

/// Sessions without the idle times of their mappings: an adopted mapping has that of its session.
fn without_mapping_times(mut snapshots: Vec<SessionSnapshot>) -> Vec<SessionSnapshot> {
    for snapshot in &mut snapshots {
        snapshot.mappings.iter_mut().flatten().for_each(|mapping| mapping.idle = Span(0));
    }
    snapshots
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The death of a process is invisible. Packets of sessions are translated before the adoption
    /// as after it. After the adoption every packet is.
    #[test]
    fn an_inherited_session_goes_on_as_if_its_process_had_not_died(
        filtering in behaviours().prop_map(|(_, filtering, _)| filtering),
        before in prop::collection::vec(first_steps(), 1..120),
        early in prop::collection::vec((any::<Index>(), any::<bool>(), headers()), 1..20),
        after in prop::collection::vec(later_steps(), 1..60),
    ) {
        let behaviour = (EndpointDependence::EndpointIndependent, filtering, false);
        let files = SessionFiles::temporary(SESSIONS);
        let mut old = Instance::in_files(behaviour, Tick(u32::MAX - 30_000), &files, false);
        old.play(&before);
        let mut new = Instance::in_files(behaviour, old.now, &copy(&files), true);
        for (session, reply, header) in early {
            let step = Step::Follow { session, reply, header };
            if let Some((tuple, header)) = old.packet(&step) {
                prop_assert_eq!(old.send(tuple, header), new.send(tuple, header), "{:?}", step);
            }
            new.nat.adopt(0, 1, new.now);
        }
        let sessions = old.sessions().len();
        while new.nat.inherits() {
            new.nat.adopt(0, 10, new.now);
        }
        prop_assert_eq!(new.nat.table().len() as usize, sessions);
        for step in &after {
            if let Step::Sleep(span) = step {
                for instance in [&mut old, &mut new] {
                    instance.now = instance.now.after(*span);
                    instance.expire();
                }
            } else if let Some((tuple, header)) = old.packet(step) {
                prop_assert_eq!(old.send(tuple, header), new.send(tuple, header), "{:?}", step);
            }
            let exports = [&old, &new].map(|it| without_mapping_times(it.export()));
            prop_assert_eq!(&exports[0], &exports[1]);
            prop_assert_eq!(new.nat.mappings(), old.nat.mappings());
            for host in HOSTS {
                prop_assert_eq!(new.nat.hosts.sessions_of(host), old.nat.hosts.sessions_of(host));
            }
        }
        new.now = new.now.after(Span::seconds(100));
        new.expire();
        prop_assert_eq!((new.nat.table().len(), new.nat.mappings()), (0, 0));
        prop_assert!(HOSTS.iter().all(|host| new.nat.hosts.sessions_of(*host) == 0));
    }
}

/// A new mapping could get the port of an inherited one.
#[test]
fn a_new_mapping_waits_for_the_adoption_and_a_forward_does_not() {
    let independent = EndpointDependence::EndpointIndependent;
    let behaviour = (independent, independent, false);
    let (files, now) = (SessionFiles::temporary(SESSIONS), Tick(0));
    let udp =
        Header { protocol: Protocol::UDP, flags: TcpFlags(0), sequence: 0, acknowledgement: 0 };
    let outbound = |port, remote: usize| Tuple {
        protocol: Protocol::UDP,
        source: Endpoint::new(HOSTS[0], port),
        destination: Endpoint::new(REMOTES[remote], 1000),
    };
    let mut old = Instance::in_files(behaviour, now, &files, false);
    let external = old.send(outbound(5000, 0), udp).expect("a session").source;
    drop(old);
    let mut new = Instance::in_files(behaviour, now, &files, true);
    let waits = Err(Verdict::Drop(DropReason::AdoptingSessions));
    assert_eq!(new.send(outbound(5001, 0), udp), waits);
    assert_eq!(new.send(outbound(5000, 1), udp), waits, "its mapping is not known yet");
    let inbound = Tuple {
        protocol: Protocol::UDP,
        source: Endpoint::new(REMOTES[1], 7),
        destination: external,
    };
    assert_eq!(new.send(inbound, udp), waits);
    let published = Tuple { destination: Endpoint::new(EXTERNAL[0], 80), ..inbound };
    assert!(new.send(published, udp).is_ok());
    while new.nat.inherits() {
        new.nat.adopt(1, 50, now);
    }
    assert_eq!(new.send(outbound(5000, 1), udp).expect("a session").source, external);
    assert!(new.send(outbound(5001, 0), udp).is_ok());
}
