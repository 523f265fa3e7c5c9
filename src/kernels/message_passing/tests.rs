use candle_core::{D, Device, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::graph::{Graph, Neighbours, Node, Primitive};

/// A graph with the given real edges; virtual edges are shortest paths up to 50.
fn graph(n: usize, real: &[(usize, usize)]) -> Graph {
    let mut distance = vec![vec![0u8; n]; n];
    for source in 0..n {
        let mut steps = vec![usize::MAX; n];
        steps[source] = 0;
        for u in source..n {
            let next = steps[u].saturating_add(1);
            for &(_, v) in real.iter().filter(|&&(from, _)| from == u) {
                steps[v] = steps[v].min(next);
            }
        }
        for v in (0..n).filter(|&v| v != source && steps[v] <= 50) {
            distance[source][v] = steps[v] as u8;
        }
    }
    let rows = |of: &dyn Fn(usize, usize) -> u8| {
        let mut rows = Neighbours { start: vec![0], ..Neighbours::default() };
        for v in 0..n {
            for u in (0..n).filter(|&u| of(v, u) > 0) {
                rows.node.push(u as u32);
                rows.distance.push(of(v, u));
            }
            rows.start.push(rows.node.len() as u32);
        }
        rows
    };
    let node = Node { primitive: Primitive::Conv, param: None, norm_bias: None, shape: None };
    Graph {
        nodes: vec![node; n],
        incoming: rows(&|v, u| distance[u][v]),
        outgoing: rows(&|v, u| distance[v][u]),
    }
}

fn chain(n: usize) -> Graph {
    graph(n, &(1..n).map(|v| (v - 1, v)).collect::<Vec<_>>())
}

fn dense(n: usize) -> Graph {
    graph(n, &(0..n).flat_map(|v| (0..v).map(move |u| (u, v))).collect::<Vec<_>>())
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

fn uniform(n: usize, scale: f64, seed: u64) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-scale..scale)).collect()
}

/// The same round in candle ops: one node at a time, messages recomputed for every edge.
fn composed(
    states: &Tensor,
    packed: &Tensor,
    weights: Weights,
    graphs: &[Graph],
) -> candle_core::Result<Tensor> {
    let mut offset = 0;
    let tensors = weights.tensors().into_iter().map(|(_, shape)| {
        let len = shape.iter().product();
        offset += len;
        packed.narrow(0, offset - len, len)?.reshape(shape)
    });
    let w = tensors.collect::<candle_core::Result<Vec<Tensor>>>()?;
    let linear = |x: &Tensor, weight: &Tensor, bias: &Tensor| x.matmul(&weight.t()?)?.broadcast_add(bias);
    let message = |x: &Tensor, w: &[Tensor]| linear(&linear(x, &w[0], &w[1])?.relu()?, &w[2], &w[3])?.relu();
    let sigmoid = |x: Tensor| (x.neg()?.exp()? + 1.0)?.recip();
    let gru = &w[w.len() - 4..];
    let mut done = Vec::new();
    let mut first = 0;
    for graph in graphs {
        let n = graph.nodes.len();
        let mut h =
            (0..n).map(|v| states.narrow(0, first + v, 1)).collect::<candle_core::Result<Vec<_>>>()?;
        first += n;
        for backward in [false, true] {
            for step in 0..n {
                let v = if backward { n - 1 - step } else { step };
                let mut m = h[v].zeros_like()?;
                let neighbours = if backward { &graph.outgoing } else { &graph.incoming };
                for (u, d) in neighbours.of(v) {
                    if d == 1 {
                        m = (m + message(&h[u], &w)?)?;
                    }
                    if weights.virtual_edges {
                        m = (m + (message(&h[u], &w[4..])? / f64::from(d))?)?;
                    }
                }
                let gi = linear(&m, &gru[0], &gru[2])?.chunk(3, D::Minus1)?;
                let gh = linear(&h[v], &gru[1], &gru[3])?.chunk(3, D::Minus1)?;
                let r = sigmoid((&gi[0] + &gh[0])?)?;
                let z = sigmoid((&gi[1] + &gh[1])?)?;
                let new = (&gi[2] + (r * &gh[2])?)?.tanh()?;
                h[v] = (&new + (z * (&h[v] - &new)?)?)?;
            }
        }
        done.extend(h);
    }
    Tensor::cat(&done, 0)
}

fn to_vec(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(found: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len());
    let scale = wanted.iter().fold(1.0, |max: f64, v| max.max(v.abs()));
    for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= tolerance * scale, "element {i}: {f}, wanted {w}");
    }
}

/// States, packed weights and upstream gradient for `graphs`.
fn problem(weights: Weights, graphs: &[Graph]) -> (Vec<f64>, Vec<f64>, Vec<f64>, usize, Arc<Edges>) {
    let edges = Edges::new(&graphs.iter().collect::<Vec<_>>(), weights.virtual_edges).unwrap();
    let n = edges.n_nodes();
    let states = uniform(n * weights.hid, 1.0, 1);
    let packed = uniform(weights.len(), 1.5 / (weights.hid as f64).sqrt(), 2);
    (states, packed, uniform(n * weights.hid, 1.0, 3), n, Arc::new(edges))
}

type Round<'a> = &'a dyn Fn(&Tensor, &Tensor) -> Tensor;

/// Result of `round` and both gradients.
fn evaluate(round: Round, dtype: DType, hid: usize, n: usize, values: [&[f64]; 3]) -> [Vec<f64>; 3] {
    let tensor = |v: &[f64]| Tensor::new(v, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let states = Var::from_tensor(&tensor(values[0]).reshape((n, hid)).unwrap()).unwrap();
    let packed = Var::from_tensor(&tensor(values[1])).unwrap();
    let out = round(&states, &packed);
    assert_eq!((out.dims(), out.dtype()), ([n, hid].as_slice(), dtype));
    let loss = (&out * tensor(values[2]).reshape((n, hid)).unwrap()).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    let [by_states, by_packed] = [&states, &packed].map(|var| to_vec(grads.get(var).unwrap()));
    [to_vec(&out), by_states, by_packed]
}

fn agrees_with_composition(weights: Weights, graphs: &[Graph]) {
    let (states, packed, upstream, n, edges) = problem(weights, graphs);
    let values = [states.as_slice(), &packed, &upstream];
    let composed = |x: &Tensor, w: &Tensor| composed(x, w, weights, graphs).unwrap();
    let op = |x: &Tensor, w: &Tensor| message_passing(x, w, weights, &edges).unwrap();
    let wanted = evaluate(&composed, DType::F64, weights.hid, n, values);
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 3e-5)] {
        let found = evaluate(&op, dtype, weights.hid, n, values);
        for (found, wanted) in found.iter().zip(&wanted) {
            assert_close(found, wanted, tolerance);
        }
    }
}

#[test]
fn agrees_with_autograd_on_chain_dense_and_ragged_graphs() {
    let graphs = [chain(9), dense(7), chain(1), ragged(30, 4)];
    agrees_with_composition(Weights { hid: 8, hidden: 4, virtual_edges: true }, &graphs);
    agrees_with_composition(Weights { hid: 16, hidden: 16, virtual_edges: false }, &graphs);
}

#[test]
fn agrees_with_autograd_for_sizes_around_a_panel() {
    let graphs = [ragged(12, 5)];
    for (hid, hidden) in [(32, 16), (33, 5), (64, 32), (1, 1)] {
        agrees_with_composition(Weights { hid, hidden, virtual_edges: true }, &graphs);
    }
}

#[test]
fn long_chains_are_cut_at_fifty() {
    let long = chain(70);
    assert_eq!(long.incoming.of(69).count(), 50);
    agrees_with_composition(Weights { hid: 8, hidden: 4, virtual_edges: true }, &[long]);
}

#[test]
fn gradients_equal_central_differences() {
    let weights = Weights { hid: 8, hidden: 4, virtual_edges: true };
    let (states, packed, upstream, n, edges) = problem(weights, &[ragged(11, 6), chain(3)]);
    let op = |x: &Tensor, w: &Tensor| message_passing(x, w, weights, &edges).unwrap();
    let [_, by_states, by_packed] = evaluate(&op, DType::F64, 8, n, [&states, &packed, &upstream]);
    let loss = |states: &[f64], packed: &[f64]| -> f64 {
        let (out, _) = cpu::forward(&weights, &edges, states, packed);
        out.iter().zip(&upstream).map(|(a, b)| a * b).sum()
    };
    let difference = |values: &[f64], loss: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
        let step = 1e-6;
        let moved = |i: usize, by: f64| {
            let mut moved = values.to_vec();
            moved[i] += by;
            loss(&moved)
        };
        (0..values.len()).map(|i| (moved(i, step) - moved(i, -step)) / (2.0 * step)).collect()
    };
    assert_close(&by_states, &difference(&states, &|states| loss(states, &packed)), 1e-8);
    assert_close(&by_packed, &difference(&packed, &|packed| loss(&states, packed)), 1e-8);
}

#[test]
fn graphs_of_a_batch_do_not_interact() {
    let weights = Weights { hid: 8, hidden: 4, virtual_edges: true };
    let graphs = [ragged(20, 7), chain(5)];
    let (states, packed, _, _, edges) = problem(weights, &graphs);
    let (both, _) = cpu::forward(&weights, &edges, &states, &packed);
    let alone = Edges::new(&[&graphs[1]], true).unwrap();
    let (second, _) = cpu::forward(&weights, &alone, &states[160..], &packed);
    assert_eq!(both[160..], second);
}

#[test]
fn result_does_not_depend_on_threads() {
    let weights = Weights { hid: 32, hidden: 16, virtual_edges: true };
    let graphs: Vec<Graph> = (0..9).map(|seed| ragged(10 + 5 * seed as usize, seed)).collect();
    let (states, packed, upstream, _, edges) = problem(weights, &graphs);
    let single = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
    let (states, packed, upstream) = (single(&states), single(&packed), single(&upstream));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (out, saved) = cpu::forward(&weights, &edges, &states, &packed);
            let grads = cpu::backward(&weights, &edges, &saved, &states, &packed, &upstream);
            (out, grads)
        })
    };
    assert_eq!(run(1), run(4));
}

#[test]
fn an_empty_batch_gives_no_states() {
    let weights = Weights { hid: 8, hidden: 4, virtual_edges: true };
    let (_, packed, _, n, edges) = problem(weights, &[]);
    assert_eq!(n, 0);
    let states = Tensor::zeros((0, 8), DType::F64, &Device::Cpu).unwrap();
    let packed = Tensor::new(packed, &Device::Cpu).unwrap();
    assert_eq!(message_passing(&states, &packed, weights, &edges).unwrap().dims(), [0, 8]);
}

#[test]
fn packing_keeps_order_and_checks_shapes() {
    let weights = Weights { hid: 8, hidden: 4, virtual_edges: true };
    let tensors: Vec<Tensor> = weights
        .tensors()
        .into_iter()
        .enumerate()
        .map(|(i, (_, shape))| Tensor::full(i as f32, shape, &Device::Cpu).unwrap())
        .collect();
    let mut refs: Vec<&Tensor> = tensors.iter().collect();
    let packed: Vec<f32> = weights.pack(&refs).unwrap().to_vec1().unwrap();
    assert_eq!(packed.len(), weights.len());
    assert_eq!((packed[31], packed[32], packed[packed.len() - 1]), (0.0, 1.0, 11.0));
    let maps = affine::Maps::unpack(&weights, &packed);
    let mut again = vec![f32::NAN; packed.len()];
    maps.pack(&mut again);
    assert_eq!(again, packed);
    refs.swap(0, 2);
    assert!(weights.pack(&refs).unwrap_err().to_string().contains("mlp.fc.0.weight must be [4, 8]"));
    assert!(weights.pack(&refs[1..]).unwrap_err().to_string().contains("12 weights expected, 11 given"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let weights = Weights { hid: 8, hidden: 4, virtual_edges: true };
    let (states, packed, _, n, edges) = problem(weights, &[chain(4)]);
    let states = Tensor::new(states, &Device::Cpu).unwrap().reshape((n, 8)).unwrap();
    let packed = Tensor::new(packed, &Device::Cpu).unwrap();
    let reason = |states: &Tensor, packed: &Tensor, weights, edges: &Arc<Edges>| {
        message_passing(states, packed, weights, edges).unwrap_err().to_string()
    };
    assert!(reason(&states.narrow(0, 0, 3).unwrap(), &packed, weights, &edges).contains("must be [4, 8]"));
    assert!(reason(&states, &packed.narrow(0, 0, 3).unwrap(), weights, &edges).contains("found [3]"));
    let real_only = Arc::new(Edges::new(&[&chain(4)], false).unwrap());
    assert!(reason(&states, &packed, weights, &real_only).contains("disagree"));
    let mut backwards = chain(4);
    backwards.incoming.node[0] = 2;
    let error = Edges::new(&[&chain(2), &backwards], true).unwrap_err().to_string();
    assert!(error.contains("graph 1: edge 2 -> 1"), "{error}");
}
