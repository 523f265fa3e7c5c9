//! Hypernetworks against the reference: node states, predicted tensors, graph embeddings.
//!
//! Tolerances are those of the fixtures' description, section 8: the reference's own float32 error against
//! float64 stays well below them.

mod golden;

use candle_core::DType;
use foretell::ghn::Ghn;
use golden::{Subject, difference, f64s, largest};
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, HashMap};

const NAMES: [&str; 6] =
    ["ghn2_random", "ghn1_random", "mlp_random", "ghn2_tiny", "mlpdec_tiny", "ghn2_tiny_imagenet"];

fn tensor(file: &HashMap<String, candle_core::Tensor>, id: &str, field: &str) -> Vec<f64> {
    f64s(file.get(&format!("{id}|{field}")).unwrap_or_else(|| panic!("{id}|{field} is missing")))
}

/// Compares one network's predicted tensors with samples, sums and the mean embedding.
fn compare(ghn: &Ghn, subjects: &[&Subject], wanted: &HashMap<String, candle_core::Tensor>) {
    let batch: Vec<_> = subjects.iter().map(|s| (&s.network, &s.graph)).collect();
    let predictions = ghn.predict(&batch).unwrap();
    assert_eq!(predictions.len(), subjects.len());
    for (subject, prediction) in subjects.iter().zip(&predictions) {
        let id = &subject.id;
        let values = f64s(&prediction.params);
        assert_eq!(values.len(), subject.network.n_params(), "{id}");
        let (samples, sums) = (tensor(wanted, id, "samples"), tensor(wanted, id, "sums"));
        assert_eq!(sums.len(), 2 * subject.network.params.len(), "{id}");
        for (index, param) in subject.network.params.iter().enumerate() {
            let values = &values[param.offset..param.offset + param.numel()];
            let found: Vec<f64> = golden::samples(values.len()).map(|position| values[position]).collect();
            let gap = difference(&found, &samples[index * 32..(index + 1) * 32]);
            assert!(gap <= 1e-5 * largest(values), "{id} {}: samples differ by {gap}", param.name);
            let found = [values.iter().sum(), values.iter().map(|v| v.abs()).sum()];
            let gap = difference(&found, &sums[2 * index..2 * index + 2]);
            assert!(gap <= 1e-5 * sums[2 * index + 1], "{id} {}: sums differ by {gap}", param.name);
        }
        let gap = difference(&f64s(&prediction.mean_embedding), &tensor(wanted, id, "mean_embedding"));
        assert!(gap <= 2e-5, "{id}: mean embedding differs by {gap}");
    }
}

#[test]
fn predictions_equal_the_reference() {
    for name in NAMES {
        let ghn = golden::ghn(name);
        let info: golden::PredictionFile = golden::json(&format!("predictions/{name}.json"));
        let wanted = golden::tensors(&format!("predictions/{name}.safetensors.gz"));
        let subjects = golden::subjects(|id| info.archs.contains_key(id));
        assert_eq!(subjects.len(), info.archs.len(), "{name}");
        for subject in &subjects {
            let info = &info.archs[&subject.id];
            assert_eq!(subject.network.params.len(), info.n_tensors, "{name} {}", subject.id);
            assert_eq!(subject.network.n_params(), info.n_params_predicted, "{name} {}", subject.id);
            compare(&ghn, &[subject], &wanted);
        }
    }
}

#[test]
fn a_batch_predicts_as_its_networks_alone() {
    let ghn = golden::ghn("ghn2_random");
    let wanted = golden::tensors("predictions/ghn2_random.safetensors.gz");
    let subjects = golden::subjects(|id| ["micro/msa", "train/7", "quirk/20", "dense/6"].contains(&id));
    compare(&ghn, &subjects.iter().collect::<Vec<_>>(), &wanted);
}

#[test]
fn double_precision_agrees_more_closely() {
    let ghn = golden::ghn("ghn2_random");
    let double = ghn.to_dtype(DType::F64).unwrap();
    for subject in golden::subjects(|id| ["micro/msa", "train/7"].contains(&id)) {
        let batch = [(&subject.network, &subject.graph)];
        let exact = f64s(&double.predict(&batch).unwrap()[0].params);
        let single = f64s(&ghn.predict(&batch).unwrap()[0].params);
        let gap = difference(&single, &exact);
        assert!(gap <= 1e-5 * largest(&exact) && gap > 0.0, "{}: {gap}", subject.id);
    }
}

#[test]
fn whole_tensors_equal_the_reference() {
    let mut files = 0;
    for name in NAMES {
        let Ok(folder) = std::fs::read_dir(golden::path(&format!("full/{name}"))) else { continue };
        let ghn = golden::ghn(name);
        for file in folder {
            let file = file.unwrap().file_name().into_string().unwrap();
            let id = file.strip_suffix(".safetensors.gz").unwrap().replace("__", "/");
            let wanted = golden::tensors(&format!("full/{name}/{file}"));
            let subject = golden::subjects(|other| other == id).remove(0);
            let values = f64s(&ghn.predict(&[(&subject.network, &subject.graph)]).unwrap()[0].params);
            assert_eq!(wanted.len(), subject.network.params.len(), "{name} {id}");
            for param in &subject.network.params {
                assert_eq!(wanted[&param.name].dims(), param.shape, "{name} {id} {}", param.name);
                let wanted = f64s(&wanted[&param.name]);
                let gap = difference(&values[param.offset..param.offset + param.numel()], &wanted);
                assert!(gap <= 1e-5 * largest(&wanted), "{name} {id} {}: differs by {gap}", param.name);
            }
            files += 1;
        }
    }
    assert_eq!(files, 9);
}

/// Primitive, parameter name, and what the graph's own tests compare: shape, cell, group.
type NodeRow = (usize, Option<String>, IgnoredAny, IgnoredAny, IgnoredAny);

#[derive(serde::Deserialize)]
struct Nodes {
    nodes: Vec<NodeRow>,
}

/// Our node for each of the reference's: by parameter name, else the most similar one of the same primitive.
fn correspondence(subject: &Subject, nodes: &Nodes, ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> Vec<usize> {
    let name = |v: usize| subject.graph.nodes[v].param.map(|id| subject.network.params[id.0].name.as_str());
    let mut free: Vec<usize> = (0..ours.len()).collect();
    let mut matched = Vec::new();
    for (row, (primitive, wanted, ..)) in nodes.nodes.iter().enumerate() {
        let candidates = free.iter().enumerate().filter(|&(_, &v)| {
            subject.graph.nodes[v].primitive as usize == *primitive && name(v) == wanted.as_deref()
        });
        let (position, _) = candidates
            .min_by(|(_, a), (_, b)| {
                difference(&ours[**a], &theirs[row]).total_cmp(&difference(&ours[**b], &theirs[row]))
            })
            .unwrap_or_else(|| panic!("{}: no node for row {row} of the reference", subject.id));
        matched.push(free.remove(position));
    }
    matched
}

#[test]
fn node_states_equal_the_reference() {
    let graphs: BTreeMap<String, Nodes> = golden::json("graphs.json.gz");
    let mut compared = 0;
    for name in &NAMES[..5] {
        let ghn = golden::ghn(name);
        let wanted = golden::tensors(&format!("embeddings/{name}.safetensors.gz"));
        for subject in golden::subjects(|id| wanted.contains_key(&format!("{id}|initial"))) {
            let states = ghn.node_states(&[&subject.graph]).unwrap();
            let hid = ghn.config().hid;
            for (field, states) in [
                ("initial", &states.initial),
                ("after_gnn", &states.after_gnn),
                ("embedding", &states.embedding),
            ] {
                let rows = |values: Vec<f64>| values.chunks(hid).map(<[f64]>::to_vec).collect::<Vec<_>>();
                let ours = rows(f64s(states));
                let theirs = rows(tensor(&wanted, &subject.id, field));
                assert_eq!(ours.len(), theirs.len(), "{name} {}", subject.id);
                let matched = correspondence(&subject, &graphs[&subject.id], &ours, &theirs);
                for (row, v) in matched.into_iter().enumerate() {
                    let gap = difference(&ours[v], &theirs[row]);
                    assert!(gap <= 2e-5, "{name} {} {field}: node {row} differs by {gap}", subject.id);
                }
                compared += 1;
            }
        }
    }
    assert!(compared >= 30, "only {compared} arrays of states were compared");
}
