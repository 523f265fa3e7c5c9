//! Exported bytes are decoded and run by the interpreter; the native executor runs the frozen network.

use super::super::freeze;
use super::super::tests::{noise, random_model};
use super::interpreter::{Array, run};
use super::messages::ModelProto;
use super::to_onnx;
use crate::execute::{Executor, Mode, NativeExecutor};
use prost::Message;
use std::collections::BTreeSet;

const MICRO: [&str; 18] = [
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_1x1",
    "conv_7x1_1x7",
    "conv_3x3",
    "conv_5x5",
    "conv_7x7",
    "msa",
    "cse",
    "none-a",
    "none-b",
    "msa-nopreproc",
    "nopreproc-noga",
];

#[test]
fn decoded_models_give_the_executors_logits() {
    let mut kinds = BTreeSet::new();
    for name in MICRO {
        let model = random_model(&format!("micro/{name}"));
        kinds.extend(model.network.ops.iter().map(|op| op.kind.name()));
        let (frozen, params) = freeze(&model.network, &model.params, &model.statistics).unwrap();
        let images = noise(2);
        let wanted =
            NativeExecutor::<f32>::new(&frozen, 2).unwrap().logits(&params, &images, Mode::Evaluate).unwrap();
        let decoded = ModelProto::decode(to_onnx(&model).unwrap().as_slice()).unwrap();
        let images = Array::new(&[2, 3, 32, 32], images.iter().map(|&pixel| pixel.into()).collect());
        let logits = run(&decoded, images);
        assert_eq!(logits.dims, [2, 10], "{name}");
        let largest = wanted.iter().fold(0f64, |largest, &logit| largest.max(f64::from(logit).abs()));
        for (found, wanted) in logits.values.iter().zip(wanted) {
            assert!(
                (found - f64::from(wanted)).abs() <= 1e-4 * largest,
                "{name}: {found} where {wanted} is due"
            );
        }
    }
    assert_eq!(kinds.len(), 22, "an op of the network description is not covered: {kinds:?}");
}

#[test]
fn a_model_names_what_users_look_for() {
    let model = random_model("micro/msa");
    let bytes = to_onnx(&model).unwrap();
    assert_eq!(bytes, to_onnx(&model).unwrap(), "equal models give equal bytes");
    let decoded = ModelProto::decode(bytes.as_slice()).unwrap();
    assert_eq!((decoded.ir_version, decoded.opset_import[0].version), (8, 17));
    let graph = decoded.graph.as_ref().unwrap();
    let sides = |value: &super::messages::ValueInfoProto| {
        let tensor = value.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
        let side = |dim: &super::messages::DimensionProto| match dim.dim_value {
            Some(side) => side.to_string(),
            None => dim.dim_param.clone().unwrap(),
        };
        tensor.shape.as_ref().unwrap().dim.iter().map(side).collect::<Vec<String>>().join("x")
    };
    assert_eq!((graph.input[0].name.as_str(), sides(&graph.input[0]).as_str()), ("images", "Nx3x32x32"));
    assert_eq!((graph.output[0].name.as_str(), sides(&graph.output[0]).as_str()), ("logits", "Nx10"));
    let constants: BTreeSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    for param in &model.network.params {
        assert!(constants.contains(param.name.as_str()), "{}", param.name);
    }
    let used: BTreeSet<&str> = graph.node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    assert!(constants.is_subset(&used));
    let property = |key: &str| &decoded.metadata_props.iter().find(|entry| entry.key == key).unwrap().value;
    assert!(property("input").contains("\"mean\":[0.25,0.25,0.25]"), "{}", property("input"));
    assert_eq!(serde_json::from_str::<Vec<String>>(property("classes")).unwrap(), model.preparation.classes);
    assert!(property("architecture").contains("\"genotype\""));
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = to_onnx(&random_model("micro/msa-nopreproc")).unwrap();
    let whole = ModelProto::decode(bytes.as_slice()).unwrap();
    for length in (0..bytes.len()).step_by(97) {
        assert!(ModelProto::decode(&bytes[..length]).map_or(true, |decoded| decoded != whole), "{length}");
    }
}

#[test]
fn missing_statistics_are_an_error() {
    let mut model = random_model("micro/conv_1x1");
    model.statistics.moments.pop_first();
    let error = to_onnx(&model).unwrap_err().to_string();
    assert!(error.contains("no statistics of"), "{error}");
}
