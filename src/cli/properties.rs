//! `foretell properties`: how well properties of architectures can be predicted before they are measured.

use super::candidates::{self, Candidate};
use super::measured::Measured;
use super::output::print;
use super::threads;
use crate::ghn::Ghn;
use crate::graph::Graph;
use crate::images;
use crate::network::build;
use crate::predictor::{
    CHEAP_SCORES, CheapScores, FeatureProbe, FeatureSet, Property, PropertyRow, property_rows,
};
use crate::report::{properties_frame, properties_plot, properties_text, write_csv};
use crate::{Error, Result, files};
use anyhow::{Context, bail};
use polars::prelude::{Column, DataFrame, NamedFrom, Series};
use std::path::{Path, PathBuf};

/// Flags of `foretell properties`.
///
/// Architectures that were measured, e.g. trained, teach regressors to predict what others would measure, from the mean
/// node embedding of hypernetworks and from scores that need one batch of images at most. The table says by
/// cross-validation how well each of them ranks unseen architectures (Kendall's tau).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folder, or file of architectures (JSON lines, as leaderboards are)
    #[arg(value_name = "RUN|FILE")]
    architectures: String,
    /// CSV of what they measured: a column architecture, name, id or trial, and columns of numbers [default: the
    /// scores of RUN]
    #[arg(long, value_name = "FILE|RUN")]
    measured: Option<PathBuf>,
    /// Columns to predict [default: accuracy, robustness, latency_ms, loss and convergence, as far as there are]
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    property: Vec<String>,
    /// Hypernetworks whose embeddings are features: bundled, or .safetensors or .pt files
    #[arg(long, value_name = "bundled|FILE,...", value_delimiter = ',', default_value = "bundled")]
    ghn: Vec<String>,
    /// Images for gradient norms and codes: fashion-mnist, cifar10 or a folder
    #[arg(long, value_name = "NAME_OR_DIR", default_value = "fashion-mnist")]
    images: String,
    /// Folds of the cross-validation
    #[arg(long, value_name = "N", default_value_t = 5)]
    folds: usize,
    /// Seed of folds, random weights, images and trees
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Folder to write properties.csv, features.csv, properties.png and properties.svg into
    #[arg(long, value_name = "DIR", default_value = "properties")]
    out: PathBuf,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// What is predicted if nothing is asked for.
const PROPERTIES: [&str; 5] = ["accuracy", "robustness", "latency_ms", "loss", "convergence"];

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    threads::limit(args.threads)?;
    let path = Path::new(&args.architectures);
    let source = match &args.measured {
        Some(measured) => measured.as_path(),
        None if path.is_dir() => path,
        None => bail!("--measured: {} is no run folder, so a CSV must say what was measured", path.display()),
    };
    let measured = Measured::read(source)?;
    let candidates = candidates::read(std::slice::from_ref(&args.architectures))?;
    let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name.as_str()).collect();
    let wanted = if args.property.is_empty() {
        PROPERTIES.into_iter().filter(|name| measured.has(name)).map(String::from).collect()
    } else {
        args.property.clone()
    };
    let mut properties = Vec::new();
    for name in wanted {
        let values = measured.column(&name, &names).context("--property")?;
        properties.push(Property { name, values });
    }
    if properties.is_empty() {
        bail!("--property: {} has none of {}", source.display(), PROPERTIES.join(", "));
    }
    // What was not measured at all teaches nothing.
    let is_known = |at: usize| properties.iter().any(|property| property.values[at].is_some());
    let known: Vec<usize> = (0..candidates.len()).filter(|&at| is_known(at)).collect();
    for property in &mut properties {
        property.values = known.iter().map(|&at| property.values[at]).collect();
    }
    let candidates: Vec<&Candidate> = known.iter().map(|&at| &candidates[at]).collect();
    let mut ghns = Vec::new();
    for name in &args.ghn {
        ghns.push((short_name(name), Ghn::open(name).with_context(|| format!("--ghn {name}"))?));
    }
    let probe = FeatureProbe::new(&images::open(&args.images)?, args.seed)?;
    let described = described(&candidates, &ghns, &probe)?;
    let sets = sets(&ghns, &described);
    let mut rows: Vec<PropertyRow> = Vec::new();
    for property in &properties {
        eprintln!("predicting {}", property.name);
        rows.extend(property_rows(property, &sets, args.folds, args.seed).context("--property")?);
    }
    files::create_folders(&args.out)?;
    let names: Vec<&str> = candidates.iter().map(|candidate| candidate.name.as_str()).collect();
    let mut written = vec![args.out.join("properties.csv"), args.out.join("features.csv")];
    write_csv(&properties_frame(&rows)?, &written[0])?;
    write_csv(&features_frame(&names, &ghns, &described, &properties)?, &written[1])?;
    written.extend(properties_plot(&rows, &args.out.join("properties"))?);
    let mut text = properties_text(&rows);
    written.iter().for_each(|path| text += &format!("wrote {}\n", path.display()));
    print(&text)
}

/// A checkpoint's file name without its ending.
fn short_name(name: &str) -> String {
    Path::new(name).file_stem().map_or_else(|| name.to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// What is known of an architecture before it is measured.
struct Described {
    /// One for each hypernetwork.
    embeddings: Vec<Vec<f64>>,
    cheap: CheapScores,
}

/// The scores that need weights take those of the first hypernetwork.
fn described(
    candidates: &[&Candidate],
    ghns: &[(String, Ghn)],
    probe: &FeatureProbe,
) -> anyhow::Result<Vec<Described>> {
    let Some(((_, first), others)) = ghns.split_first() else { bail!("--ghn: no hypernetwork") };
    let mut all = Vec::with_capacity(candidates.len());
    for (number, candidate) in candidates.iter().enumerate() {
        if number % 50 == 0 {
            eprintln!("features of {} architectures: {number}", candidates.len());
        }
        let describe = || -> Result<Described> {
            let network = build(&candidate.arch, first.config().num_classes)?;
            let graph = Graph::of(&network);
            let features = probe.features(&network, first)?;
            let mut embeddings = vec![features.embedding];
            for (_, ghn) in others {
                let mean = ghn.mean_embeddings(&[&graph])?.concat();
                embeddings.push(mean.into_iter().map(f64::from).collect());
            }
            Ok(Described { embeddings, cheap: features.cheap })
        };
        all.push(describe().with_context(|| candidate.name.clone())?);
    }
    Ok(all)
}

fn sets(ghns: &[(String, Ghn)], described: &[Described]) -> Vec<FeatureSet> {
    let set = |name: String, row: &dyn Fn(&Described) -> Vec<f64>| FeatureSet {
        name,
        rows: described.iter().map(row).collect(),
    };
    let mut sets = Vec::new();
    for (at, (name, _)) in ghns.iter().enumerate() {
        sets.push(set(format!("embedding ({name})"), &|one| one.embeddings[at].clone()));
        sets.push(set(format!("embedding ({name}) + cheap scores"), &|one| {
            [&one.embeddings[at][..], &one.cheap.features()].concat()
        }));
    }
    sets.push(set("cheap scores".into(), &|one| one.cheap.features().to_vec()));
    for (at, name) in CHEAP_SCORES.iter().enumerate() {
        sets.push(set((*name).into(), &|one| vec![one.cheap.features()[at]]));
    }
    sets
}

/// A row for each architecture: properties, cheap scores as features, embeddings.
fn features_frame(
    names: &[&str],
    ghns: &[(String, Ghn)],
    described: &[Described],
    properties: &[Property],
) -> Result<DataFrame> {
    let mut columns: Vec<Column> = vec![Series::new("architecture".into(), names).into()];
    for property in properties {
        columns.push(Series::new(property.name.as_str().into(), property.values.clone()).into());
    }
    for (at, name) in CHEAP_SCORES.iter().enumerate() {
        let known = |one: &Described| Some(one.cheap.features()[at]).filter(|value| value.is_finite());
        let values: Vec<Option<f64>> = described.iter().map(known).collect();
        columns.push(Series::new(format!("feature_{name}").as_str().into(), values).into());
    }
    for (at, (name, ghn)) in ghns.iter().enumerate() {
        for k in 0..ghn.config().hid {
            let values: Vec<f64> = described.iter().map(|one| one.embeddings[at][k]).collect();
            columns.push(Series::new(format!("{name}_{k}").as_str().into(), values).into());
        }
    }
    DataFrame::new(names.len(), columns)
        .map_err(|error| Error::Config(format!("cannot build the frame of features: {error}")))
}
