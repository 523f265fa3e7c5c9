//! The side of foretell in a comparison with another framework; `benches/compare_torch.py` is the other.
//!
//! Requests and answers are JSON lines on the standard streams:
//! `{"load": NETWORK, "batch": N}` prepares a network (the IR as `foretell arch show --json` prints it) with
//! parameters and images that both sides compute from their indices; `{"run": "forward" | "train", "times": K}`
//! answers the seconds of `K` passes and a checksum of the result; `{"peak": true}` answers the GFLOP/s of a
//! 1024 x 1024 x 1024 product.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Instant;

use foretell::execute::{Executor, Mode, NativeExecutor};
use foretell::network::Network;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(untagged)]
enum Request {
    Load { load: Box<Network>, batch: usize },
    Run { run: Pass, times: usize },
    Peak { peak: bool },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pass {
    Forward,
    Train,
}

/// A network ready to run.
struct Subject {
    executor: NativeExecutor<f32>,
    params: Vec<f32>,
    images: Vec<f32>,
    labels: Vec<u8>,
    gradient: Vec<f32>,
}

/// Numbers in [-scale, scale) that look random; the same formula in double precision on the other side.
fn scattered(count: usize, scale: f64) -> impl Iterator<Item = f32> {
    (0..count).map(move |i| (((i as f64 + 0.5) * 0.618_033_988_749_895).fract() * 2.0 * scale - scale) as f32)
}

impl Subject {
    fn new(network: &Network, batch: usize) -> foretell::Result<Self> {
        let mut params = Vec::with_capacity(network.n_params());
        for param in &network.params {
            // Weights keep the size of activations; norm weights are near 1.
            let fan_in = param.numel() / param.shape[0];
            let (centre, scale) =
                if param.shape.len() > 1 { (0.0, (3.0 / fan_in as f64).sqrt()) } else { (1.0, 0.1) };
            params.extend(scattered(param.numel(), scale).map(|x| x + centre));
        }
        let images = scattered(batch * network.input_shape().iter().product::<usize>(), 1.0).collect();
        let labels = (0..batch).map(|i| (i % network.num_classes().min(256)) as u8).collect();
        let gradient = vec![0.0; params.len()];
        let executor = NativeExecutor::new(network, batch)?;
        Ok(Self { executor, params, images, labels, gradient })
    }

    /// A norm of the result: of the logits, or of the gradient.
    fn run(&mut self, pass: Pass) -> foretell::Result<f64> {
        let norm = |values: &[f32]| values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        match pass {
            Pass::Forward => {
                let logits = self.executor.logits(&self.params, &self.images, Mode::Evaluate)?;
                Ok(norm(black_box(&logits)))
            }
            Pass::Train => {
                self.gradient.fill(0.0);
                let mode = Mode::TrainWithoutDropout;
                let (images, labels) = (&self.images, &self.labels);
                self.executor.loss_and_gradient(&self.params, images, labels, mode, &mut self.gradient)?;
                Ok(norm(black_box(&self.gradient)))
            }
        }
    }
}

/// GFLOP/s of the gemm crate on all threads.
fn gemm_peak() -> f64 {
    let n = 1024;
    let (a, b): (Vec<_>, Vec<_>) = (scattered(n * n, 1.0).collect(), scattered(n * n, 1.0).collect());
    let mut c = vec![0f32; n * n];
    let mut best = f64::INFINITY;
    for _ in 0..12 {
        let start = Instant::now();
        // SAFETY: all three matrices have n x n elements.
        unsafe {
            gemm::gemm(
                n,
                n,
                n,
                c.as_mut_ptr(),
                1,
                n as isize,
                false,
                a.as_ptr(),
                1,
                n as isize,
                b.as_ptr(),
                1,
                n as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(0),
            );
        }
        black_box(&c);
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (n * n * n) as f64 / best / 1e9
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut subject: Option<Subject> = None;
    for line in std::io::stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?)? {
            Request::Load { load, batch } => {
                drop(subject.take());
                subject = Some(Subject::new(&load, batch)?);
                serde_json::json!({"params": load.n_params(), "macs": load.cost().macs})
            }
            Request::Run { run, times } => {
                let subject = subject.as_mut().ok_or("run before load")?;
                let start = Instant::now();
                let mut norm = 0.0;
                for _ in 0..times {
                    norm = subject.run(run)?;
                }
                serde_json::json!({"seconds": start.elapsed().as_secs_f64(), "norm": norm})
            }
            Request::Peak { peak: true } => serde_json::json!({"gflops": gemm_peak()}),
            Request::Peak { peak: false } => break,
        };
        println!("{answer}");
        std::io::stdout().flush()?;
    }
    Ok(())
}
