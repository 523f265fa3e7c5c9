//! Predicted networks on images against the reference: logits in float32 and float64.

mod golden;

use candle_core::{DType, Tensor};
use foretell::execute::{CandleExecutor, Executor, Mode, NativeExecutor, Real};
use foretell::ghn::Ghn;
use foretell::network::Network;
use golden::{Subject, difference, f64s, largest};
use std::collections::HashMap;
use std::sync::Arc;

const NAMES: [&str; 6] =
    ["ghn2_random", "ghn1_random", "mlp_random", "ghn2_tiny", "mlpdec_tiny", "ghn2_tiny_imagenet"];

/// Logits of a network with predicted weights, all in `T`.
fn logits<T: Real + candle_core::WithDType>(
    ghn: &Ghn,
    subject: &Subject,
    images: &[f64],
    executor: impl Fn(&Network, usize) -> Box<dyn Executor<T>>,
) -> Vec<f64> {
    let prediction = ghn.predict(&[(&subject.network, &subject.graph)]).unwrap().remove(0);
    let params: Vec<T> = prediction.params.to_vec1().unwrap();
    let images: Vec<T> = images.iter().map(|&value| T::of(value)).collect();
    let batch = images.len() / subject.network.input_shape().iter().product::<usize>();
    let logits = executor(&subject.network, batch).logits(&params, &images, Mode::Evaluate).unwrap();
    logits.into_iter().map(Real::to_f64).collect()
}

fn candle<T: Real>(network: &Network, _: usize) -> Box<dyn Executor<T>>
where
    CandleExecutor: Executor<T>,
{
    Box::new(CandleExecutor::new(Arc::new(network.clone()), candle_core::Device::Cpu))
}

fn images(name: &str) -> Vec<f64> {
    match name {
        "ghn2_tiny_imagenet" => golden::large_images(2),
        _ => f64s(&golden::tensors("inputs.safetensors.gz")["images"]),
    }
}

/// Runs `check` on every network of a hypernetwork that has logits.
fn with_logits(
    name: &str,
    check: impl Fn(&Subject, &HashMap<String, Tensor>, &golden::PredictionInfo),
) -> usize {
    let info: golden::PredictionFile = golden::json(&format!("predictions/{name}.json"));
    let wanted = golden::tensors(&format!("predictions/{name}.safetensors.gz"));
    let subjects = golden::subjects(|id| info.archs.get(id).is_some_and(|info| info.logits));
    for subject in &subjects {
        check(subject, &wanted, &info.archs[&subject.id]);
    }
    subjects.len()
}

#[test]
fn single_precision_equals_the_reference() {
    let mut compared = 0;
    for name in NAMES {
        let (ghn, images) = (golden::ghn(name), images(name));
        compared += with_logits(name, |subject, wanted, info| {
            let wanted = f64s(&wanted[&format!("{}|logits", subject.id)]);
            let found = logits::<f32>(&ghn, subject, &images, |network, batch| {
                Box::new(NativeExecutor::<f32>::new(network, batch).unwrap())
            });
            let tolerance = (20.0 * info.logit_f64_max_rel_err.unwrap()).max(1e-4) * largest(&wanted);
            let gap = difference(&found, &wanted);
            assert!(gap <= tolerance, "{name} {}: differs by {gap}, allowed {tolerance}", subject.id);
        });
    }
    assert!(compared > 80, "{compared}");
}

#[test]
fn double_precision_equals_the_reference_closely() {
    let mut compared = 0;
    for name in NAMES {
        let (ghn, images) = (golden::ghn(name).to_dtype(DType::F64).unwrap(), images(name));
        compared += with_logits(name, |subject, wanted, _| {
            let wanted = f64s(&wanted[&format!("{}|logits_f64", subject.id)]);
            let found = logits::<f64>(&ghn, subject, &images, |network, batch| {
                Box::new(NativeExecutor::<f64>::new(network, batch).unwrap())
            });
            let gap = difference(&found, &wanted);
            assert!(gap <= 1e-9 * largest(&wanted), "{name} {}: differs by {gap}", subject.id);
        });
    }
    assert!(compared > 80, "{compared}");
}

#[test]
fn the_candle_executor_equals_the_reference() {
    let name = "ghn2_tiny";
    let (ghn, images) = (golden::ghn(name).to_dtype(DType::F64).unwrap(), images(name));
    let compared = with_logits(name, |subject, wanted, _| {
        let wanted = f64s(&wanted[&format!("{}|logits_f64", subject.id)]);
        let gap = difference(&logits::<f64>(&ghn, subject, &images, candle), &wanted);
        assert!(gap <= 1e-9 * largest(&wanted), "{name} {}: differs by {gap}", subject.id);
    });
    assert!(compared >= 5, "{compared}");
}
