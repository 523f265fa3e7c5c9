//! The predictions of `foretell fixture`: what a hypernetwork says about each architecture of a list.
//!
//! In: a hypernetwork, architectures, and the tensor `images` of an inputs file. Out: `predictions.safetensors` with
//! `id|samples` (32 elements of each tensor, position `k * 2654435761 mod numel`), `id|sums` (sum and sum of absolute
//! values, in double precision), `id|mean_embedding`, and `id|logits` where the images fit the architecture.

use crate::checkpoint::{read_tensors, write_tensors};
use crate::execute::{Executor, Mode, NativeExecutor};
use crate::ghn::Ghn;
use crate::graph::Graph;
use crate::network::{Network, build};
use crate::space::ArchRecord;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// Samples of each tensor.
const SAMPLES: usize = 32;

/// Images `[N, 3, H, W]` for which logits are wanted.
#[derive(Clone, Debug)]
pub(super) struct Images {
    values: Vec<f32>,
    shape: [usize; 3],
}

impl Images {
    /// The tensor `images` of a file.
    pub fn read(path: &Path) -> Result<Images> {
        let mut file = read_tensors(path)?;
        let images =
            file.tensors.remove("images").ok_or_else(|| Error::format(path, "no tensor `images`"))?;
        let &[_, c, h, w] = images.dims() else {
            return Err(Error::format(
                path,
                format!("images has shape {:?}, not [N, C, H, W]", images.dims()),
            ));
        };
        Ok(Images { values: images.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?, shape: [c, h, w] })
    }
}

/// Collects predictions, one architecture at a time.
pub(super) struct Predictions {
    ghn: Ghn,
    images: Option<Images>,
    tensors: BTreeMap<String, Tensor>,
}

impl Predictions {
    /// None yet.
    pub fn new(ghn: Ghn, images: Option<Images>) -> Predictions {
        Predictions { ghn, images, tensors: BTreeMap::new() }
    }

    /// Adds an architecture, with a classifier of as many classes as the hypernetwork has.
    pub fn add(&mut self, record: &ArchRecord) -> Result<()> {
        let id = &record.id;
        let network = build(&record.arch, self.ghn.config().num_classes)?;
        let graph = Graph::of(&network);
        let prediction = self.ghn.predict(&[(&network, &graph)])?.swap_remove(0);
        let params: Vec<f32> = prediction.params.to_dtype(DType::F32)?.to_vec1()?;
        let (samples, sums) = digest(&network, &params);
        let count = network.params.len();
        let cpu = &Device::Cpu;
        self.tensors.insert(format!("{id}|samples"), Tensor::from_vec(samples, (count, SAMPLES), cpu)?);
        self.tensors.insert(format!("{id}|sums"), Tensor::from_vec(sums, (count, 2), cpu)?);
        self.tensors
            .insert(format!("{id}|mean_embedding"), prediction.mean_embedding.to_dtype(DType::F32)?.detach());
        if let Some(images) = &self.images
            && images.shape == network.input_shape()
        {
            let [c, h, w] = images.shape;
            let classes = network.num_classes();
            let mut executor = NativeExecutor::<f32>::new(&network, images.values.len() / (c * h * w))?;
            let logits: Vec<f32> = executor.logits(&params, &images.values, Mode::Evaluate)?;
            let shape = (logits.len() / classes, classes);
            self.tensors.insert(format!("{id}|logits"), Tensor::from_vec(logits, shape, cpu)?);
        }
        Ok(())
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let metadata = [("format".to_string(), "pt".to_string())];
        write_tensors(path, &self.tensors, &metadata.into())
    }
}

/// Samples `[T, 32]` and sums `[T, 2]` of all tensors.
fn digest(network: &Network, params: &[f32]) -> (Vec<f32>, Vec<f64>) {
    let (mut samples, mut sums) = (Vec::new(), Vec::new());
    for param in &network.params {
        let values = &params[param.offset..param.offset + param.numel()];
        samples
            .extend((0..SAMPLES as u64).map(|k| values[(k * 2_654_435_761 % values.len() as u64) as usize]));
        sums.push(values.iter().map(|&v| f64::from(v)).sum::<f64>());
        sums.push(values.iter().map(|&v| f64::from(v.abs())).sum::<f64>());
    }
    (samples, sums)
}
