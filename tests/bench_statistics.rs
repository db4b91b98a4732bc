//! The statistics of `benches/compare`. A bench target runs no unit tests of its own.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[path = "../benches/comparison/statistics.rs"]
mod statistics;

use statistics::{CONFIDENCE, Interval, median, median_interval, paired_ratios, quantile};

fn numbers(count: u32) -> Vec<f64> {
    (1..=count).rev().map(f64::from).collect()
}

#[test]
fn quantile_is_the_value_of_the_nearest_rank() {
    let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
    for (share, wanted) in [(0.0, 1.0), (0.5, 100.0), (0.99, 198.0), (0.995, 199.0), (1.0, 200.0)] {
        assert_eq!(quantile(&sorted, share), wanted, "{share}");
    }
    assert_eq!(quantile(&[7.0], 0.99), 7.0);
}

#[test]
fn median_of_an_even_count_lies_between_the_middle_values() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
}

/// Ranks and confidences as in tables of the binomial distribution.
#[test]
fn interval_of_a_median_has_the_ranks_of_the_binomial_tables() {
    assert_eq!(median_interval(&[]), None);
    for (count, rank, confidence) in [
        (1, 1, 0.0),
        (5, 1, 0.9375),
        (6, 1, 0.96875),
        (8, 1, 0.992_187_5),
        (9, 2, 0.960_937_5),
        (12, 3, 0.961_425_8),
        (20, 6, 0.958_610_5),
        (30, 10, 0.957_226_2),
    ] {
        let found = median_interval(&numbers(count)).expect("there are values");
        let Interval { low, high, confidence: found_confidence } = found;
        assert_eq!((low, high), (f64::from(rank), f64::from(count + 1 - rank)), "{count} values");
        assert!((found_confidence - confidence).abs() < 1e-6, "{count} values: {found:?}");
        assert!(count < 6 || found_confidence >= CONFIDENCE);
    }
}

/// Latencies have a long tail. The interval must hold for them as for any other distribution.
#[test]
fn interval_contains_the_true_median_as_often_as_it_says() {
    let mut random = StdRng::seed_from_u64(7);
    for count in [6, 11, 20] {
        let (mut hits, mut said) = (0, 0.0);
        for _ in 0..4000 {
            // The median of an exponential distribution of rate 1 is ln 2.
            let values: Vec<f64> =
                (0..count).map(|_| -(1.0 - random.random::<f64>()).ln()).collect();
            let Interval { low, high, confidence } = median_interval(&values).expect("values");
            hits += u32::from((low..=high).contains(&std::f64::consts::LN_2));
            said = confidence;
        }
        let share = f64::from(hits) / 4000.0;
        assert!((share - said).abs() < 0.015, "{count} values: {share}, said {said}");
    }
}

#[test]
fn ratios_of_one_run_do_not_contain_the_drift_between_runs() {
    let drift = [1.0, 3.0, 0.5, 8.0];
    let reference: Vec<f64> = drift.iter().map(|drift| drift * 40.0).collect();
    let values: Vec<f64> = drift.iter().map(|drift| drift * 60.0).collect();
    assert_eq!(paired_ratios(&values, &reference), [1.5; 4]);
    assert_eq!(paired_ratios(&values[..2], &reference).len(), 2);
}
