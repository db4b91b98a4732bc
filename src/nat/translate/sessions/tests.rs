use std::net::Ipv4Addr;

use super::*;
use crate::nat::seed::Seed;
use crate::nat::table::filter::EndpointFilter;
use crate::nat::table::smp_tests::{send, settings};
use crate::packet::{Protocol, builder};
use crate::values::nat::EndpointDependence;

const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// A translator with sessions of `hosts` inside hosts to two ports of one remote host.
fn translator(hosts: u8) -> Translator {
    let (mut limits, policy) = settings(40_000..=40_255, EndpointDependence::EndpointIndependent);
    limits.sessions = 4096;
    let nat = Translator::new(limits, policy, 2, Seed::from(1), Tick(0)).expect("memory");
    for (worker, port) in [(0, 53), (1, 123)] {
        let mut context = nat.worker(worker);
        for host in 1..=hosts {
            let tuple =
                builder::tuple(Protocol::UDP, ([10, 0, 0, host], 5000), (REMOTE.octets(), port));
            send(&nat, &mut context, tuple, Tick(0)).expect("a session");
        }
    }
    nat
}

fn all(nat: &Translator, filter: &Filter) -> Vec<SessionInfo> {
    let (mut sessions, mut next) = (Vec::new(), Some(TableCursor::default()));
    while let Some(from) = next {
        let page = nat.sessions(from, filter);
        sessions.extend(page.items);
        next = page.next;
    }
    sessions
}

#[test]
fn pages_contain_the_sessions_that_match() {
    let nat = translator(100);
    assert_eq!(all(&nat, &Filter::default()).len(), 200);
    let host = Ipv4Addr::new(10, 0, 0, 7);
    let of_host = all(&nat, &Filter { inside_host: Some(host), ..Filter::default() });
    assert_eq!(of_host.len(), 2);
    assert!(of_host.iter().all(|session| session.original.source.address == host));
    let dns = EndpointFilter { address: None, port: Some(53) };
    assert_eq!(all(&nat, &Filter { remote: Some(dns), ..Filter::default() }).len(), 100);
    assert_eq!(all(&nat, &Filter { forward: Some("web".into()), ..Filter::default() }).len(), 0);
    assert_eq!(all(&nat, &Filter::disallowed()).len(), 0);
    assert_eq!(all(&nat, &Filter::movable_from(0)).len(), 0, "there is one uplink only");
}

#[test]
fn a_session_ends_by_its_identifier_once() {
    let nat = translator(1);
    let [first, second] = all(&nat, &Filter::default())[..] else { panic!("two sessions") };
    assert_eq!(nat.end(first.id, EndReason::Requested, Tick(1)), Ok(()));
    assert_eq!(nat.end(first.id, EndReason::Requested, Tick(1)), Err(NoSuchSession));
    assert_eq!(nat.notifications(), 1, "the inside host gets an ICMP error");
    assert_eq!((nat.table().len(), nat.mappings()), (1, 1), "the other session holds the mapping");
    assert_eq!(nat.end(second.id, EndReason::Requested, Tick(1)), Ok(()));
    assert_eq!((nat.table().len(), nat.mappings()), (0, 0));
}

#[test]
fn the_sessions_that_match_end_slice_by_slice_and_the_others_go_on() {
    let nat = translator(200);
    let filter = Filter {
        remote: Some(EndpointFilter { address: Some(REMOTE), port: Some(123) }),
        ..Filter::default()
    };
    let (mut ended, mut slices, mut next) = (0, 0, Some(TableCursor::default()));
    while let Some(from) = next {
        let slice = nat.end_matching(&filter, EndReason::PolicyChanged, from, Tick(1));
        (ended, slices, next) = (ended + slice.ended, slices + 1, slice.next);
    }
    assert_eq!(ended, 200);
    assert!(slices >= 2, "each worker's pool is a slice of its own");
    assert_eq!(all(&nat, &filter).len(), 0);
    assert_eq!(nat.table().len(), 200);
    assert_eq!(nat.notifications(), 0, "a new policy ends sessions without a notification");
}
