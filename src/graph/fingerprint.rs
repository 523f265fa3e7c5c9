//! Order-free fingerprints of graphs: Weisfeiler-Lehman labels and the distribution of distances.

use super::node::Graph;
use crate::network::Network;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Rounds of relabelling.
const ROUNDS: usize = 8;

impl Graph {
    /// Weisfeiler-Lehman hash of the real edges over 8 rounds, with node types, parameter names and shapes as labels:
    /// 16 hexadecimal digits, equal for isomorphic graphs.
    pub fn fingerprint(&self, network: &Network) -> String {
        let mut labels: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let name = node.param.map_or("", |id| network.params[id.0].name.as_str());
                let sizes: Vec<String> = node.shape.iter().flatten().map(usize::to_string).collect();
                hash(&format!("{}|{name}|{}", node.primitive.name(), sizes.join("x")))
            })
            .collect();
        for _ in 0..ROUNDS {
            let joined = |neighbours: &super::Neighbours, v: usize| {
                let real = neighbours.of(v).filter(|(_, distance)| *distance == 1);
                let mut labels: Vec<&str> = real.map(|(n, _)| labels[n].as_str()).collect();
                labels.sort_unstable();
                labels.join(",")
            };
            labels = (0..labels.len())
                .map(|v| {
                    let (before, behind) = (joined(&self.incoming, v), joined(&self.outgoing, v));
                    hash(&format!("{}<{before}>{behind}", labels[v]))
                })
                .collect();
        }
        labels.sort_unstable();
        hash(&labels.join(","))
    }

    /// How many pairs of nodes there are at each distance; distance 1 counts the real edges.
    pub fn distance_histogram(&self) -> BTreeMap<u8, u64> {
        let mut counts = [0u64; 256];
        self.outgoing.distance.iter().for_each(|&distance| counts[usize::from(distance)] += 1);
        (0..=u8::MAX).zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}

/// The first 16 hexadecimal digits of SHA-256.
fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
