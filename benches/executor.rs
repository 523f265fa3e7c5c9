//! Time and GFLOP/s of the native executor beside the GEMM peak of the same run.
//!
//! `cargo bench --bench executor`; a filter after `--` selects cases. Before the timings one line per case gives
//! its rate and share of the peak (median of several runs). `FORETELL_SHARES=ID,ID` prints instead how the time of
//! these networks divides over kinds of ops: `train/16` is a fixture, `small:40` forty networks of the space `small`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use foretell::execute::{Executor, Mode, NativeExecutor, Share, Workspace};
use foretell::network::{Network, OpId, OpKind, OpNode, Param, ParamId, build};
use foretell::space::ArchRecord;
use foretell::training::{ArchitectureSource, ArchitecturesConfig, SpaceShare};

/// Numbers in [-0.1, 0.1) that look random; larger weights would saturate deep stacks.
fn scattered(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 + 0.5) * 0.618_034).fract() * 0.2 - 0.1).collect()
}

/// `layers` convolutions in a row between a 1x1 convolution and the classifier.
fn stack(
    channels: usize,
    size: usize,
    kernel: usize,
    dilation: usize,
    depthwise: bool,
    layers: usize,
) -> Network {
    let mut network = Network {
        ops: vec![OpNode { kind: OpKind::Input, inputs: vec![], shape: [3, size, size] }],
        params: vec![],
        pruned: vec![],
        n_cells: 0,
    };
    let mut conv = |inputs: usize, kernel: usize, groups: usize| {
        let offset = network.n_params();
        let weight = ParamId(network.params.len());
        let shape = vec![channels, inputs / groups, kernel, kernel];
        network.params.push(Param { name: format!("p{}", weight.0), shape, offset });
        let padding = [dilation * (kernel / 2); 2];
        let kind = OpKind::Conv { weight, stride: [1, 1], padding, dilation, groups };
        let last = OpId(network.ops.len() - 1);
        network.ops.push(OpNode { kind, inputs: vec![last], shape: [channels, size, size] });
    };
    conv(3, 1, 1);
    for _ in 0..layers {
        conv(channels, kernel, if depthwise { channels } else { 1 });
    }
    let last = OpId(network.ops.len() - 1);
    network.ops.push(OpNode { kind: OpKind::GlobalAvgPool, inputs: vec![last], shape: [channels, 1, 1] });
    network
}

struct Case {
    name: String,
    network: Network,
    batch: usize,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (channels, size, kernel, dilation, depthwise) in [
        (16, 32, 1, 1, false),
        (32, 32, 1, 1, false),
        (64, 16, 1, 1, false),
        (16, 32, 3, 1, false),
        (32, 32, 3, 1, false),
        (64, 16, 3, 1, false),
        (128, 8, 3, 1, false),
        (32, 32, 3, 1, true),
        (32, 32, 5, 1, true),
        (32, 32, 5, 2, true),
        (64, 16, 3, 1, true),
    ] {
        let kind = if depthwise { "depthwise" } else { "dense" };
        cases.push(Case {
            name: format!("{kind} {kernel}x{kernel} d{dilation} C={channels} {size}x{size}"),
            network: stack(channels, size, kernel, dilation, depthwise, 8),
            batch: 64,
        });
    }
    let records = records();
    for id in [
        "micro/sep_conv_3x3",
        "micro/conv_3x3",
        "train/2",
        "train/12",
        "dense/1",
        "bnfree/0",
        "search/0",
        "search/4",
        "named/DARTS",
    ] {
        let Some(record) = records.iter().find(|record| record.id == id) else { continue };
        let network = build(&record.arch, record.num_classes).expect("fixtures expand");
        cases.push(Case { name: format!("network {id}"), network, batch: 64 });
    }
    cases
}

/// Seconds of the fastest of several runs.
fn fastest(mut work: impl FnMut()) -> f64 {
    work();
    let times = (0..9).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

fn gemm_peak() -> f64 {
    let n = 1024;
    let (a, b) = (scattered(n * n), scattered(n * n));
    let mut c = vec![0f32; n * n];
    let (rows, columns) = (n as isize, 1);
    let seconds = fastest(|| {
        // SAFETY: all three matrices have n x n elements.
        unsafe {
            gemm::gemm(
                n,
                n,
                n,
                c.as_mut_ptr(),
                columns,
                rows,
                false,
                a.as_ptr(),
                columns,
                rows,
                b.as_ptr(),
                columns,
                rows,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(0),
            );
        }
        black_box(&c);
    });
    2.0 * (n * n * n) as f64 / seconds / 1e9
}

fn records() -> Vec<ArchRecord> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/archs.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect(path)).expect(path)
}

/// The networks that `id` names: a fixture, or with `SPACE:COUNT` that many as a hypernetwork's training draws them.
fn networks(id: &str) -> Vec<Network> {
    let Some((space, count)) = id.split_once(':') else {
        let record = records().into_iter().find(|record| record.id == id);
        let record = record.unwrap_or_else(|| panic!("no fixture {id}"));
        return vec![build(&record.arch, record.num_classes).expect("fixtures expand")];
    };
    let config = ArchitecturesConfig {
        spaces: vec![SpaceShare { space: space.into(), share: 1.0 }],
        meta_batch: count.parse().expect("a number of networks"),
        reference_width: space == "deepnets1m",
        small_first: 0.0,
        max_nodes: usize::MAX,
    };
    let source = ArchitectureSource::new(&config, 1, 1, 10, 1).expect("spaces have networks");
    let drawn = source.meta_batch(0).expect("spaces have networks");
    drawn.into_iter().map(|candidate| candidate.network).collect()
}

/// How the time of networks divides over kinds of ops.
fn shares(ids: &str) {
    let (batch, runs) = (64, 3);
    for id in ids.split(',') {
        let networks = networks(id);
        let workspace = Workspace::default();
        let (mut wall, mut macs) = (0.0, 0);
        let mut kinds: BTreeMap<String, Share> = BTreeMap::new();
        for network in &networks {
            let params = scattered(network.n_params());
            let images = scattered(batch * network.input_shape().iter().product::<usize>());
            let labels: Vec<u8> = (0..batch).map(|i| (i % network.num_classes()) as u8).collect();
            let mut grad = vec![0f32; params.len()];
            let mut executor =
                NativeExecutor::<f32>::with_workspace(network, batch, &workspace).expect("networks run");
            let mut pass = |executor: &mut NativeExecutor<f32>| {
                let mode = Mode::TrainWithoutDropout;
                black_box(executor.loss_and_gradient(&params, &images, &labels, mode, &mut grad))
                    .expect("it fits");
            };
            pass(&mut executor);
            executor.measure();
            let start = Instant::now();
            (0..runs).for_each(|_| pass(&mut executor));
            wall += start.elapsed().as_secs_f64() * 1e3 / f64::from(runs);
            macs += network.cost().macs;
            for share in executor.shares() {
                let zero = Share { forward_ms: 0.0, backward_ms: 0.0, macs: 0, elements: 0, ..share.clone() };
                let sum = kinds.entry(share.kind.clone()).or_insert(zero);
                sum.forward_ms += share.forward_ms / f64::from(runs);
                sum.backward_ms += share.backward_ms / f64::from(runs);
                sum.macs += share.macs;
                sum.elements += share.elements;
            }
        }
        let rate = |macs: u64, passes: f64, ms: f64| {
            passes * 2.0 * (macs * batch as u64) as f64 / ms.max(1e-9) / 1e6
        };
        println!(
            "{id}: {wall:.1} ms for training passes of {} networks on {} threads, {:.0} GFLOP/s",
            networks.len(),
            rayon::current_num_threads(),
            rate(macs, 3.0, wall)
        );
        println!("  ms summed over threads, GFLOP/s of a thread, million output elements of {batch} images:");
        let mut kinds: Vec<Share> = kinds.into_values().collect();
        kinds.sort_by(|a, b| (b.forward_ms + b.backward_ms).total_cmp(&(a.forward_ms + a.backward_ms)));
        for Share { kind, forward_ms, backward_ms, macs, elements } in kinds {
            println!(
                "  {kind:40} forward {forward_ms:8.2} {:6.1}  backward {backward_ms:8.2} {:6.1}  {:8.2}",
                rate(macs, 1.0, forward_ms),
                rate(macs, 2.0, backward_ms),
                (elements * batch as u64) as f64 / 1e6
            );
        }
    }
}

fn rates(criterion: &mut Criterion) {
    if let Ok(ids) = std::env::var("FORETELL_SHARES") {
        return shares(&ids);
    }
    let peak = gemm_peak();
    println!("gemm n=1024: {peak:.0} GFLOP/s on {} threads", rayon::current_num_threads());
    for Case { name, network, batch } in cases() {
        let params = scattered(network.n_params());
        let images = scattered(batch * network.input_shape().iter().product::<usize>());
        let labels: Vec<u8> = (0..batch).map(|i| (i % network.num_classes()) as u8).collect();
        let mut executor = NativeExecutor::<f32>::new(&network, batch).expect("cases are valid");
        let mut grad = vec![0f32; params.len()];
        let flops = 2.0 * network.cost().macs as f64 * batch as f64;
        let seconds = fastest(|| {
            black_box(executor.logits(&params, &images, Mode::Evaluate).expect("arguments fit"));
        });
        let training = fastest(|| {
            let mode = Mode::TrainWithoutDropout;
            black_box(
                executor
                    .loss_and_gradient(&params, &images, &labels, mode, &mut grad)
                    .expect("arguments fit"),
            );
        });
        let (rate, training_rate) = (flops / seconds / 1e9, 3.0 * flops / training / 1e9);
        println!(
            "{name}: forward {:.2} ms, {rate:.0} GFLOP/s ({:.0} %); forward + backward {:.2} ms, {training_rate:.0} GFLOP/s ({:.0} %)",
            seconds * 1e3,
            100.0 * rate / peak,
            training * 1e3,
            100.0 * training_rate / peak
        );
        criterion.bench_function(&format!("{name}, forward"), |bencher| {
            bencher.iter(|| executor.logits(&params, &images, Mode::Evaluate));
        });
        criterion.bench_function(&format!("{name}, forward + backward"), |bencher| {
            bencher.iter(|| {
                executor.loss_and_gradient(&params, &images, &labels, Mode::TrainWithoutDropout, &mut grad)
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1));
    targets = rates
}
criterion_main!(benches);
