//! The seed and the packets determine the output of a run.

use super::*;

/// Sends packets for which the translator chooses with its random generator. Returns the output.
///
/// The translator chooses uplinks, external ports, source ports of clients in conflict, IP
/// identifications and costs of ICMP errors.
fn run(seed: u64) -> Vec<(Vec<u8>, Offload)> {
    let setup = two_uplinks().with(|setup| {
        setup.policy.outbound[0].uplinks = vec![0, 1];
        setup.policy.delayed_reject = true;
        setup.policy.reject_with = Some(13);
        setup.limits.icmp_errors_per_host = NonZeroU32::new(3);
        setup.limits.ports = (40_000..=40_063).into();
    });
    let mut harness = Harness::with_seed(setup, Seed::from(seed));
    let mut sent = Vec::new();
    for number in 0..200u16 {
        let host = Ipv4Addr::new(10, 0, 0, (number % 50) as u8);
        let batch = [
            udp((host, 5000 + number), (E1, 53)),
            tcp(SYN, (host, 6000 + number), (E2, 443), 1, 0),
            // One client endpoint sends to two published addresses of one server.
            tcp(SYN, (E1, 7000 + number), (G, 8080), 1, 0),
            tcp(SYN, (E1, 7000 + number), (G2, 8080), 1, 0),
            tcp(SYN, (E1, 1), (G, 30_000 + number), 1, 0),
        ];
        sent.extend(harness.run(&batch.map(|packet| (packet, Offload::default()))));
        harness.wait(Span(40));
        sent.extend(harness.run(&[]));
    }
    sent
}

#[test]
fn two_runs_with_one_seed_send_the_same_packets_and_another_seed_gives_other_ports() {
    let first = run(1);
    assert!(first.len() > 500, "the engine sent {} packets", first.len());
    assert_eq!(first, run(1));
    let ports = |sent: &[(Vec<u8>, Offload)]| -> Vec<u16> {
        let tuples = sent.iter().filter_map(|(packet, _)| parsed(packet).tuple());
        tuples.filter(|tuple| tuple.source.address == G).map(|tuple| tuple.source.port).collect()
    };
    assert_ne!(ports(&first), ports(&run(2)));
}
