//! Comparing candidates by several merits at once: dominance, fronts, crowding and hypervolume.
//!
//! In: merits, vectors of equal length in which higher is better. Out: who is better than whom. Dominance, the
//! sorting into fronts and the crowding distance are those of Deb, Pratap, Agarwal and Meyarivan, "A Fast and
//! Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE Transactions on Evolutionary Computation 6(2), 2002,
//! doi:10.1109/4235.996017, section III. The hypervolume (Zitzler and Thiele 1999, doi:10.1109/4235.797969) is
//! exact in any dimension, by slicing along the last merit.

use std::cmp::Ordering;

/// Whether `a` is at least as good as `b` in every merit and better in one.
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| a >= b) && a.iter().zip(b).any(|(a, b)| a > b)
}

/// For every candidate the number of its front, from 0: front 0 is dominated by nobody, front 1 only by front 0,
/// and so on. Equal candidates are in the same front.
///
/// ```
/// use foretell::search::fronts;
/// let merits = [[0.9, -5.0], [0.8, -2.0], [0.7, -3.0]];
/// assert_eq!(fronts(&merits.each_ref().map(|m| &m[..])), [0, 0, 1]);
/// ```
pub fn fronts(merits: &[&[f64]]) -> Vec<usize> {
    // Better candidates stand before those they dominate, so every front is complete when it is needed.
    let mut order: Vec<usize> = (0..merits.len()).collect();
    order.sort_by(|&a, &b| lexicographic(merits[b], merits[a]).then(a.cmp(&b)));
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut front = vec![0; merits.len()];
    for i in order {
        let is_free = |members: &Vec<usize>| !members.iter().any(|&j| dominates(merits[j], merits[i]));
        front[i] = members.iter().position(is_free).unwrap_or(members.len());
        if front[i] == members.len() {
            members.push(Vec::new());
        }
        members[front[i]].push(i);
    }
    front
}

fn lexicographic(a: &[f64], b: &[f64]) -> Ordering {
    a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// For every candidate of one front how far its neighbours are, summed over the merits, each in units of its range;
/// infinite for the best and the worst of a merit. Equal values are told apart by position.
pub fn crowding(merits: &[&[f64]]) -> Vec<f64> {
    let mut distance = vec![0.0; merits.len()];
    let dimensions = merits.first().map_or(0, |first| first.len());
    for d in 0..dimensions {
        let mut order: Vec<usize> = (0..merits.len()).collect();
        order.sort_by(|&a, &b| merits[a][d].total_cmp(&merits[b][d]).then(a.cmp(&b)));
        let (first, last) = (order[0], order[merits.len() - 1]);
        let range = merits[last][d] - merits[first][d];
        distance[first] = f64::INFINITY;
        distance[last] = f64::INFINITY;
        if range > 0.0 {
            for around in order.windows(3) {
                distance[around[1]] += (merits[around[2]][d] - merits[around[0]][d]) / range;
            }
        }
    }
    distance
}

/// Volume that `merits` dominate above `reference`: of the union of the boxes between the reference and each
/// candidate. Candidates that are not above it in every merit add nothing.
///
/// Exact. Takes `n log n` steps for two merits and `n` times more for each further one.
///
/// # Panics
/// If a candidate has another number of merits than the reference.
///
/// ```
/// use foretell::search::hypervolume;
/// assert_eq!(hypervolume(&[&[3.0, 1.0], &[1.0, 2.0]], &[0.0, 0.0]), 4.0);
/// ```
pub fn hypervolume(merits: &[&[f64]], reference: &[f64]) -> f64 {
    assert!(merits.iter().all(|m| m.len() == reference.len()), "merits and reference differ in length");
    let is_above = |m: &&&[f64]| m.iter().zip(reference).all(|(m, r)| m > r);
    sliced(merits.iter().filter(is_above).copied().collect(), reference)
}

fn sliced(mut merits: Vec<&[f64]>, reference: &[f64]) -> f64 {
    let Some(last) = reference.len().checked_sub(1) else { return 0.0 };
    merits.sort_by(|a, b| b[last].total_cmp(&a[last]));
    match last {
        0 => merits.first().map_or(0.0, |best| best[0] - reference[0]),
        1 => {
            let (mut area, mut reached) = (0.0, reference[0]);
            for m in merits {
                if m[0] > reached {
                    area += (m[0] - reached) * (m[1] - reference[1]);
                    reached = m[0];
                }
            }
            area
        }
        _ => {
            let mut volume = 0.0;
            for i in 0..merits.len() {
                let below = merits.get(i + 1).map_or(reference[last], |next| next[last]);
                let depth = merits[i][last] - below;
                if depth > 0.0 {
                    let slice = merits[..=i].iter().map(|m| &m[..last]).collect();
                    volume += depth * sliced(slice, &reference[..last]);
                }
            }
            volume
        }
    }
}

/// The best merits so far: candidates that nobody dominates.
#[derive(Clone, Debug, Default)]
pub struct Front {
    members: Vec<Vec<f64>>,
}

impl Front {
    /// The merits of its members.
    pub fn members(&self) -> &[Vec<f64>] {
        &self.members
    }

    /// Takes a candidate in, unless one at least as good in every merit is there; whether it was taken.
    pub fn improve(&mut self, merits: &[f64]) -> bool {
        if self.members.iter().any(|m| m.iter().zip(merits).all(|(m, new)| m >= new)) {
            return false;
        }
        self.members.retain(|m| !dominates(merits, m));
        self.members.push(merits.to_vec());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn random(n: usize, dimensions: usize, levels: u32, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let draw = |rng: &mut ChaCha8Rng| f64::from(rng.random_range(0..levels));
        (0..n).map(|_| (0..dimensions).map(|_| draw(&mut rng)).collect()).collect()
    }

    fn slices(merits: &[Vec<f64>]) -> Vec<&[f64]> {
        merits.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn fronts_equal_those_found_by_peeling() {
        for (seed, dimensions) in (0..60).zip([1, 2, 3, 4].into_iter().cycle()) {
            let merits = random(40, dimensions, 8, seed);
            let found = fronts(&slices(&merits));
            let mut left: Vec<usize> = (0..merits.len()).collect();
            for front in 0.. {
                let free = |&i: &usize| !left.iter().any(|&j| dominates(&merits[j], &merits[i]));
                let (peeled, rest): (Vec<usize>, Vec<usize>) = left.iter().partition(|&i| free(i));
                assert!(peeled.iter().all(|&i| found[i] == front), "seed {seed}");
                if rest.is_empty() {
                    break;
                }
                left = rest;
            }
        }
        assert_eq!(fronts(&[]), [0; 0]);
    }

    #[test]
    fn a_hypervolume_equals_the_count_of_unit_cells() {
        for (seed, dimensions) in (0..80).zip([1, 2, 3, 4].into_iter().cycle()) {
            let merits = random(1 + seed as usize % 12, dimensions, 7, seed);
            let reference = vec![1.0; dimensions];
            let cells = (0..6usize.pow(dimensions as u32)).filter(|cell| {
                let corner: Vec<f64> =
                    (0..dimensions).map(|d| 1.0 + (cell / 6usize.pow(d as u32) % 6) as f64).collect();
                merits.iter().any(|m| m.iter().zip(&corner).all(|(m, c)| *m >= c + 1.0))
            });
            assert_eq!(hypervolume(&slices(&merits), &reference), cells.count() as f64, "seed {seed}");
        }
        assert_eq!(hypervolume(&[], &[0.0, 0.0]), 0.0);
        assert_eq!(hypervolume(&[&[1.0, 1.0, -1.0]], &[0.0; 3]), 0.0, "not above the reference");
    }

    #[test]
    fn ends_are_never_crowded_and_gaps_count_in_units_of_the_range() {
        let merits = [[0.0, 10.0], [1.0, 6.0], [3.0, 5.0], [4.0, 0.0]];
        let found = crowding(&merits.each_ref().map(|m| &m[..]));
        assert_eq!(found, [f64::INFINITY, 3.0 / 4.0 + 5.0 / 10.0, 3.0 / 4.0 + 6.0 / 10.0, f64::INFINITY]);
        // A merit in which all are equal does not divide by zero.
        assert_eq!(crowding(&[&[1.0, 2.0], &[1.0, 2.0], &[1.0, 2.0]])[1], 0.0);
        assert_eq!(crowding(&[]), [0.0; 0]);
    }

    #[test]
    fn a_front_takes_only_what_is_new_and_better_somewhere() {
        let mut front = Front::default();
        for (merits, taken) in [
            ([1.0, 1.0], true),
            ([1.0, 1.0], false),
            ([0.0, 2.0], true),
            ([0.0, 1.0], false),
            ([2.0, 2.0], true),
            ([0.5, 2.0], false),
        ] {
            assert_eq!(front.improve(&merits), taken, "{merits:?}");
        }
        assert_eq!(front.members, [[2.0, 2.0]]);
    }
}
