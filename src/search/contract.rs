//! The contract of strategies, on their own: they propose architectures of the space, are functions of what they
//! were told, find the optimum of a formula, and cope with candidates without merits. What they keep inside a
//! search (budgets, resume, workers, exhausted spaces) is tested with the studies.

use super::formula::{FormulaEvaluator, FormulaSpace, architecture};
use super::*;
use crate::space::{Op, Space};
use rand_chacha::ChaCha8Rng;

/// Evolution by what was scored.
pub(crate) fn evolution(population: usize, sample: usize) -> StrategySettings {
    StrategySettings::Evolution { population, sample, parents: Parents::Scored }
}

/// Every strategy, with small and with default settings.
pub(crate) fn strategies() -> Vec<StrategySettings> {
    let (population, sample) = (RegularisedEvolution::POPULATION, RegularisedEvolution::SAMPLE);
    vec![
        StrategySettings::Random,
        evolution(6, 3),
        evolution(2, 1),
        evolution(population, sample),
        StrategySettings::Evolution { population, sample, parents: Parents::Trained },
        StrategySettings::Local { starts: 1, neighbours: 2 },
        StrategySettings::Local { starts: LocalSearch::STARTS, neighbours: LocalSearch::NEIGHBOURS },
        StrategySettings::Nsga2 { population: 2 },
        StrategySettings::Nsga2 { population: 5 },
        StrategySettings::Nsga2 { population: Nsga2::POPULATION },
    ]
}

/// Several objectives for the strategies that take them.
pub(crate) fn objective(strategy: &StrategySettings) -> Objective {
    let several = strategy.build().unwrap().check(2).is_ok();
    if several { "accuracy,macs" } else { "accuracy" }.parse().unwrap()
}

/// A finished search as a list, told in the order of trials without lookahead.
struct Told {
    arch: CellArchitecture,
    merits: Option<Vec<f64>>,
}

/// Asks and tells `trials` times; formula candidates that fail have no merits.
fn searched(strategy: &StrategySettings, objective: &Objective, seed: u64, trials: u64) -> Vec<Told> {
    let (space, evaluator) = (FormulaSpace { sizes: 64 }, FormulaEvaluator::default());
    let mut strategy = strategy.build().unwrap();
    let mut all: Vec<Told> = Vec::new();
    for trial in 0..trials {
        let mut rng = proposal_rng(seed, trial);
        let is_new = |arch: &CellArchitecture| !all.iter().any(|told| told.arch == *arch);
        let asked = (0..2_000).map(|attempt| strategy.ask(&space, attempt, &mut rng).unwrap());
        let arch = asked.into_iter().find(is_new).unwrap();
        let merits = evaluator.cost(&arch).and_then(|cost| {
            let scores = evaluator.evaluate(&arch, 0)?;
            objective.merits(&Scores { macs: cost.macs, ..scores })
        });
        let merits = merits.ok();
        strategy.tell(Outcome { trial, arch: &arch, merits: merits.as_deref(), chosen_after: Some(trial) });
        all.push(Told { arch, merits });
    }
    all
}

#[test]
fn every_proposal_is_an_architecture_of_the_space() {
    let space = Space::find("small").unwrap();
    for settings in strategies() {
        let mut strategy = settings.build().unwrap();
        let merits = vec![0.5; objective(&settings).count()];
        for trial in 0..40 {
            let arch = strategy.ask(&space, trial as u32 % 3, &mut proposal_rng(1, trial)).unwrap();
            space.check(&arch).unwrap_or_else(|error| panic!("{settings:?}, trial {trial}: {error}"));
            let merits = (trial % 4 > 0).then_some(&merits[..]);
            strategy.tell(Outcome { trial, arch: &arch, merits, chosen_after: Some(trial) });
        }
    }
}

#[test]
fn proposals_are_a_function_of_what_was_told() {
    let space = FormulaSpace { sizes: 64 };
    for settings in strategies() {
        let all = searched(&settings, &objective(&settings), 5, 60);
        assert!(all.iter().any(|told| told.merits.is_none()), "nothing failed, so failures are not tested");
        for known in [0, 1, 2, 23, 60] {
            let mut replayed = settings.build().unwrap();
            for (trial, told) in (0..).zip(&all[..known]) {
                // Asking in between changes nothing.
                replayed.ask(&space, trial as u32, &mut proposal_rng(99, trial)).unwrap();
                let merits = told.merits.as_deref();
                replayed.tell(Outcome { trial, arch: &told.arch, merits, chosen_after: Some(trial) });
            }
            let Some(next) = all.get(known) else { continue };
            let mut rng = proposal_rng(5, known as u64);
            let asked: Vec<CellArchitecture> =
                (0..200).map(|attempt| replayed.ask(&space, attempt, &mut rng).unwrap()).collect();
            assert!(asked.contains(&next.arch), "{settings:?} after {known}");
        }
    }
}

#[test]
fn candidates_without_merits_never_become_parents() {
    // All that is told has as many channels as the space allows; children of those without merits would too.
    let space = FormulaSpace { sizes: 1_000 };
    for settings in strategies() {
        let mut strategy = settings.build().unwrap();
        for trial in 0..50 {
            let arch = architecture(1_000, 1_000 - trial as usize, Op::Conv3x3);
            strategy.tell(Outcome { trial, arch: &arch, merits: None, chosen_after: Some(trial) });
        }
        let near = |trial: u64| {
            let arch = strategy.ask(&space, 0, &mut proposal_rng(3, trial)).unwrap();
            arch.channels > 990 && arch.n_cells > 940
        };
        assert!((50..100).filter(|&trial| near(trial)).count() < 5, "{settings:?}");
    }
}

#[test]
fn a_budget_below_the_first_population_is_random_search() {
    let of = |settings: StrategySettings| -> Vec<CellArchitecture> {
        let objective = "accuracy".parse().unwrap();
        searched(&settings, &objective, 3, 20).into_iter().map(|told| told.arch).collect()
    };
    let random = of(StrategySettings::Random);
    assert_eq!(of(StrategySettings::Nsga2 { population: 21 }), random);
    assert_eq!(of(StrategySettings::Local { starts: 21, neighbours: 1 }), random);
}

/// Mean accuracy of the last 50 of 300 candidates.
fn late_mean(strategy: &StrategySettings, seed: u64) -> f64 {
    let all = searched(strategy, &"accuracy".parse().unwrap(), seed, 300);
    let late: Vec<f64> = all[250..].iter().filter_map(|told| Some(told.merits.as_ref()?[0])).collect();
    late.iter().sum::<f64>() / late.len() as f64
}

#[test]
fn every_guided_strategy_finds_better_candidates_than_random_search() {
    let (population, sample) = (RegularisedEvolution::POPULATION, RegularisedEvolution::SAMPLE);
    for seed in 0..5 {
        let random = late_mean(&StrategySettings::Random, seed);
        for strategy in [
            evolution(population, sample),
            StrategySettings::Local { starts: LocalSearch::STARTS, neighbours: LocalSearch::NEIGHBOURS },
            StrategySettings::Nsga2 { population: Nsga2::POPULATION },
        ] {
            let found = late_mean(&strategy, seed);
            assert!(found > random + 0.3, "seed {seed}: {strategy:?} {found}, random {random}");
        }
    }
}

#[test]
fn local_search_reaches_the_optimum_of_a_formula() {
    // The best of all 64 * 64 * 12 candidates has 20 channels and 20 cells.
    let strategy = StrategySettings::Local { starts: 5, neighbours: 40 };
    for seed in 0..5 {
        let all = searched(&strategy, &"accuracy".parse().unwrap(), seed, 400);
        let best = all.iter().filter_map(|told| Some(told.merits.as_ref()?[0])).fold(0.0, f64::max);
        assert!(best > 0.899, "seed {seed}: {best}");
    }
}

#[test]
fn nsga2_dominates_more_than_random_search() {
    let objective: Objective = "accuracy,macs".parse().unwrap();
    let mut gain = 0.0;
    for seed in 0..10 {
        let volume = |strategy: StrategySettings| {
            let all = searched(&strategy, &objective, seed, 300);
            let merits: Vec<&[f64]> = all.iter().filter_map(|told| told.merits.as_deref()).collect();
            // Multiply-accumulates go up to 26 million; the most accurate candidate has 0.8 million.
            hypervolume(&merits, &[0.0, -1.0]) / 0.9
        };
        let random = volume(StrategySettings::Random);
        gain += volume(StrategySettings::Nsga2 { population: Nsga2::POPULATION }) - random;
    }
    assert!(gain / 10.0 > 0.01, "mean gain {}", gain / 10.0);
}

#[test]
fn nsga2_keeps_whole_fronts_and_the_ends_of_the_last() {
    let mut strategy = Nsga2::new(3).unwrap();
    // Two on the front, four behind it, of which the ends are least crowded.
    let merits = [[5.0, 5.0], [6.0, 4.0], [1.0, 3.9], [4.0, 1.0], [2.0, 3.5], [2.5, 3.0]];
    for (trial, merits) in (0..).zip(&merits) {
        let arch = architecture(1 + trial as usize, 1, Op::Conv3x3);
        strategy.tell(Outcome { trial, arch: &arch, merits: Some(merits), chosen_after: Some(trial) });
    }
    let mut kept: Vec<u64> = strategy.trials().collect();
    kept.sort_unstable();
    // The best end in the last merit is the older trial.
    assert_eq!(kept, [0, 1, 2]);
}

#[test]
fn a_step_of_local_search_ignores_what_an_earlier_climb_left_behind() {
    let space = FormulaSpace { sizes: 1_000 };
    let arch = |channels: usize| architecture(channels, 500, Op::Conv3x3);
    let mut strategy = LocalSearch::new(1, 2).unwrap();
    let mut tell = |trial: u64, channels: usize, value: Option<f64>, chosen_after: Option<u64>| {
        let merits = value.map(|value| [value]);
        let merits = merits.as_ref().map(|merits| &merits[..]);
        strategy.tell(Outcome { trial, arch: &arch(channels), merits, chosen_after });
        let mut rng: ChaCha8Rng = proposal_rng(0, 7);
        strategy.ask(&space, 0, &mut rng).unwrap().channels
    };
    let is_near = |channels: usize, to: usize| channels.abs_diff(to) <= 1;
    assert!(is_near(tell(0, 100, Some(0.5), Some(0)), 100), "climbs from the start");
    assert!(is_near(tell(1, 200, Some(0.4), Some(0)), 100), "a late one does not count as tried");
    assert!(is_near(tell(2, 300, Some(0.4), Some(1)), 100), "one of two neighbours is tried");
    assert!(is_near(tell(3, 400, Some(0.6), Some(0)), 400), "a late one that is better is a step");
    assert!(is_near(tell(4, 410, None, Some(4)), 400), "a failed neighbour is tried");
    assert!(is_near(tell(5, 420, Some(0.1), None), 400), "a given one is no neighbour");
    let restarted = tell(6, 430, Some(0.6), Some(5));
    assert!(!is_near(restarted, 400) && !is_near(restarted, 430), "the second neighbour was no better");
    let unmoved = tell(7, 400, Some(0.9), Some(6));
    assert_eq!(unmoved, restarted, "a neighbour of the left optimum is no start");
    assert!(is_near(tell(8, 800, Some(0.2), Some(7)), 800), "the new start is climbed from");
}

#[test]
fn strategies_for_one_objective_refuse_several() {
    for settings in strategies() {
        let strategy = settings.build().unwrap();
        assert!(strategy.check(1).is_ok());
        match settings.name() {
            "random" | "nsga2" => assert!(strategy.check(3).is_ok()),
            name => {
                let error = strategy.check(3).unwrap_err().to_string();
                assert!(
                    error.contains(&format!("--strategy {name} takes one objective, found 3")),
                    "{error}"
                );
            }
        }
    }
    for (settings, flag) in [
        (StrategySettings::Nsga2 { population: 1 }, "--population 1"),
        (StrategySettings::Local { starts: 0, neighbours: 1 }, "--starts 0"),
        (StrategySettings::Local { starts: 1, neighbours: 0 }, "--neighbours 0"),
    ] {
        assert!(settings.build().err().unwrap().to_string().contains(flag));
    }
}
