use super::formula::FormulaSpace;
use super::*;
use rand::Rng;

fn error_of(text: &str) -> String {
    text.parse::<Objective>().unwrap_err().to_string()
}

fn some_scores() -> Scores {
    Scores {
        accuracy: Some(0.5),
        robustness: Some(0.25),
        latency_ms: Some(8.0),
        params: Some(3_000_000),
        macs: Some(40_000_000),
        ..Scores::default()
    }
}

#[test]
fn an_objective_is_a_weighted_sum_and_costs_count_negatively() {
    let value = |text: &str| match text.parse::<Objective>().unwrap().merits(&some_scores()).unwrap()[..] {
        [value] => value,
        _ => panic!("{text} is not one objective"),
    };
    assert_eq!(value("accuracy"), 0.5);
    assert_eq!(value("robustness"), 0.25);
    assert_eq!(value("latency"), -8.0);
    assert_eq!(value("accuracy, latency=-0.01"), 0.5 - 0.08);
    assert_eq!(value("accuracy=1,robustness=0.5,latency=-0.01"), 0.5 + 0.125 - 0.08);
    assert_eq!(value("params=-0.1,macs=-0.01"), -0.1 * 3.0 + -0.01 * 40.0);
}

#[test]
fn names_without_weights_are_several_objectives() {
    let objective = |text: &str| text.parse::<Objective>().unwrap();
    let several = objective("accuracy, latency,macs");
    assert_eq!(several.merits(&some_scores()).unwrap(), [0.5, -8.0, -40.0]);
    assert_eq!((several.count(), several.is_pareto()), (3, true));
    for text in ["accuracy", "accuracy=1,latency=-1", "accuracy,latency=-1"] {
        assert_eq!((objective(text).count(), objective(text).is_pareto()), (1, false), "{text}");
    }
    // What earlier versions wrote for names without weights stays the sum that they meant.
    assert_eq!(objective("accuracy=1,latency=-1").merits(&some_scores()).unwrap(), [0.5 - 8.0]);
}

#[test]
fn an_objective_is_written_as_it_is_read() {
    let sum = "accuracy=1,robustness=0.5,latency=-0.01";
    for text in ["accuracy", "latency", sum, "accuracy=2", "accuracy,latency", "accuracy=1,latency=-1"] {
        let objective: Objective = text.parse().unwrap();
        assert_eq!(objective.to_string(), text);
        let json = serde_json::to_string(&objective).unwrap();
        assert_eq!(serde_json::from_str::<Objective>(&json).unwrap(), objective);
    }
}

#[test]
fn a_wrong_objective_is_refused_with_the_reason() {
    assert!(
        error_of("acuracy").contains("unknown score \"acuracy\"; known are accuracy, robustness, latency")
    );
    assert!(error_of("accuracy=").contains("\"\" is not a number"));
    assert!(error_of("").contains("unknown score \"\""));
    assert!(error_of("accuracy,").contains("unknown score \"\""));
    assert!(error_of("latency=0.01").contains("weight must be negative"));
    assert!(error_of("accuracy=-1").contains("weight must be positive"));
    assert!(error_of("accuracy=0").contains("weight must be positive"));
    assert!(error_of("accuracy=NaN").contains("weight must be positive"));
    assert!(error_of("accuracy=inf").contains("weight must be positive"));
    assert!(error_of("accuracy=1,accuracy=2").contains("given twice"));
}

#[test]
fn an_objective_of_scores_that_are_absent_or_not_finite_is_an_error() {
    let objective: Objective = "accuracy,latency".parse().unwrap();
    let error = objective.merits(&Scores { latency_ms: None, ..some_scores() }).unwrap_err();
    assert!(error.to_string().contains("needs latency, which was not measured"), "{error}");
    let error = objective.merits(&Scores { accuracy: Some(f64::NAN), ..some_scores() }).unwrap_err();
    assert!(matches!(error, crate::Error::NonFinite(_)), "{error}");
}

#[test]
fn limits_name_what_was_broken() {
    let limits =
        Limits { max_params: Some(2_999_999), max_macs: Some(39_999_999), max_latency_ms: Some(7.5) };
    assert_eq!(limits.breach_of_cost(&some_scores()).unwrap(), "params 3000000 over the limit 2999999");
    let roomy = Limits { max_params: Some(3_000_000), ..limits };
    assert_eq!(roomy.breach_of_cost(&some_scores()).unwrap(), "MACs 40000000 over the limit 39999999");
    assert_eq!(limits.breach_of_latency(&some_scores()).unwrap(), "latency 8.000 ms over the limit 7.5 ms");
    let unmeasured = Scores::default();
    assert!(limits.breach_of_cost(&unmeasured).is_some() && limits.breach_of_latency(&unmeasured).is_some());
    let nan = Scores { latency_ms: Some(f64::NAN), ..Scores::default() };
    assert!(limits.breach_of_latency(&nan).is_some());
    assert_eq!(Limits::default().breach_of_cost(&some_scores()), None);
    assert_eq!(Limits::default().breach_of_latency(&unmeasured), None);
}

#[test]
fn impossible_limits_and_budgets_are_refused() {
    let bad_limits = [
        Limits { max_params: Some(0), ..Limits::default() },
        Limits { max_macs: Some(0), ..Limits::default() },
        Limits { max_latency_ms: Some(0.0), ..Limits::default() },
        Limits { max_latency_ms: Some(f64::NAN), ..Limits::default() },
    ];
    assert!(bad_limits.iter().all(|limits| limits.check().is_err()));
    let bad_budgets = [
        Budget::default(),
        Budget { trials: Some(0), ..Budget::default() },
        Budget { patience: Some(0), ..Budget::default() },
        Budget { seconds: Some(-1.0), ..Budget::default() },
        Budget { trials: Some(3), seconds: Some(f64::INFINITY), ..Budget::default() },
    ];
    assert!(bad_budgets.iter().all(|budget| budget.check().is_err()));
    assert!(RegularisedEvolution::new(1, 1, Parents::Scored).is_err());
    assert!(RegularisedEvolution::new(8, 0, Parents::Scored).is_err());
    assert!(RegularisedEvolution::new(8, 9, Parents::Scored).is_err());
}

#[test]
fn trials_have_generators_of_their_own() {
    let mut firsts: Vec<u64> = (0..4)
        .flat_map(|seed| (0..50).flat_map(move |n| [proposal_rng(seed, n).next_u64(), trial_seed(seed, n)]))
        .collect();
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), 400);
    assert_eq!(proposal_rng(3, 9).next_u64(), proposal_rng(3, 9).next_u64());
}

fn told<'a>(trial: u64, arch: &'a CellArchitecture, merits: Option<&'a [f64]>) -> Outcome<'a> {
    Outcome { trial, arch, merits, chosen_after: Some(trial) }
}

#[test]
fn the_oldest_member_dies_however_good_it_is() {
    let space = FormulaSpace { sizes: 60 };
    let mut evolution = RegularisedEvolution::new(2, 2, Parents::Scored).unwrap();
    let arch = |channels| formula::architecture(channels, 30, crate::space::Op::Conv3x3);
    let far_from = |evolution: &RegularisedEvolution, channels: usize| {
        let child = evolution.ask(&space, 0, &mut proposal_rng(0, 9)).unwrap();
        child.channels.abs_diff(channels)
    };
    evolution.tell(told(0, &arch(10), Some(&[9.0])));
    evolution.tell(told(1, &arch(30), Some(&[1.0])));
    assert!(far_from(&evolution, 10) <= 1);
    // Failures do not age the population.
    evolution.tell(told(2, &arch(50), None));
    assert!(far_from(&evolution, 10) <= 1);
    evolution.tell(told(3, &arch(50), Some(&[2.0])));
    assert!(far_from(&evolution, 50) <= 1);
}

#[test]
fn children_of_trained_parents_come_of_the_best_at_the_highest_fidelity() {
    let space = FormulaSpace { sizes: 1_000 };
    let mut evolution = RegularisedEvolution::new(2, 2, Parents::Trained).unwrap();
    let arch = |channels| formula::architecture(channels, 500, crate::space::Op::Conv3x3);
    let child = |evolution: &RegularisedEvolution| {
        evolution.ask(&space, 0, &mut proposal_rng(0, 9)).unwrap().channels
    };
    let is_near =
        |evolution: &RegularisedEvolution, channels: usize| child(evolution).abs_diff(channels) <= 1;
    let drawn = Random.ask(&space, 0, &mut proposal_rng(0, 9)).unwrap().channels;
    evolution.tell(told(0, &arch(100), Some(&[9.0])));
    evolution.tell(told(1, &arch(300), Some(&[8.0])));
    assert_eq!(child(&evolution), drawn, "nobody was trained");
    let [short, long] = [20, 200].map(|steps| Fidelity::He { steps });
    evolution.tell_refined(told(1, &arch(300), Some(&[0.3])), short);
    assert!(is_near(&evolution, 300));
    evolution.tell_refined(told(0, &arch(100), Some(&[0.2])), short);
    assert!(is_near(&evolution, 300));
    // More steps count more than a higher value after fewer, and a trial stands once.
    evolution.tell_refined(told(0, &arch(100), Some(&[0.25])), long);
    assert!(is_near(&evolution, 100));
    // The best stay, however old they are; failures never come in.
    evolution.tell_refined(told(2, &arch(500), Some(&[0.1])), short);
    evolution.tell_refined(told(3, &arch(700), None), long);
    evolution.tell_refined(told(4, &arch(900), Some(&[0.29])), short);
    assert!(is_near(&evolution, 100));
    assert_eq!(evolution.lessons(), Some(2));
}
