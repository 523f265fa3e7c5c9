//! How far two scores of the same architectures agree about their order.
//!
//! In: for each architecture a pair of numbers, higher is better. Out: Kendall's tau-b (Kendall 1945,
//! doi:10.1093/biomet/33.3.239, by the algorithm of Knight 1966, doi:10.1080/01621459.1966.10480879), Spearman's rank
//! correlation, the regret of taking the best few by one score and keeping the best of them by the other, and
//! percentile intervals of each from bootstrap samples of the architectures (Efron 1979, doi:10.1214/aos/1176344552).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Kendall's tau-b, -1..1: agreeing less disagreeing pairs, corrected for ties. None where a score is constant, fewer
/// than two architectures are given, or a number is not finite.
///
/// ```
/// use foretell::score::kendall_tau;
/// let tau = kendall_tau(&[1.0, 2.0, 3.0], &[10.0, 30.0, 20.0]).unwrap();
/// assert!((tau - 1.0 / 3.0).abs() < 1e-12);
/// assert_eq!(kendall_tau(&[1.0, 1.0], &[2.0, 3.0]), None);
/// ```
///
/// # Panics
/// If the numbers of scores differ.
pub fn kendall_tau(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "scores of the same architectures");
    if !a.iter().chain(b).all(|value| value.is_finite()) {
        return None;
    }
    let n = a.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[i].total_cmp(&a[j]).then(b[i].total_cmp(&b[j])));
    let tied_pairs = |same: &dyn Fn(usize, usize) -> bool, order: &[usize]| -> u64 {
        let groups = order.chunk_by(|&i, &j| same(i, j));
        groups.map(|group| pairs(group.len())).sum()
    };
    let ties_a = tied_pairs(&|i, j| a[i] == a[j], &order);
    let ties_both = tied_pairs(&|i, j| a[i] == a[j] && b[i] == b[j], &order);
    let mut sorted: Vec<f64> = order.iter().map(|&i| b[i]).collect();
    let swaps = inversions(&mut sorted, &mut Vec::with_capacity(n));
    let ties_b: u64 = sorted.chunk_by(|x, y| x == y).map(|group| pairs(group.len())).sum();
    let all = pairs(n);
    let (untied_a, untied_b) = (all - ties_a, all - ties_b);
    if untied_a == 0 || untied_b == 0 {
        return None;
    }
    // Pairs that are tied in neither score, less twice the disagreeing ones among them.
    let difference = (all + ties_both) as f64 - (ties_a + ties_b) as f64 - 2.0 * swaps as f64;
    Some((difference / (untied_a as f64 * untied_b as f64).sqrt()).clamp(-1.0, 1.0))
}

fn pairs(n: usize) -> u64 {
    n as u64 * (n as u64).saturating_sub(1) / 2
}

/// Sorts `values` by merging and counts the pairs that stood in the wrong order.
fn inversions(values: &mut [f64], merged: &mut Vec<f64>) -> u64 {
    if values.len() < 2 {
        return 0;
    }
    let middle = values.len() / 2;
    let mut count = inversions(&mut values[..middle], merged) + inversions(&mut values[middle..], merged);
    merged.clear();
    let (mut left, mut right) = (0, middle);
    while left < middle || right < values.len() {
        if right == values.len() || (left < middle && values[left] <= values[right]) {
            merged.push(values[left]);
            left += 1;
        } else {
            merged.push(values[right]);
            right += 1;
            count += (middle - left) as u64;
        }
    }
    values.copy_from_slice(merged);
    count
}

/// Ranks from 1, lowest first; equal values share the mean of their ranks.
pub fn mean_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for group in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let mean = before as f64 + (group.len() + 1) as f64 / 2.0;
        group.iter().for_each(|&i| ranks[i] = mean);
        before += group.len();
    }
    ranks
}

/// The mean of the ranks that several scores give to the same things (Borda count), higher is better. A score that is
/// missing counts as the lowest.
///
/// ```
/// use foretell::score::vote;
/// let votes = vote(&[vec![Some(0.5), Some(0.9), None], vec![Some(3.0), Some(1.0), Some(2.0)]]);
/// assert_eq!(votes, [2.5, 2.0, 1.5]);
/// ```
///
/// # Panics
/// If the numbers of scores differ, or there is no voter.
pub fn vote(voters: &[Vec<Option<f64>>]) -> Vec<f64> {
    let mut sums = vec![0.0; voters[0].len()];
    for scores in voters {
        assert_eq!(scores.len(), sums.len(), "scores of the same things");
        let scores: Vec<f64> = scores.iter().map(|score| score.unwrap_or(f64::NEG_INFINITY)).collect();
        sums.iter_mut().zip(mean_ranks(&scores)).for_each(|(sum, rank)| *sum += rank);
    }
    sums.iter().map(|sum| sum / voters.len() as f64).collect()
}

/// Spearman's rank correlation, -1..1; none where [`kendall_tau`] is none.
///
/// # Panics
/// If the numbers of scores differ.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "scores of the same architectures");
    if a.is_empty() || !a.iter().chain(b).all(|value| value.is_finite()) {
        return None;
    }
    // The mean of all ranks is the same with and without ties.
    let mean = (a.len() + 1) as f64 / 2.0;
    let deviations = |values: &[f64]| -> Vec<f64> { mean_ranks(values).iter().map(|r| r - mean).collect() };
    let (a, b) = (deviations(a), deviations(b));
    let sum = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let (aa, bb) = (sum(&a, &a), sum(&b, &b));
    (aa > 0.0 && bb > 0.0).then(|| (sum(&a, &b) / aa.sqrt() / bb.sqrt()).clamp(-1.0, 1.0))
}

/// What is lost by looking only at the `k` architectures with the highest `score`: the best `truth` of all less the best
/// among these; of equal scores those that stand first are taken. None without architectures or if a number is not
/// finite.
///
/// ```
/// use foretell::score::top_regret;
/// let (score, truth) = ([3.0, 2.0, 1.0], [0.5, 0.25, 0.75]);
/// assert_eq!(top_regret(&score, &truth, 2), Some(0.25));
/// assert_eq!(top_regret(&score, &truth, 3), Some(0.0));
/// ```
///
/// # Panics
/// If the numbers of scores differ.
pub fn top_regret(score: &[f64], truth: &[f64], k: usize) -> Option<f64> {
    assert_eq!(score.len(), truth.len(), "scores of the same architectures");
    if k == 0 || !score.iter().chain(truth).all(|value| value.is_finite()) {
        return None;
    }
    let mut order: Vec<usize> = (0..score.len()).collect();
    order.sort_by(|&i, &j| score[j].total_cmp(&score[i]));
    let best = |truth: f64, other: f64| truth.max(other);
    let of_all = truth.iter().copied().reduce(best)?;
    let of_taken = order.iter().take(k).map(|&i| truth[i]).reduce(best)?;
    Some(of_all - of_taken)
}

/// A measure of agreement.
pub type Measure<'a> = &'a dyn Fn(&[f64], &[f64]) -> Option<f64>;

/// The central 95 % of a measure over `samples` bootstrap samples, each of as many architectures drawn with repeats from
/// a stream of `seed`. Samples in which the measure is undefined do not count; none where fewer than half are defined.
/// The same seed draws the same architectures for every score, so that two scores can be compared.
pub fn bootstrap(a: &[f64], b: &[f64], samples: usize, seed: u64, measure: Measure) -> Option<[f64; 2]> {
    let n = a.len();
    if n < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values = Vec::with_capacity(samples);
    let (mut x, mut y) = (vec![0.0; n], vec![0.0; n]);
    for _ in 0..samples {
        for place in 0..n {
            let drawn = rng.random_range(0..n);
            (x[place], y[place]) = (a[drawn], b[drawn]);
        }
        values.extend(measure(&x, &y));
    }
    if values.len() * 2 < samples.max(1) {
        return None;
    }
    values.sort_by(f64::total_cmp);
    Some([quantile(&values, 0.025), quantile(&values, 0.975)])
}

/// The quantile `q` of sorted values, linear between neighbours.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
}

/// Agreement of a score with the truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Agreement {
    /// Architectures that have both.
    pub architectures: usize,
    /// Kendall's tau-b.
    pub tau: Option<f64>,
    /// Its 95 % interval.
    pub tau_interval: Option<[f64; 2]>,
    /// Spearman's rank correlation.
    pub spearman: Option<f64>,
    /// Its 95 % interval.
    pub spearman_interval: Option<[f64; 2]>,
    /// Regret of the best `k`, in the truth's unit.
    pub regret: Option<f64>,
    /// Its 95 % interval.
    pub regret_interval: Option<[f64; 2]>,
}

impl Agreement {
    /// Over the architectures that have both scores.
    pub fn of(
        score: &[Option<f64>],
        truth: &[Option<f64>],
        k: usize,
        samples: usize,
        seed: u64,
    ) -> Agreement {
        let both = score.iter().zip(truth).filter_map(|(a, b)| Some(((*a)?, (*b)?)));
        let (a, b): (Vec<f64>, Vec<f64>) = both.filter(|(a, b)| a.is_finite() && b.is_finite()).unzip();
        let regret = |a: &[f64], b: &[f64]| top_regret(a, b, k);
        Agreement {
            architectures: a.len(),
            tau: kendall_tau(&a, &b),
            tau_interval: bootstrap(&a, &b, samples, seed, &kendall_tau),
            spearman: spearman(&a, &b),
            spearman_interval: bootstrap(&a, &b, samples, seed, &spearman),
            regret: regret(&a, &b),
            regret_interval: bootstrap(&a, &b, samples, seed, &regret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by `tests/scripts/agreement.py` with scipy.
    const SCIPY: &str = include_str!("../../tests/fixtures/agreement.json");

    #[derive(serde::Deserialize)]
    struct Case {
        a: Vec<f64>,
        b: Vec<f64>,
        tau: Option<f64>,
        spearman: Option<f64>,
    }

    #[test]
    fn correlations_equal_scipy_also_with_ties() {
        let cases: Vec<Case> = serde_json::from_str(SCIPY).unwrap();
        assert!(cases.len() >= 20 && cases.iter().any(|case| case.tau.is_none()));
        for (i, case) in cases.iter().enumerate() {
            for (name, found, expected) in [
                ("tau", kendall_tau(&case.a, &case.b), case.tau),
                ("spearman", spearman(&case.a, &case.b), case.spearman),
            ] {
                match (found, expected) {
                    (Some(found), Some(expected)) => {
                        assert!((found - expected).abs() <= 1e-12, "case {i}, {name}: {found}, {expected}");
                    }
                    (found, expected) => assert_eq!(found, expected, "case {i}, {name}"),
                }
            }
        }
    }

    #[test]
    fn scores_that_cannot_be_ranked_have_no_agreement() {
        assert_eq!(kendall_tau(&[], &[]), None);
        assert_eq!(kendall_tau(&[1.0, f64::NAN], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[1.0, f64::INFINITY], &[1.0, 2.0]), None);
        assert_eq!(top_regret(&[1.0, f64::NAN], &[1.0, 2.0], 1), None);
        assert_eq!(top_regret(&[], &[], 1), None);
        assert_eq!(bootstrap(&[1.0; 5], &[1.0, 2.0, 3.0, 4.0, 5.0], 50, 1, &kendall_tau), None);
        let agreement =
            Agreement::of(&[Some(1.0), None, Some(2.0)], &[Some(5.0), Some(9.0), Some(6.0)], 1, 20, 1);
        assert_eq!((agreement.architectures, agreement.tau, agreement.regret), (2, Some(1.0), Some(0.0)));
    }

    #[test]
    fn intervals_cover_the_correlation_of_normal_pairs() {
        // Pairs with correlation 0.6 have tau 2/pi asin(0.6) = 0.4097 (Kruskal 1958). Of 60 intervals at 95 %, fewer
        // than 50 would cover it with probability below 1 in 1000.
        use rand_distr::{Distribution, StandardNormal};
        let truth = 2.0 / std::f64::consts::PI * 0.6f64.asin();
        let covered = (0..60)
            .filter(|&seed| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let mut normal = || -> f64 { StandardNormal.sample(&mut rng) };
                let (a, b): (Vec<f64>, Vec<f64>) = (0..64)
                    .map(|_| {
                        let x = normal();
                        (x, 0.6 * x + 0.8 * normal())
                    })
                    .unzip();
                let [low, high] = bootstrap(&a, &b, 300, seed, &kendall_tau).unwrap();
                assert!(high - low > 0.1 && high - low < 0.6);
                low <= truth && truth <= high
            })
            .count();
        assert!(covered >= 50, "{covered}");
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let a: Vec<f64> = (0..40).map(f64::from).collect();
        let b: Vec<f64> = (0..40).map(|rank| f64::from(rank * 7 % 41)).collect();
        let interval = |seed| bootstrap(&a, &b, 200, seed, &kendall_tau);
        assert_eq!(interval(3), interval(3));
        assert_ne!(interval(3), interval(4));
    }
}
