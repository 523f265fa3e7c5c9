//! `foretell bench cuda`: message passing, tiling and a network on a GPU, checked against the CPU, then timed against the
//! CPU; message passing also against one launch for every op of every node.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use candle_core::{D, Device, Tensor, Var};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::batch::{BatchArgs, described};
use crate::cli::device::DeviceFlag;
use crate::cli::output::print;
use crate::device::name;
use crate::execute::{CandleExecutor, Executor, Mode, NativeExecutor, Precision};
use crate::ghn::{Ghn, GhnConfig};
use crate::graph::Graph;
use crate::images::PreparedImages;
use crate::kernels::message_passing::{Edges, Weights, message_passing};
use crate::kernels::tiling::{Tile, Tiling, Transform, tile};
use crate::network::Network;
use crate::score::ResidentImages;

/// Flags of `foretell bench cuda`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    device: DeviceFlag,
    #[command(flatten)]
    batch: BatchArgs,
    /// Times that each op is timed; the median counts
    #[arg(long, value_name = "N", default_value_t = 20)]
    repeats: usize,
}

/// Differences allowed, relative to the largest value: sums run in another order than on the CPU.
const TOLERANCE: f64 = 1e-4;

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    ensure!(args.repeats > 0, "--repeats must be at least 1");
    let device = args.device.open()?;
    let batch = args.batch.draw()?;
    print(&format!("{}: {}\n", name(&device), described(&batch)))?;
    check(&batch, &device)?;
    let (network, graph) = &batch[0];
    networks(network, graph, &device, args.repeats)?;
    measure(&batch, &device, args.repeats)
}

fn uniform(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-scale..scale)).collect()
}

/// What an op makes of its arguments.
type Apply<'a> = Box<dyn Fn(&[Tensor]) -> anyhow::Result<Tensor> + 'a>;

/// An op with its arguments on one device, and the gradient that comes back to it.
struct Task<'a> {
    name: String,
    arguments: Vec<Vec<f32>>,
    upstream: usize,
    apply: Apply<'a>,
}

impl Task<'_> {
    fn vars(&self, device: &Device) -> anyhow::Result<Vec<Var>> {
        let var = |values: &Vec<f32>| Ok(Var::from_tensor(&Tensor::new(values.as_slice(), device)?)?);
        self.arguments.iter().map(var).collect()
    }

    fn forward(&self, vars: &[Var]) -> anyhow::Result<Tensor> {
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        Ok((self.apply)(&tensors)?.flatten_all()?)
    }

    /// The result and the gradients of all arguments.
    fn both(&self, vars: &[Var], upstream: &Tensor) -> anyhow::Result<Vec<Tensor>> {
        let out = self.forward(vars)?;
        let grads = (&out * upstream)?.sum_all()?.backward()?;
        let mut all = vec![out];
        for var in vars {
            all.push(grads.get(var).context("a gradient is missing")?.flatten_all()?);
        }
        Ok(all)
    }

    fn upstream(&self, device: &Device) -> anyhow::Result<Tensor> {
        Ok(Tensor::new(uniform(self.upstream, 1.0, 9), device)?)
    }
}

/// Message passing of a batch.
fn passing<'a>(weights: Weights, batch: &[(Network, Graph)]) -> anyhow::Result<Task<'a>> {
    let graphs: Vec<&Graph> = batch.iter().map(|(_, graph)| graph).collect();
    let edges = Arc::new(Edges::new(&graphs, weights.virtual_edges)?);
    let (n, hid) = (edges.n_nodes(), weights.hid);
    let kind = if weights.virtual_edges { "GHN-2" } else { "GHN-1" };
    Ok(Task {
        name: format!("message passing, {kind}, hid {hid}"),
        arguments: vec![uniform(n * hid, 1.0, 1), uniform(weights.len(), 1.0 / (hid as f32).sqrt(), 2)],
        upstream: n * hid,
        apply: Box::new(move |x| Ok(message_passing(&x[0].reshape((n, hid))?, &x[1], weights, &edges)?)),
    })
}

/// Tiling of all parameters of a batch from tables of at most 64 x 64 x 11 x 11.
fn tiling<'a>(batch: &[(Network, Graph)]) -> anyhow::Result<Task<'a>> {
    let (mut tiles, mut source, mut target) = (Vec::new(), 0, 0);
    for param in batch.iter().flat_map(|(network, _)| &network.params) {
        let mut shape = [1; 4];
        shape[..param.shape.len()].copy_from_slice(&param.shape);
        let size: [usize; 4] = std::array::from_fn(|axis| shape[axis].min([64, 64, 11, 11][axis]));
        let [_, i, h, w] = size;
        let transform = if param.shape.len() > 1 { Transform::Scale(0.1) } else { Transform::NormWeight };
        tiles.push(Tile { source, size, strides: [i * h * w, h * w, w, 1], shape, target, transform });
        source += size.iter().product::<usize>();
        target += shape.iter().product::<usize>();
    }
    let tiling = Arc::new(Tiling::new(tiles, source, target)?);
    Ok(Task {
        name: format!("tiling of {:.1} M parameters", target as f64 / 1e6),
        arguments: vec![uniform(source, 1.0, 3)],
        upstream: target,
        apply: Box::new(move |x| Ok(tile(&x[0], &tiling)?)),
    })
}

/// Largest difference relative to the largest value; infinite where a value is not a number.
fn gap(found: &Tensor, wanted: &Tensor) -> anyhow::Result<f64> {
    let (found, wanted) = (found.to_vec1::<f32>()?, wanted.to_vec1::<f32>()?);
    ensure!(found.len() == wanted.len(), "{} values, {} expected", found.len(), wanted.len());
    let largest = wanted.iter().fold(1e-6, |max: f64, &value| max.max(f64::from(value.abs())));
    let gaps = found.iter().zip(&wanted).map(|(&a, &b)| f64::from((a - b).abs()));
    Ok(gaps.fold(0.0, |max: f64, gap| if gap.is_nan() { f64::INFINITY } else { max.max(gap) }) / largest)
}

fn ghn2(hid: usize) -> Weights {
    Weights { hid, hidden: hid / 2, virtual_edges: true }
}

/// Every kernel against the CPU, forward and backward, and twice on the device: bits must not change.
fn check(batch: &[(Network, Graph)], device: &Device) -> anyhow::Result<()> {
    let ghn1 = Weights { hid: 32, hidden: 32, virtual_edges: false };
    let mut tasks = Vec::new();
    for weights in [ghn2(16), ghn2(32), ghn2(64), ghn1] {
        tasks.push(passing(weights, batch)?);
    }
    tasks.push(tiling(batch)?);
    print("check against the CPU: largest difference, relative to the largest value\n")?;
    for task in tasks {
        let wanted = task.both(&task.vars(&Device::Cpu)?, &task.upstream(&Device::Cpu)?)?;
        let (vars, upstream) = (task.vars(device)?, task.upstream(device)?);
        let found = task.both(&vars, &upstream)?;
        let mut line = format!("  {:<34}", task.name);
        for (what, (found, wanted)) in
            ["result", "gradient", "gradient"].iter().zip(found.iter().zip(&wanted))
        {
            let gap = gap(found, wanted)?;
            line += &format!(" {what} {gap:.1e}");
            ensure!(gap <= TOLERANCE, "{}: {what} differs by {gap:.1e} of the largest value", task.name);
        }
        for (first, second) in found.iter().zip(&task.both(&vars, &upstream)?) {
            ensure!(first.to_vec1::<f32>()? == second.to_vec1::<f32>()?, "{}: two runs differ", task.name);
        }
        print(&format!("{line}, the same twice\n"))?;
    }
    Ok(())
}

/// Median time in ms of `work`, which may leave work to the device.
fn median(
    repeats: usize,
    device: &Device,
    mut work: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let mut times = Vec::with_capacity(repeats);
    for repeat in 0..repeats + 2 {
        device.synchronize()?;
        let start = Instant::now();
        work()?;
        device.synchronize()?;
        // The first two warm up: compilation, pools of memory.
        if repeat >= 2 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn measure(batch: &[(Network, Graph)], device: &Device, repeats: usize) -> anyhow::Result<()> {
    print(&format!(
        "time, median of {repeats}\n  {:<46} {:>10} {:>10} {:>8}\n",
        "", "device ms", "CPU ms", "ratio"
    ))?;
    let row = |name: &str, device_ms: f64, cpu_ms: f64| {
        print(&format!("  {name:<46} {device_ms:>10.3} {cpu_ms:>10.3} {:>8.1}\n", cpu_ms / device_ms))
    };
    for task in [passing(ghn2(32), batch)?, passing(ghn2(64), batch)?, tiling(batch)?] {
        let time = |device: &Device, backward: bool| {
            let (vars, upstream) = (task.vars(device)?, task.upstream(device)?);
            median(repeats, device, || match backward {
                true => task.both(&vars, &upstream).map(drop),
                false => task.forward(&vars).map(drop),
            })
        };
        row(&format!("{}, forward", task.name), time(device, false)?, time(&Device::Cpu, false)?)?;
        let name = format!("{}, and backward", task.name);
        row(&name, time(device, true)?, time(&Device::Cpu, true)?)?;
    }
    let ghn = Ghn::new(GhnConfig::ghn2(10), 1)?;
    let inputs: Vec<(&Network, &Graph)> = batch.iter().map(|(network, graph)| (network, graph)).collect();
    let predict = |device: &Device| {
        let ghn = ghn.to_device(device)?;
        median(repeats, device, || Ok(ghn.predict_batch(&inputs).map(drop)?))
    };
    row("GHN-2, all weights of all networks", predict(device)?, predict(&Device::Cpu)?)?;

    let task = passing(ghn2(32), batch)?;
    let vars = task.vars(device)?;
    let ours = median(repeats, device, || task.forward(&vars).map(drop))?;
    let one_by_one = median(2, device, || node_by_node(&vars, ghn2(32), batch).map(drop))?;
    print(&format!(
        "one launch for every op of every node, forward, hid 32: {one_by_one:.1} ms on the device, {:.0} times as long\n",
        one_by_one / ours
    ))
}

/// Logits of a network with predicted weights on 64 images: on the device against the native executor on the CPU, and
/// the time of each.
fn networks(network: &Network, graph: &Graph, device: &Device, repeats: usize) -> anyhow::Result<()> {
    const IMAGES: usize = 64;
    let shape = network.input_shape();
    let pixels = uniform(IMAGES * shape.iter().product::<usize>(), 1.0, 6);
    let images = PreparedImages::new(pixels, vec![0; IMAGES], network.num_classes())?;
    let params = Ghn::bundled()?.predict_batch(&[(network, graph)])?.params;
    let values = params.to_vec1::<f32>()?;
    let mut native = NativeExecutor::new(network, IMAGES)?;
    let wanted = native.logits(&values, images.images(), Mode::Evaluate)?;
    let cpu_ms = median(repeats, &Device::Cpu, || {
        Ok(native.logits(&values, images.images(), Mode::Evaluate).map(drop)?)
    })?;
    print(&format!(
        "a network of {} parameters, {IMAGES} images: {cpu_ms:.2} ms on the CPU\n",
        network.n_params()
    ))?;
    let wanted = Tensor::new(wanted, &Device::Cpu)?;
    let (params, executor) =
        (params.to_device(device)?, CandleExecutor::new(Arc::new(network.clone()), device.clone()));
    // Roundings of half a unit in the last of 24, 11 or 8 bits, through some hundred ops.
    for (precision, tolerance) in [(Precision::F32, 1e-3), (Precision::F16, 0.1), (Precision::Bf16, 0.5)] {
        let resident = ResidentImages::new(&images, shape, IMAGES, device, precision)?;
        let gap = gap(&Tensor::new(resident.logits(&executor, &params)?, &Device::Cpu)?, &wanted)?;
        ensure!(gap <= tolerance, "a network in {precision} differs by {gap:.1e} of the largest logit");
        let ms = median(repeats, device, || Ok(resident.logits(&executor, &params).map(drop)?))?;
        print(&format!(
            "  {precision:<5} {ms:>8.2} ms on the device, logits differ by {gap:.1e} of the largest\n"
        ))?;
    }
    Ok(())
}

/// A round of message passing as the reference does it: node by node, all graphs of the batch one after the other.
fn node_by_node(vars: &[Var], weights: Weights, batch: &[(Network, Graph)]) -> anyhow::Result<Tensor> {
    let mut offset = 0;
    let mut w = Vec::new();
    for (_, shape) in weights.tensors() {
        let len = shape.iter().product();
        w.push(vars[1].narrow(0, offset, len)?.reshape(shape)?);
        offset += len;
    }
    let linear = |x: &Tensor, weight: &Tensor, bias: &Tensor| x.matmul(&weight.t()?)?.broadcast_add(bias);
    let message = |x: &Tensor, w: &[Tensor]| linear(&linear(x, &w[0], &w[1])?.relu()?, &w[2], &w[3])?.relu();
    let sigmoid = |x: Tensor| (x.neg()?.exp()? + 1.0)?.recip();
    let gru = &w[w.len() - 4..];
    let states = vars[0].reshape(((), weights.hid))?;
    let (mut done, mut first) = (Vec::new(), 0);
    for (_, graph) in batch {
        let n = graph.nodes.len();
        let mut h =
            (0..n).map(|v| states.narrow(0, first + v, 1)).collect::<candle_core::Result<Vec<_>>>()?;
        first += n;
        for (order, neighbours) in
            [((0..n).collect::<Vec<_>>(), &graph.incoming), ((0..n).rev().collect(), &graph.outgoing)]
        {
            for v in order {
                let mut m = h[v].zeros_like()?;
                let select = |direct: bool| neighbours.of(v).filter(move |&(_, d)| !direct || d == 1);
                for (direct, maps) in [(true, &w[..4]), (false, &w[4..8])] {
                    let rows: Vec<&Tensor> = select(direct).map(|(u, _)| &h[u]).collect();
                    if rows.is_empty() {
                        continue;
                    }
                    let factors: Vec<f32> = select(direct).map(|(_, d)| 1.0 / f32::from(d)).collect();
                    let factors = Tensor::new(factors, states.device())?.unsqueeze(0)?;
                    m = (m + factors.matmul(&message(&Tensor::cat(&rows, 0)?, maps)?)?)?;
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
    Ok(Tensor::cat(&done, 0)?)
}
