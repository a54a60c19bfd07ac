//! Medians and percentiles, by nearest rank.

/// A share of sorted values, in thousandths.
#[derive(Clone, Copy)]
pub(crate) struct PerMille(pub(crate) usize);

/// Half of the values are at or below it.
pub(crate) const P50: PerMille = PerMille(500);
/// One value in a hundred is above it.
pub(crate) const P99: PerMille = PerMille(990);

/// The value at `share` of the sorted values; 0 for none.
pub(crate) fn percentile(values: &[f64], share: PerMille) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (sorted.len() * share.0).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied().unwrap_or(0.0)
}

/// The middle value of a handful of rounds.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, P50)
}

/// The median of what `field` takes from each round.
pub(crate) fn median_of<T>(rounds: &[T], field: impl Fn(&T) -> f64) -> f64 {
    median(&rounds.iter().map(field).collect::<Vec<_>>())
}

/// Half the distance between the highest and the lowest round, in percent of the median.
pub(crate) fn spread_percent(values: &[f64]) -> f64 {
    let high = values.iter().copied().fold(f64::MIN, f64::max);
    let low = values.iter().copied().fold(f64::MAX, f64::min);
    let middle = median(values);
    if middle == 0.0 {
        0.0
    } else {
        (high - low) / 2.0 / middle * 100.0
    }
}
