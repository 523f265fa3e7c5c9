use super::*;
use crate::score::{NoiseScore, Scores};
use crate::search::formula::architecture;
use crate::space::Op;
use crate::study::{Refinement, Trial, TrialState};
use polars::prelude::{ParquetReader, SerReader};

fn trial(number: u64, value: Option<f64>, scores: Scores) -> Trial {
    Trial {
        number,
        state: if value.is_some() { TrialState::Finished } else { TrialState::Failed },
        reason: value.is_none().then(|| "the loss is NaN, \"quoted\"\nand more".into()),
        hash: format!("{number:016x}"),
        arch: architecture(8, 3, Op::Conv3x3),
        value,
        scores,
        started_ms: 1_767_225_600_123,
        finished_ms: Some(1_767_225_601_123),
        wall_s: Some(0.25),
        elapsed_s: Some(1.5),
        answers: None,
        dropped_by: None,
        refined: Vec::new(),
    }
}

fn trials() -> Vec<Trial> {
    let scores = |accuracy: f64, latency_ms: Option<f64>, params: u64| Scores {
        accuracy: Some(accuracy),
        accuracy_se: Some(0.01),
        noise: vec![NoiseScore { sd: 0.08, accuracy: accuracy / 2.0, accuracy_se: 0.02 }],
        latency_ms,
        params: Some(params),
        ..Scores::default()
    };
    vec![
        trial(0, Some(0.3), scores(0.3, Some(2.0), 500)),
        trial(1, None, Scores { params: Some(1), ..Scores::default() }),
        trial(2, Some(0.5), scores(0.5, None, 2_500_000)),
        trial(3, Some(0.5), scores(0.5, Some(1.0), 40_000)),
        trial(4, Some(-0.1), scores(0.1, Some(3.0), 500)),
    ]
}

fn order(key: SortKey) -> Vec<u64> {
    let trials = trials();
    let board = Leaderboard::new(&trials, key);
    board.ranked().iter().map(|trial| trial.number).collect()
}

#[test]
fn a_leaderboard_sorts_gains_down_costs_up_ties_by_number_and_nulls_last() {
    assert_eq!(order(SortKey::Objective), [2, 3, 0, 4]);
    assert_eq!(order(SortKey::Accuracy), [2, 3, 0, 4]);
    assert_eq!(order(SortKey::Latency), [3, 0, 4, 2]);
    assert_eq!(order(SortKey::Params), [0, 4, 3, 2]);
    assert_eq!(order(SortKey::Trial), [0, 2, 3, 4]);
    // Nobody has the score.
    assert_eq!(order(SortKey::Loss), [0, 2, 3, 4]);
    for key in SortKey::ALL {
        assert_eq!(key.name().parse::<SortKey>().unwrap(), key);
    }
    let error = "speed".parse::<SortKey>().unwrap_err().to_string();
    assert!(error.contains("unknown sort key \"speed\"; known are objective, accuracy"), "{error}");
}

#[test]
fn the_table_shows_the_first_ranks_and_counts_all_trials() {
    let trials = trials();
    let table = Leaderboard::new(&trials, SortKey::Latency).table(2);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines,
        [
            "rank  trial  objective        accuracy  robustness  latency  params  MACs  hash      network",
            "   1      3     0.5000  50.00 ± 1.00 %           -  1.00 ms  40.0 k     -  00000000  3 cells, C 8: conv_3x3 skip_connect",
            "   2      0     0.3000  30.00 ± 1.00 %           -  2.00 ms     500     -  00000000  3 cells, C 8: conv_3x3 skip_connect",
            "5 trials: 4 finished, 1 failed",
        ]
    );
    assert_eq!(Leaderboard::new(&trials[1..2], SortKey::Trial).table(9), "1 trial: 0 finished, 1 failed\n");
}

#[test]
fn a_frame_keeps_failed_trials_and_nulls_through_parquet() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trials.parquet");
    let trials = trials();
    let written = Leaderboard::new(&trials, SortKey::Latency).frame().unwrap();
    write_parquet(&written, &path).unwrap();
    let read = ParquetReader::new(std::fs::File::open(&path).unwrap()).finish().unwrap();
    assert!(read.equals_missing(&written));
    assert_eq!(read.height(), 5);
    let u64s = |name: &str| read.column(name).unwrap().u64().unwrap().iter().collect::<Vec<_>>();
    let f64s = |name: &str| read.column(name).unwrap().f64().unwrap().iter().collect::<Vec<_>>();
    assert_eq!(u64s("rank"), [Some(1), Some(2), Some(3), Some(4), None]);
    assert_eq!(u64s("trial"), [Some(3), Some(0), Some(4), Some(2), Some(1)]);
    assert_eq!(u64s("macs"), [None; 5]);
    assert_eq!(f64s("latency_ms"), [Some(1.0), Some(2.0), Some(3.0), None, None]);
    assert_eq!(f64s("accuracy_noise_0.08"), [Some(0.25), Some(0.15), Some(0.05), Some(0.25), None]);
    assert_eq!(f64s("objective")[4], None);
    let reasons = read.column("reason").unwrap().str().unwrap().clone();
    assert_eq!((reasons.get(0), reasons.get(4)), (None, trials[1].reason.as_deref()));
    let genotype = read.column("genotype").unwrap().str().unwrap().clone();
    let genotype: crate::space::Genotype = serde_json::from_str(genotype.get(0).unwrap()).unwrap();
    assert_eq!(genotype, trials[3].arch.genotype);
    let started = read.column("started").unwrap().str().unwrap().clone();
    assert_eq!(started.get(0), Some("2026-01-01T00:00:00.123Z"));
    assert_eq!(frame(&[]).unwrap().height(), 0);
}

#[test]
fn a_csv_has_empty_fields_for_nulls_and_an_unwritable_place_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leaderboard.csv");
    let trials = trials();
    let frame = Leaderboard::new(&trials[..1], SortKey::Objective).frame().unwrap();
    write_csv(&frame, &path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines();
    assert!(
        lines.next().unwrap().starts_with("rank,trial,state,reason,hash,objective,accuracy,accuracy_se,loss")
    );
    assert!(lines.next().unwrap().starts_with("1,0,finished,,0000000000000000,0.3,0.3,0.01,,"));
    let error = write_csv(&frame, &path.join("below/a/file.csv")).unwrap_err().to_string();
    assert!(error.starts_with("cannot write") && error.contains("below/a/file.csv"), "{error}");
}

/// A study of `count` candidates as a search could have made it.
fn searched(count: u64) -> Vec<Trial> {
    let waves = |n: u64, a: f64| ((n as f64 * a).sin() + 1.0) / 2.0;
    (0..count)
        .map(|n| {
            let latency_ms = 0.8 + 9.0 * waves(n, 1.7).powi(2) + 0.5 * waves(n, 7.3);
            let learnt = 1.0 - (-(n as f64) / 60.0).exp();
            let accuracy = 0.12 + 0.3 * waves(n, 3.1) + 0.2 * learnt + 0.2 * (latency_ms / 10.0).sqrt();
            let se = (accuracy * (1.0 - accuracy) / 1000.0).sqrt();
            let noise = [(0.08, 0.85), (0.16, 0.5)].map(|(sd, kept)| NoiseScore {
                sd,
                accuracy: accuracy * kept + 0.04 * waves(n, 5.0),
                accuracy_se: se,
            });
            let scores = Scores {
                accuracy: Some(accuracy),
                accuracy_se: Some(se),
                images: Some(1000),
                robustness: Some(noise.iter().map(|score| score.accuracy).sum::<f64>() / 2.0),
                noise: noise.to_vec(),
                latency_ms: Some(latency_ms),
                latency_batch: Some(1),
                latency_threads: Some(1),
                ..Scores::default()
            };
            let state = match n % 17 {
                5 => TrialState::Failed,
                9 => TrialState::Rejected,
                _ => TrialState::Finished,
            };
            let value = (state == TrialState::Finished).then_some(accuracy);
            Trial { state, value, elapsed_s: Some(0.4 * n as f64), ..trial(n, value, scores) }
        })
        .collect()
}

fn files_in(folder: &std::path::Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn plots_are_png_and_svg_with_title_axes_and_legend() {
    let folder = tempfile::tempdir().unwrap();
    let plots = write_plots(&searched(150), &"accuracy".parse().unwrap(), folder.path()).unwrap();
    assert_eq!((plots.written.len(), plots.left_out.len()), (6, 0));
    for (stem, texts) in [
        ("accuracy-latency", ["Accuracy against latency", "Latency (ms)", "Accuracy (%)", "Pareto front"]),
        ("best-so-far", ["Best candidate so far", "Trial", "Search time (s)", "best so far"]),
        ("clean-noisy", ["Clean accuracy (%)", "Accuracy under noise (%)", "noise sd 0.08", "noise sd 0.16"]),
    ] {
        let svg = std::fs::read_to_string(folder.path().join(stem).with_extension("svg")).unwrap();
        for text in texts {
            assert!(svg.contains(&format!("\n{text}\n")), "{stem}.svg lacks \"{text}\"");
        }
        let png = image::open(folder.path().join(stem).with_extension("png")).unwrap().to_rgb8();
        assert_eq!(png.dimensions(), (1600, 1024));
        let inked = png.pixels().filter(|pixel| pixel.0.iter().any(|&channel| channel < 128)).count();
        assert!(inked > 5_000, "{stem}.png holds {inked} dark pixels");
    }
}

#[test]
fn plots_of_one_candidate_are_drawn_and_plots_without_data_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let objective = "latency".parse().unwrap();
    let plots = write_plots(&searched(1), &objective, folder.path()).unwrap();
    assert_eq!((plots.written.len(), plots.left_out.len()), (6, 0));
    let folder = tempfile::tempdir().unwrap();
    let bare = [trial(0, Some(0.5), Scores { accuracy: Some(0.5), ..Scores::default() })];
    let plots = write_plots(&bare, &objective, folder.path()).unwrap();
    assert_eq!(files_in(folder.path()), ["best-so-far.png", "best-so-far.svg"]);
    assert_eq!(plots.left_out.len(), 2);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(write_plots(&trials()[1..2], &objective, folder.path()).unwrap().left_out.len(), 3);
    assert_eq!(files_in(folder.path()), [""; 0]);
}

#[test]
fn the_pareto_front_holds_the_undominated_finished_trials() {
    let at = |number: u64, latency_ms: f64, accuracy: f64| {
        trial(
            number,
            Some(0.0),
            Scores { accuracy: Some(accuracy), latency_ms: Some(latency_ms), ..Scores::default() },
        )
    };
    let mut trials =
        vec![at(0, 2.0, 0.5), at(1, 1.0, 0.4), at(2, 1.0, 0.3), at(3, 3.0, 0.5), at(4, 2.0, 0.5)];
    trials.extend([at(5, 4.0, 0.9), at(6, 0.1, 0.1), trial(7, None, at(7, 0.0, 1.0).scores)]);
    trials.push(trial(8, Some(1.0), Scores { accuracy: Some(1.0), ..Scores::default() }));
    let front: Vec<u64> = pareto_front(&trials).iter().map(|trial| trial.number).collect();
    assert_eq!(front, [6, 1, 0, 5]);
    let searched = searched(200);
    let front = pareto_front(&searched);
    let scores = |trial: &Trial| (trial.scores.latency_ms.unwrap(), trial.scores.accuracy.unwrap());
    for trial in searched.iter().filter(|trial| trial.state == TrialState::Finished) {
        let (latency, accuracy) = scores(trial);
        let dominated = front
            .iter()
            .map(|f| scores(f))
            .any(|(l, a)| l <= latency && a >= accuracy && (l < latency || a > accuracy));
        assert_eq!(dominated, !front.iter().any(|f| f.number == trial.number), "trial {}", trial.number);
    }
}

#[test]
fn several_objectives_mark_and_sort_by_the_front() {
    let at = |number: u64, accuracy: f64, macs: u64| {
        let scores = Scores { accuracy: Some(accuracy), macs: Some(macs), ..Scores::default() };
        Trial { state: TrialState::Finished, reason: None, ..trial(number, None, scores) }
    };
    let mut trials = vec![at(0, 0.5, 30), at(1, 0.4, 20), at(2, 0.9, 90), at(3, 0.3, 25)];
    trials.push(trial(4, None, Scores { accuracy: Some(1.0), macs: Some(1), ..Scores::default() }));
    let objective = "accuracy,macs".parse().unwrap();
    assert_eq!(fronts(&trials, &objective), [(0, 1), (1, 1), (2, 1), (3, 2)].into());
    assert!(fronts(&trials, &"accuracy".parse().unwrap()).is_empty());
    let board = Leaderboard::of(&trials, SortKey::Objective, &objective);
    assert_eq!(board.ranked().iter().map(|trial| trial.number).collect::<Vec<_>>(), [2, 0, 1, 3]);
    let table = board.table(9);
    assert!(table.starts_with("rank  trial  front  accuracy"), "{table}");
    assert!(table.ends_with("5 trials: 4 finished, 1 failed, 3 on the Pareto front\n"), "{table}");
    let frame = trials_frame(&trials, &objective).unwrap();
    let front = frame.column("front").unwrap().u64().unwrap().iter().collect::<Vec<_>>();
    assert_eq!(front, [Some(1), Some(1), Some(1), Some(2), None]);

    let folder = tempfile::tempdir().unwrap();
    let plots = write_plots(&trials, &objective, folder.path()).unwrap();
    assert_eq!(
        files_in(folder.path()),
        ["accuracy-macs.png", "accuracy-macs.svg", "hypervolume.png", "hypervolume.svg"]
    );
    assert_eq!(plots.left_out.len(), 2, "{:?}", plots.left_out);
    let svg = std::fs::read_to_string(folder.path().join("accuracy-macs.svg")).unwrap();
    for text in ["Accuracy against multiply-accumulates", "Multiply-accumulates (millions)", "Pareto front"] {
        assert!(svg.contains(&format!("\n{text}\n")), "no \"{text}\"");
    }
}

#[test]
fn what_was_reached_is_measured_from_the_worst_of_all_runs() {
    let at = |number: u64, accuracy: f64, macs: u64| {
        let scores = Scores { accuracy: Some(accuracy), macs: Some(macs), ..Scores::default() };
        Trial {
            state: TrialState::Finished,
            value: Some(accuracy),
            reason: None,
            ..trial(number, None, scores)
        }
    };
    let run = |group: &str, trials: Vec<Trial>| Run { group: group.into(), name: group.into(), trials };
    let failed = trial(0, None, Scores::default());
    // Accuracies from 0 to 1, costs from 10 to 50 million.
    let runs = [
        run("a", vec![at(0, 0.5, 30_000_000), at(1, 1.0, 50_000_000), at(2, 0.25, 10_000_000)]),
        run("b", vec![failed, at(1, 0.0, 50_000_000), at(2, 0.5, 10_000_000)]),
    ];
    let several = anytime(&runs, &"accuracy,macs".parse().unwrap()).unwrap();
    assert_eq!(several, [[0.25, 0.25, 0.375], [0.0, 0.0, 0.5]]);
    let one = anytime(&runs, &"accuracy".parse().unwrap()).unwrap();
    assert_eq!(one[0], [0.5, 1.0, 1.0]);
    assert!(one[1][0].is_nan() && one[1][1..] == [0.0, 0.5]);
    let folder = tempfile::tempdir().unwrap();
    write_anytime(&runs, &"accuracy".parse().unwrap(), &folder.path().join("anytime")).unwrap();
    let csv = std::fs::read_to_string(folder.path().join("anytime.csv")).unwrap();
    assert!(csv.starts_with("group,run,candidates,best\na,a,1,0.5\n"), "{csv}");
    assert!(csv.contains("\nb,b,1,\n"), "{csv}");
    assert_eq!(files_in(folder.path()), ["anytime.csv", "anytime.png", "anytime.svg"]);
    let mixed = [("a".to_string(), "accuracy".parse().unwrap()), ("b".to_string(), "loss".parse().unwrap())];
    let error = common_objective(&mixed).unwrap_err().to_string();
    assert!(error.contains("a searches for accuracy, b for loss"), "{error}");
}

#[test]
fn plots_show_trained_beside_predicted_weights() {
    let mut trials = trials();
    let scores = Scores { accuracy: Some(0.9), robustness: Some(0.8), ..trials[0].scores.clone() };
    for (fidelity, value, elapsed_s) in [("sgd:20", 0.7, 70.0), ("sgd:60", 0.9, 90.0)] {
        let fidelity = fidelity.parse().unwrap();
        let scores = Scores { accuracy: Some(value), ..scores.clone() };
        let refined = Refinement {
            fidelity,
            value: Some(value),
            reason: None,
            scores,
            finished_ms: 0,
            wall_s: 1.0,
            elapsed_s,
        };
        trials[0].refined.push(refined);
    }
    let folder = tempfile::tempdir().unwrap();
    write_plots(&trials, &"accuracy".parse().unwrap(), folder.path()).unwrap();
    let line = "best, longest trained (sgd:60)";
    for (stem, texts) in [
        ("best-so-far", &["predicted weights", "best of these", "trained weights", line][..]),
        ("best-so-far", &["best: trial 0 (90.00 %)"]),
        ("accuracy-latency", &["candidate, predicted weights", "candidate, trained weights"]),
        ("clean-noisy", &["noise sd 0.08, predicted weights", "trained weights"]),
    ] {
        let svg = std::fs::read_to_string(folder.path().join(format!("{stem}.svg"))).unwrap();
        for text in texts {
            assert!(svg.contains(&format!("\n{text}\n")), "{stem}.svg lacks \"{text}\"");
        }
    }
}
