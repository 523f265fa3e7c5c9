//! Zero-cost scores against PyTorch (`tests/scripts/torch_zero_cost.py`), and their determinism.

mod golden;

use foretell::execute::NativeExecutor;
use foretell::ghn::Ghn;
use foretell::images::{self, PreparedImages};
use foretell::network::Network;
use foretell::predictor::{FeatureProbe, Features};
use foretell::score::{gradient_norm, naswot, synflow};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Expected {
    synflow: f64,
    /// None where the codes do not tell the images apart.
    naswot: Option<f64>,
    grad_norm: f64,
}

#[derive(Deserialize)]
struct Fixture {
    networks: BTreeMap<String, Expected>,
}

const IMAGES: usize = 16;

/// Hashes of `offset`, `offset + 1`, ... in -1..1, as the script makes them.
fn numbers(count: usize, offset: usize) -> Vec<f64> {
    let hash = |n: u64| {
        let u = (n * 2_654_435_761) % (1 << 32);
        let u = ((u ^ (u >> 16)) * 2_246_822_519) % (1 << 32);
        (u >> 8) as f64 / f64::from(1 << 23) - 1.0
    };
    (offset as u64..(offset + count) as u64).map(hash).collect()
}

fn weights(network: &Network) -> Vec<f32> {
    let mut weights = Vec::with_capacity(network.n_params());
    for param in &network.params {
        let (scale, shift) = match &param.shape[1..] {
            [] => (0.5, f64::from(u8::from(param.name.ends_with("weight")))),
            inner => ((6.0 / inner.iter().product::<usize>() as f64).sqrt(), 0.0),
        };
        let values = numbers(param.numel(), param.offset);
        weights.extend(values.into_iter().map(|value| (value * scale + shift) as f32));
    }
    weights
}

#[test]
fn scores_equal_pytorch() {
    let Fixture { networks } = golden::json("zero_cost.json");
    let subjects = golden::subjects(|id| networks.contains_key(id));
    assert_eq!(subjects.len(), networks.len());
    for subject in &subjects {
        let (id, network, expected) = (&subject.id, &subject.network, &networks[&subject.id]);
        let params = weights(network);
        let flow = synflow(network, &params).unwrap();
        assert!((flow - expected.synflow).abs() <= 1e-9, "{id}: synflow {flow}, {}", expected.synflow);

        let pixels = numbers(IMAGES * network.input_shape().iter().product::<usize>(), 1_000_000_000);
        let labels = (0..IMAGES).map(|image| (image % network.num_classes()) as u8).collect();
        let pixels = pixels.into_iter().map(|pixel| pixel as f32).collect();
        let images = PreparedImages::new(pixels, labels, network.num_classes()).unwrap();
        let mut executor = NativeExecutor::<f32>::new(network, IMAGES).unwrap();
        match (naswot(&mut executor, &params, &images), expected.naswot) {
            // In single precision a few of some 100,000 units lie on the other side of zero.
            (Ok(codes), Some(expected)) => {
                assert!((codes - expected).abs() <= 1e-2, "{id}: naswot {codes}, {expected}")
            }
            (codes, expected) => {
                assert!(codes.is_err() && expected.is_none(), "{id}: {codes:?}, {expected:?}")
            }
        }
        let norm = gradient_norm(network, &mut executor, &params, &images).unwrap();
        let gap = (norm / expected.grad_norm - 1.0).abs();
        assert!(gap <= 1e-3, "{id}: gradient norm {norm}, {}", expected.grad_norm);
    }
}

#[test]
fn features_depend_on_the_seed_and_not_on_threads() {
    let subject = golden::subjects(|id| id == "micro/conv_3x3" || id == "micro/cse");
    let (ghn, data) = (Ghn::bundled().unwrap(), images::bundled().unwrap());
    let features = |threads: usize, seed: u64| -> Vec<Features> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let probe = FeatureProbe::new(&data, seed).unwrap();
        pool.install(|| subject.iter().map(|s| probe.features(&s.network, &ghn).unwrap()).collect())
    };
    let one = features(1, 3);
    assert_eq!(one, features(3, 3));
    let other = features(1, 4);
    for (a, b) in one.iter().zip(&other) {
        assert_eq!(a.embedding, b.embedding);
        assert_eq!(a.cheap.predicted_gradient_norm, b.cheap.predicted_gradient_norm, "images are the same");
        assert_ne!((a.cheap.synflow, a.cheap.naswot), (b.cheap.synflow, b.cheap.naswot));
        assert!(a.all().iter().all(|feature| feature.is_finite()), "{a:?}");
    }
}
