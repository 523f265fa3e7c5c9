//! `foretell bench ranking`: rankings by cheap scores against the ranking after training, on a truth set.

use crate::cli::agreement::AgreementArgs;
use crate::cli::interrupt::stop_flag;
use crate::cli::output::print;
use crate::execute::NativeExecutor;
use crate::files::create_folders;
use crate::ghn::Ghn;
use crate::images;
use crate::report::{
    MethodRow, method_rows, methods_frame, methods_plot, methods_table, random_control, write_csv,
};
use crate::score::{Fidelity, gradient_norm, naswot, synflow};
use crate::training::Ending;
use crate::truth::{
    CheapPlan, CheapRow, CheapScorer, Method, OneBatchScore, Stages, Truth, TruthSet, VOTERS, epoch_methods,
    read_stored, repeated, select_on_half, single_methods, staged_methods, vote_of,
};
use anyhow::{Context, ensure};
use std::path::PathBuf;

/// Rankings by cheap scores against the ranking after training, on a truth set.
///
/// Every trained architecture of the set is scored by every cheap means, and each means by how well its order agrees
/// with the order after training. Scores are stored in scores.jsonl as they come, so that the same command goes on
/// after Ctrl-C, and with other --steps or --stages measures only what is new. ranking.csv has all methods,
/// ranking.png the accuracies.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the truth set, as `foretell truth` wrote it
    #[arg(long, value_name = "DIR", default_value = "experiments/results/truth-fashion")]
    truth: PathBuf,
    /// Folder for scores, table and plot
    #[arg(long, value_name = "DIR", default_value = "runs/ranking")]
    out: PathBuf,
    /// Hypernetwork: bundled, or a .safetensors or .pt file
    #[arg(long, value_name = "bundled|FILE", default_value = "bundled")]
    ghn: String,
    /// Validation images that cheap scores are measured on
    #[arg(long, value_name = "N", default_value_t = 1024)]
    eval_images: usize,
    /// Standard deviation of the noise; the truth set must have been tested at it
    #[arg(long, value_name = "SD", default_value_t = 0.08)]
    noise: f64,
    /// Steps of SGD from predicted weights, each number a training of its own
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "50,100,200")]
    steps: Vec<u64>,
    /// The same from He's random weights [default: as --steps]
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    he_steps: Option<Vec<u64>>,
    /// Learning rate from predicted weights
    #[arg(long, default_value_t = 0.025)]
    lr: f64,
    /// Learning rate from He's random weights
    #[arg(long, default_value_t = 0.05)]
    he_lr: f64,
    /// Images in a batch of training [default: as in the truth set]
    #[arg(long, value_name = "N")]
    train_batch: Option<usize>,
    /// A staged ranking, e.g. predicted,sgd:50=32,sgd:200=8; may be given several times [default: three halvings over
    /// --steps]
    #[arg(long, value_name = "STAGES")]
    stages: Vec<Stages>,
    #[command(flatten)]
    agreement: AgreementArgs,
    /// Seed of the images' order, random weights and bootstrap samples
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Measure nothing: compare what is stored
    #[arg(long)]
    stored: bool,
    /// Architectures that are scored side by side [default: one for each core]; scores do not depend on it
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Threads of each of them
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
}

/// Scores that need one batch and random weights.
const ONE_BATCH: [(&str, OneBatchScore); 3] = [
    ("synflow", |network, params, _| synflow(network, params)),
    ("naswot", |network, params, images| {
        naswot(&mut NativeExecutor::new(network, images.len())?, params, images)
    }),
    ("gradient norm", |network, params, images| {
        gradient_norm(network, &mut NativeExecutor::<f32>::new(network, images.len())?, params, images)
    }),
];

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let workers = args.workers.unwrap_or(cores);
    for (flag, value) in [("--workers", workers), ("--threads", args.threads)] {
        ensure!((1..=1024).contains(&value), "{flag} is {value}, expected 1 to 1024");
    }
    ensure!(args.eval_images > 0, "--eval-images is 0, expected at least 1");
    let options = args.agreement.options(args.seed)?;
    ensure!(args.train_batch != Some(0), "--train-batch is 0, expected at least 1");
    for (flag, value) in [("--lr", args.lr), ("--he-lr", args.he_lr), ("--noise", args.noise)] {
        ensure!(value > 0.0 && value.is_finite(), "{flag} is {value}, expected a positive number");
    }
    let set = TruthSet::open(&args.truth).with_context(|| format!("--truth {}", args.truth.display()))?;
    let levels = &set.config().evaluation.noise;
    ensure!(
        levels.contains(&args.noise),
        "--noise {}: {} was tested at {levels:?}",
        args.noise,
        args.truth.display()
    );
    ensure!(!set.rows().is_empty(), "{}: no architecture is trained yet", args.truth.display());

    let data = images::open(&set.config().training.images)?;
    let images_of_a_training = {
        let training = set.config().training_of(&set.architectures()[0], 0);
        training.epochs * training.split(&data)?.0.len() as u64
    };
    let truth = Truth::of(&set, args.noise, images_of_a_training);
    let stages = match args.stages.is_empty() {
        false => args.stages.clone(),
        true => default_stages(&args.steps, truth.ids.len())?,
    };
    let plan = CheapPlan {
        ghn: args.ghn.clone(),
        ghn_sha256: Ghn::sha256(&args.ghn).context("--ghn")?[..16].to_owned(),
        eval_images: args.eval_images.min(data.validation.len()),
        eval_batch: set.config().evaluation.batch,
        noise: args.noise,
        noise_seed: set.config().evaluation.noise_seed,
        train_batch: args.train_batch.unwrap_or(set.config().training.batch),
        lr_predicted: args.lr,
        lr_he: args.he_lr,
        seed: args.seed,
    };
    create_folders(&args.out)?;
    let path = args.out.join("scores.jsonl");
    let rows = match args.stored {
        true => read_stored(&path, &plan)?,
        false => {
            let ghn = Ghn::open(&args.ghn)?;
            let scorer = CheapScorer::new(&set, plan, ghn, &data)?.with_one_batch_scores(&ONE_BATCH);
            let fidelities = fidelities(&args, &stages);
            let progress = |done: usize, total: usize, id: &str| eprintln!("{done} of {total}: {id}");
            let parallel = [workers, args.threads];
            let (ending, rows) = scorer.fill(&path, &fidelities, parallel, stop_flag(), &progress)?;
            if ending == Ending::Stopped {
                print(&format!("stopped; the same command goes on from {}\n", path.display()))?;
                return Err(crate::Error::Interrupted.into());
            }
            rows
        }
    };
    let methods = methods(&set, &truth, &rows, &stages);
    let mut compared = vec![random_control(&truth, options)];
    compared.extend(method_rows(&truth, &methods, options));
    if let Some((others, methods)) = repeated(&set, &truth, args.noise) {
        compared.extend(method_rows(&others, &methods, options));
    }
    let csv = args.out.join("ranking.csv");
    write_csv(&methods_frame(&compared)?, &csv)?;
    let subject = format!("{} architectures of the space {}", truth.ids.len(), set.config().space);
    let votes = format!("{subject}; sizes: vote of {}", VOTERS.join(" and "));
    let plots = methods_plot(&for_plot(&compared), &votes, &args.out.join("ranking"))?;
    let mut text = methods_table(&compared, options.top);
    text += &format!(
        "{subject}, each trained on {images_of_a_training} images in {:.0} s; regret in percentage points\n",
        truth.seconds / truth.ids.len() as f64
    );
    if let Some(selection) = select(&truth, &methods, args.seed) {
        text += &selection;
    }
    for file in std::iter::once(&csv).chain(&plots) {
        text += &format!("  {}\n", file.display());
    }
    print(&text)
}

/// All that is to be measured, cheapest first.
fn fidelities(args: &Args, stages: &[Stages]) -> Vec<Fidelity> {
    let he = args.he_steps.as_ref().unwrap_or(&args.steps);
    let steps = args.steps.iter().map(|&steps| Fidelity::Sgd { steps });
    let mut all: Vec<Fidelity> = std::iter::once(Fidelity::Predicted)
        .chain(steps)
        .chain(he.iter().map(|&steps| Fidelity::He { steps }))
        .chain(stages.iter().flat_map(Stages::fidelities))
        .filter(|fidelity| !matches!(fidelity, Fidelity::Sgd { steps: 0 } | Fidelity::He { steps: 0 }))
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Halving from all at predicted weights over the two, three, ... smallest numbers of steps.
fn default_stages(steps: &[u64], architectures: usize) -> anyhow::Result<Vec<Stages>> {
    let mut steps: Vec<u64> = steps.iter().copied().filter(|&steps| steps > 0).collect();
    steps.sort_unstable();
    steps.dedup();
    let mut all = Vec::new();
    for last in 1..=steps.len() {
        let mut text = "predicted".to_owned();
        for (i, steps) in steps[..last].iter().enumerate() {
            text += &format!(",sgd:{steps}={}", (architectures >> (i + 1)).max(1));
        }
        all.push(text.parse()?);
    }
    Ok(all)
}

fn methods(set: &TruthSet, truth: &Truth, rows: &[CheapRow], stages: &[Stages]) -> Vec<Method> {
    let mut methods = single_methods(truth, rows);
    let find = |name: &str| methods.iter().find(|method| method.name == name);
    let mut joined = Vec::new();
    let sizes: Vec<&Method> = VOTERS.into_iter().filter_map(find).collect();
    joined.push(vote_of(&sizes, "vote"));
    for score in ["accuracy", "noisy accuracy"] {
        for method in methods.iter().filter(|method| method.name == format!("{} {score}", method.way())) {
            let others = [format!("predicted {score}"), "params".into(), "macs".into(), "naswot".into()];
            let is_other = |other: &&Method| other.way() != method.way();
            let pairs = others.iter().filter_map(|name| find(name)).filter(is_other);
            joined.extend(pairs.map(|other| vote_of(&[method, other], "vote of two")));
            joined.push(vote_of(&[&[method][..], &sizes].concat(), "vote"));
        }
    }
    methods.extend(joined);
    for stages in stages {
        methods.extend(staged_methods(truth, rows, stages));
    }
    methods.extend(epoch_methods(truth, set));
    methods
}

/// Most that a chosen vote may cost, as a share of training all architectures.
const MOST_COST: f64 = 0.05;
/// Scores in it.
const MOST_VOTERS: usize = 4;
/// Random halves that choose.
const SPLITS: usize = 200;

/// What the best vote of one half of the architectures is worth on the other half, in words.
fn select(truth: &Truth, methods: &[Method], seed: u64) -> Option<String> {
    let kinds = ["size", "zero-cost", "GHN-2", "SGD from GHN-2", "SGD from He"];
    let single: Vec<&Method> = methods
        .iter()
        .filter(|method| kinds.contains(&method.kind) && !method.name.contains("noisy"))
        .filter(|method| method.macs <= MOST_COST * truth.macs)
        .collect();
    let most = MOST_COST * truth.macs;
    let found = select_on_half(&single, MOST_VOTERS, most, [&truth.clean, &truth.noisy], SPLITS, seed)?;
    let (vote, times) = found.most_chosen;
    Some(format!(
        "of {} votes of at most {MOST_VOTERS} scores within {:.0} % of the multiply-accumulates, the best of a random half \
         of the architectures has tau {:.3} there and {:.3} (noisy {:.3}) on the other half, in the mean of {} splits; \
         most often ({times}) {vote}\n",
        found.votes,
        100.0 * MOST_COST,
        found.own,
        found.other,
        found.other_noisy,
        found.splits
    ))
}

/// A line for each way of ranking: in the plot of each truth the score that fits it, the accuracy with the clean and
/// the noisy accuracy with the noisy one.
fn for_plot(rows: &[MethodRow]) -> Vec<MethodRow> {
    let sizes = format!(" + {}", VOTERS.join(" + "));
    let mut shown = Vec::new();
    for row in rows.iter().filter(|row| row.kind != "vote of two") {
        let (name, votes) = match row.name.strip_suffix(&sizes) {
            Some(name) => (name, &*sizes),
            None => (&*row.name, ""),
        };
        if name.ends_with(" loss") || name.ends_with(" noisy accuracy") {
            continue;
        }
        let mut row = row.clone();
        if let Some(way) = name.strip_suffix(" accuracy") {
            let noisy = format!("{way} noisy accuracy{votes}");
            if let Some(noisy) = rows.iter().find(|other| other.name == noisy) {
                row.noisy = noisy.noisy;
            }
            row.name = if votes.is_empty() { way.to_owned() } else { format!("{way} + sizes") };
        }
        shown.push(row);
    }
    shown
}
