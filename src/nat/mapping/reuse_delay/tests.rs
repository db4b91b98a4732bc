use super::*;
use crate::packet::{Endpoint, Protocol};

const NONE: [u16; 0] = [];

fn holder(port: u16) -> MappingKey {
    let remote = Endpoint::new([0, 0, 0, 0].into(), 0);
    let inside = Endpoint::new([10, 0, 0, 5].into(), port);
    MappingKey { protocol: Protocol::UDP, uplink: 0, inside, remote }
}

fn released(run: impl FnOnce(&mut dyn FnMut(u16))) -> Vec<u16> {
    let mut ports = Vec::new();
    run(&mut |port| ports.push(port));
    ports
}

#[test]
fn a_port_waits_its_time_unless_its_holder_reclaims_it() {
    let (delay, start) = (ReuseDelay::new(Span(100), 10), Tick(u32::MAX - 50));
    for port in [1, 2, 3] {
        assert_eq!(
            released(|release| delay.quarantine(
                port,
                holder(port),
                start.after(Span(u32::from(port))),
                release
            )),
            NONE
        );
    }
    assert_eq!(delay.reclaim(&holder(2)), Some(2));
    assert_eq!(delay.reclaim(&holder(2)), None);
    assert_eq!(released(|release| delay.release_due(start.after(Span(100)), release)), NONE);
    assert_eq!(released(|release| delay.release_due(start.after(Span(101)), release)), [1]);
    // Quarantined again, the port waits from then on; the first entry is stale.
    assert_eq!(
        released(|release| delay.quarantine(2, holder(2), start.after(Span(50)), release)),
        NONE
    );
    assert_eq!(released(|release| delay.release_due(start.after(Span(149)), release)), [3]);
    assert_eq!(released(|release| delay.release_due(start.after(Span(150)), release)), [2]);
}

#[test]
fn the_oldest_makes_room_and_a_forward_may_take_over_any() {
    let delay = ReuseDelay::new(Span(100), 2);
    for (port, expected) in [(1, vec![]), (2, vec![]), (3, vec![1])] {
        assert_eq!(
            released(|release| delay.quarantine(port, holder(port), Tick(0), release)),
            expected
        );
    }
    assert!(delay.take_over(2) && !delay.take_over(2));
    assert_eq!(
        released(|release| delay.release_due(Tick(100), release)),
        [3],
        "a port taken over is not released"
    );
    let none = ReuseDelay::new(Span(100), 0);
    assert_eq!(
        released(|release| none.quarantine(7, holder(7), Tick(0), release)),
        [7],
        "no port may wait"
    );
}
