//! The hypernetwork on this machine: message passing, prediction from genotypes, and a training step.
//!
//! `cargo bench --bench ghn` runs all parts; words after `--` select some of `messages`, `predict` and `train`, a
//! number is that of training steps (50). Training uses the images inside the program. Every part prints milliseconds (or seconds) as mean, median and worst. `RAYON_NUM_THREADS=1` measures one core.

use std::hint::black_box;
use std::time::Instant;

use candle_core::Var;
use foretell::deepnets::{Split, generate};
use foretell::ghn::{Ghn, GhnConfig};
use foretell::graph::Graph;
use foretell::images;
use foretell::network::{Network, expand};
use foretell::space::{Architecture, CellArchitecture};
use foretell::training::{
    AdamConfig, ArchitecturesConfig, EvaluationConfig, ImagesConfig, Schedule, SpaceShare, TrainConfig,
    Trainer,
};

// As the program itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Training steps that are timed, unless another number is asked for.
const STEPS: usize = 50;

fn main() -> foretell::Result<()> {
    foretell::execute::keep_freed_memory();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let steps = words.iter().find_map(|word| word.parse().ok());
    let wanted = |part: &str| {
        words.iter().all(|word| word.parse::<usize>().is_ok()) || words.iter().any(|word| word == part)
    };
    println!("{} threads", rayon::current_num_threads());
    if wanted("messages") {
        messages()?;
    }
    if wanted("predict") {
        predict("random GHN-2", &Ghn::new(GhnConfig::ghn2(10), 1)?)?;
        predict("bundled GHN-2", &Ghn::bundled()?)?;
    }
    if wanted("train") {
        train(steps.unwrap_or(STEPS))?;
    }
    Ok(())
}

/// Mean, median and worst.
fn summary(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    format!(
        "mean {mean:7.2}  median {:7.2}  worst {:7.2}",
        sorted[sorted.len() / 2],
        sorted[sorted.len() - 1]
    )
}

/// Milliseconds since `start`.
fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Cell architectures of a split.
fn architectures(split: Split, count: usize) -> foretell::Result<Vec<CellArchitecture>> {
    generate(split, count, 1)?
        .map(|record| match record?.arch {
            Architecture::Cells(arch) => Ok(arch),
            other => unreachable!("splits hold cell architectures, found {other:?}"),
        })
        .collect()
}

/// Embedding and message passing of eight training graphs with about 1,600 nodes, forward and backward.
fn messages() -> foretell::Result<()> {
    let mut graphs = Vec::new();
    for arch in architectures(Split::Train, 64)? {
        graphs.push(Graph::of(&expand(&arch, 10)?));
    }
    let nodes = |batch: &[Graph]| batch.iter().map(|graph| graph.nodes.len()).sum::<usize>();
    let batch = graphs.windows(8).min_by_key(|batch| nodes(batch).abs_diff(1600)).expect("64 graphs");
    let edges: usize = batch.iter().map(|graph| graph.incoming.node.len()).sum();
    let batch_nodes = nodes(batch);
    let batch: Vec<&Graph> = batch.iter().collect();
    let ghn = Ghn::new(GhnConfig::ghn2(10), 1)?;
    let vars: Vec<Var> = ghn.vars().into_iter().map(|(_, var)| var).collect();
    let (mut forward, mut both) = (Vec::new(), Vec::new());
    for round in 0..60 {
        let start = Instant::now();
        let states = ghn.node_states(&batch)?;
        let forward_ms = ms(start);
        let gradients = states.embedding.sqr()?.sum_all()?.backward()?;
        black_box(vars.iter().filter(|var| gradients.get(var.as_tensor()).is_some()).count());
        if round >= 10 {
            forward.push(forward_ms);
            both.push(ms(start));
        }
    }
    println!("\nmessage passing and embedding, {batch_nodes} nodes, {edges} edges, ms");
    println!("  forward             {}", summary(&forward));
    println!("  forward + backward  {}", summary(&both));
    Ok(())
}

/// From genotypes of 1 to 4 million parameters to all their weights.
fn predict(name: &str, ghn: &Ghn) -> foretell::Result<()> {
    let mut chosen = Vec::new();
    for split in [Split::Test, Split::Train] {
        let mut found = 0;
        for arch in architectures(split, 200)? {
            let params = expand(&arch, 10)?.n_params();
            if (1_000_000..=4_000_000).contains(&params) && found < 25 {
                chosen.push((arch, params));
                found += 1;
            }
        }
    }
    let parts = ["network", "graph", "node states", "decoding", "all"];
    let mut times: [Vec<f64>; 5] = Default::default();
    let network_of = |arch: &CellArchitecture| expand(arch, 10);
    let whole = |network: &Network| -> foretell::Result<usize> {
        let graph = Graph::of(network);
        Ok(black_box(ghn.predict_batch(&[(network, &graph)])?).params.elem_count())
    };
    for round in 0..4 {
        for (arch, _) in &chosen {
            let start = Instant::now();
            whole(&network_of(arch)?)?;
            let all = ms(start);
            let start = Instant::now();
            let network = network_of(arch)?;
            let network_ms = ms(start);
            let start = Instant::now();
            let graph = Graph::of(&network);
            let graph_ms = ms(start);
            let start = Instant::now();
            black_box(ghn.node_states(&[&graph])?);
            let states_ms = ms(start);
            if round > 0 {
                let rest = all - network_ms - graph_ms - states_ms;
                for (list, value) in times.iter_mut().zip([network_ms, graph_ms, states_ms, rest, all]) {
                    list.push(value);
                }
            }
        }
    }
    let millions = chosen.iter().map(|(_, params)| *params as f64 / 1e6).sum::<f64>() / chosen.len() as f64;
    println!(
        "\n{name}, {} genotypes to weights, {millions:.2} million parameters on average, ms",
        chosen.len()
    );
    for (part, times) in parts.iter().zip(&times) {
        println!("  {part:<18}  {}", summary(times));
    }
    Ok(())
}

/// Training steps as in the paper: GHN-2 of width 32, eight architectures drawn on the fly, 64 images.
fn train(steps: usize) -> foretell::Result<()> {
    let config = TrainConfig {
        seed: 1,
        steps: 1000,
        ghn: GhnConfig::ghn2(10),
        start: None,
        images: ImagesConfig { source: "fashion-mnist".into(), batch: 64, augment: true },
        architectures: ArchitecturesConfig {
            spaces: vec![SpaceShare { space: "deepnets1m".into(), share: 1.0 }],
            meta_batch: 8,
            reference_width: true,
            small_first: 0.0,
            max_nodes: 2200,
        },
        optimizer: AdamConfig::default(),
        schedule: Schedule::Cosine { warmup: 0, floor: 0.0 },
        clip_norm: 5.0,
        clip_network: None,
        average: 0.0,
        max_skips_in_a_row: 20,
        checkpoint_every: 1000,
        evaluation: EvaluationConfig { every: 1000, architectures: 1, images: 64 },
    };
    let mut data = images::open(&config.images.source)?;
    data.train.get_or_insert(data.validation.clone());
    let mut trainer = Trainer::new(config, &data)?;
    trainer.step()?;
    let (mut times, mut params) = (Vec::new(), 0);
    let before = cpu_seconds();
    for _ in 0..steps {
        let start = Instant::now();
        params += black_box(trainer.step()?).params;
        times.push(start.elapsed().as_secs_f64());
    }
    let after = cpu_seconds();
    println!(
        "\ntraining step, 8 architectures, {:.2} million parameters on average, s",
        params as f64 / 1e6 / steps as f64
    );
    println!("  step                {}", summary(&times));
    if let (Some(before), Some(after)) = (before, after) {
        let share = |at: usize| (after[at] - before[at]) / steps as f64;
        println!("  processor time      {:.2} user, {:.2} system", share(0), share(1));
    }
    if let Some(peak) = peak_megabytes() {
        println!("  largest memory      {peak:.0} MB");
    }
    Ok(())
}

/// Processor seconds of this process, user and system; none where the system does not tell.
fn cpu_seconds() -> Option<[f64; 2]> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some([ticks(11)? / 100.0, ticks(12)? / 100.0])
}

/// Largest resident memory so far; none where the system does not tell.
fn peak_megabytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
