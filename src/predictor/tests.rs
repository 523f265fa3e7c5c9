//! Regressors against functions whose values are known, and what the predictor promises.

use super::*;
use crate::deepnets::predefined;
use crate::score::kendall_tau;
use crate::space::{Architecture, CellArchitecture};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// `count` samples of `columns` features in -1..1 with values `f(features)`.
fn samples(count: usize, columns: usize, seed: u64, f: impl Fn(&[f64]) -> f64) -> Vec<Sample> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sample = |_| {
        let features: Vec<f64> = (0..columns).map(|_| 2.0 * rng.random::<f64>() - 1.0).collect();
        let value = f(&features);
        Sample { features, value }
    };
    (0..count).map(&mut sample).collect()
}

fn linear(x: &[f64]) -> f64 {
    0.7 + 0.01 * (3.0 * x[0] - 2.0 * x[1] + x[2])
}

/// Squares and a product: nothing that a linear function ranks.
fn curved(x: &[f64]) -> f64 {
    x[0] * x[0] + x[1] * x[1]
}

#[test]
fn ties_count_as_in_tau_b() {
    // scipy.stats.kendalltau(a, b).statistic
    let a = [1.0, 2.0, 2.0, 3.0, 4.0, 4.0, 5.0];
    let b = [2.0, 1.0, 3.0, 3.0, 3.0, 5.0, 4.0];
    assert!((kendall_tau(&a, &b).unwrap() - SCIPY_TIES).abs() < 1e-12);
    let shuffled: Vec<f64> = (0..101).map(|i| ((i * 37) % 101) as f64).collect();
    let ordered: Vec<f64> = (0..101).map(f64::from).collect();
    assert!((kendall_tau(&ordered, &shuffled).unwrap() - SCIPY_SHUFFLED).abs() < 1e-12);
    assert_eq!(kendall_tau(&[1.0; 5], &[1.0, 2.0, 3.0, 4.0, 5.0]), None);
    assert_eq!(kendall_tau(&[], &[]), None);
}

const SCIPY_TIES: f64 = 0.648_885_684_523_050_1;
const SCIPY_SHUFFLED: f64 = 0.030_495_049_504_950_498;

#[test]
fn intervals_hold_the_tau_and_shrink_with_samples() {
    let pairs = |n: usize| -> (Vec<f64>, Vec<f64>) {
        let noisy = samples(n, 2, 3, |x| x[0]);
        noisy.iter().map(|s| (s.features[0], s.value + 0.7 * s.features[1])).unzip()
    };
    let (a, b) = pairs(40);
    let few = Tau::of(&a, &b, 1).unwrap();
    assert!(few.low < few.tau && few.tau < few.high && few.se > 0.0, "{few:?}");
    let (c, d) = pairs(160);
    let many = Tau::of(&c, &d, 1).unwrap();
    assert!(many.high - many.low < 0.7 * (few.high - few.low), "{many:?} {few:?}");
    assert_eq!(Tau::of(&a, &b, 1), Some(few));
    assert_ne!(Tau::of(&a, &b, 2), Some(few));
}

#[test]
fn every_regressor_learns_a_line_and_all_but_the_linear_one_a_curve() {
    let folds = Folds::new(120, 5, 1).unwrap();
    for regressor in Regressor::ALL {
        let tau = |f: fn(&[f64]) -> f64| {
            let samples = samples(120, 6, 5, f);
            let validation = CrossValidation::of(regressor, &samples, &folds, 7).unwrap();
            assert_eq!(validation.fold_taus.len(), 5);
            validation.tau.unwrap().tau
        };
        let (line, curve) = (tau(linear), tau(curved));
        assert!(line > 0.7, "{}: {line}", regressor.name());
        match regressor {
            Regressor::Ridge => assert!(curve < 0.3, "{curve}"),
            _ => assert!(curve > 0.5, "{}: {curve}", regressor.name()),
        }
    }
}

#[test]
fn noise_is_not_learned() {
    let samples = samples(100, 5, 11, |x| x[4]);
    let blind: Vec<Sample> =
        samples.iter().map(|s| Sample { features: s.features[..4].to_vec(), value: s.value }).collect();
    let tau = Predictor::fit(&blind, 3).unwrap().tau().unwrap();
    assert!(tau.tau.abs() < 0.25 && tau.low < 0.05, "{tau:?}");
    // A leak would show here: with the value among the features it is perfect.
    assert!(Predictor::fit(&samples, 3).unwrap().tau().unwrap().tau > 0.9);
}

#[test]
fn the_best_regressor_is_chosen_and_predicts() {
    let lines = samples(60, 4, 2, linear);
    let predictor = Predictor::fit(&lines, 9).unwrap();
    assert_eq!(predictor.regressor(), Regressor::Ridge);
    let unseen = samples(30, 4, 99, linear);
    let points: Vec<&[f64]> = unseen.iter().map(|sample| &sample.features[..]).collect();
    for (estimate, sample) in predictor.predict(&points).unwrap().iter().zip(&unseen) {
        let gap = (estimate.value - sample.value).abs();
        assert!(gap < 0.003 && gap < 4.0 * estimate.spread + 1e-6, "{estimate:?} {}", sample.value);
    }
    assert!(predictor.error() < 0.003);
    let curves = Predictor::fit(&samples(120, 4, 2, curved), 9).unwrap();
    assert_ne!(curves.regressor(), Regressor::Ridge);
}

#[test]
fn predictions_do_not_depend_on_threads() {
    let samples = samples(40, 5, 8, curved);
    let run = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let fit = |&regressor: &Regressor| {
                let predictor = Predictor::fit_one_of(&[regressor], &samples, seed).unwrap();
                (predictor.tau(), predictor.predict(&[[0.1, -0.4, 0.3, 0.9, -0.2]]).unwrap())
            };
            Regressor::ALL.iter().map(fit).collect::<Vec<_>>()
        })
    };
    assert_eq!(run(1, 4), run(3, 4));
    assert_ne!(run(1, 4), run(1, 5), "folds and trees depend on the seed");
}

#[test]
fn unknown_and_constant_features_are_borne() {
    let mut samples = samples(40, 3, 8, |x| x[0]);
    for (at, sample) in samples.iter_mut().enumerate() {
        sample.features[1] = 5.0;
        if at % 4 == 0 {
            sample.features[2] = f64::NAN;
        }
    }
    for regressor in Regressor::ALL {
        let predictor = Predictor::fit_one_of(&[regressor], &samples, 1).unwrap();
        assert!(predictor.tau().unwrap().tau > 0.6, "{}", regressor.name());
        assert!(predictor.predict(&[[0.1, 7.0, f64::NAN]]).unwrap()[0].value.is_finite());
    }
}

#[test]
fn fewer_samples_than_features_are_enough() {
    let samples = samples(16, 40, 4, |x| x[..10].iter().sum());
    for regressor in Regressor::ALL {
        let predictor = Predictor::fit_one_of(&[regressor], &samples, 1).unwrap();
        let points: Vec<&[f64]> = samples.iter().map(|sample| &sample.features[..]).collect();
        let known: Vec<f64> = predictor.predict(&points).unwrap().iter().map(|e| e.value).collect();
        let values: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        assert!(kendall_tau(&known, &values).unwrap() > 0.6, "{}", regressor.name());
    }
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let good = samples(20, 2, 1, |x| x[0]);
    let refused = |samples: &[Sample]| Predictor::fit(samples, 1).err().unwrap().to_string();
    assert!(refused(&good[..9]).contains("needs 10 measured architectures, found 9"));
    let mut bad = good.clone();
    bad[3].value = f64::NAN;
    assert!(refused(&bad).contains("sample 3 has the value NaN"));
    let mut bad = good.clone();
    bad[3].features.pop();
    assert!(refused(&bad).contains("samples of"));
    assert!(Folds::new(5, 3, 1).unwrap_err().to_string().contains("needs at least 2 folds and 6 samples"));
    // Equal values have no rank, which is no error.
    let equal: Vec<Sample> = good.iter().map(|s| Sample { value: 1.0, ..s.clone() }).collect();
    assert_eq!(Predictor::fit(&equal, 1).unwrap().tau(), None);
}

#[test]
fn properties_are_compared_row_by_row() {
    let points = samples(60, 6, 21, |x| x[0]);
    let rows_of = |from: usize, to: usize| points.iter().map(|s| s.features[from..to].to_vec()).collect();
    let sets = [
        FeatureSet { name: "informed".into(), rows: rows_of(0, 3) },
        FeatureSet { name: "blind".into(), rows: rows_of(3, 6) },
        FeatureSet { name: "itself".into(), rows: rows_of(0, 1) },
    ];
    let mut values: Vec<Option<f64>> = points.iter().map(|s| Some(s.value)).collect();
    values[7] = None;
    let property = Property { name: "first".into(), values };
    let rows = property_rows(&property, &sets, 5, 1).unwrap();
    assert_eq!(rows.len(), 2 * (Regressor::ALL.len() + 1) + 1);
    for row in &rows {
        assert_eq!((row.samples, &row.property[..]), (59, "first"));
        let (tau, se) = (row.tau.unwrap(), row.tau_se.unwrap());
        assert!(se < 0.25, "{row:?}");
        match &row.features[..] {
            "informed" => assert!(tau > 0.6, "{row:?}"),
            "blind" => assert!(tau < 0.35, "{row:?}"),
            _ => assert_eq!((row.predictor, tau), (NO_REGRESSOR, 1.0)),
        }
    }
    assert_eq!(rows.iter().filter(|row| row.predictor == CHOSEN).count(), 2);
    let few =
        Property { values: property.values.iter().map(|v| v.filter(|v| *v > 0.8)).collect(), ..property };
    let error = property_rows(&few, &sets, 5, 1).unwrap_err().to_string();
    assert!(error.starts_with("first: ") && error.contains("13 are needed for 5 folds"), "{error}");
}

#[test]
fn a_learner_believes_the_most_trusted_fidelity_that_it_has_heard_enough_of() {
    let Architecture::Cells(darts) = predefined("DARTS").unwrap().arch else { panic!("DARTS has cells") };
    let arch = |number: usize| CellArchitecture {
        channels: 8 + 8 * (number % 7),
        n_cells: 4 + number / 7,
        ..darts.clone()
    };
    let features = |arch: &CellArchitecture| Ok(vec![arch.channels as f64, arch.n_cells as f64]);
    let mut learner = Learner::<u8>::new(features, 1);
    // The lower fidelity likes width, the higher one depth.
    let (wider, deeper) = (6, 14);
    let told = || (0..24).filter(move |number| ![wider, deeper].contains(number));
    for (heard, number) in told().enumerate() {
        assert_eq!(learner.fidelity(), (heard >= Learner::<u8>::FEWEST).then_some(0));
        let arch = arch(number);
        learner.tell(&arch, 0, arch.channels as f64);
        learner.tell(&arch, 1, f64::NAN);
    }
    let unseen = [arch(wider), arch(deeper)];
    let value = |learner: &Learner<u8>| learner.values(&unseen).unwrap().unwrap();
    assert!(value(&learner)[0] > value(&learner)[1], "the first is wider");
    for number in told() {
        let arch = arch(number);
        learner.tell(&arch, 1, arch.n_cells as f64);
    }
    assert_eq!(learner.fidelity(), Some(1));
    assert!(value(&learner)[0] < value(&learner)[1], "the second is deeper");
    assert!(learner.tau().unwrap().unwrap().tau > 0.8);
    assert!(Learner::<u8>::new(features, 1).values(&unseen).unwrap().is_none());
}
