//! Training steps against the reference: gradients of a hypernetwork through predicted networks, and ten updates.

mod golden;

use candle_core::{DType, Tensor, Var, WithDType};
use foretell::execute::{Executor, Mode, NativeExecutor, Real};
use foretell::ghn::Ghn;
use golden::{Subject, difference, f64s, largest};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct GradientFile {
    meta_batch: Step,
    #[serde(default)]
    single: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    archs: Vec<String>,
    loss_f64: f64,
    loss: f64,
    grad_norm: f64,
    grads: Vec<Gradient>,
}

#[derive(Deserialize)]
struct Gradient {
    name: String,
    sum: f64,
    abs_sum: f64,
    samples: Vec<f64>,
    f64_max_rel_err: f64,
}

struct Batch {
    images: Vec<f64>,
    labels: Vec<u8>,
}

impl Batch {
    fn read() -> Batch {
        let inputs = golden::tensors("inputs.safetensors.gz");
        let labels = f64s(&inputs["train_labels"]).into_iter().map(|label| label as u8).collect();
        Batch { images: f64s(&inputs["train_images"]), labels }
    }
}

trait Native: Real + WithDType {
    fn executor(subject: &Subject, batch: usize) -> Box<dyn Executor<Self>>;
}

impl Native for f32 {
    fn executor(subject: &Subject, batch: usize) -> Box<dyn Executor<f32>> {
        Box::new(NativeExecutor::<f32>::new(&subject.network, batch).unwrap())
    }
}

impl Native for f64 {
    fn executor(subject: &Subject, batch: usize) -> Box<dyn Executor<f64>> {
        Box::new(NativeExecutor::<f64>::new(&subject.network, batch).unwrap())
    }
}

/// Mean loss over the networks and its gradient by the hypernetwork's tensors.
fn gradients<T: Native>(ghn: &Ghn, subjects: &[&Subject], batch: &Batch) -> (f64, BTreeMap<String, Tensor>) {
    let pairs: Vec<_> = subjects.iter().map(|s| (&s.network, &s.graph)).collect();
    let images: Vec<T> = batch.images.iter().map(|&value| T::of(value)).collect();
    let (mut loss, mut surrogate) = (0.0, Tensor::zeros((), T::DTYPE, ghn.device()).unwrap());
    for (subject, prediction) in subjects.iter().zip(ghn.predict(&pairs).unwrap()) {
        let params: Vec<T> = prediction.params.to_vec1().unwrap();
        let mut gradient = vec![T::of(0.0); params.len()];
        let value = T::executor(subject, batch.labels.len())
            .loss_and_gradient(&params, &images, &batch.labels, Mode::TrainWithoutDropout, &mut gradient)
            .unwrap();
        loss += Real::to_f64(value) / subjects.len() as f64;
        // A scalar with the loss's gradient: the sum of parameters times their constant gradients.
        let gradient = Tensor::from_vec(gradient, params.len(), ghn.device()).unwrap();
        surrogate = (surrogate + (prediction.params * gradient).unwrap().sum_all().unwrap()).unwrap();
    }
    let store = (surrogate / subjects.len() as f64).unwrap().backward().unwrap();
    let gradient = |var: &Var| store.get(var).cloned().unwrap_or_else(|| var.zeros_like().unwrap());
    (loss, ghn.vars().into_iter().map(|(name, var)| (name, gradient(&var))).collect())
}

fn norm(gradients: &BTreeMap<String, Tensor>) -> f64 {
    gradients.values().flat_map(f64s).map(|value| value * value).sum::<f64>().sqrt()
}

fn compare<T: Native>(name: &str, ghn: &Ghn, step: &Step, sharpness: f64) {
    let all = golden::subjects(|id| step.archs.iter().any(|other| other == id));
    let subjects: Vec<&Subject> =
        step.archs.iter().map(|id| all.iter().find(|subject| &subject.id == id).unwrap()).collect();
    let (loss, found) = gradients::<T>(ghn, &subjects, &Batch::read());
    let archs = &step.archs;
    // Either column of the reference: its float64 loss is the better known number.
    assert!((loss - step.loss_f64).abs() <= sharpness * step.loss.abs(), "{name} {archs:?}: loss {loss}");
    assert!((norm(&found) - step.grad_norm).abs() <= 1e-3 * step.grad_norm, "{name} {archs:?}");
    assert_eq!(found.len(), step.grads.len());
    for wanted in &step.grads {
        let values = f64s(&found[&wanted.name]);
        let samples: Vec<f64> = golden::samples(values.len()).map(|position| values[position]).collect();
        let relative = (20.0 * wanted.f64_max_rel_err).max(1e-4);
        let gap = difference(&samples, &wanted.samples);
        let label = format!("{name} {archs:?} {}", wanted.name);
        assert!(gap <= relative * largest(&values), "{label}: samples differ by {gap}");
        let sums = [values.iter().sum::<f64>(), values.iter().map(|value| value.abs()).sum()];
        let gap = difference(&sums, &[wanted.sum, wanted.abs_sum]);
        assert!(gap <= relative * wanted.abs_sum, "{label}: sums differ by {gap}");
    }
}

#[test]
fn gradients_equal_the_reference() {
    for name in ["ghn2_random", "ghn1_random", "mlp_random"] {
        let file: GradientFile = golden::json(&format!("gradients/{name}.json"));
        let ghn = golden::ghn(name);
        for step in file.single.iter().chain([&file.meta_batch]) {
            compare::<f32>(name, &ghn, step, 1e-5);
        }
        compare::<f64>(name, &ghn.to_dtype(DType::F64).unwrap(), &file.meta_batch, 1e-9);
    }
}

#[derive(Deserialize)]
struct Traces {
    traces: Vec<Trace>,
}

#[derive(Deserialize)]
struct Trace {
    ghn: String,
    archs: Vec<String>,
    lr: f64,
    weight_decay: f64,
    betas: [f64; 2],
    eps: f64,
    grad_clip: f64,
    losses_f64: Vec<f64>,
    grad_norms_before_clip: Vec<f64>,
    final_params: Vec<FinalParam>,
}

#[derive(Deserialize)]
struct FinalParam {
    name: String,
    samples: Vec<f64>,
    f64_max_abs_diff: f64,
}

/// Losses before each of the updates of a trace, with Adam and clipping written out; the hypernetwork changes.
fn train<T: Native>(trace: &Trace, ghn: &Ghn) -> (Vec<f64>, Vec<f64>) {
    let all = golden::subjects(|id| trace.archs.iter().any(|other| other == id));
    let subjects: Vec<&Subject> = all.iter().collect();
    let batch = Batch::read();
    let mut moments: BTreeMap<String, Vec<[f64; 2]>> = BTreeMap::new();
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 1..=trace.losses_f64.len() {
        let (loss, gradients) = gradients::<T>(ghn, &subjects, &batch);
        let norm = norm(&gradients);
        losses.push(loss);
        norms.push(norm);
        let scale = (trace.grad_clip / (norm + 1e-6)).min(1.0);
        let [b1, b2] = trace.betas;
        for (name, var) in ghn.vars() {
            let mut values = f64s(&var);
            let moments = moments.entry(name.clone()).or_insert_with(|| vec![[0.0; 2]; values.len()]);
            for ((value, gradient), [first, second]) in
                values.iter_mut().zip(f64s(&gradients[&name])).zip(moments)
            {
                let gradient = gradient * scale + trace.weight_decay * *value;
                *first = b1 * *first + (1.0 - b1) * gradient;
                *second = b2 * *second + (1.0 - b2) * gradient * gradient;
                let spread = (*second / (1.0 - b2.powi(step as i32))).sqrt();
                *value -= trace.lr / (1.0 - b1.powi(step as i32)) * *first / (spread + trace.eps);
            }
            let values = Tensor::from_vec(values, var.shape(), var.device()).unwrap();
            var.set(&values.to_dtype(var.dtype()).unwrap()).unwrap();
        }
    }
    (losses, norms)
}

#[test]
fn ten_updates_equal_the_reference() {
    let file: Traces = golden::json("training_trace.json");
    assert_eq!(file.traces.len(), 3);
    for trace in &file.traces {
        let label = format!("{} {:?}", trace.ghn, trace.archs);

        // Float64 follows the reference's float64 run to the end.
        let ghn = golden::ghn(&trace.ghn).to_dtype(DType::F64).unwrap();
        let (losses, _) = train::<f64>(trace, &ghn);
        let gap = difference(&losses, &trace.losses_f64);
        assert!(gap <= 1e-6, "{label}: float64 losses differ by {gap}");
        for param in &trace.final_params {
            let values = f64s(ghn.tensor(&param.name).unwrap());
            let samples: Vec<f64> = golden::samples(values.len()).map(|position| values[position]).collect();
            // The samples are of the float32 run, whose distance to the float64 run is known.
            let gap = difference(&samples, &param.samples);
            assert!(gap <= 1.01 * param.f64_max_abs_diff + 1e-6, "{label} {}: differs by {gap}", param.name);
        }

        // Float32 leaves it where rounding is amplified: an activation that rounds to the other side of a ReLU's
        // kink changes the gradient at once (2e-3 of its maximum for avg_pool_3x3, 1e-6 elsewhere), and Adam's
        // first updates are the signs of gradients. The small hypernetwork stays close; of the larger one the
        // first two losses are compared.
        let (losses, norms) = train::<f32>(trace, &golden::ghn(&trace.ghn));
        let (steps, tolerance) = if trace.ghn == "ghn2_tiny" { (10, 1e-3) } else { (2, 1e-4) };
        let gap = difference(&losses[..steps], &trace.losses_f64[..steps]);
        assert!(gap <= tolerance, "{label}: float32 losses differ by {gap}");
        let first = (norms[0] - trace.grad_norms_before_clip[0]).abs();
        assert!(first <= 1e-3 * norms[0], "{label}: gradient norms differ by {first}");
    }
}
