use super::*;
use crate::score::{Fidelity, NoiseScore, Scores};
use crate::search::formula::architecture;
use crate::search::{Budget, Forecast, Limits, StopReason};
use crate::space::Op;
use crate::study::{Machine, Refinement};
use serde_json::json;
use std::collections::BTreeSet;

const HOSTILE: &str = "</script><img src=x onerror=alert(1)>&{{data}}\u{2028}'\"";

fn trial(number: u64) -> Trial {
    let state = match number % 7 {
        3 => TrialState::Failed,
        5 => TrialState::Rejected,
        6 => TrialState::Running,
        _ => TrialState::Finished,
    };
    let finished = state == TrialState::Finished;
    let wave = |speed: f64| ((number as f64 * speed).sin() + 1.0) / 2.0;
    let accuracy = 0.1 + 0.7 * wave(1.3);
    let op = Op::ALL[number as usize % Op::ALL.len()];
    Trial {
        number,
        state,
        reason: (!finished).then(|| format!("reason {number} {HOSTILE}")),
        hash: format!("{number:032x}"),
        arch: architecture(8 + number as usize % 5, 3 + number as usize % 4, op),
        value: finished.then_some(accuracy),
        scores: Scores {
            accuracy: finished.then_some(accuracy),
            accuracy_se: finished.then_some((accuracy * (1.0 - accuracy) / 1024.0).sqrt()),
            images: finished.then_some(1024),
            noise: vec![NoiseScore { sd: 0.08, accuracy: accuracy * 0.9, accuracy_se: 0.01 }],
            robustness: finished.then_some(accuracy * 0.9),
            latency_ms: finished.then_some(0.5 + 3.0 * wave(2.7)),
            params: Some(100_000 + 1000 * number),
            macs: Some(1_000_000 + 7919 * number),
            ..Scores::default()
        },
        started_ms: 1_767_225_600_000 + 500 * number,
        finished_ms: (state != TrialState::Running).then(|| 1_767_225_600_400 + 500 * number),
        wall_s: (state != TrialState::Running).then_some(0.4),
        elapsed_s: (state != TrialState::Running).then(|| 0.5 * (number + 1) as f64),
        answers: None,
        dropped_by: None,
        refined: Vec::new(),
    }
}

fn study(name: &str, count: u64, strategy: Value) -> ReportedStudy {
    let settings = SearchSettings {
        space: json!({ "name": name, "toml": format!("name = \"{name}\"") }),
        strategy: serde_json::from_value(strategy).unwrap(),
        ..serde_json::from_value(json!({
            "space": {}, "seed": 7, "strategy": { "name": "random" }, "objective": "accuracy", "lookahead": 4,
            "limits": Limits::default(),
            "evaluation": { "settings": { "images": name, "ghn": HOSTILE }, "ghn_sha256": "00" },
        }))
        .unwrap()
    };
    let budget = Budget { trials: Some(count.max(1)), ..Budget::default() };
    let record = StudyRecord {
        created: "2026-01-01T00:00:00.000Z".into(),
        machine: Machine {
            os: "os".into(),
            arch: "arch".into(),
            processor: Some(HOSTILE.into()),
            threads: 2,
        },
        ..StudyRecord::new(settings, budget)
    };
    let stopped = Event::Stopped {
        time_ms: 1_767_225_700_000,
        elapsed_s: 60.0,
        reason: StopReason::Trials,
        forecast: None,
    };
    ReportedStudy {
        name: name.into(),
        record,
        events: vec![stopped],
        trials: (0..count).map(trial).collect(),
    }
}

fn random(count: u64) -> ReportedStudy {
    study("study", count, json!({ "name": "random" }))
}

fn page(study: &ReportedStudy) -> String {
    report_page(study, None).unwrap()
}

/// The page's data as a browser reads it.
fn data_of(page: &str) -> Value {
    let (_, rest) = page.split_once("<script type=\"application/json\" id=\"study\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// A packed column unpacked.
fn column(data: &Value, name: &str) -> Vec<Value> {
    let columns = data["columns"].as_array().unwrap();
    let values = &columns.iter().find(|column| column["name"] == name).expect(name)["values"];
    let rows = data["rows"].as_u64().unwrap() as usize;
    match values {
        Value::Array(values) => values.clone(),
        packed if packed.get("same").is_some() => vec![packed["same"].clone(); rows],
        packed => {
            let codes = packed["at"].as_array().unwrap();
            codes.iter().map(|code| packed["of"][code.as_u64().unwrap() as usize].clone()).collect()
        }
    }
}

/// Walks over all tags and fails unless each is closed in its turn; returns the tags' names with their attributes.
fn tags(page: &str) -> Vec<String> {
    const VOID: [&str; 5] = ["meta", "input", "br", "img", "link"];
    let mut open: Vec<String> = Vec::new();
    let mut seen = Vec::new();
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        if rest.starts_with("<!DOCTYPE") {
            rest = &rest[1..];
            continue;
        }
        let end = rest.find('>').expect("a tag that never ends");
        let (tag, behind) = (&rest[1..end], &rest[end + 1..]);
        assert_eq!(tag.matches('"').count() % 2, 0, "an open quote in <{tag}>");
        rest = behind;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "</{name}> closes another element");
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_string();
        seen.push(tag.to_string());
        if tag.ends_with('/') || VOID.contains(&name.as_str()) {
            continue;
        }
        if name == "script" || name == "style" {
            let close = format!("</{name}>");
            let (content, behind) = rest.split_once(&close).expect("an element that never ends");
            assert!(!content.contains("<!--"), "a comment inside {name}");
            rest = behind;
            continue;
        }
        open.push(name);
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    seen
}

#[test]
fn the_page_is_well_formed_and_asks_for_nothing_outside() {
    for study in [random(0), random(1), random(40), study(HOSTILE, 12, json!({ "name": "random" }))] {
        let page = page(&study);
        let tags = tags(&page);
        let named = |name: &str| tags.iter().filter(|tag| tag.split([' ', '/']).next() == Some(name)).count();
        assert_eq!(["html", "head", "body", "h1", "main"].map(named), [1; 5]);
        assert_eq!((named("script"), named("img"), named("link"), named("iframe")), (2, 0, 0, 0));
        for tag in &tags {
            for attribute in [" src=", " srcset=", " onerror=", " onload=", " onclick=", "http:", "https:"] {
                let place = tag.find(attribute);
                assert!(place.is_none(), "<{tag}> has {attribute}");
            }
            if let Some((_, target)) = tag.split_once("href=\"") {
                assert!(target.starts_with('#'), "<{tag}> leaves the page");
            }
        }
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        for reach in ["fetch(", "XMLHttpRequest", "import(", "innerHTML", "eval(", "new Function"] {
            assert!(!SCRIPT.contains(reach), "the script has {reach}");
        }
        let ids: Vec<&str> =
            tags.iter().filter_map(|tag| Some(tag.split_once(" id=\"")?.1.split_once('"')?.0)).collect();
        assert_eq!(ids.len(), ids.iter().collect::<BTreeSet<_>>().len(), "an id is used twice: {ids:?}");
    }
}

#[test]
fn the_policy_allows_the_pages_own_script_only() {
    let page = page(&random(3));
    let policy = format!("script-src {}\">", escape::script_hash(SCRIPT));
    assert!(page.contains("default-src 'none'") && page.contains(&policy));
    assert!(page.contains(&format!("<script>{SCRIPT}</script>")));
}

#[test]
fn all_trials_come_back_from_the_data() {
    let study = random(40);
    let data = data_of(&page(&study));
    assert_eq!(data["rows"], 40);
    let numbers: Vec<u64> = column(&data, "trial").iter().map(|number| number.as_u64().unwrap()).collect();
    assert_eq!(numbers.iter().copied().collect::<BTreeSet<u64>>(), (0..40).collect());
    let columns =
        ["state", "reason", "hash", "objective", "accuracy", "accuracy_se", "latency_ms", "params", "macs"]
            .map(|name| column(&data, name));
    let settings =
        ["C", "n_cells", "fc_dim", "elapsed_s", "accuracy_noise_0.08"].map(|name| column(&data, name));
    for (row, number) in numbers.into_iter().enumerate() {
        let trial = &study.trials[number as usize];
        let scores = &trial.scores;
        let expected = [
            json!(trial.state.name()),
            json!(trial.reason),
            json!(trial.hash),
            json!(trial.value),
            json!(scores.accuracy),
            json!(scores.accuracy_se),
            json!(scores.latency_ms),
            json!(scores.params),
            json!(scores.macs),
        ];
        for (found, expected) in columns.iter().zip(expected) {
            assert_eq!(found[row], expected, "trial {number}");
        }
        let expected = [
            json!(trial.arch.channels),
            json!(trial.arch.n_cells),
            json!(trial.arch.fc_dim),
            json!(trial.elapsed_s),
            json!(scores.noise[0].accuracy),
        ];
        for (found, expected) in settings.iter().zip(expected) {
            assert_eq!(found[row], expected, "trial {number}");
        }
        let coded = &data["genotypes"][row];
        let edges = |cell: &[crate::space::Edge]| -> Vec<Value> {
            let named = |op: Op| Op::ALL.iter().position(|&other| other == op).unwrap();
            cell.iter().flat_map(|edge| [json!(named(edge.0)), json!(edge.1)]).collect()
        };
        assert_eq!(coded[0], Value::Array(edges(&trial.arch.genotype.normal)));
        assert_eq!(coded[2], Value::Array(edges(&trial.arch.genotype.reduce)));
        assert_eq!(coded[3], json!(trial.arch.genotype.reduce_concat));
    }
    assert_eq!(data["operations"], json!(Op::ALL.map(Op::name)));
}

#[test]
fn hostile_text_stays_text() {
    let study = study(HOSTILE, 12, json!({ "name": "random" }));
    let page = page(&study);
    assert!(!page.contains("<img") && !page.contains("onerror=alert(1)>"), "markup got through");
    assert_eq!(page.matches("</script>").count(), 2);
    let data = data_of(&page);
    assert_eq!(data["study"], HOSTILE);
    let reasons = column(&data, "reason");
    assert!(reasons.contains(&json!(format!("reason 3 {HOSTILE}"))));
    assert!(page.contains("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;&amp;{{data}}"));
}

#[test]
fn the_same_study_gives_the_same_page() {
    let (one, other) = (random(40), random(40));
    assert_eq!(page(&one), page(&other));
    assert_ne!(page(&one), page(&random(41)));
}

#[test]
fn empty_and_single_studies_have_pages() {
    let empty = page(&random(0));
    assert!(empty.contains("No candidate finished, so there is nothing to draw."));
    assert!(empty.contains("no candidate was scored"));
    assert_eq!(data_of(&empty)["rows"], 0);
    let single = page(&random(1));
    let data = data_of(&single);
    assert_eq!((column(&data, "trial"), column(&data, "rank")), (vec![json!(0)], vec![json!(1)]));
    assert_eq!(data["random"]["expected"], json!({}), "one draw has no curve");
    assert_eq!(single.matches("<article class=\"winner\">").count(), 1);
}

#[test]
fn winners_with_the_same_cells_are_drawn_once() {
    let mut study = random(40);
    let page_of_all = page(&study);
    assert_eq!(page_of_all.matches("<article class=\"winner\">").count(), 3);
    assert_eq!(page_of_all.matches("<svg class=\"cell\"").count(), 6);
    let best = study.trials.iter().filter(|trial| trial.value.is_some());
    let best = best.max_by(|a, b| a.value.unwrap().total_cmp(&b.value.unwrap())).unwrap();
    let op = best.arch.genotype.normal[0].0;
    assert!(page_of_all.contains(&format!(">{op}</text></g><path")), "{op} is not drawn");
    let genotype = study.trials[0].arch.genotype.clone();
    study.trials.iter_mut().for_each(|trial| trial.arch.genotype = genotype.clone());
    assert_eq!(page(&study).matches("<article class=\"winner\">").count(), 1);
}

#[test]
fn a_thousand_trials_fit_in_a_small_page() {
    let bytes = page(&random(1000)).len();
    assert!(bytes < 1_000_000, "{bytes} bytes");
}

#[test]
fn random_draws_are_those_before_the_search_learns() {
    let finished = |study: &ReportedStudy| study.trials.iter().filter(|t| t.value.is_some()).count();
    let all = random(40);
    assert_eq!(data_of(&page(&all))["random"]["trials"], finished(&all));
    let evolution = study("study", 40, json!({ "name": "evolution", "population": 6, "sample": 2 }));
    let drawn = expected::random_trials(&evolution.record.settings, &evolution.trials);
    // Of the trials 0 to 8, 0 1 2 4 7 8 are finished, and trial n knows those up to n - 4: 11 is the last that does
    // not know six.
    let numbers: Vec<u64> = drawn.iter().map(|trial| trial.number).collect();
    assert_eq!(numbers, [0, 1, 2, 4, 7, 8, 9, 11]);
    // With trained parents, all that began before somebody was trained.
    let trained = json!({ "name": "evolution", "population": 6, "sample": 2, "parents": "trained" });
    let mut bred = study("study", 40, trained);
    let count = |bred: &ReportedStudy| expected::random_trials(&bred.record.settings, &bred.trials).len();
    assert_eq!(count(&bred), finished(&bred), "nobody was trained");
    bred.trials.iter_mut().for_each(|trial| trial.started_ms = 10 * trial.number);
    bred.trials[4].refined.push(Refinement {
        fidelity: Fidelity::He { steps: 5 },
        value: Some(0.5),
        reason: None,
        scores: Scores::default(),
        finished_ms: 195,
        wall_s: 1.0,
        elapsed_s: 1.0,
    });
    let early = bred.trials[..20].iter().filter(|trial| trial.value.is_some()).count();
    assert_eq!(count(&bred), early);
    let data = data_of(&page(&evolution));
    let curve = &data["random"]["expected"]["accuracy"];
    assert_eq!(curve["n"], json!([1, 2, 3, 4, 5, 6, 7, 8]));
    let accuracies: Vec<f64> = drawn.iter().filter_map(|trial| trial.scores.accuracy).collect();
    let mean = accuracies.iter().sum::<f64>() / 8.0;
    let best = accuracies.iter().copied().fold(0.0, f64::max);
    let found = |n: usize| curve["value"][n].as_f64().unwrap();
    assert!((found(0) - mean).abs() < 1e-12 && found(7) == best);
    // Costs are best where they are least.
    let least = drawn.iter().filter_map(|trial| trial.scores.latency_ms).fold(f64::INFINITY, f64::min);
    assert_eq!(data["random"]["expected"]["latency_ms"]["value"][7], json!(least));
}

#[test]
fn several_objectives_rank_by_front() {
    let mut study = study("study", 40, json!({ "name": "nsga2", "population": 6 }));
    study.record.settings.objective = "accuracy,latency".parse().unwrap();
    study.trials.iter_mut().for_each(|trial| trial.value = None);
    let data = data_of(&page(&study));
    let fronts: Vec<u64> = column(&data, "front").iter().filter_map(Value::as_u64).collect();
    assert_eq!(fronts[0], 1, "the first rank is on the front");
    assert!(fronts.is_sorted() && fronts.len() > 10, "{fronts:?}");
    assert_eq!(data["target"], "accuracy");
}

#[test]
fn a_control_brings_its_own_curve() {
    let searched = study("study", 40, json!({ "name": "evolution", "population": 6, "sample": 2 }));
    let mut control = random(14);
    control.name = "control".into();
    let data = data_of(&report_page(&searched, Some(&control)).unwrap());
    assert_eq!(
        (&data["control"]["name"], &data["control"]["random"]["trials"]),
        (&json!("control"), &json!(8))
    );
    let steps = &data["control"]["best"]["accuracy"];
    let values: Vec<f64> = steps["value"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(values.windows(2).all(|pair| pair[0] <= pair[1]) && steps["n"][0] == json!(1.0));
    let best = control.trials.iter().filter_map(|trial| trial.scores.accuracy).fold(0.0, f64::max);
    assert_eq!(values.last(), Some(&best));

    let (ours, theirs) = (&searched.record.settings, &control.record.settings);
    assert!(obstacles_to_control(ours, theirs).is_empty(), "{:?}", obstacles_to_control(ours, theirs));
    let other = SearchSettings { objective: "latency".parse().unwrap(), ..theirs.clone() };
    assert_eq!(obstacles_to_control(ours, &other), ["objective: \"accuracy\", not \"latency\""]);
}

#[test]
fn a_study_of_several_fidelities_says_how_far_they_agree() {
    use crate::score::Fidelity;
    use crate::study::Refinement;
    let mut study = random(60);
    assert!(!report_page(&study, None).unwrap().contains("id=\"reliability\""));
    for trial in study.trials.iter_mut().filter(|trial| trial.state == TrialState::Finished) {
        let accuracy = 1.0 - trial.value.unwrap();
        trial.refined.push(Refinement {
            fidelity: Fidelity::Sgd { steps: 50 },
            value: Some(accuracy),
            reason: None,
            scores: Scores { accuracy: Some(accuracy), ..trial.scores.clone() },
            finished_ms: 0,
            wall_s: 1.0,
            elapsed_s: 1.0,
        });
    }
    let page = report_page(&study, None).unwrap();
    let section =
        page.split("id=\"reliability\"").nth(1).expect("a section").split("</section>").next().unwrap();
    // The order after training is the opposite one; the robustness stayed as it was.
    assert!(section.contains("<td>accuracy</td><td>predicted</td><td>sgd:50</td>"), "{section}");
    assert!(section.contains("<td>-1.00 (-1.00 to -1.00)</td>"), "{section}");
    assert!(section.contains("<td>1.00 (1.00 to 1.00)</td>"), "{section}");
    assert!(section.contains("random order of those at predicted"), "{section}");
    // A candidate that a race dropped has an estimate, which proves nothing.
    let finished = study.trials.iter().filter(|trial| trial.state == TrialState::Finished).count();
    study.trials[0].dropped_by = Some(1);
    let scores = crate::report::fidelity_scores(&study.trials, &"accuracy".parse().unwrap());
    let counts: Vec<usize> = scores.iter().map(|level| level.values.iter().flatten().count()).collect();
    assert_eq!(counts, [finished - 1, finished]);
}

#[test]
fn a_study_that_trained_says_what_its_predictor_and_its_stages_were() {
    let mut study = random(4);
    study.trials[2].refined.push(Refinement {
        fidelity: Fidelity::Sgd { steps: 40 },
        value: Some(0.875),
        reason: None,
        scores: Scores { accuracy: Some(0.875), ..Scores::default() },
        finished_ms: 0,
        wall_s: 2.0,
        elapsed_s: 55.0,
    });
    let forecast = Forecast {
        fidelity: Some(Fidelity::Sgd { steps: 40 }),
        trials: 23,
        needed: 16,
        tau: Some([0.625, 0.25, 0.75]),
        unscored: Some(0.5),
        predicted: Some(0.25),
        proposes: true,
        chooses: true,
    };
    let started = |trial: u64| Event::Started {
        trial,
        time_ms: 0,
        hash: String::new(),
        arch: study.trials[0].arch.clone(),
    };
    let staged = Event::Staged {
        stage: 2,
        time_ms: 0,
        elapsed_s: 30.0,
        fidelity: Fidelity::Predicted,
        trials: vec![],
        ladder: Some("predicted@20,sgd:40=23@10,predicted@5,sgd:80=5@25".parse().unwrap()),
        forecast: Some(forecast),
    };
    study.events.splice(0..0, [started(0), started(1), staged]);
    let page = page(&study);
    for text in [
        "tau 0.62",
        "0.62 (0.25 to 0.75), n = 23",
        "it took part in stage 2",
        "20 s predicted, 10 s sgd:40 for 23, 5 s predicted, 25 s sgd:80 for 5",
    ] {
        assert!(page.contains(text), "no {text}");
    }
    let data = data_of(&page);
    assert_eq!(data["random"]["trials"], 2, "those that no predictor picked");
    assert_eq!(data["take"], "foretell export . --trial {trial} --out trial-{trial}.onnx");
    let known = column(&data, "elapsed_s@sgd:40");
    assert_eq!(known.iter().filter_map(Value::as_f64).collect::<Vec<_>>(), [55.0]);
}
