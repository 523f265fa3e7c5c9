//! The batch of graphs that kernels for GPUs are measured on.

use anyhow::ensure;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::graph::Graph;
use crate::network::{Network, expand};
use crate::space::Space;

/// The architectures.
#[derive(Debug, clap::Args)]
pub(super) struct BatchArgs {
    /// Graphs of a batch
    #[arg(long, value_name = "N", default_value_t = 8)]
    graphs: usize,
    /// Nodes of a graph, to within a quarter
    #[arg(long, value_name = "N", default_value_t = 200)]
    nodes: usize,
}

impl BatchArgs {
    /// Networks of about as many nodes, always the same.
    pub(super) fn draw(&self) -> anyhow::Result<Vec<(Network, Graph)>> {
        ensure!(self.graphs > 0, "--graphs must be at least 1");
        let space = Space::find("deepnets1m")?;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut batch = Vec::with_capacity(self.graphs);
        for _ in 0..1000 * self.graphs {
            let Ok(network) = expand(&space.sample(&mut rng)?, 10) else { continue };
            let graph = Graph::of(&network);
            if graph.nodes.len().abs_diff(self.nodes) <= self.nodes / 4 {
                batch.push((network, graph));
            }
            if batch.len() == self.graphs {
                return Ok(batch);
            }
        }
        anyhow::bail!("--nodes {}: too few architectures of this size in the space", self.nodes)
    }
}

/// A batch in words.
pub(super) fn described(batch: &[(Network, Graph)]) -> String {
    let nodes: usize = batch.iter().map(|(_, graph)| graph.nodes.len()).sum();
    let edges: usize = batch.iter().map(|(_, graph)| graph.incoming.node.len()).sum();
    format!("{} graphs of a DeepNets-1M space, {nodes} nodes, {edges} edges", batch.len())
}
