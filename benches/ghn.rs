//! Prediction of all weights of a network by a GHN-2 of the published size; throughput in predicted values.
//!
//! `RAYON_NUM_THREADS=1 cargo bench --bench ghn` measures one core.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use foretell::deepnets::resolve;
use foretell::ghn::{Ghn, GhnConfig};
use foretell::graph::Graph;
use foretell::network::build;

fn predict(criterion: &mut Criterion) {
    let ghn = Ghn::new(GhnConfig::ghn2(10), 1).expect("valid settings");
    let archs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/archs.json");
    let mut group = criterion.benchmark_group("predict");
    for id in ["train/15", "train/14", "wide/0", "wide/5", "named/ViT"] {
        let record = resolve(archs, Some(id), None).expect("a known architecture");
        let network = build(&record.arch, 10).expect("a valid architecture");
        let graph = Graph::of(&network);
        group.throughput(Throughput::Elements(network.n_params() as u64));
        group.bench_function(id, |bencher| {
            bencher.iter(|| ghn.predict(&[(&network, &graph)]).expect("a predictable network"));
        });
        group.bench_function(format!("{id} from its genotype"), |bencher| {
            bencher.iter(|| {
                let network = build(&record.arch, 10).expect("a valid architecture");
                let graph = Graph::of(&network);
                ghn.predict(&[(&network, &graph)]).expect("a predictable network")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, predict);
criterion_main!(benches);
