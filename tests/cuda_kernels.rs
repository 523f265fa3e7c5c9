//! The CUDA kernels without a GPU: the same sources, compiled by the C++ compiler, against the CPU kernels.
//!
//! Every program runs with its threads in several orders, which shows missing barriers; see `cuda_shim/device.hpp`.

mod cuda_shim;
mod golden;

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use cuda_shim::{Order, execute};
use foretell::graph::{Graph, Neighbours, Node, Primitive};
use foretell::kernels::depthwise::cuda::{Planes, forward as depthwise};
use foretell::kernels::message_passing::{self, Edges, Weights, message_passing};
use foretell::kernels::program::{Argument, Launch, Limits, Program, Source};
use foretell::kernels::tiling::{self, Tile, Tiling, Transform};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ORDERS: [Order; 3] = [Order::Forward, Order::Reverse, Order::Random(7)];

fn uniform(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-scale..scale)).collect()
}

/// Largest difference, relative to the largest value; infinite where lengths differ or a value is not a number.
fn gap(found: &[f32], wanted: &[f32]) -> f64 {
    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();
    let wanted = wide(wanted);
    golden::difference(&wide(found), &wanted) / golden::largest(&wanted).max(1e-3)
}

fn planted(kernel: &'static str, order: Order) -> Result<Vec<f32>, String> {
    let input = (0..64).map(|i| (i as f32).to_bits()).collect();
    let mut buffers = vec![input, vec![f32::NAN.to_bits(); 64]];
    let texts = &[include_str!("cuda_shim/planted.cu")];
    let launch = Launch {
        source: Source { name: "planted", texts, defines: Vec::new() },
        kernel,
        grid: [1, 1],
        threads: 64,
        shared_bytes: 256,
        arguments: vec![Argument::Buffer(0), Argument::Buffer(1)],
    };
    execute(&launch, &mut buffers, order)?;
    Ok(buffers.remove(1).into_iter().map(f32::from_bits).collect())
}

#[test]
fn the_shim_runs_barriers_and_shuffles_as_a_device_does() {
    for order in ORDERS {
        let next: Vec<f32> = (0..64).map(|i| ((i + 1) % 64) as f32).collect();
        assert_eq!(planted("right", order), Ok(next));
        let sums = [31 * 16, 31 * 16 + 32 * 32].map(|sum| [sum as f32; 32]).concat();
        assert_eq!(planted("warp_sum", order), Ok(sums));
    }
}

#[test]
fn the_shim_finds_planted_races() {
    // Bit patterns: a value that was read too early is NaN.
    let bits = |kernel| {
        ORDERS
            .map(|order| planted(kernel, order).unwrap().into_iter().map(f32::to_bits).collect::<Vec<u32>>())
    };
    for kernel in ["race_up", "race_down"] {
        let found = bits(kernel);
        assert_ne!(found[0], found[1], "{kernel}");
        assert_ne!(found[0], found[2], "{kernel}");
    }
    let found = bits("right");
    assert!(found[0] == found[1] && found[1] == found[2]);
    assert!(planted("unwritten", Order::Forward).unwrap().iter().all(|value| value.is_nan()));
}

#[test]
fn the_shim_reports_planted_faults() {
    for order in ORDERS {
        let reason = |kernel| planted(kernel, order).unwrap_err();
        assert!(reason("absent").contains("waits forever"), "{}", reason("absent"));
        assert!(reason("absent").contains("32 of 64 threads wait at a barrier, 32 have ended"));
        assert!(reason("two_barriers").contains("divergent barrier"), "{}", reason("two_barriers"));
        assert!(reason("divergent_shuffle").contains("waits forever"), "{}", reason("divergent_shuffle"));
        assert!(reason("beyond_shared").contains("shared memory was written"), "{}", reason("beyond_shared"));
        assert!(reason("before_buffer").contains("written outside"), "{}", reason("before_buffer"));
    }
}

/// A graph with the given real edges, ascending by target; virtual edges are shortest paths up to 50.
fn graph(n: usize, real: &[(usize, usize)]) -> Graph {
    let mut incoming: Vec<Vec<(usize, u8)>> = vec![Vec::new(); n];
    for v in 0..n {
        let mut nearest = std::collections::BTreeMap::new();
        for &(u, _) in real.iter().filter(|&&(_, to)| to == v) {
            let further = incoming[u].iter().map(|&(w, d)| (w, d + 1));
            for (w, d) in further.chain([(u, 1)]).filter(|&(_, d)| d <= 50) {
                nearest.entry(w).and_modify(|old: &mut u8| *old = d.min(*old)).or_insert(d);
            }
        }
        incoming[v] = nearest.into_iter().collect();
    }
    let mut outgoing: Vec<Vec<(usize, u8)>> = vec![Vec::new(); n];
    for (v, row) in incoming.iter().enumerate() {
        row.iter().for_each(|&(u, d)| outgoing[u].push((v, d)));
    }
    let rows = |of: Vec<Vec<(usize, u8)>>| {
        let mut rows = Neighbours { start: vec![0], ..Neighbours::default() };
        for row in of {
            rows.node.extend(row.iter().map(|&(u, _)| u as u32));
            rows.distance.extend(row.iter().map(|&(_, d)| d));
            rows.start.push(rows.node.len() as u32);
        }
        rows
    };
    let node = Node { primitive: Primitive::Conv, param: None, norm_bias: None, shape: None };
    Graph { nodes: vec![node; n], incoming: rows(incoming), outgoing: rows(outgoing) }
}

fn chain(n: usize) -> Graph {
    graph(n, &(1..n).map(|v| (v - 1, v)).collect::<Vec<_>>())
}

fn dense(n: usize) -> Graph {
    graph(n, &(0..n).flat_map(|v| (0..v).map(move |u| (u, v))).collect::<Vec<_>>())
}

/// One node that all others hear, and one that hears all others: a level wider than a visit.
fn fan(n: usize) -> Graph {
    graph(n, &(1..n - 1).flat_map(|v| [(0, v), (v, n - 1)]).collect::<Vec<_>>())
}

/// A chain with shortcuts; every seventh node hears nobody.
fn ragged(n: usize, seed: u64) -> Graph {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut real = Vec::new();
    for v in (1..n).filter(|v| v % 7 != 3) {
        real.push((v - 1, v));
        if rng.random_bool(0.3) {
            real.push((rng.random_range(0..v), v));
        }
    }
    real.sort_unstable();
    real.dedup();
    graph(n, &real)
}

fn ghn2(hid: usize) -> Weights {
    Weights { hid, hidden: hid / 2, virtual_edges: true }
}

fn ghn1(hid: usize) -> Weights {
    Weights { hid, hidden: hid, virtual_edges: false }
}

/// States and the gradients of states and weights.
type Round = [Vec<f32>; 3];

/// A batch with random states and weights, and the CPU kernel's answer.
struct Problem {
    weights: Weights,
    edges: Arc<Edges>,
    states: Vec<f32>,
    packed: Vec<f32>,
    upstream: Vec<f32>,
    wanted: Round,
}

impl Problem {
    fn new(weights: Weights, graphs: &[&Graph]) -> Problem {
        let edges = Arc::new(Edges::new(graphs, weights.virtual_edges).unwrap());
        let (n, hid) = (edges.n_nodes(), weights.hid);
        let states = uniform(n * hid, 1.0, 1);
        let packed = uniform(weights.len(), 1.0 / (hid as f32).sqrt(), 2);
        let upstream = uniform(n * hid, 1.0, 3);
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let x = Var::from_tensor(&tensor(&states).reshape((n, hid)).unwrap()).unwrap();
        let w = Var::from_tensor(&tensor(&packed)).unwrap();
        let out = message_passing(&x, &w, weights, &edges).unwrap();
        let loss = (&out * tensor(&upstream).reshape((n, hid)).unwrap()).unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let wanted = [flat(&out), flat(grads.get(&x).unwrap()), flat(grads.get(&w).unwrap())];
        Problem { weights, edges, states, packed, upstream, wanted }
    }

    /// The kernels' answer.
    fn run(&self, limits: Limits, order: Order) -> Round {
        let tables = message_passing::cuda::Tables::new(&self.edges).unwrap();
        let forward = message_passing::cuda::forward(&self.weights, &tables, limits).unwrap();
        let mut outputs = cuda_shim::run(&forward, &[&self.states, &self.packed], order).unwrap();
        let (out, saved) = (outputs.pop().unwrap(), outputs.pop().unwrap());
        let backward = message_passing::cuda::backward(&self.weights, &tables, limits).unwrap();
        let inputs = [&self.states, &self.packed, &saved, &self.upstream];
        let mut outputs = cuda_shim::run(&backward, &inputs.map(Vec::as_slice), order).unwrap();
        let mut by_states = outputs.pop().unwrap();
        let by_weights = by_states.split_off(self.states.len());
        [out, by_states, by_weights]
    }

    /// Sums are in another order than on the CPU: float32 rounding, 1e-5 of the largest value at 200 nodes.
    fn check(&self, limits: Limits, orders: &[Order], tolerance: f64) {
        let mut first: Option<Round> = None;
        for &order in orders {
            let found = self.run(limits, order);
            for (what, (found, wanted)) in
                ["states", "by states", "by weights"].iter().zip(found.iter().zip(&self.wanted))
            {
                let gap = gap(found, wanted);
                assert!(gap <= tolerance, "{what} differ by {gap}: {:?} {limits:?} {order:?}", self.weights);
            }
            let first = first.get_or_insert_with(|| found.clone());
            assert_eq!(*first, found, "{order:?} {limits:?}");
        }
    }
}

/// A datacenter GPU, and the same with room for the weights only, and for neither.
const SHARED: [u32; 3] = [227 * 1024, 48 * 1024, 24 * 1024];

fn limits(threads: u32, shared_bytes: u32) -> Limits {
    Limits { threads, shared_bytes }
}

#[test]
fn message_passing_on_small_and_adversarial_graphs() {
    let (one, two) = (chain(1), chain(2));
    let (long, full, wide) = (chain(120), dense(24), fan(45));
    let (some, more) = (ragged(60, 4), ragged(33, 5));
    let problem = Problem::new(ghn2(16), &[&one, &some, &two, &full, &wide, &one, &long, &more]);
    for shared in SHARED {
        problem.check(limits(128, shared), &ORDERS, 1e-5);
    }
    for threads in [32, 64, 512] {
        problem.check(limits(threads, SHARED[0]), &ORDERS, 1e-5);
    }
}

#[test]
fn message_passing_of_every_size() {
    let (some, wide, full) = (ragged(40, 6), fan(12), dense(10));
    let graphs = [&some, &wide, &full];
    for weights in [ghn2(8), ghn2(24), ghn2(32), ghn2(64), ghn1(8), ghn1(32), ghn1(64)] {
        let problem = Problem::new(weights, &graphs);
        problem.check(limits(256, 227 * 1024), &ORDERS, 1e-5);
        problem.check(limits(96, 48 * 1024), &ORDERS[1..], 1e-5);
    }
}

#[test]
fn message_passing_on_the_fixtures_graphs() {
    let wanted = ["micro/msa", "train/7", "quirk/20", "dense/6", "deep/3", "wide/1", "named/resnet50"];
    let subjects = golden::subjects(|id| wanted.contains(&id));
    assert!(subjects.len() == wanted.len());
    let graphs: Vec<&Graph> = subjects.iter().map(|subject| &subject.graph).collect();
    for weights in [ghn2(32), ghn1(32)] {
        let problem = Problem::new(weights, &graphs);
        problem.check(limits(256, 163 * 1024), &ORDERS, 2e-5);
    }
}

#[test]
fn message_passing_on_five_thousand_nodes() {
    let (large, small) = (ragged(5000, 8), chain(3));
    let problem = Problem::new(ghn2(16), &[&small, &large]);
    problem.check(limits(64, SHARED[0]), &[Order::Random(1)], 5e-5);
    problem.check(limits(256, SHARED[2]), &[Order::Reverse], 5e-5);
}

/// The program with the barrier of this number taken out of its first launch; none if it has fewer.
fn without_barrier(mut program: Program, number: usize) -> Option<Program> {
    let source = &mut program.launches[0].source;
    let text = source.text();
    let (at, barrier) = text.match_indices("__syncthreads();").nth(number)?;
    let text: &'static str = format!("{}{}", &text[..at], &text[at + barrier.len()..]).leak();
    *source = Source { name: source.name, texts: vec![text].leak(), defines: Vec::new() };
    Some(program)
}

#[test]
fn message_passing_needs_each_of_its_barriers() {
    let (some, wide) = (ragged(40, 6), fan(30));
    let problem = Problem::new(ghn2(16), &[&some, &wide]);
    let tables = message_passing::cuda::Tables::new(&problem.edges).unwrap();
    let limits = limits(128, SHARED[0]);
    let forward = message_passing::cuda::forward(&problem.weights, &tables, limits).unwrap();
    let states = [problem.states.as_slice(), &problem.packed];
    let saved = cuda_shim::run(&forward, &states, Order::Forward).unwrap().remove(0);
    let backward = message_passing::cuda::backward(&problem.weights, &tables, limits).unwrap();
    let gradients = [states[0], states[1], saved.as_slice(), &problem.upstream];
    for (program, inputs, barriers) in [(forward, states.as_slice(), 7), (backward, gradients.as_slice(), 6)]
    {
        let runs = |program: &Program| ORDERS.map(|order| cuda_shim::run(program, inputs, order));
        let wanted = runs(&program)[0].clone();
        let right = |found: &Result<Vec<Vec<f32>>, String>| *found == wanted;
        assert!(runs(&program).iter().all(right));
        let mut taken = 0;
        while let Some(broken) = without_barrier(program.clone(), taken) {
            assert!(!runs(&broken).iter().all(right), "{}: barrier {taken}", program.launches[0].kernel);
            taken += 1;
        }
        assert_eq!(taken, barriers);
    }
}

#[test]
fn message_passing_of_no_graph_and_wrong_sizes() {
    let problem = Problem::new(ghn2(16), &[]);
    assert_eq!(problem.run(limits(64, SHARED[0]), Order::Forward)[2], vec![0.0; problem.packed.len()]);
    let tables = message_passing::cuda::Tables::new(&problem.edges).unwrap();
    let reason =
        |weights, limits| message_passing::cuda::forward(&weights, &tables, limits).unwrap_err().to_string();
    assert!(reason(ghn2(12), limits(64, SHARED[0])).contains("multiples of 8 and 4"));
    assert!(reason(ghn1(16), limits(64, SHARED[0])).contains("disagree about virtual edges"));
    assert!(reason(ghn2(16), limits(48, SHARED[0])).contains("found 48"));
    assert!(reason(ghn2(64), limits(64, 16 * 1024)).contains("bytes of shared memory"));
}

/// Ragged targets of all transforms over tables in several memory orders; three share a table.
fn tiles() -> (Vec<Tile>, usize, usize) {
    let (row_major, channels_last) = ([36, 9, 3, 1], [4, 1, 48, 16]);
    let shapes: [([usize; 4], [usize; 4], Transform); 10] = [
        ([10, 3, 3, 3], row_major, Transform::Scale(0.3)),
        ([4, 9, 2, 3], channels_last, Transform::Scale(1.5)),
        ([3, 2, 1, 1], row_major, Transform::Identity),
        ([7, 1, 1, 1], row_major, Transform::NormWeight),
        ([7, 1, 1, 1], channels_last, Transform::Bias),
        ([1, 5, 5, 6], row_major, Transform::Identity),
        ([9, 9, 5, 5], channels_last, Transform::Scale(-2.0)),
        ([1, 1, 1, 1], row_major, Transform::Bias),
        ([65, 33, 1, 1], row_major, Transform::Scale(0.1)),
        ([2, 3, 7, 3], channels_last, Transform::NormWeight),
    ];
    let (mut source, mut target, mut tiles) = (1, 0, Vec::new());
    for (shape, strides, transform) in shapes {
        let size = std::array::from_fn(|axis| shape[axis].min([4, 4, 3, 3][axis]));
        tiles.push(Tile { source, size, strides, shape, target, transform });
        source += 150;
        target += shape.iter().product::<usize>();
    }
    for (of, transform) in [(3, Transform::Bias), (8, Transform::NormWeight)] {
        let shared = Tile { target, transform, ..tiles[of] };
        target += shared.shape.iter().product::<usize>();
        tiles.push(shared);
    }
    (tiles, source + 300, target)
}

fn check_tiling(tiling: &Arc<Tiling>, threads: u32) {
    let tables = uniform(tiling.source_len(), 2.0, 4);
    let upstream = uniform(tiling.target_len(), 1.0, 5);
    let input = Var::new(tables.as_slice(), &Device::Cpu).unwrap();
    let params = tiling::tile(&input, tiling).unwrap();
    let loss = (&params * Tensor::new(upstream.as_slice(), &Device::Cpu).unwrap()).unwrap();
    let grads = loss.sum_all().unwrap().backward().unwrap();
    let params = params.to_vec1::<f32>().unwrap();
    let wanted = grads.get(&input).unwrap().to_vec1::<f32>().unwrap();
    for order in ORDERS {
        let program = tiling::cuda::forward(tiling, threads).unwrap();
        let found = cuda_shim::run(&program, &[&tables], order).unwrap().remove(0);
        let difference = gap(&found, &params);
        assert!(difference <= 1e-6, "parameters differ by {difference}: {threads} threads, {order:?}");
        let program = tiling::cuda::backward(tiling, threads).unwrap();
        let found = cuda_shim::run(&program, &[&upstream, &params], order).unwrap().remove(0);
        let difference = gap(&found, &wanted);
        assert!(difference <= 2e-6, "gradients differ by {difference}: {threads} threads, {order:?}");
    }
}

#[test]
fn tiling_of_all_transforms_and_memory_orders() {
    let (tiles, source_len, target_len) = tiles();
    let tiling = Arc::new(Tiling::new(tiles, source_len, target_len).unwrap());
    for threads in [32, 96, 256] {
        check_tiling(&tiling, threads);
    }
}

#[test]
fn tiling_of_interleaved_tables_and_single_values() {
    // Classifiers' tables lie side by side, as the decoder writes them: reaches overlap, elements do not.
    let classifier = |at: usize| Tile {
        source: 5 * at,
        size: [10, 5, 1, 1],
        strides: [15, 1, 1, 1],
        shape: [10, 13, 1, 1],
        target: 130 * at,
        transform: Transform::Scale(0.5),
    };
    let mut tiles: Vec<Tile> = (0..3).map(classifier).collect();
    for single in 0..2000 {
        tiles.push(Tile {
            source: 150 + single,
            size: [1; 4],
            strides: [1; 4],
            shape: [1; 4],
            target: 390 + single,
            transform: Transform::Bias,
        });
    }
    check_tiling(&Arc::new(Tiling::new(tiles, 2153, 2390).unwrap()), 64);
}

#[test]
fn tiling_of_nothing() {
    check_tiling(&Arc::new(Tiling::new(Vec::new(), 700, 0).unwrap()), 256);
    check_tiling(&Arc::new(Tiling::new(Vec::new(), 0, 0).unwrap()), 256);
}

/// Straight from the definition, in f64.
fn depthwise_wanted(planes: &Planes, x: &[f32], weights: &[f32]) -> Vec<f32> {
    let Planes { channels, images, size, out, kernel, stride, padding, dilation } = *planes;
    let mut y = Vec::with_capacity(planes.len());
    for plane in 0..channels * images {
        for at in 0..out[0] * out[1] {
            let mut sum = 0.0;
            for tap in 0..kernel[0] * kernel[1] {
                let (from, tap_at) = ([at / out[1], at % out[1]], [tap / kernel[1], tap % kernel[1]]);
                let seen = |axis: usize| {
                    let position = from[axis] * stride[axis] + tap_at[axis] * dilation;
                    position.checked_sub(padding[axis]).filter(|&position| position < size[axis])
                };
                if let (Some(row), Some(column)) = (seen(0), seen(1)) {
                    let pixel = x[(plane * size[0] + row) * size[1] + column];
                    let weight = weights[plane / images * kernel[0] * kernel[1] + tap];
                    sum += f64::from(pixel) * f64::from(weight);
                }
            }
            y.push(sum as f32);
        }
    }
    y
}

#[test]
fn depthwise_convolutions_of_planes() {
    // Kernel, stride, padding, dilation; the last windows reach beyond the image, or see one pixel of it.
    let windows = [
        ([3, 3], [1, 1], [1, 1], 1),
        ([5, 5], [2, 2], [2, 2], 1),
        ([3, 3], [1, 1], [2, 2], 2),
        ([5, 5], [2, 2], [4, 4], 2),
        ([1, 7], [1, 1], [0, 3], 1),
        ([7, 1], [1, 2], [3, 0], 1),
        ([1, 1], [3, 3], [0, 0], 1),
        ([9, 9], [1, 1], [4, 4], 1),
    ];
    for (kernel, stride, padding, dilation) in windows {
        for (channels, images, size) in [(5, 3, [7, 6]), (1, 1, [5, 5]), (33, 2, [8, 9])] {
            let reach = |axis: usize| size[axis] + 2 * padding[axis] - dilation * (kernel[axis] - 1);
            let out = [0, 1].map(|axis| (reach(axis) - 1) / stride[axis] + 1);
            let planes = Planes { channels, images, size, out, kernel, stride, padding, dilation };
            let x = uniform(channels * images * size[0] * size[1], 1.0, 1);
            let weights = uniform(channels * kernel[0] * kernel[1], 1.0, 2);
            let wanted = depthwise_wanted(&planes, &x, &weights);
            for (threads, order) in [(32, Order::Forward), (256, Order::Reverse), (96, Order::Random(3))] {
                let program = depthwise(&planes, threads).unwrap();
                let found = cuda_shim::run(&program, &[&x, &weights], order).unwrap().remove(0);
                let difference = gap(&found, &wanted);
                assert!(difference <= 1e-6, "{planes:?}, {threads} threads: {difference}");
            }
        }
    }
}

#[test]
fn depthwise_convolutions_of_nothing_and_too_much() {
    let some = Planes {
        channels: 4,
        images: 0,
        size: [3, 3],
        out: [3, 3],
        kernel: [3, 3],
        stride: [1, 1],
        padding: [1, 1],
        dilation: 1,
    };
    assert!(depthwise(&some, 256).unwrap().launches.is_empty());
    let error = depthwise(&Planes { images: 1 << 28, ..some }, 256).unwrap_err().to_string();
    assert!(error.contains("too many"), "{error}");
}
