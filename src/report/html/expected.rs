//! What random search could be expected to have found: the mean of the best of `n` random candidates.
//!
//! In: the values of `m` independent random candidates. Out: for `n <= m` the mean of the best over all subsets of
//! `n` of them, which is the unbiased estimate of the expected best of `n` draws: with the values in ascending
//! order, the sum over `i` of `v_i * C(i-1, n-1) / C(m, n)`. The estimate with replacement (Dodge et al., "Show
//! Your Work", EMNLP 2019, doi:10.18653/v1/D19-1224, equation 3) is too low for `n` near `m`. Beyond `m` draws the
//! sample says nothing but that the expectation does not fall.

use crate::study::{SearchSettings, Trial, TrialState};
use serde_json::Value;

/// Points of a curve at the most; more would only make the page larger.
const MAX_POINTS: usize = 160;

/// The trials that were drawn at random from the space, whatever had been found before: all of a random search,
/// those before the first generation of an evolution was full, or before anybody was trained if its parents are trained
/// ones; none where that is not known.
pub(super) fn random_trials<'t>(settings: &SearchSettings, trials: &'t [Trial]) -> Vec<&'t Trial> {
    let settings_json = serde_json::to_value(settings).unwrap_or_default();
    let strategy = &settings_json["strategy"];
    let given = settings_json["warm_start"].as_array().map_or(0, Vec::len);
    let trained = trials.iter().flat_map(|trial| &trial.refined).map(|refined| refined.finished_ms).min();
    let breeds_trained = strategy["parents"].as_str() == Some("trained");
    let learns = trained.filter(|_| breeds_trained);
    let start = match strategy["name"].as_str() {
        Some("random") => usize::MAX,
        Some("evolution") if breeds_trained => usize::MAX,
        Some("evolution" | "nsga2") => strategy["population"].as_u64().map_or(0, |n| n as usize),
        _ => 0,
    };
    let finished = |trial: &&Trial| trial.state == TrialState::Finished;
    trials
        .iter()
        .enumerate()
        .skip(given)
        // As the driver: trial n is chosen when the outcomes up to n - lookahead are known.
        .take_while(|(number, _)| {
            let known = (number + 1).saturating_sub(settings.lookahead as usize);
            trials[..known].iter().filter(finished).count() < start
        })
        .map(|(_, trial)| trial)
        .take_while(|trial| learns.is_none_or(|learns| trial.started_ms < learns))
        .filter(finished)
        .collect()
}

/// The expected best of `1..=m` draws as points `(n, value)`, thinned to a fixed number.
pub(super) fn expected_best(values: &[f64]) -> Vec<(usize, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let m = sorted.len();
    let mut counts: Vec<usize> = if m <= MAX_POINTS {
        (1..=m).collect()
    } else {
        let step = (m as f64).ln() / (MAX_POINTS - 1) as f64;
        (0..MAX_POINTS).map(|i| (i as f64 * step).exp().round() as usize).map(|n| n.clamp(1, m)).collect()
    };
    counts.dedup();
    counts.into_iter().map(|n| (n, best_of(&sorted, n))).collect()
}

/// The mean of the best over all subsets of `n` of the ascending values, `1 <= n <= m`.
fn best_of(sorted: &[f64], n: usize) -> f64 {
    let m = sorted.len();
    // The chance that the largest is the best is n/m; that the next one is, follows by a ratio of binomials.
    let mut chance = n as f64 / m as f64;
    let mut sum = 0.0;
    for i in (n..=m).rev() {
        sum += chance * sorted[i - 1];
        // C(i-2, n-1) / C(i-1, n-1)
        chance *= (i - n) as f64 / (i as f64 - 1.0).max(1.0);
    }
    sum
}

/// The points as JSON: two lists.
pub(super) fn as_json(points: &[(usize, f64)]) -> Value {
    let (n, value): (Vec<usize>, Vec<f64>) = points.iter().copied().unzip();
    serde_json::json!({ "n": n, "value": value })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean over all subsets, by counting.
    fn by_enumeration(values: &[f64], n: u32) -> f64 {
        let mut bests = Vec::new();
        for subset in 0u32..1 << values.len() {
            if subset.count_ones() == n {
                let members = values.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1);
                bests.push(members.map(|(_, &value)| value).fold(f64::NEG_INFINITY, f64::max));
            }
        }
        bests.iter().sum::<f64>() / bests.len() as f64
    }

    #[test]
    fn the_expectation_is_the_mean_over_all_subsets() {
        let values = [0.3, 0.9, -0.5, 0.3, 0.7, 0.1, 0.65, 0.2, 0.88];
        let curve = expected_best(&values);
        assert_eq!(curve.len(), values.len());
        for (n, value) in curve {
            let expected = by_enumeration(&values, n as u32);
            assert!((value - expected).abs() <= 1e-12, "best of {n}: {value}, not {expected}");
        }
        assert_eq!(expected_best(&[0.4]), [(1, 0.4)]);
        assert!(expected_best(&[]).is_empty());
    }

    #[test]
    fn long_curves_are_thinned_and_stay_finite() {
        let values: Vec<f64> = (0..5000).map(|i| f64::from(i % 977)).collect();
        let curve = expected_best(&values);
        assert!(curve.len() <= MAX_POINTS && curve[0].0 == 1 && curve[curve.len() - 1].0 == 5000);
        assert!(curve.windows(2).all(|pair| pair[0].1 <= pair[1].1 && pair[0].0 < pair[1].0));
        assert_eq!(curve[curve.len() - 1].1, 976.0);
    }
}
