//! Imports under another configuration.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::nat::policy::rules::Uplink;
use crate::nat::translate::adoption::Contents;
use crate::nat::translate::testing::{
    Behaviour, EXTERNAL, HOSTS, Header, Instance, REMOTES, SERVER, SESSIONS, behaviours, copy,
    first_steps, later_steps, old_sessions, play_alike, settings,
};
use crate::nat::verdict::{DropReason, Verdict};
use crate::packet::{Endpoint, Protocol, TcpFlags, Tuple};
use crate::time::Span;
use crate::values::nat::EndpointDependence;

const INDEPENDENT: Behaviour =
    (EndpointDependence::EndpointIndependent, EndpointDependence::EndpointIndependent, false);

/// An instance with this configuration that continues the sessions of an instance with `was`.
fn restarted(
    was: Behaviour,
    files: SessionFiles,
    now: Tick,
    (limits, policy): (Limits, Policy),
) -> (Instance, Imported) {
    let (old_limits, old_policy) = settings(was);
    let old = OldSessions {
        other_mappings: old_limits.mapping != limits.mapping,
        ..old_sessions(files, &old_policy)
    };
    let (files, seed) = (SessionFiles::temporary(limits.sessions), Seed::from(9));
    let imported = import_sessions(&old, &files, &limits, &policy, 2, seed, now).expect("memory");
    let contents = Contents::Imported(imported.clone());
    let nat = Translator::in_files(limits, policy, 2, seed, now, &files, contents);
    (Instance::with(nat.expect("memory"), now), imported)
}

fn adopt_all(instance: &Instance) -> u32 {
    let mut kept = 0;
    for turn in 0.. {
        kept += instance.nat.adopt(turn, 64, instance.now).kept;
        if !instance.nat.inherits() {
            break;
        }
    }
    kept
}

fn header(protocol: Protocol, flags: TcpFlags) -> Header {
    Header { protocol, flags, sequence: 0, acknowledgement: 0 }
}

fn tuple(source: Endpoint, destination: Endpoint) -> Tuple {
    Tuple { protocol: Protocol::UDP, source, destination }
}

fn udp() -> Header {
    header(Protocol::UDP, TcpFlags(0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A larger table, uplinks in another order, a new uplink between them, and no accounting: the
    /// packets of all sessions are translated as before, and new ones over their mappings as well.
    #[test]
    fn sessions_go_on_under_another_configuration(
        behaviour in behaviours(),
        before in prop::collection::vec(first_steps(), 1..120),
        after in prop::collection::vec(later_steps(), 1..60),
    ) {
        let files = SessionFiles::temporary(SESSIONS);
        let mut old = Instance::in_files(behaviour, Tick(u32::MAX - 30_000), &files, Contents::Empty);
        old.play(&before);
        let (limits, mut policy) = settings(behaviour);
        let limits = Limits { sessions: 2 * SESSIONS, accounting: false, ..limits };
        policy.uplinks.reverse();
        policy.uplinks.insert(1, Uplink { name: "isp3".into(), ..one_uplink() });
        policy.forwards[0].uplink = 2;
        policy.outbound[0].uplinks = vec![0, 1, 2];
        let (mut new, imported) = restarted(behaviour, copy(&files), old.now, (limits, policy));
        let sessions = old.sessions();
        prop_assert_eq!(imported.kept as usize, sessions.len());
        let follow = |session: &SessionInfo| {
            [session.original, session.reply].map(|tuple| (tuple, header(tuple.protocol, TcpFlags::ACK)))
        };
        for (tuple, header) in sessions.iter().flat_map(follow) {
            prop_assert_eq!(old.send(tuple, header), new.send(tuple, header), "{:?}", tuple);
            new.nat.adopt(0, 1, new.now);
        }
        adopt_all(&new);
        prop_assert_eq!(new.nat.table().len() as usize, sessions.len());
        prop_assert_eq!(new.nat.mappings(), old.nat.mappings());
        prop_assert_eq!(new.nat.notifications(), 0);
        for step in &after {
            play_alike(&mut old, &mut new, step)?;
            prop_assert_eq!(new.nat.table().len(), old.nat.table().len());
        }
        new.now = new.now.after(Span::seconds(100));
        new.expire();
        prop_assert_eq!((new.nat.table().len(), new.nat.mappings()), (0, 0));
        prop_assert!(HOSTS.iter().all(|host| new.nat.hosts.sessions_of(*host) == 0));
    }

    /// Mappings depend on another part of the remote endpoint: what continues is translated as
    /// before, and what does not is released. If every session has a mapping of its own now, each
    /// external port of a session to outside keeps a session.
    #[test]
    fn what_another_mapping_behaviour_allows_goes_on(
        was in behaviours(),
        is in behaviours(),
        before in prop::collection::vec(first_steps(), 1..120),
    ) {
        let files = SessionFiles::temporary(SESSIONS);
        let mut old = Instance::in_files(was, Tick(0), &files, Contents::Empty);
        old.play(&before);
        let (mut new, imported) = restarted(was, copy(&files), old.now, settings(is));
        let sessions = old.sessions();
        prop_assert_eq!(imported.kept as usize, sessions.len());
        let kept = adopt_all(&new);
        prop_assert_eq!(new.sessions().len() as u32, kept);
        let external = |sessions: &mut dyn Iterator<Item = &SessionInfo>| -> BTreeSet<_> {
            let ends = sessions.flat_map(|session| {
                let ends = session.external_endpoints().into_iter().flatten();
                ends.map(|end| (session.original.protocol.0, end.address, end.port))
            });
            ends.collect()
        };
        if was.0 == is.0 && was.2 == is.2 {
            prop_assert_eq!(kept as usize, sessions.len());
        }
        if is.0 == EndpointDependence::AddressAndPortDependent {
            // A hairpin session may need two mappings, and gets both or none.
            let before = external(&mut sessions.iter().filter(|session| !session.is_hairpin()));
            let after = external(&mut new.sessions().iter());
            prop_assert!(before.is_subset(&after), "{before:?}, now {after:?}");
        }
        for session in new.sessions() {
            for tuple in [session.original, session.reply] {
                let header = header(tuple.protocol, TcpFlags::ACK);
                prop_assert_eq!(old.send(tuple, header), new.send(tuple, header), "{:?}", tuple);
            }
        }
        new.now = new.now.after(Span::seconds(100));
        new.expire();
        prop_assert_eq!((new.nat.table().len(), new.nat.mappings()), (0, 0));
        prop_assert!(HOSTS.iter().all(|host| new.nat.hosts.sessions_of(*host) == 0));
    }
}

fn one_uplink() -> Uplink {
    let mut uplink = settings(INDEPENDENT).1.uplinks.remove(0);
    uplink.addresses[0].address = [192, 0, 2, 200].into();
    uplink
}

/// Opens a connection completely, from inside or through the forward.
fn connect(instance: &mut Instance, from: Endpoint, to: Endpoint) {
    let segment = |flags, sequence, acknowledgement| Header {
        protocol: Protocol::TCP,
        flags: TcpFlags(flags),
        sequence,
        acknowledgement,
    };
    let original = Tuple { protocol: Protocol::TCP, source: from, destination: to };
    let translated = instance.send(original, segment(0x02, 1000, 0)).expect("a session");
    instance.send(translated.reversed(), segment(0x12, 5000, 1008)).expect("a reply");
    instance.send(original, segment(0x10, 1008, 5008)).expect("a segment");
}

/// A smaller table keeps connections and published sessions first, then the latest ones. All of
/// them keep their external endpoints.
#[test]
fn a_smaller_table_keeps_the_best_sessions() {
    let (files, start) = (SessionFiles::temporary(SESSIONS), Tick(0));
    let mut old = Instance::in_files(INDEPENDENT, start, &files, Contents::Empty);
    let host = |port| Endpoint::new(HOSTS[0], port);
    let web = Endpoint::new(EXTERNAL[0], 80);
    // Old, and the best.
    connect(&mut old, host(6000), Endpoint::new(REMOTES[0], 443));
    old.send(tuple(Endpoint::new(REMOTES[1], 7), web), udp()).expect("a session");
    let mut latest = Vec::new();
    for port in 0..12 {
        old.now = old.now.after(Span(10));
        let sent = old.send(tuple(host(5000 + port), Endpoint::new(REMOTES[0], 1000)), udp());
        latest.push((host(5000 + port), sent.expect("a session").source));
    }
    let opening = header(Protocol::TCP, TcpFlags::SYN);
    let tcp =
        Tuple { protocol: Protocol::TCP, ..tuple(host(6001), Endpoint::new(REMOTES[0], 443)) };
    old.now = old.now.after(Span(10));
    old.send(tcp, opening).expect("a session");
    let now = old.now;
    drop(old);
    let (limits, policy) = settings(INDEPENDENT);
    let configuration = (Limits { sessions: 6, ..limits }, policy);
    let (mut new, imported) = restarted(INDEPENDENT, files, now, configuration);
    assert_eq!((imported.kept, imported.without_record, imported.dropped), (6, 9, 0));
    assert_eq!((adopt_all(&new), new.nat.table().len()), (6, 6));
    let mut kept: Vec<_> = new.sessions().iter().map(|it| it.original.source.port).collect();
    kept.sort_unstable();
    assert_eq!(kept, [7, 5009, 5010, 5011, 6000, 6001]);
    for (inside, external) in &latest[9..] {
        let sent = new.send(tuple(*inside, Endpoint::new(REMOTES[0], 1000)), udp());
        assert_eq!(sent.expect("a session").source, *external);
    }
}

/// The sessions of a removed uplink end, and their hosts learn of it. Those of a removed forward
/// end as at a reload. The others go on.
#[test]
fn sessions_of_a_removed_uplink_and_of_a_removed_forward_end() {
    let (files, now) = (SessionFiles::temporary(SESSIONS), Tick(0));
    let mut old = Instance::in_files(INDEPENDENT, now, &files, Contents::Empty);
    let web = Endpoint::new(EXTERNAL[0], 80);
    connect(&mut old, Endpoint::new(REMOTES[1], 7000), web);
    for port in 5000..5008 {
        let to = Endpoint::new(REMOTES[0], 1000);
        old.send(tuple(Endpoint::new(HOSTS[0], port), to), udp()).expect("a session");
    }
    let over = |uplink: u8| old.sessions().iter().filter(|it| it.uplink == uplink).count();
    let (first, second) = (over(0), over(1));
    assert!(first > 1 && second > 0, "{first}, {second}");
    let sessions = old.sessions();
    drop(old);
    let (limits, mut policy) = settings(INDEPENDENT);
    policy.uplinks.remove(0);
    policy.forwards.clear();
    policy.outbound[0].uplinks = vec![0];
    let files = copy(&files);
    let kept = copy(&files);
    let (mut new, imported) = restarted(INDEPENDENT, files, now, (limits, policy));
    assert_eq!((imported.kept as usize, imported.without_uplink.len()), (second, first));
    // One for each UDP session, and a reset for each number that the server may expect.
    assert!(new.nat.notifications() >= first, "{}", new.nat.notifications());
    assert_eq!(adopt_all(&new) as usize, second);
    for session in sessions {
        let sent = new.send(session.original, header(session.original.protocol, TcpFlags::ACK));
        match session.uplink {
            1 => assert_eq!(sent.expect("a session"), session.reply.reversed()),
            _ => assert_ne!(sent.ok(), Some(session.reply.reversed())),
        }
    }
    // Only the forward is removed.
    let (limits, mut policy) = settings(INDEPENDENT);
    policy.forwards.clear();
    let limits = Limits { sessions: SESSIONS + 1, ..limits };
    let (mut new, imported) = restarted(INDEPENDENT, kept, now, (limits, policy));
    assert_eq!((imported.kept as usize, imported.without_uplink.len()), (first + second, 0));
    assert_eq!(adopt_all(&new) as usize, first + second - 1);
    assert_eq!(new.nat.notifications(), 0);
    let from_client =
        Tuple { protocol: Protocol::TCP, ..tuple(Endpoint::new(REMOTES[1], 7000), web) };
    let sent = new.send(from_client, header(Protocol::TCP, TcpFlags::ACK));
    assert_eq!(sent, Err(Verdict::Drop(DropReason::NoMapping)));
}

/// The accounts of the old files go on; without old accounts they begin with zeros.
#[test]
fn accounts_go_on_or_begin_with_zeros() {
    for (had, has) in [(true, true), (false, true), (true, false)] {
        let (files, now) = (SessionFiles::temporary(SESSIONS), Tick(0));
        let (limits, policy) = settings(INDEPENDENT);
        let before = Limits { accounting: had, ..limits.clone() };
        let seed = Seed::from(1);
        let nat =
            Translator::in_files(before, policy.clone(), 2, seed, now, &files, Contents::Empty);
        let mut old = Instance::with(nat.expect("memory"), now);
        let client = Endpoint::new(REMOTES[1], 7);
        old.send(tuple(client, Endpoint::new(EXTERNAL[0], 80)), udp()).expect("a session");
        old.send(tuple(SERVER, client), udp()).expect("a reply");
        drop(old);
        let old = OldSessions { accounting: had, ..old_sessions(files, &policy) };
        let limits = Limits { accounting: has, ..limits };
        let new = SessionFiles::temporary(SESSIONS);
        let imported = import_sessions(&old, &new, &limits, &policy, 1, seed, now);
        let contents = Contents::Imported(imported.expect("memory"));
        let nat = Translator::in_files(limits, policy, 1, seed, now, &new, contents);
        let new = Instance::with(nat.expect("memory"), now);
        adopt_all(&new);
        let packets = new.sessions()[0].accounting.map(|accounting| accounting.packets);
        assert_eq!(packets, has.then_some(if had { [1, 1] } else { [0, 0] }));
    }
}
