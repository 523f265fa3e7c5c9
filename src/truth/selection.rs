//! How far a vote that was chosen on some architectures ranks others.
//!
//! In: the scores of methods, the truth. Out: the mean tau, over random halves of the architectures, of the vote that
//! ranks one half best, on that half and on the other one. The best of many votes flatters itself on the architectures
//! that it was chosen on; on the others it does not.

use super::methods::{Method, cost_of};
use crate::score::{kendall_tau, vote};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Means over the halves.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// Votes that there were to choose from.
    pub votes: usize,
    /// Kendall's tau with the clean accuracy of the half that chose.
    pub own: f64,
    /// On the other half.
    pub other: f64,
    /// With the noisy accuracy of the other half.
    pub other_noisy: f64,
    /// The vote that was chosen most often, and how often.
    pub most_chosen: (String, usize),
    /// Random halves.
    pub splits: usize,
}

/// Chooses on random halves, drawn from `seed`, among all votes of at most `voters` of `methods` that cost at most
/// `most_macs` together. None if a method lacks a score, or nothing can be told apart.
pub fn select_on_half(
    methods: &[&Method],
    voters: usize,
    most_macs: f64,
    truth: [&[Option<f64>]; 2],
    splits: usize,
    seed: u64,
) -> Option<Selection> {
    let [clean, noisy] = truth.map(|truth| truth.iter().copied().collect::<Option<Vec<f64>>>());
    let (clean, noisy) = (clean?, noisy?);
    let known: Vec<&&Method> =
        methods.iter().filter(|method| method.scores.iter().all(Option::is_some)).collect();
    let mut votes: Vec<(String, Vec<f64>)> = Vec::new();
    for members in subsets(known.len(), voters) {
        let members: Vec<&Method> = members.into_iter().map(|member| *known[member]).collect();
        if cost_of(&members)[1] <= most_macs {
            let names: Vec<&str> = members.iter().map(|method| method.name.as_str()).collect();
            let scores: Vec<Vec<Option<f64>>> = members.iter().map(|method| method.scores.clone()).collect();
            votes.push((names.join(" + "), vote(&scores)));
        }
    }
    let mut order: Vec<usize> = (0..clean.len()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let halves: Vec<Vec<usize>> = (0..splits)
        .map(|_| {
            order.shuffle(&mut rng);
            order.clone()
        })
        .collect();
    let tau = |votes: &[f64], truth: &[f64], of: &[usize]| {
        let pick = |values: &[f64]| of.iter().map(|&i| values[i]).collect::<Vec<f64>>();
        kendall_tau(&pick(votes), &pick(truth))
    };
    let outcomes = halves.par_iter().map(|order| {
        let (own, other) = order.split_at(order.len() / 2);
        let taus = votes.iter().enumerate().filter_map(|(at, vote)| Some((tau(&vote.1, &clean, own)?, at)));
        // The first of equals.
        let (best, at) = taus.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))?;
        Some((at, [best, tau(&votes[at].1, &clean, other)?, tau(&votes[at].1, &noisy, other)?]))
    });
    let outcomes = outcomes.collect::<Option<Vec<_>>>()?;
    let mean = |which: usize| outcomes.iter().map(|(_, taus)| taus[which]).sum::<f64>() / splits as f64;
    let mut chosen: BTreeMap<usize, usize> = BTreeMap::new();
    outcomes.iter().for_each(|(at, _)| *chosen.entry(*at).or_default() += 1);
    let (at, times) = chosen.into_iter().max_by_key(|(at, times)| (*times, usize::MAX - at))?;
    let most_chosen = (votes[at].0.clone(), times);
    let (own, other, other_noisy) = (mean(0), mean(1), mean(2));
    Some(Selection { votes: votes.len(), own, other, other_noisy, most_chosen, splits })
}

/// All sets of one to `most` of `count` numbers, each in ascending order.
fn subsets(count: usize, most: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = Vec::new();
    let mut last: Vec<Vec<usize>> = vec![Vec::new()];
    for _ in 0..most {
        let longer = |set: &Vec<usize>| {
            let (set, from) = (set.clone(), set.last().map_or(0, |last| last + 1));
            (from..count).map(move |next| [&set[..], &[next]].concat())
        };
        last = last.iter().flat_map(longer).collect();
        all.extend_from_slice(&last);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    fn method(name: &str, macs: f64, scores: Vec<f64>) -> Method {
        let scores = scores.into_iter().map(Some).collect();
        Method { name: name.into(), kind: "size", scores, seconds: 1.0, macs }
    }

    #[test]
    fn sets_are_complete() {
        let sets = subsets(4, 2);
        assert_eq!(sets.len(), 4 + 6);
        assert!(sets.contains(&vec![1, 3]) && sets.iter().all(|set| set.is_sorted()));
        assert_eq!(subsets(3, 5).len(), 7);
    }

    #[test]
    fn noise_flatters_itself_on_its_own_half_only() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut column = || (0..60).map(|_| rng.random::<f64>()).collect::<Vec<f64>>();
        let methods: Vec<Method> =
            (0..8).map(|i| method(&format!("noise {i}"), i as f64, column())).collect();
        let truth: Vec<Option<f64>> = column().into_iter().map(Some).collect();
        let all: Vec<&Method> = methods.iter().collect();
        let found = select_on_half(&all, 3, 1e9, [&truth, &truth], 40, 0).unwrap();
        assert_eq!(found.votes, 8 + 28 + 56);
        assert!(found.own > 0.2 && found.other.abs() < 0.15, "{found:?}");

        // A score that knows the truth is found, unless it costs too much.
        let good = method("truth", 100.0, truth.iter().map(|value| value.unwrap()).collect());
        let all: Vec<&Method> = methods.iter().chain([&good]).collect();
        let found = select_on_half(&all, 3, 1e9, [&truth, &truth], 40, 0).unwrap();
        assert_eq!((found.other, found.most_chosen), (1.0, ("truth".to_owned(), 40)));
        assert!(select_on_half(&all, 3, 99.0, [&truth, &truth], 40, 0).unwrap().other < 0.15);
    }
}
