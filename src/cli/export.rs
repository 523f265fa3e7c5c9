//! `foretell export`: a network with weights and statistics as files that other programs run.

use super::arch::place;
use super::device::{DeviceFlag, on};
use super::output::print;
use super::scoring::{evaluation_of, evaluation_value};
use crate::checkpoint::read_tensors;
use crate::deepnets::resolve;
use crate::export::{
    Accuracies, Model, Preparation, Split, Statistics, StatisticsImages, measure, read_weights, to_onnx,
    to_pytorch,
};
use crate::files::{parent, write_atomically};
use crate::ghn::Ghn;
use crate::graph::Graph;
use crate::images::{self, DataSet};
use crate::network::{Network, build};
use crate::score::{Accuracy, Fidelity};
use crate::space::{ArchRecord, Architecture};
use crate::study::{Folder, KeptWeights, Study, Trial};
use anyhow::{Context, bail};
use candle_core::DType;
use std::path::{Path, PathBuf};

/// Images of a batch where neither flag nor study says.
const BATCH: usize = 64;
/// Training images that statistics are computed on where no flag says.
const STATISTICS_IMAGES: usize = 2048;
/// Images that each accuracy is measured on where neither flag nor study says.
const EVAL_IMAGES: usize = 1024;

/// Flags of `foretell export`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "On a GPU runs the prediction of weights; statistics and accuracies are computed on the CPU in any case."
)]
pub struct Args {
    /// Run folder of a search, e.g. runs/search-001: exports one of its trials
    #[arg(conflicts_with = "arch")]
    run: Option<PathBuf>,
    /// Trial of the run: a number, or best
    #[arg(long, value_name = "N|best")]
    trial: Option<TrialChoice>,
    /// Architecture: FILE, FILE#ID or the name of a predefined network [default: the one in --weights]
    #[arg(long, value_name = "FILE_OR_NAME")]
    arch: Option<String>,
    /// Architecture to pick from the file
    #[arg(long, requires = "arch")]
    id: Option<String>,
    /// Own weights: safetensors named as in a PyTorch state dict, with or without running statistics
    #[arg(long, value_name = "FILE", conflicts_with = "ghn")]
    weights: Option<PathBuf>,
    /// Hypernetwork that predicts the weights: bundled, or a .safetensors or .pt file [default: the study's, else
    /// bundled; a trial whose trained weights were kept has those]
    #[arg(long, value_name = "bundled|FILE")]
    ghn: Option<PathBuf>,
    /// What to write; several, separated by commas, become --out with their endings [default: by the ending of --out]
    #[arg(long, value_name = "FORMAT", value_delimiter = ',')]
    format: Vec<Format>,
    /// File to write; pytorch writes its weights beside it, as .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Images for statistics and accuracies: fashion-mnist, cifar10 or a folder [default: the study's, else
    /// fashion-mnist]
    #[arg(long, value_name = "NAME_OR_DIR")]
    images: Option<String>,
    /// Compute the batch norms' running statistics on this many training images, also where the weights bring their
    /// own [default: 2048]
    #[arg(long, value_name = "N")]
    statistics_images: Option<usize>,
    /// Validation images, and test images, that accuracies are measured on; 0 for none [default: the study's, else
    /// 1024]
    #[arg(long, value_name = "N")]
    eval_images: Option<usize>,
    /// Images of a forward pass [default: the study's, else 64]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    #[command(flatten)]
    device: DeviceFlag,
}

#[derive(Clone, Copy, Debug)]
enum TrialChoice {
    Best,
    Number(u64),
}

impl std::str::FromStr for TrialChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<TrialChoice, String> {
        match text {
            "best" => Ok(TrialChoice::Best),
            number => {
                number.parse().map(TrialChoice::Number).map_err(|_| "expected a number, or best".into())
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tensors named as in a PyTorch state dict
    Safetensors,
    /// A graph for onnxruntime and the like
    Onnx,
    /// A Python file for this architecture, and its weights
    Pytorch,
}

impl Format {
    const ALL: [Format; 3] = [Format::Safetensors, Format::Onnx, Format::Pytorch];

    fn ending(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Onnx => "onnx",
            Format::Pytorch => "py",
        }
    }
}

/// What is exported, and the settings that come with it.
struct Source {
    record: ArchRecord,
    /// What was typed, for messages.
    place: String,
    origin: Vec<String>,
    ghn: Option<PathBuf>,
    images: String,
    batch: usize,
    eval_images: usize,
    /// Weights that the search trained.
    kept: Option<(PathBuf, Fidelity)>,
    /// Whether the weights were trained on validation images, whose accuracy says nothing then.
    trained_on_validation: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let files = files(&args)?;
    if args.trial.is_some() && args.run.is_none() {
        bail!("--trial picks a trial of a run folder, but none is given");
    }
    let folder = parent(&args.out);
    if !folder.is_dir() {
        bail!("--out {}: there is no folder {}", args.out.display(), folder.display());
    }
    for (flag, value) in
        [("--statistics-images", args.statistics_images.unwrap_or(2)), ("--batch", args.batch.unwrap_or(2))]
    {
        if value < 2 {
            bail!("{flag} is {value}, expected at least 2");
        }
    }
    let mut source = source(&args)?;
    let data = images::open(&source.images)?;
    let classes = data.classes().len();
    source.record.num_classes = classes;
    let network = build(&source.record.arch, classes).with_context(|| source.place.clone())?;
    if network.input_shape() != data.validation.batch_shape() {
        let ([_, h, w], [_, rows, columns]) = (network.input_shape(), data.validation.batch_shape());
        bail!("{}: made for images of {h}x{w}, {} has {rows}x{columns}", source.place, source.images);
    }
    let (params, stored) = weights(&args, &mut source, &network)?;
    let drawn = StatisticsImages::draw(&data, args.statistics_images.unwrap_or(STATISTICS_IMAGES))?;
    let statistics = match stored.filter(|_| args.statistics_images.is_none()) {
        Some(statistics) => {
            source.origin.push("batch norms: the weights' own running statistics".into());
            statistics
        }
        None => computed(&mut source, &network, &params, &drawn)?,
    };
    let splits = splits(&data, &drawn, &source)?;
    let accuracies = measure(&network, &params, &statistics, &splits, source.batch)?;
    let preparation = Preparation::of(&data);
    let Source { record, origin, .. } = source;
    let model = Model { record, network, params, statistics, origin, preparation, accuracies };
    let mut text = String::new();
    for (format, path) in files {
        match format {
            Format::Safetensors => model.write_safetensors(&path)?,
            Format::Onnx => write_atomically(&path, &to_onnx(&model)?)?,
            Format::Pytorch => {
                let weights = beside(&path, Format::Safetensors);
                model.write_safetensors(&weights)?;
                let name = weights.file_name().unwrap_or_default().to_string_lossy().into_owned();
                write_atomically(&path, to_pytorch(&model, &name)?.as_bytes())?;
                text += &format!("wrote {}\n", weights.display());
            }
        }
        text += &format!("wrote {}\n", path.display());
    }
    print(&(summary(&model) + &text))
}

/// The files to write.
fn files(args: &Args) -> anyhow::Result<Vec<(Format, PathBuf)>> {
    let out = &args.out;
    let ending = out.extension().and_then(|ending| ending.to_str());
    let by_ending = Format::ALL.into_iter().find(|format| Some(format.ending()) == ending);
    let mut formats: Vec<Format> = Vec::new();
    for format in &args.format {
        if !formats.contains(format) {
            formats.push(*format);
        }
    }
    Ok(match (formats.as_slice(), by_ending) {
        ([], Some(format)) => vec![(format, out.clone())],
        ([], None) => bail!(
            "--out {}: its ending is none of .safetensors, .onnx and .py, so --format is needed",
            out.display()
        ),
        ([format], Some(other)) if *format != other => {
            bail!("--out {}: a file of another format than --format says", out.display())
        }
        ([Format::Pytorch], None) => vec![(Format::Pytorch, beside(out, Format::Pytorch))],
        ([format], _) => vec![(*format, out.clone())],
        (formats, _) => {
            // A Python file brings its weights along.
            let alone = |format: Format| format != Format::Safetensors || !formats.contains(&Format::Pytorch);
            formats
                .iter()
                .filter(|format| alone(**format))
                .map(|&format| (format, beside(out, format)))
                .collect()
        }
    })
}

/// `out` with the ending of `format`, in place of the ending of another.
fn beside(out: &Path, format: Format) -> PathBuf {
    let ending = out.extension().and_then(|ending| ending.to_str());
    if Format::ALL.into_iter().any(|known| Some(known.ending()) == ending) {
        return out.with_extension(format.ending());
    }
    let mut name = out.as_os_str().to_owned();
    name.push(".");
    name.push(format.ending());
    name.into()
}

/// The architecture, and what a study says of its evaluation.
fn source(args: &Args) -> anyhow::Result<Source> {
    let mut source = match (&args.run, &args.arch, &args.weights) {
        (Some(run), _, _) => of_run(run, args.trial.unwrap_or(TrialChoice::Best), args.ghn.is_none())?,
        (None, Some(arch), _) => {
            let record = resolve(arch, args.id.as_deref(), None)?;
            of_record(place(arch, &record), record)
        }
        (None, None, Some(weights)) => {
            let file = read_tensors(weights)?;
            let Some(record) = file.metadata.get("architecture") else {
                bail!("{}: its metadata name no architecture, give --arch", weights.display());
            };
            let record = serde_json::from_str(record)
                .with_context(|| format!("{}: metadata \"architecture\"", weights.display()))?;
            of_record(weights.display().to_string(), record)
        }
        (None, None, None) => bail!("nothing to export: give a run folder, --arch or --weights"),
    };
    match &args.ghn {
        Some(ghn) if ghn.as_os_str() == "bundled" => source.ghn = None,
        Some(ghn) => source.ghn = Some(ghn.clone()),
        None => {}
    }
    if let Some(images) = &args.images {
        source.images = images.clone();
    }
    source.batch = args.batch.unwrap_or(source.batch);
    source.eval_images = args.eval_images.unwrap_or(source.eval_images);
    Ok(source)
}

fn of_record(place: String, record: ArchRecord) -> Source {
    Source {
        record,
        place,
        origin: Vec::new(),
        ghn: None,
        images: "fashion-mnist".into(),
        batch: BATCH,
        eval_images: EVAL_IMAGES,
        kept: None,
        trained_on_validation: false,
    }
}

/// A trial of a study; `predicts` says that the study's hypernetwork is wanted.
fn of_run(run: &Path, choice: TrialChoice, predicts: bool) -> anyhow::Result<Source> {
    let (folder, record) = Folder::open(run)?;
    let trials = Study::trials_of(&folder.events()?, &folder.journal_path())?;
    let trial = match choice {
        TrialChoice::Best => {
            Trial::best_of(&trials).with_context(|| format!("{}: no trial is finished", run.display()))?
        }
        TrialChoice::Number(number) => {
            let found = usize::try_from(number).ok().and_then(|number| trials.get(number));
            found.with_context(|| match trials.len() {
                0 => format!("{}: there is no trial yet", run.display()),
                count => format!("{}: there is no trial {number}, only 0 to {}", run.display(), count - 1),
            })?
        }
    };
    let (evaluation, sha256) =
        evaluation_of(&record.settings.evaluation).with_context(|| run.display().to_string())?;
    let kept = KeptWeights::of(run).find(trial);
    if predicts && kept.is_none() && (sha256.is_some() || evaluation.ghn.is_some()) {
        let now = evaluation_value(&evaluation)?;
        if now.get("ghn_sha256").and_then(serde_json::Value::as_str) != sha256.as_deref() {
            let ghn = evaluation.ghn.as_ref().map_or("bundled".into(), |path| path.to_string_lossy());
            bail!(
                "{ghn}: the hypernetwork is another one than when the study in {} was begun; name one with --ghn",
                run.display()
            );
        }
    }
    Ok(Source {
        record: ArchRecord {
            id: format!("trial/{}", trial.number),
            split: String::new(),
            num_classes: 0,
            arch: Architecture::Cells(trial.arch.clone()),
        },
        place: format!("{}: trial {}", run.display(), trial.number),
        origin: vec![format!("architecture: trial {} of a search, hash {}", trial.number, trial.hash)],
        ghn: evaluation.ghn,
        images: evaluation.images,
        batch: evaluation.batch.max(2),
        eval_images: evaluation.eval_images,
        kept,
        trained_on_validation: false,
    })
}

/// The weights, and statistics if they are from a file that has them.
fn weights(
    args: &Args,
    source: &mut Source,
    network: &Network,
) -> anyhow::Result<(Vec<f32>, Option<Statistics>)> {
    // What the search trained, unless others are named.
    let kept = source.kept.clone().filter(|_| args.ghn.is_none() && args.weights.is_none());
    let own = args.weights.clone().map(|path| (path, None));
    let file = own.or_else(|| kept.map(|(path, fidelity)| (path, Some(fidelity))));
    if let Some((path, fidelity)) = &file {
        let read = read_weights(path, network).with_context(|| source.place.clone())?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        source.origin.push(match fidelity {
            Some(fidelity) => format!("weights: {name}, trained by the search ({fidelity})"),
            None => format!("weights: {name}"),
        });
        // As `foretell train --train-on validation` leaves it.
        let training = read.metadata.get("training").and_then(|text| serde_json::from_str(text).ok());
        source.trained_on_validation =
            training.is_some_and(|training: serde_json::Value| training["train_on"] == "validation");
        return Ok((read.params, read.statistics));
    }
    let (ghn, name) = match &source.ghn {
        None => (Ghn::bundled()?, "the bundled hypernetwork".to_string()),
        Some(path) => {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (Ghn::load(path)?, format!("the hypernetwork {name}"))
        }
    };
    let (predicted, classes) = (ghn.config().num_classes, network.num_classes());
    if predicted != classes {
        bail!(
            "the hypernetwork predicts classifiers of {predicted} classes, {} has {classes}",
            source.images
        );
    }
    let (ghn, graph) = (on(ghn, args.device)?, Graph::of(network));
    let prediction = ghn.predict_batch(&[(network, &graph)]).with_context(|| source.place.clone())?;
    source.origin.push(format!("weights: predicted by {name}"));
    Ok((prediction.params.to_dtype(DType::F32)?.to_vec1()?, None))
}

fn computed(
    source: &mut Source,
    network: &Network,
    params: &[f32],
    drawn: &StatisticsImages,
) -> anyhow::Result<Statistics> {
    let batch = source.batch.min(drawn.images.len());
    let statistics =
        Statistics::compute(network, params, &drawn.images, batch).with_context(|| source.place.clone())?;
    source.origin.push(match statistics.moments.len() {
        0 => "batch norms: none".into(),
        norms => format!(
            "batch norms: {norms}, running statistics of {} {} in batches of {batch}",
            statistics.batches * batch as u64,
            drawn.split
        ),
    });
    Ok(statistics)
}

/// Validation and test images to measure on.
fn splits<'a>(data: &DataSet, drawn: &StatisticsImages, source: &Source) -> anyhow::Result<Vec<Split<'a>>> {
    let count = source.eval_images;
    let mut splits = Vec::new();
    if count > 0 && !source.trained_on_validation {
        let images = data.validation.prepare(count.min(drawn.unseen_validation))?;
        splits.push(Split { name: "validation", images });
    }
    if count > 0
        && let Some(test) = &data.test
    {
        splits.push(Split { name: "test", images: test.prepare(count)? });
    }
    Ok(splits)
}

fn summary(model: &Model) -> String {
    let mut text = format!(
        "{}: {} parameters in {} tensors, {} classes\n",
        model.record.id,
        model.network.n_params(),
        model.network.params.len(),
        model.network.num_classes()
    );
    for line in &model.origin {
        text += &format!("{line}\n");
    }
    if !model.accuracies.is_empty() {
        text += &format!("{:<24}{:<20}{}\n", "accuracy", "batch statistics", "stored statistics");
    }
    let figure = |accuracy: &Accuracy| {
        format!("{:.2} ± {:.2} %", 100.0 * accuracy.share(), 100.0 * accuracy.standard_error())
    };
    for Accuracies { split, with_batch, with_stored, .. } in &model.accuracies {
        let images = format!("{split}, {} images", with_stored.images);
        text += &format!("{images:<24}{:<20}{}\n", figure(with_batch), figure(with_stored));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(format: &[Format], out: &str) -> Result<Vec<String>, String> {
        let args = Args {
            run: None,
            trial: None,
            arch: None,
            id: None,
            weights: None,
            ghn: None,
            format: format.to_vec(),
            out: out.into(),
            images: None,
            statistics_images: None,
            eval_images: None,
            batch: None,
            device: DeviceFlag { device: crate::device::DeviceChoice::Cpu },
        };
        let files = files(&args).map_err(|error| error.to_string())?;
        Ok(files.into_iter().map(|(_, path)| path.display().to_string()).collect())
    }

    #[test]
    fn formats_and_endings() {
        use Format::{Onnx, Pytorch, Safetensors};
        assert_eq!(paths(&[], "a/b.onnx").unwrap(), ["a/b.onnx"]);
        assert_eq!(paths(&[Onnx], "model.bin").unwrap(), ["model.bin"]);
        assert_eq!(paths(&[Pytorch], "v1.2").unwrap(), ["v1.2.py"]);
        assert_eq!(paths(&[Onnx, Safetensors, Onnx], "v1.2").unwrap(), ["v1.2.onnx", "v1.2.safetensors"]);
        assert_eq!(paths(&[Safetensors, Pytorch, Onnx], "b.py").unwrap(), ["b.py", "b.onnx"]);
        assert!(paths(&[], "b.bin").unwrap_err().contains("--format is needed"));
        assert!(paths(&[Pytorch], "b.onnx").unwrap_err().contains("another format"));
    }
}
