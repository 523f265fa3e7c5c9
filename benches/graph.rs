//! From an architecture to its network and graph, for networks of 30 to 800 nodes.

use criterion::{Criterion, criterion_group, criterion_main};
use foretell::deepnets::resolve;
use foretell::graph::{Graph, GraphBatch};
use foretell::network::build;
use std::hint::black_box;

fn expansion_and_graph(criterion: &mut Criterion) {
    let archs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/archs.json");
    let mut graphs = Vec::new();
    for id in ["micro/max_pool_3x3", "train/7", "search/1", "named/resnet50", "named/DARTS"] {
        let record = resolve(archs, Some(id), None).expect("a fixture");
        let network = build(&record.arch, record.num_classes).expect("a valid architecture");
        let graph = Graph::of(&network);
        let mut group = criterion.benchmark_group(format!("{id} ({} nodes)", graph.nodes.len()));
        group.bench_function("network", |bencher| {
            bencher
                .iter(|| build(black_box(&record.arch), record.num_classes).expect("a valid architecture"));
        });
        group.bench_function("graph", |bencher| bencher.iter(|| Graph::of(black_box(&network))));
        group.finish();
        graphs.push(graph);
    }
    criterion.bench_function("batch of these five", |bencher| {
        bencher.iter(|| GraphBatch::of(black_box(&graphs)));
    });
}

criterion_group!(benches, expansion_and_graph);
criterion_main!(benches);
