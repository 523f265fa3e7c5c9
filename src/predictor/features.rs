//! What is known of an architecture before it is measured: the embedding that a hypernetwork has of it, and scores that
//! need one batch of images at most.

use crate::execute::{NativeExecutor, Workspace};
use crate::ghn::Ghn;
use crate::graph::Graph;
use crate::images::{Augmentation, BatchState, DataSet, PreparedImages, TrainingBatches};
use crate::network::Network;
use crate::score::{gradient_norm, naswot, synflow};
use crate::training::{RandomInit, random_weights};
use crate::{Error, Result};
use std::sync::Arc;

/// Names of the features of [`CheapScores`], in their order.
pub const CHEAP_SCORES: [&str; 8] =
    ["params", "macs", "peak_activations", "nodes", "synflow", "naswot", "grad_norm", "grad_norm_predicted"];

/// Costs and zero-cost scores of a network; a score that is not finite is none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CheapScores {
    /// Parameters that reach the output.
    pub params: u64,
    /// Multiply-accumulates of an image.
    pub macs: u64,
    /// Most elements of activations alive at once for an image.
    pub peak_activations: u64,
    /// Nodes of the graph.
    pub nodes: usize,
    /// Synaptic flow of random weights, natural logarithm ([`synflow`]).
    pub synflow: Option<f64>,
    /// Logarithm of the determinant of the ReLU codes' kernel with random weights ([`naswot`]).
    pub naswot: Option<f64>,
    /// Gradient norm with random weights ([`gradient_norm`]).
    pub gradient_norm: Option<f64>,
    /// Gradient norm with predicted weights.
    pub predicted_gradient_norm: Option<f64>,
}

impl CheapScores {
    /// In the order of [`CHEAP_SCORES`].
    pub fn values(&self) -> [Option<f64>; CHEAP_SCORES.len()] {
        let count = |count: u64| Some(count as f64);
        [
            count(self.params),
            count(self.macs),
            count(self.peak_activations),
            count(self.nodes as u64),
            self.synflow,
            self.naswot,
            self.gradient_norm,
            self.predicted_gradient_norm,
        ]
    }

    /// As features, in the order of [`CHEAP_SCORES`]: costs and norms by their logarithms, NaN for none.
    pub fn features(&self) -> [f64; CHEAP_SCORES.len()] {
        let mut features = self.values().map(|value| value.unwrap_or(f64::NAN));
        for (name, feature) in CHEAP_SCORES.iter().zip(&mut features) {
            if !matches!(*name, "synflow" | "naswot") {
                *feature = if *feature > 0.0 { feature.ln() } else { f64::NAN };
            }
        }
        features
    }
}

/// Features of one architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Mean over the nodes of the hypernetwork's states `[hid]`.
    pub embedding: Vec<f64>,
    /// Costs and zero-cost scores.
    pub cheap: CheapScores,
}

impl Features {
    /// All in one vector: the embedding, then the cheap scores.
    pub fn all(&self) -> Vec<f64> {
        [&self.embedding[..], &self.cheap.features()].concat()
    }
}

/// Measures features; holds the batch of images and the seed of the random weights, which are the same for all.
pub struct FeatureProbe {
    images: PreparedImages,
    seed: u64,
    workspace: Workspace<f32>,
}

impl FeatureProbe {
    /// Images of the batch.
    pub const BATCH: usize = 64;

    /// A probe with [`FeatureProbe::BATCH`] training images drawn from `seed`, not augmented; the first validation
    /// images, where a set has no others.
    ///
    /// # Errors
    /// There are fewer images.
    pub fn new(data: &DataSet, seed: u64) -> Result<FeatureProbe> {
        let images = match &data.train {
            Some(train) => {
                let state = BatchState::new(seed);
                let mut batches =
                    TrainingBatches::new(Arc::clone(train), Self::BATCH, Augmentation::NONE, state)?;
                let (mut images, mut labels) = (Vec::new(), Vec::new());
                batches.next_batch(&mut images, &mut labels)?;
                PreparedImages::new(images, labels, data.classes().len())?
            }
            None => data.validation.prepare(Self::BATCH)?,
        };
        Ok(FeatureProbe::of(images, seed))
    }

    /// A probe with a batch of given images.
    pub fn of(images: PreparedImages, seed: u64) -> FeatureProbe {
        FeatureProbe { images, seed, workspace: Workspace::default() }
    }

    /// Costs and zero-cost scores of `network`; `predicted` are its weights as a hypernetwork predicts them.
    ///
    /// # Errors
    /// The network does not fit the images or the weights; a score that is not finite is no error.
    pub fn cheap_scores(
        &self,
        network: &Network,
        graph: &Graph,
        predicted: Option<&[f32]>,
    ) -> Result<CheapScores> {
        let random = random_weights(network, RandomInit::He, self.seed);
        let mut executor = NativeExecutor::with_workspace(network, self.images.len(), &self.workspace)?;
        let cost = network.cost();
        let norm_of = |executor: &mut NativeExecutor<f32>, params: &[f32]| {
            finite(gradient_norm(network, executor, params, &self.images))
        };
        Ok(CheapScores {
            params: cost.params,
            macs: cost.macs,
            peak_activations: cost.peak_activations,
            nodes: graph.nodes.len(),
            synflow: finite(synflow(network, &random))?,
            naswot: finite(naswot(&mut executor, &random, &self.images))?,
            gradient_norm: norm_of(&mut executor, &random)?,
            predicted_gradient_norm: match predicted {
                Some(predicted) => norm_of(&mut executor, predicted)?,
                None => None,
            },
        })
    }

    /// All features of `network`, with the embedding and the weights of `ghn`.
    ///
    /// # Errors
    /// As [`FeatureProbe::cheap_scores`]; the hypernetwork cannot predict this network.
    pub fn features(&self, network: &Network, ghn: &Ghn) -> Result<Features> {
        let graph = Graph::of(network);
        let prediction = ghn.predict_batch(&[(network, &graph)])?;
        let predicted = prediction.params.to_vec1::<f32>()?;
        let embedding = prediction.mean_embeddings.flatten_all()?.to_vec1::<f32>()?;
        Ok(Features {
            embedding: embedding.into_iter().map(f64::from).collect(),
            cheap: self.cheap_scores(network, &graph, Some(&predicted))?,
        })
    }
}

fn finite(score: Result<f64>) -> Result<Option<f64>> {
    match score {
        Ok(score) => Ok(Some(score)),
        Err(Error::NonFinite(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
