use std::collections::HashSet;

use rand::SeedableRng;

use super::*;

fn take_kept(pool: &PortPool, port: u16) -> bool {
    pool.take_kept(port, &mut &*pool)
}

#[test]
fn no_mapping_gets_a_port_that_a_program_of_the_host_uses() {
    let pool = PortPool::new((1000..=1003).into(), &[(40_000..=50_000).into()], [].into_iter());
    let mut random = StdRng::seed_from_u64(1);
    let mut take = || pool.take(PortPreference::None, &mut random);
    pool.exclude(&[1001, 7], &[1002]);
    let taken = [take(), take(), take()];
    assert!(
        taken.contains(&Some(1000)) && taken.contains(&Some(1003)) && taken[2].is_none(),
        "{taken:?}"
    );
    pool.exclude(&[], &[1002]);
    assert_eq!([take(), take()], [Some(1001), None]);
    // Nothing was lost.
    for port in [1000, 1001, 1003] {
        pool.release(port);
    }
    pool.exclude(&[], &[]);
    assert_eq!((0..5).filter_map(|_| take()).count(), 4);
}

#[test]
fn a_pool_is_handed_out_to_the_last_port_without_repeats_and_without_the_reserved_ones() {
    let mut random = StdRng::seed_from_u64(1);
    let pool = PortPool::new((1000..=1999).into(), &[], [(1500..=1599).into()].into_iter());
    let mut seen = HashSet::new();
    while let Some(port) = pool.take(PortPreference::None, &mut random) {
        assert!((1000..2000).contains(&port) && !(1500..1600).contains(&port));
        assert!(seen.insert(port), "port {port} was handed out twice");
    }
    assert_eq!(seen.len(), 900);
    pool.release(1999);
    assert_eq!(
        pool.take(PortPreference::ClassAndParity(2000), &mut random),
        Some(1999),
        "parity yields when nothing else is left"
    );
    assert_eq!(pool.take(PortPreference::None, &mut random), None);
}

#[test]
fn the_edges_of_the_port_space_are_handed_out() {
    let mut random = StdRng::seed_from_u64(2);
    for (first, last) in [(1, 1), (65535, 65535), (1, 65535), (63, 64)] {
        let pool = PortPool::new((first..=last).into(), &[], [].into_iter());
        let mut seen = HashSet::new();
        while let Some(port) = pool.take(PortPreference::None, &mut random) {
            seen.insert(port);
        }
        assert_eq!(seen, (first..=last).collect());
    }
}

#[test]
fn parity_is_kept_while_it_can_be() {
    let mut random = StdRng::seed_from_u64(3);
    let pool = PortPool::new((1024..=65535).into(), &[], [].into_iter());
    for model in 0..2000 {
        let port =
            pool.take(PortPreference::ClassAndParity(model), &mut random).expect("free ports");
        assert_eq!(port % 2, model % 2);
    }
}

#[test]
fn high_ports_never_go_low_and_low_ones_go_high_only_when_no_low_one_is_left() {
    let mut random = StdRng::seed_from_u64(5);
    let pool = PortPool::new((1000..=1099).into(), &[], [].into_iter());
    let mut take = |preference| pool.take(preference, &mut random);
    let low: Vec<u16> =
        (0..24).map_while(|port| take(PortPreference::ClassAndParity(port))).collect();
    assert!(low.len() == 24 && low.iter().all(|port| *port < 1024), "{low:?}");
    assert!(take(PortPreference::Class(53)).is_some_and(|port| port >= 1024));
    assert_eq!(
        (0..75)
            .filter_map(|_| take(PortPreference::Class(5000)))
            .filter(|port| *port >= 1024)
            .count(),
        75
    );
    pool.release(1000);
    assert_eq!(take(PortPreference::ClassAndParity(5000)), None);
    assert_eq!(take(PortPreference::ClassAndParity(7)), Some(1000), "parity yields");
}

#[test]
fn a_range_without_the_class_serves_all() {
    let mut random = StdRng::seed_from_u64(6);
    for (only, model) in [(80, 5000), (5000, 80)] {
        let pool = PortPool::new((only..=only).into(), &[], [].into_iter());
        assert_eq!(pool.take(PortPreference::Class(model), &mut random), Some(only));
    }
}

#[test]
fn a_kept_port_may_lie_outside_the_range_and_is_never_drawn() {
    let mut random = StdRng::seed_from_u64(8);
    let hosts = [(40_000..=50_000).into()];
    let pool = PortPool::new((1001..=1002).into(), &hosts, [PortRange::single(4500)].into_iter());
    pool.exclude(&[5060], &[45_001]);
    assert!(take_kept(&pool, 500) && !take_kept(&pool, 500), "one mapping keeps it");
    for (port, reason) in [
        (4500, "a forward's"),
        (5060, "a program listens"),
        (45_001, "a connection of the host"),
        (0, "none"),
    ] {
        assert!(!take_kept(&pool, port), "{port}: {reason}");
    }
    assert!(take_kept(&pool, 1001));
    assert_eq!(pool.free(), 1, "500 is not in the range");
    let mut take = |model| pool.take(PortPreference::ClassAndParity(model), &mut random);
    assert_eq!([take(1003), take(1003)], [Some(1002), None]);
    pool.release(500);
    assert_eq!((take(1003), take_kept(&pool, 500)), (None, true));
}

#[test]
fn random_ports_keep_off_the_hosts_range_and_kept_ones_do_not() {
    let mut random = StdRng::seed_from_u64(9);
    let pool = PortPool::new((39_990..=40_009).into(), &[(40_000..=50_000).into()], [].into_iter());
    assert_eq!(pool.free(), 10);
    assert!(take_kept(&pool, 40_000) && !take_kept(&pool, 40_000));
    assert!(take_kept(&pool, 39_999) && take_kept(&pool, 45_000));
    assert_eq!(pool.free(), 9);
    let mut drawn: Vec<u16> =
        std::iter::from_fn(|| pool.take(PortPreference::None, &mut random)).collect();
    drawn.sort_unstable();
    assert_eq!(drawn, (39_990..=39_998).collect::<Vec<_>>());
    pool.exclude(&[], &[40_001]);
    pool.release(40_000);
    assert!(pool.free() == 0 && take_kept(&pool, 40_000) && !take_kept(&pool, 40_001));
    let shared: Vec<u16> = pool.candidates(PortPreference::None, &mut random).collect();
    assert!(shared.len() == 10 && shared.iter().all(|port| *port < 40_000), "{shared:?}");
}

#[test]
fn range_of_host_ports_alone_is_handed_out_but_for_those_in_use() {
    let mut random = StdRng::seed_from_u64(10);
    let pool = PortPool::new((40_000..=40_009).into(), &[(32_768..=60_999).into()], [].into_iter());
    pool.exclude(&[40_003], &[40_004]);
    let drawn: HashSet<u16> =
        std::iter::from_fn(|| pool.take(PortPreference::Class(5000), &mut random)).collect();
    assert!(drawn.len() == 8 && !drawn.contains(&40_003) && !drawn.contains(&40_004), "{drawn:?}");
    assert!(pool.is_hosts(40_000));
}

#[test]
fn a_range_within_one_word_is_never_left() {
    for seed in 0..50 {
        let mut random = StdRng::seed_from_u64(seed);
        let pool = PortPool::new((1027..=1029).into(), &[], [].into_iter());
        let mut take = |model| pool.take(PortPreference::ClassAndParity(model), &mut random);
        let mut taken = [take(2000), take(2001), take(2002)].map(|port| port.expect("three ports"));
        taken.sort_unstable();
        assert_eq!((taken, take(2003)), ([1027, 1028, 1029], None));
    }
}

#[test]
fn candidates_for_sharing_are_of_the_right_class_and_bounded() {
    let mut random = StdRng::seed_from_u64(7);
    let pool = PortPool::new((1000..=65_535).into(), &[], [].into_iter());
    let high: Vec<u16> = pool.candidates(PortPreference::Class(5000), &mut random).collect();
    assert!(high.len() == SHARED_TRIES as usize && high.iter().all(|port| *port >= 1024));
    let pool = PortPool::new((2000..=2002).into(), &[], [].into_iter());
    let mut all: Vec<u16> = pool.candidates(PortPreference::Class(5000), &mut random).collect();
    all.sort_unstable();
    assert_eq!(all, [2000, 2001, 2002]);
}

#[test]
fn ports_show_no_step_and_cover_the_range() {
    let mut random = StdRng::seed_from_u64(4);
    let pool = PortPool::new((1024..=65535).into(), &[], [].into_iter());
    let ports: Vec<i32> = (0..2000)
        .map(|_| i32::from(pool.take(PortPreference::None, &mut random).expect("free ports")))
        .collect();
    let steps: HashSet<i32> = ports.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.len() > 1900, "differences between successive ports repeat");
    assert!((800..1200).contains(&ports.iter().filter(|port| **port < 33280).count()));
}

#[test]
fn two_threads_never_get_the_same_port() {
    let pool = PortPool::new((1..=60_000).into(), &[], [].into_iter());
    let taken: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|seed| {
                let pool = &pool;
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed);
                    std::iter::from_fn(|| pool.take(PortPreference::None, &mut random))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(taken.len(), 60_000);
    assert_eq!(taken.into_iter().collect::<HashSet<_>>().len(), 60_000);
}

#[test]
fn the_count_of_free_ports_is_that_of_the_ports_that_a_mapping_may_get() {
    let ranges: [PortRange; 5] = [
        (1024..=65_535).into(),
        (0..=0).into(),
        (1000..=1070).into(),
        (40_000..=40_015).into(),
        PortRange::ALL,
    ];
    let reserved: [PortRange; 3] =
        [(0..=3).into(), (1050..=40_003).into(), (65_535..=65_535).into()];
    for range in ranges {
        for ephemeral in [&[][..], &[(32_768..=60_999).into()], &[(1060..=1061).into()]] {
            let pool = PortPool::new(range, ephemeral, reserved.into_iter());
            for port in PortRange::ALL.iter() {
                let is_reserved = reserved.iter().any(|ports| ports.contains(port));
                assert_eq!(pool.is_free(port), pool.has(port) && !is_reserved, "port {port}");
            }
            let free = PortRange::ALL.iter().filter(|port| pool.is_free(*port));
            let wanted = free.filter(|port| pool.is_dynamic(*port)).count();
            assert_eq!(pool.free() as usize, wanted, "{range:?} with {ephemeral:?}");
        }
    }
}

#[test]
fn a_range_is_shared_without_the_ports_that_the_pool_keeps_back() {
    let pools = [(1024, 65_535), (1000, 2000), (0, 65_535), (40_000, 40_015), (65_535, 65_535)];
    let shared = [(0, 65_535), (1500, 40_010), (0, 0), (65_535, 65_535), (40_013, 50_000)];
    for (first, last) in pools {
        for (start, end) in shared {
            let pool = PortPool::new((first..=last).into(), &[], [].into_iter());
            pool.share([PortRange::from(start..=end)].into_iter());
            for port in PortRange::ALL.iter() {
                let is_shared = pool.shared.get().is_some_and(|ports| is_set(ports, port));
                let wanted = (start..=end).contains(&port) && !pool.is_kept_back(port);
                assert_eq!(is_shared, wanted, "port {port} of {first}-{last}, {start}-{end}");
            }
        }
    }
}
