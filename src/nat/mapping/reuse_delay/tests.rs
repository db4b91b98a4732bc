use super::*;
use crate::nat::mapping::mappings::Mappings;
use crate::nat::policy::forwards::Forwards;
use crate::nat::policy::settings::EndpointDependence;
use crate::nat::table::smp_tests::settings;
use crate::packet::{Endpoint, Protocol};

const NOBODY: [u16; 0] = [];

fn holder(port: u16) -> MappingKey {
    let settings = settings((40_000, 40_007), EndpointDependence::EndpointIndependent);
    let mappings = Mappings::new(&settings, &Forwards::new(&settings));
    let inside = Endpoint::new([10, 0, 0, 5].into(), port);
    mappings.key(Protocol::UDP, 0, inside, inside)
}

fn woken(run: impl FnOnce(&mut dyn FnMut(u16))) -> Vec<u16> {
    let mut ports = Vec::new();
    run(&mut |port| ports.push(port));
    ports
}

#[test]
fn a_port_rests_its_time_unless_its_holder_fetches_it() {
    let (resting, start) = (ReuseDelay::new(Span(100), 10), Tick(u32::MAX - 50));
    for port in [1, 2, 3] {
        assert_eq!(
            woken(|wake| resting.quarantine(
                port,
                holder(port),
                start.after(Span(u32::from(port))),
                wake
            )),
            NOBODY
        );
    }
    assert_eq!(resting.reclaim(&holder(2)), Some(2));
    assert_eq!(resting.reclaim(&holder(2)), None);
    assert_eq!(woken(|wake| resting.release_due(start.after(Span(100)), wake)), NOBODY);
    assert_eq!(woken(|wake| resting.release_due(start.after(Span(101)), wake)), [1]);
    // Laid to rest again, it rests from then on; the first entry is stale.
    assert_eq!(woken(|wake| resting.quarantine(2, holder(2), start.after(Span(50)), wake)), NOBODY);
    assert_eq!(woken(|wake| resting.release_due(start.after(Span(149)), wake)), [3]);
    assert_eq!(woken(|wake| resting.release_due(start.after(Span(150)), wake)), [2]);
}

#[test]
fn the_oldest_makes_room_and_a_forward_may_take_any() {
    let resting = ReuseDelay::new(Span(100), 2);
    for (port, expected) in [(1, vec![]), (2, vec![]), (3, vec![1])] {
        assert_eq!(woken(|wake| resting.quarantine(port, holder(port), Tick(0), wake)), expected);
    }
    assert!(resting.take_over(2) && !resting.take_over(2));
    assert_eq!(
        woken(|wake| resting.release_due(Tick(100), wake)),
        [3],
        "what was given up is not woken"
    );
    let none = ReuseDelay::new(Span(100), 0);
    assert_eq!(woken(|wake| none.quarantine(7, holder(7), Tick(0), wake)), [7], "room for none");
}
