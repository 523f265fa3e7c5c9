//! Golden numbers of the reference implementation: readers of the files in `tests/fixtures`, and comparisons that
//! fail on NaN.

#![allow(dead_code)] // each test file uses its own part

use candle_core::{Device, Tensor};
use flate2::read::GzDecoder;
use foretell::ghn::Ghn;
use foretell::graph::Graph;
use foretell::network::{Network, build};
use foretell::space::ArchRecord;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::PathBuf;

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

pub fn bytes(name: &str) -> Vec<u8> {
    let path = path(name);
    let raw = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut unpacked = Vec::new();
        GzDecoder::new(raw.as_slice()).read_to_end(&mut unpacked).unwrap();
        return unpacked;
    }
    raw
}

pub fn json<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load_buffer(&bytes(name), &Device::Cpu).unwrap()
}

/// The hypernetwork of a fixture: from its `.pt` where there is one, else from `.safetensors`.
pub fn ghn(name: &str) -> Ghn {
    let folder = tempfile::tempdir().unwrap();
    let packed = if path(&format!("ghn/{name}.pt.gz")).exists() { "pt" } else { "safetensors" };
    let file = folder.path().join(format!("{name}.{packed}"));
    std::fs::write(&file, bytes(&format!("ghn/{name}.{packed}.gz"))).unwrap();
    std::fs::copy(path("ghn/configs.json"), folder.path().join("configs.json")).unwrap();
    Ghn::load(&file).unwrap_or_else(|error| panic!("{error}"))
}

pub struct Subject {
    pub id: String,
    pub network: Network,
    pub graph: Graph,
}

/// Networks and graphs by id; `imagenet/*` with 1000 classes.
pub fn subjects(wanted: impl Fn(&str) -> bool) -> Vec<Subject> {
    let records: Vec<ArchRecord> = json("archs.json");
    let records = records.into_iter().filter(|record| wanted(&record.id));
    records
        .map(|record| {
            let classes = if record.id.starts_with("imagenet/") { 1000 } else { record.num_classes };
            let network = build(&record.arch, classes).unwrap();
            let graph = Graph::of(&network);
            Subject { id: record.id, network, graph }
        })
        .collect()
}

/// Positions of the 32 samples of a tensor.
pub fn samples(numel: usize) -> impl Iterator<Item = usize> {
    (0..32u64).map(move |k| (k * 2_654_435_761 % numel as u64) as usize)
}

pub fn f64s(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(candle_core::DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |max, value| max.max(value.abs()))
}

/// Largest difference; infinite where lengths differ or a value is not a number.
pub fn difference(found: &[f64], wanted: &[f64]) -> f64 {
    if found.len() != wanted.len() {
        return f64::INFINITY;
    }
    let gaps = found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
    gaps.fold(0.0, |max, gap| if gap.is_nan() { f64::INFINITY } else { max.max(gap) })
}

pub type Predictions = BTreeMap<String, PredictionInfo>;

#[derive(serde::Deserialize)]
pub struct PredictionFile {
    pub archs: Predictions,
}

#[derive(serde::Deserialize)]
pub struct PredictionInfo {
    pub n_tensors: usize,
    pub n_params_predicted: usize,
    pub logits: bool,
    pub logit_f64_max_rel_err: Option<f64>,
}

/// Images [n, 3, 224, 224] of the rule in the fixtures' description.
pub fn large_images(n: usize) -> Vec<f64> {
    (0..n * 3 * 224 * 224)
        .map(|index| {
            let mut u = (index as u64 * 2_654_435_761) as u32;
            u ^= u >> 16;
            u = u.wrapping_mul(2_246_822_519);
            u ^= u >> 13;
            // The reference rounds its images to float32 first, also for its float64 logits.
            f64::from((f64::from(u) / 2f64.powi(31) - 1.0) as f32)
        })
        .collect()
}
