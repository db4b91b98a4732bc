use std::net::Ipv4Addr;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::nat::table::EndReason;
use crate::nat::translate::testing::{
    EXTERNAL, HOSTS, Header, Instance, REMOTES, SERVER, SESSIONS, Step, behaviours, copy,
    first_steps, headers, later_steps, play_alike, settings,
};
use crate::nat::verdict::Verdict;
use crate::packet::{Endpoint, Protocol, TcpFlags, Tuple};
use crate::time::Span;
use crate::values::nat::EndpointDependence;

/// Sessions without what their tuples do not show of their mappings: the idle time of a mapping,
/// and the remote endpoint on which the mapping of another session depends.
fn without_hidden(mut snapshots: Vec<SessionSnapshot>) -> Vec<SessionSnapshot> {
    for mapping in snapshots.iter_mut().flat_map(|snapshot| &mut snapshot.mappings).flatten() {
        mapping.idle = Span(0);
        mapping.remote = Endpoint::new(Ipv4Addr::UNSPECIFIED, 0);
    }
    snapshots
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// The death of a process is invisible. Packets of sessions are translated before the adoption
    /// as after it. After the adoption every packet is.
    #[test]
    fn an_inherited_session_goes_on_as_if_its_process_had_not_died(
        behaviour in behaviours(),
        before in prop::collection::vec(first_steps(), 1..120),
        early in prop::collection::vec((any::<Index>(), any::<bool>(), headers()), 1..20),
        after in prop::collection::vec(later_steps(), 1..60),
    ) {
        let files = SessionFiles::temporary(SESSIONS);
        let mut old = Instance::in_files(behaviour, Tick(u32::MAX - 30_000), &files, Contents::Empty);
        old.play(&before);
        let mut new = Instance::in_files(behaviour, old.now, &copy(&files), Contents::Inherited);
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
            play_alike(&mut old, &mut new, step)?;
            let exports = [&old, &new].map(|it| without_hidden(it.export()));
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
    let mut old = Instance::in_files(behaviour, now, &files, Contents::Empty);
    let external = old.send(outbound(5000, 0), udp).expect("a session").source;
    drop(old);
    let mut new = Instance::in_files(behaviour, now, &files, Contents::Inherited);
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

pub(super) const UDP: Header =
    Header { protocol: Protocol::UDP, flags: TcpFlags(0), sequence: 0, acknowledgement: 0 };

pub(super) fn udp(source: Endpoint, destination: Endpoint) -> Tuple {
    Tuple { protocol: Protocol::UDP, source, destination }
}

pub(super) fn adopt_all(instance: &Instance) {
    while instance.nat.inherits() {
        instance.nat.adopt(0, 1, instance.now);
    }
}

/// The mapping depends on the remote address of the session that began it, and another session
/// shares it. In the table, one comes before the other, or after it.
#[test]
fn a_session_over_the_mapping_of_another_goes_on_with_it() {
    let (dependent, independent) =
        (EndpointDependence::AddressDependent, EndpointDependence::EndpointIndependent);
    for comes_first in [false, true] {
        let behaviour = (dependent, independent, false);
        let (files, now) = (SessionFiles::temporary(SESSIONS), Tick(0));
        let mut old = Instance::in_files(behaviour, now, &files, Contents::Empty);
        let [first, second] = [0, 1].map(|number| Endpoint::new(REMOTES[number], 1000));
        let inside = Endpoint::new(HOSTS[0], 5000);
        if comes_first {
            old.send(udp(Endpoint::new(HOSTS[1], 5000), first), UDP).expect("a session");
        }
        let external = old.send(udp(inside, first), UDP).expect("a session").source;
        if comes_first {
            let before = old.sessions()[0];
            old.nat.end(before.id, EndReason::Requested, now).expect("a session");
        }
        let inbound = udp(second, external);
        assert_eq!(old.send(inbound, UDP).expect("a session").destination, inside);
        let slots: Vec<_> = old.sessions().iter().map(|it| it.reply.destination).collect();
        assert_eq!(slots == [second, external], comes_first, "{slots:?}");
        drop(old);
        let mut new = Instance::in_files(behaviour, now, &files, Contents::Inherited);
        adopt_all(&new);
        assert_eq!((new.nat.table().len(), new.nat.mappings()), (2, 1));
        assert_eq!(new.send(inbound, UDP).expect("a session").destination, inside);
        assert_eq!(new.send(udp(inside, first), UDP).expect("a session").source, external);
        // The mapping ends with the last of both.
        for left in [1, 0] {
            let session = new.sessions()[0];
            new.nat.end(session.id, EndReason::Requested, now).expect("a session");
            assert_eq!(new.nat.mappings(), left);
        }
    }
}

/// The rule of the server names another uplink. Only the request of the client allows the session.
#[test]
fn a_session_that_is_related_to_a_request_is_adopted_after_the_request() {
    let (files, now) = (SessionFiles::temporary(SESSIONS), Tick(0));
    let independent = EndpointDependence::EndpointIndependent;
    let instance = |contents| {
        let (limits, mut policy) = settings((independent, independent, false));
        policy.outbound[0].uplinks = vec![1];
        let seed = Seed::from(1);
        let nat = Translator::in_files(limits, policy, 2, seed, now, &files, contents);
        Instance::with(nat.expect("memory"), now)
    };
    let mut old = instance(Contents::Empty);
    let client = Endpoint::new(REMOTES[0], 7);
    let before = udp(Endpoint::new(HOSTS[0], 5000), client);
    old.send(before, UDP).expect("a session");
    old.send(udp(client, Endpoint::new(EXTERNAL[0], 80)), UDP).expect("a request");
    let before = old.sessions()[0];
    old.nat.end(before.id, EndReason::Requested, now).expect("a session");
    let related = udp(Endpoint::new(SERVER.address, 9000), Endpoint::new(REMOTES[0], 7777));
    let external = old.send(related, UDP).expect("a related session").source;
    assert_eq!((old.sessions()[0].original, external.address), (related, EXTERNAL[0]));
    drop(old);
    let mut new = instance(Contents::Inherited);
    adopt_all(&new);
    assert_eq!((new.nat.table().len(), new.nat.notifications()), (2, 0));
    assert_eq!(new.send(related, UDP).expect("a session").source, external);
}
