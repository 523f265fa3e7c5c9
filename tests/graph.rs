//! Graphs against the fixtures: fingerprints, distances, node types.

use flate2::read::GzDecoder;
use foretell::graph::{Graph, Primitive};
use foretell::network::{build, expand, expand_at};
use foretell::space::{ArchRecord, CellArchitecture, Edge, Genotype, Norm, Op};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

/// Primitive, parameter name, shape, cell, decoder group.
type NodeRow = (usize, Option<String>, Option<Vec<usize>>, usize, Option<Vec<i64>>);

#[derive(Deserialize)]
struct Expected {
    n_nodes: usize,
    nodes: Vec<NodeRow>,
    edges1: Vec<usize>,
    n_edges_total: usize,
    dist_sum: u64,
    dist_hist: BTreeMap<u8, u64>,
    wl8: String,
}

fn fixture(name: &str) -> File {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn graphs_equal_the_fixtures() {
    let expected: BTreeMap<String, Expected> =
        serde_json::from_reader(GzDecoder::new(fixture("graphs.json.gz"))).unwrap();
    let mut bytes = Vec::new();
    GzDecoder::new(fixture("graph_distances.safetensors.gz")).read_to_end(&mut bytes).unwrap();
    let distances = SafeTensors::deserialize(&bytes).unwrap();
    let records: Vec<ArchRecord> = serde_json::from_reader(fixture("archs.json")).unwrap();
    assert_eq!(records.len(), 82);
    for record in records {
        let id = record.id.as_str();
        let network = build(&record.arch, record.num_classes).unwrap();
        let graph = Graph::of(&network);
        let expected = &expected[id];
        assert_eq!(graph.nodes.len(), expected.n_nodes, "{id}");
        let real = graph.outgoing.distance.iter().filter(|&&d| d == 1).count();
        assert_eq!(real, expected.edges1.len() / 2, "{id}: real edges");
        assert_eq!(graph.fingerprint(&network), expected.wl8, "{id}: wl8");
        let histogram = graph.distance_histogram();
        assert_eq!(histogram, expected.dist_hist, "{id}");
        assert_eq!(graph.outgoing.node.len(), expected.n_edges_total, "{id}");
        let sum: u64 = histogram.iter().map(|(&d, &count)| u64::from(d) * count).sum();
        assert_eq!(sum, expected.dist_sum, "{id}");

        // Every pair of nodes that have names.
        let n = expected.n_nodes;
        let matrix = distances.tensor(id).unwrap();
        assert_eq!(matrix.shape(), [n, n], "{id}");
        let row_of: BTreeMap<&str, usize> =
            (0..n).filter_map(|v| Some((expected.nodes[v].1.as_deref()?, v))).collect();
        let rows: Vec<Option<usize>> = graph
            .nodes
            .iter()
            .map(|node| Some(row_of[network.params[node.param?.0].name.as_str()]))
            .collect();
        assert_eq!(rows.iter().flatten().count(), row_of.len(), "{id}: named nodes");
        for (s, from) in rows.iter().enumerate() {
            let Some(from) = from else { continue };
            let found: BTreeMap<usize, u8> = graph.outgoing.of(s).collect();
            for (v, to) in rows.iter().enumerate() {
                let Some(to) = to else { continue };
                let distance = found.get(&v).copied().unwrap_or(0);
                assert_eq!(distance, matrix.data()[from * n + to], "{id}: {s} to {v}");
            }
        }
        for (node, row) in graph.nodes.iter().zip(&rows) {
            if let Some(row) = row {
                assert_eq!(node.primitive as usize, expected.nodes[*row].0, "{id}");
                assert_eq!(node.shape, expected.nodes[*row].2, "{id}");
            }
        }

        assert_eq!(graph.nodes[0].primitive, Primitive::Input, "{id}");
        assert_eq!(graph.nodes[n - 2].primitive, Primitive::Conv, "{id}");
        assert_eq!(graph.nodes[n - 1].primitive, Primitive::Bias, "{id}");
        let covered: usize =
            graph.nodes.iter().map(|node| node.param.iter().chain(&node.norm_bias).count()).sum();
        assert_eq!(covered, network.params.len(), "{id}: every parameter has one node");
    }
}

/// Any settings, sensible or not: small and odd numbers, edges to states that may not exist.
fn architectures() -> impl Strategy<Value = CellArchitecture> {
    let edge = (prop::sample::select(Op::ALL.to_vec()), 0usize..120).prop_map(|(op, input)| Edge(op, input));
    let cell = || {
        (1usize..5).prop_flat_map({
            let edge = edge.clone();
            move |steps| {
                let edges = prop::collection::vec(edge.clone(), 2 * steps);
                (edges, prop::sample::subsequence((2..2 + steps).collect::<Vec<_>>(), 1..=steps))
            }
        })
    };
    let kernel = prop::sample::select(vec![1, 2, 3, 3, 5, 5, 7, 7]);
    let stem = prop::sample::select(vec![0, 0, 0, 1, 1, 1, 2]);
    let sizes = (0usize..30, 0usize..40, 0usize..20, kernel, stem, 0usize..4, 0usize..3);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (cell(), cell(), sizes, flags).prop_map(|(normal, reduce, sizes, flags)| {
        let genotype = Genotype {
            normal: normal.0.into_iter().enumerate().map(|(slot, edge)| within(slot, edge)).collect(),
            normal_concat: normal.1,
            reduce: reduce.0.into_iter().enumerate().map(|(slot, edge)| within(slot, edge)).collect(),
            reduce_concat: reduce.1,
        };
        let (width, fc_dim, n_cells, stem_kernel, stem_type, fc_layers, channel_multiplier) = sizes;
        let (stem_pool, norm, preproc, global_pool, imagenet_input) = flags;
        CellArchitecture {
            channels: 4 * width,
            fc_dim,
            genotype,
            n_cells,
            stem_kernel,
            stem_type,
            stem_pool,
            norm: norm.then_some(Norm::Batch),
            preproc,
            channel_multiplier,
            fc_layers,
            global_pool,
            imagenet_input,
        }
    })
}

/// Most edges point to states that exist.
fn within(slot: usize, Edge(op, input): Edge) -> Edge {
    Edge(op, if input == 119 { input } else { input % (2 + slot / 2) })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn any_architecture_is_built_whole_or_rejected(arch in architectures(), size in (1usize..80, 1usize..80)) {
        for network in [expand(&arch, 10), expand_at(&arch, 10, [size.0, size.1])] {
            let Ok(network) = network else { continue };
            network.validate().unwrap();
            let graph = Graph::of(&network);
            let n = graph.nodes.len();
            prop_assert_eq!(graph.nodes[0].primitive, Primitive::Input);
            prop_assert_eq!(graph.nodes[n - 2].primitive, Primitive::Conv);
            prop_assert_eq!(graph.nodes[n - 1].primitive, Primitive::Bias);
            for (v, node) in graph.nodes.iter().enumerate() {
                let source = matches!(node.primitive, Primitive::Input | Primitive::PosEnc);
                prop_assert_eq!(graph.incoming.of(v).next().is_none(), source);
                prop_assert_eq!(graph.outgoing.of(v).next().is_none(), v == n - 1);
                prop_assert!(graph.incoming.of(v).all(|(p, _)| p < v));
            }
        }
    }
}
