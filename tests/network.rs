//! Networks against the fixtures: parameter names, shapes and order, what is pruned, what is rejected.

use flate2::read::GzDecoder;
use foretell::network::{build, expand};
use foretell::space::{ArchRecord, Architecture};
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
    let rejected = |setting: &str, change: &dyn Fn(&mut foretell::space::CellArchitecture)| {
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
