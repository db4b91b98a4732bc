//! Order statistics: quantiles of a run, and medians over runs with their confidence intervals.
//!
//! A confidence interval of a median needs no assumption about the distribution: of n independent
//! values, the number below the true median has a binomial distribution with probability one half
//! (David and Nagaraja, Order Statistics, section 7.1).

/// Confidence that an interval should have.
pub(crate) const CONFIDENCE: f64 = 0.95;

/// An interval that contains the true median with a certain confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    pub low: f64,
    pub high: f64,
    /// Probability that such an interval contains the median. Below [`CONFIDENCE`] when there are
    /// fewer than six values.
    pub confidence: f64,
}

/// Returns the value that a share of the values does not exceed (nearest rank).
///
/// # Panics
/// Without values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// Returns the median of values in any order. None: there are none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Returns the narrowest symmetric interval of order statistics with at least [`CONFIDENCE`], or
/// the widest one if none has so much. None: there are no values.
pub(crate) fn median_interval(values: &[f64]) -> Option<Interval> {
    let sorted = sorted(values);
    let interval = |rank: usize| Interval {
        low: sorted[rank - 1],
        high: sorted[sorted.len() - rank],
        confidence: 1.0 - 2.0 * at_most(rank - 1, sorted.len()),
    };
    let ranks = 1..=sorted.len().div_ceil(2);
    let narrow = ranks.rev().map(interval).find(|interval| interval.confidence >= CONFIDENCE);
    narrow.or_else(|| (!sorted.is_empty()).then(|| interval(1)))
}

/// Returns each value as a share of the reference's value of the same run. Values of one run are
/// measured one after the other, so that the machine's drift between runs falls out.
pub(crate) fn paired_ratios(values: &[f64], reference: &[f64]) -> Vec<f64> {
    values.iter().zip(reference).map(|(value, reference)| value / reference).collect()
}

/// Returns the probability that at most `most` of `count` values lie below the true median.
fn at_most(most: usize, count: usize) -> f64 {
    let mut term = 0.5_f64.powi(count as i32);
    let mut sum = term;
    for below in 0..most {
        term *= (count - below) as f64 / (below + 1) as f64;
        sum += term;
    }
    sum
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}
