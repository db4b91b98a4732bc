//! Packets and bytes of each uplink.

use crate::nat::UplinkTraffic;

use super::*;

#[test]
fn each_packet_counts_for_the_uplink_that_carries_it() {
    let mut harness = Harness::new(two_uplinks());
    let request = tcp(SYN, (E1, 4444), (G, 8080), 1, 0);
    let reply = tcp(SYN_ACK, (S1, 80), (E1, 4444), 9, 2);
    harness.pass(&request);
    harness.pass(&reply);
    harness.pass(&udp((E2, 53), (G2, 8080)));
    let length = |packet: &[u8]| packet.len() as u64;
    assert_eq!(
        harness.nat.traffic(0),
        UplinkTraffic {
            packets_in: 1,
            bytes_in: length(&request),
            packets_out: 1,
            bytes_out: length(&reply),
        }
    );
    let second = harness.nat.traffic(1);
    assert_eq!((second.packets_in, second.packets_out), (1, 0));
    // A reload keeps the counts.
    harness.reload(two_uplinks());
    assert_eq!(harness.nat.traffic(0).packets_in, 1);
}

#[test]
fn later_fragments_count_and_hairpin_packets_do_not() {
    let mut harness = Harness::new(settings());
    harness.pass(&tcp(SYN, (S2, 5000), (G, 8080), 1, 0));
    harness.pass(&udp((S2, 5000), (G, 8080)));
    let datagram = builder::udp(tuple(Protocol::UDP, (S2, 5001), (G, 8080)), &[7; 1800]);
    for fragment in builder::fragments(&datagram, 1000) {
        harness.send(&fragment).expect("a hairpin fragment");
    }
    assert_eq!(harness.nat.traffic(0), UplinkTraffic::default());
    let datagram = builder::udp(tuple(Protocol::UDP, (E1, 4444), (G, 8080)), &[7; 1800]);
    let fragments = builder::fragments(&datagram, 1000);
    for fragment in &fragments {
        harness.send(fragment).expect("a fragment");
    }
    let bytes = fragments.iter().map(|fragment| fragment.len() as u64).sum();
    let expected = UplinkTraffic {
        packets_in: fragments.len() as u64,
        bytes_in: bytes,
        ..UplinkTraffic::default()
    };
    assert_eq!(harness.nat.traffic(0), expected);
}
