//! Networks against the fixtures: parameter names, shapes and order, what is pruned, what is rejected.

use flate2::read::GzDecoder;
use foretell::network::{OpId, OpKind, build, expand};
use foretell::space::{ArchRecord, Architecture, CellArchitecture, Edge, Op};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;

type Shapes = Vec<(String, Vec<usize>)>;

#[derive(Deserialize)]
struct Expected {
    n_params: usize,
    n_params_unpruned: usize,
    n_tensors: usize,
    params: Shapes,
    pruned: Shapes,
}

fn fixture(name: &str) -> File {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn records(name: &str) -> Vec<ArchRecord> {
    serde_json::from_reader(fixture(name)).unwrap()
}

#[test]
fn parameters_equal_the_fixtures() {
    let expected: BTreeMap<String, Expected> =
        serde_json::from_reader(GzDecoder::new(fixture("graphs.json.gz"))).unwrap();
    let records = records("archs.json");
    assert_eq!(records.len(), 82);
    for record in records {
        let id = &record.id;
        let network = build(&record.arch, record.num_classes).unwrap_or_else(|error| panic!("{id}: {error}"));
        network.validate().unwrap_or_else(|error| panic!("{id}: {error}"));
        let cost = network.cost();
        assert!(
            cost.params == expected[id].n_params as u64 && cost.macs > 0 && cost.peak_activations > 0,
            "{id}"
        );
        let expected = &expected[id];
        let params: Shapes = network.params.iter().map(|p| (p.name.clone(), p.shape.clone())).collect();
        assert_eq!(params, expected.params, "{id}");
        assert_eq!(network.pruned, expected.pruned, "{id}: pruned");
        assert_eq!(network.n_params(), expected.n_params, "{id}");
        assert_eq!(network.n_params_unpruned(), expected.n_params_unpruned, "{id}");
        assert_eq!(network.params.len(), expected.n_tensors, "{id}");
    }
}

#[test]
fn networks_without_output_are_rejected() {
    let records = records("archs_invalid.json");
    assert!(!records.is_empty());
    for record in records {
        let error = build(&record.arch, record.num_classes).expect_err(&record.id).to_string();
        assert!(error.contains("lost through none ops"), "{}: {error}", record.id);
    }
}

#[test]
fn nonsense_is_rejected_with_the_setting_named() {
    let record = records("archs.json").into_iter().find(|record| record.id == "micro/skip_connect").unwrap();
    let Architecture::Cells(good) = record.arch else { panic!("a cell network") };
    assert!(expand(&good, 10).is_ok());
    let rejected = |setting: &str, change: &dyn Fn(&mut CellArchitecture)| {
        let mut arch = good.clone();
        change(&mut arch);
        let error = expand(&arch, 10).expect_err(setting).to_string();
        assert!(error.contains(setting), "{setting}: {error}");
    };
    rejected("C is 0", &|arch| arch.channels = 0);
    rejected("n_cells is 0", &|arch| arch.n_cells = 0);
    rejected("ks is 4", &|arch| arch.stem_kernel = 4);
    rejected("stem_type is 7", &|arch| arch.stem_type = 7);
    rejected("C_mult is 0", &|arch| arch.channel_multiplier = 0);
    rejected("fc_layers is 99", &|arch| arch.fc_layers = 99);
    rejected("fc_dim is 0", &|arch| (arch.fc_layers, arch.fc_dim) = (2, 0));
    rejected("even number of channels, found 17", &|arch| arch.channels = 17);
    rejected("normal[1]", &|arch| arch.genotype.normal[1].1 = 2);
    rejected("reduce has 1 edges", &|arch| arch.genotype.reduce.truncate(1));
    rejected("normal has 0 edges", &|arch| arch.genotype.normal.clear());
    rejected("normal_concat is empty", &|arch| arch.genotype.normal_concat.clear());
    rejected("reduce_concat holds 3", &|arch| arch.genotype.reduce_concat = vec![3]);
    rejected("reduce_concat holds 2 twice", &|arch| arch.genotype.reduce_concat = vec![2, 2]);
    rejected("preproc is false", &|arch| (arch.preproc, arch.channel_multiplier) = (false, 2));
    assert!(expand(&good, 0).unwrap_err().to_string().contains("num_classes is 0"));
}

/// The second part of stem 1 rectifies the first part's output in place, but only where it runs.
#[test]
fn cells_see_the_first_stem_part_rectified_only_if_the_second_runs() {
    let record = records("archs.json").into_iter().find(|record| record.id == "quirk/20").unwrap();
    let Architecture::Cells(arch) = record.arch else { panic!("a cell network") };
    assert!(arch.stem_type == 1 && !arch.preproc);
    let readers = |arch: &CellArchitecture| -> Vec<&'static str> {
        let network = expand(arch, 10).unwrap();
        let stem = network.params.iter().position(|p| p.name == "stem0.4.bias").unwrap();
        let first = network.ops.iter().position(|op| op.kind.params().any(|id| id.0 == stem)).unwrap();
        network.ops.iter().filter(|op| op.inputs.contains(&OpId(first))).map(|op| op.kind.name()).collect()
    };
    assert_eq!(readers(&arch), ["relu"]);
    // Without a user of the second input nothing rectifies what the pooling reads.
    let mut pruned = arch;
    pruned.n_cells = 1;
    pruned.genotype.normal = vec![Edge(Op::MaxPool3x3, 0), Edge(Op::Conv1x1, 0)];
    pruned.genotype.normal_concat = vec![2];
    assert_eq!(readers(&pruned), ["subsample"]);
}

#[test]
fn no_tensor_is_rectified_twice() {
    for record in records("archs.json") {
        let network = build(&record.arch, record.num_classes).unwrap();
        let mut rectified = vec![false; network.ops.len()];
        for op in network.ops.iter().filter(|op| op.kind == OpKind::Relu) {
            assert!(network.ops[op.inputs[0].0].kind != OpKind::Relu, "{}", record.id);
            assert!(!std::mem::replace(&mut rectified[op.inputs[0].0], true), "{}", record.id);
        }
    }
}
