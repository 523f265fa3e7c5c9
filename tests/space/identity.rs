//! Canonical form and hash: equal for equivalent architectures, different for different networks.

use super::{architecture, rng};
use foretell::graph::Graph;
use foretell::network::{Network, OpId, OpKind, expand};
use foretell::space::{
    ArchHash, CellArchitecture, Edge, Genotype, Norm, Op, arch_hash, canonical, read_records,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

fn config() -> ProptestConfig {
    ProptestConfig { cases: 256, rng_seed: RngSeed::Fixed(11), ..ProptestConfig::default() }
}

fn code(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A network up to renaming: ops with shapes (parameters by shape, not by name), refined by what they read and by
/// who reads them. The order of inputs is left out, as sums commute and a concatenation's order permutes channels;
/// zeros take only their shape from their input.
fn fingerprint(network: &Network) -> u64 {
    let mut labels: Vec<u64> = network
        .ops
        .iter()
        .map(|op| {
            let kind = serde_json::to_value(&op.kind).unwrap();
            let settings: BTreeMap<_, _> = kind
                .as_object()
                .unwrap()
                .iter()
                .filter(|(key, _)| *key != "weight" && *key != "bias")
                .map(|(key, value)| (key.clone(), value.to_string()))
                .collect();
            let params: Vec<_> = op.kind.params().map(|id| network.params[id.0].shape.clone()).collect();
            code((settings, params, op.shape))
        })
        .collect();
    let mut readers = vec![Vec::new(); network.ops.len()];
    let inputs: Vec<&[OpId]> = network
        .ops
        .iter()
        .map(|op| if op.kind == OpKind::Zeros { [].as_slice() } else { op.inputs.as_slice() })
        .collect();
    for (index, inputs) in inputs.iter().enumerate() {
        inputs.iter().for_each(|input| readers[input.0].push(index));
    }
    for _ in 0..12 {
        labels = (0..labels.len())
            .map(|index| {
                let sorted = |list: Vec<u64>| {
                    let mut list = list;
                    list.sort_unstable();
                    list
                };
                let read = sorted(inputs[index].iter().map(|input| labels[input.0]).collect());
                let outputs = sorted(readers[index].iter().map(|&reader| labels[reader]).collect());
                code((labels[index], read, outputs))
            })
            .collect();
    }
    labels.sort_unstable();
    code(labels)
}

/// The graph that a hypernetwork reads, up to renaming, with the distances of its virtual edges.
fn graph_fingerprint(mut network: Network) -> (String, BTreeMap<u8, u64>) {
    let graph = Graph::of(&network);
    network.params.iter_mut().for_each(|param| param.name.clear());
    (graph.fingerprint(&network), graph.distance_histogram())
}

/// Steps in another order that still reads only earlier states, edges swapped within steps.
fn renumber(cell: &mut Vec<Edge>, concat: &mut [usize], rng: &mut ChaCha8Rng) {
    let steps = cell.len() / 2;
    let mut number: Vec<Option<usize>> = vec![Some(0), Some(1)];
    number.resize(2 + steps, None);
    let mut renumbered = Vec::new();
    while renumbered.len() < cell.len() {
        let step = rng.random_range(0..steps);
        let edges = [cell[2 * step], cell[2 * step + 1]];
        if number[step + 2].is_some() || edges.iter().any(|edge| number[edge.1].is_none()) {
            continue;
        }
        number[step + 2] = Some(2 + renumbered.len() / 2);
        let edges = edges.map(|Edge(op, input)| Edge(op, number[input].unwrap()));
        renumbered.extend(if rng.random_bool(0.5) { edges } else { [edges[1], edges[0]] });
    }
    *cell = renumbered;
    concat.iter_mut().for_each(|state| *state = number[*state].unwrap());
    for index in (1..concat.len()).rev() {
        concat.swap(index, rng.random_range(0..=index));
    }
}

/// Steps that nothing reads, and other inputs for `none`.
fn decorate(cell: &mut Vec<Edge>, attention: bool, rng: &mut ChaCha8Rng) {
    for _ in 0..rng.random_range(0..3) {
        for _ in 0..2 {
            let op = Op::ALL[rng.random_range(0..Op::ALL.len())];
            let op = if op == Op::Msa && !attention { Op::Cse } else { op };
            let states = 2 + cell.len() / 2;
            cell.push(Edge(op, rng.random_range(0..states)));
        }
    }
    for (index, edge) in cell.iter_mut().enumerate() {
        if edge.0 == Op::None {
            edge.1 = rng.random_range(0..2 + index / 2);
        }
    }
}

/// Another spelling of the same network.
fn respell(arch: &CellArchitecture, rng: &mut ChaCha8Rng) -> CellArchitecture {
    let mut other = arch.clone();
    let attention = arch.genotype.contains(Op::Msa);
    let Genotype { normal, normal_concat, reduce, reduce_concat } = &mut other.genotype;
    for (cell, concat) in [(normal, normal_concat), (reduce, reduce_concat)] {
        decorate(cell, attention, rng);
        renumber(cell, concat, rng);
    }
    if other.norm.is_some() && rng.random_bool(0.5) {
        other.norm = Some(Norm::BatchTracked);
    }
    if other.fc_layers == 1 {
        other.fc_layers = rng.random_range(0..2);
        other.fc_dim = rng.random_range(0..500);
    }
    if attention {
        other.stem_type = rng.random_range(0..2);
        other.stem_kernel = 2 * rng.random_range(0..4) + 1;
        other.stem_pool = rng.random_bool(0.5);
    } else if other.stem_type == 1 {
        other.stem_pool = rng.random_bool(0.5);
    }
    other
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn respelling_keeps_hash_and_network(seed: u64, choices: u64) {
        let arch = architecture(seed);
        let other = respell(&arch, &mut rng(choices));
        prop_assert_eq!(canonical(&arch), canonical(&other));
        prop_assert_eq!(arch_hash(&arch), arch_hash(&other));
        let (a, b) = (expand(&arch, 10).unwrap(), expand(&other, 10).unwrap());
        prop_assert_eq!(fingerprint(&a), fingerprint(&b));
    }

    #[test]
    fn the_canonical_form_is_the_same_network(seed: u64) {
        let arch = architecture(seed);
        let form = canonical(&arch);
        prop_assert_eq!(&canonical(&form), &form);
        let (a, b) = (expand(&arch, 10).unwrap(), expand(&form, 10).unwrap());
        prop_assert_eq!(a.n_params(), b.n_params());
        prop_assert_eq!(a.cost().macs, b.cost().macs);
        prop_assert_eq!(fingerprint(&a), fingerprint(&b));
        prop_assert_eq!(graph_fingerprint(a), graph_fingerprint(b));
    }

    #[test]
    fn a_changed_edge_keeps_the_hash_only_if_it_keeps_the_network(seed: u64, choices: u64) {
        let arch = architecture(seed);
        let before = fingerprint(&expand(&arch, 10).unwrap());
        let mut rng = rng(choices);
        for _ in 0..8 {
            let mut other = arch.clone();
            let cell = if rng.random_bool(0.5) { &mut other.genotype.normal } else { &mut other.genotype.reduce };
            let index = rng.random_range(0..cell.len());
            if rng.random_bool(0.5) {
                cell[index].0 = Op::ALL[rng.random_range(0..Op::ALL.len())];
            } else {
                cell[index].1 = rng.random_range(0..2 + index / 2);
            }
            let Ok(network) = expand(&other, 10) else { continue };
            if fingerprint(&network) != before {
                prop_assert_ne!(arch_hash(&other), arch_hash(&arch));
            }
        }
    }

    #[test]
    fn changed_settings_keep_the_hash_only_if_they_keep_the_network(seed: u64) {
        let arch = architecture(seed);
        let before = fingerprint(&expand(&arch, 10).unwrap());
        let changes: [fn(&mut CellArchitecture); 12] = [
            |arch| arch.channels += 8,
            |arch| arch.fc_dim += 8,
            |arch| arch.n_cells += 1,
            |arch| arch.stem_kernel += 2,
            |arch| arch.stem_type ^= 1,
            |arch| arch.stem_pool ^= true,
            |arch| arch.norm = if arch.norm.is_some() { None } else { Some(Norm::Batch) },
            |arch| arch.preproc ^= true,
            |arch| arch.channel_multiplier ^= 3,
            |arch| arch.fc_layers ^= 3,
            |arch| arch.global_pool ^= true,
            |arch| arch.imagenet_input ^= true,
        ];
        for change in changes {
            let mut other = arch.clone();
            change(&mut other);
            let Ok(network) = expand(&other, 10) else { continue };
            if fingerprint(&network) != before {
                prop_assert_ne!(arch_hash(&other), arch_hash(&arch));
            }
        }
    }
}

fn genotype(normal: &[(Op, usize)], normal_concat: &[usize]) -> Genotype {
    Genotype {
        normal: normal.iter().map(|&(op, input)| Edge(op, input)).collect(),
        normal_concat: normal_concat.to_vec(),
        reduce: vec![Edge(Op::MaxPool3x3, 0), Edge(Op::AvgPool3x3, 1)],
        reduce_concat: vec![2],
    }
}

fn with_genotype(genotype: Genotype) -> CellArchitecture {
    CellArchitecture { genotype, n_cells: 4, ..architecture(0) }
}

// Two steps alike in themselves are told apart by who reads them: one step reading both is not one reading one twice.
#[test]
fn twin_steps_are_kept_apart() {
    use Op::{Conv1x1, Conv3x3};
    let twins = [(Conv3x3, 0), (Conv1x1, 1), (Conv3x3, 0), (Conv1x1, 1)];
    let both = [twins.as_slice(), &[(Conv3x3, 2), (Conv1x1, 3)]].concat();
    let swapped = [twins.as_slice(), &[(Conv3x3, 3), (Conv1x1, 2)]].concat();
    let one = [twins.as_slice(), &[(Conv3x3, 2), (Conv1x1, 2)]].concat();
    let hash = |edges: &[(Op, usize)]| arch_hash(&with_genotype(genotype(edges, &[2, 3, 4])));
    assert_eq!(hash(&both), hash(&swapped));
    assert_ne!(hash(&both), hash(&one));
}

#[test]
fn many_equal_steps_are_ordered_in_reasonable_time() {
    let steps: Vec<_> = (0..12).flat_map(|_| [(Op::Conv3x3, 0), (Op::SkipConnect, 1)]).collect();
    let all: Vec<_> = (2..14).collect();
    let start = std::time::Instant::now();
    let hash = arch_hash(&with_genotype(genotype(&steps, &all)));
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    assert_eq!(hash.to_string().len(), 32);
}

// Attention that nothing reads still makes the network a ViT.
#[test]
fn unread_attention_is_remembered() {
    let used = genotype(&[(Op::Conv3x3, 0), (Op::SkipConnect, 1)], &[2]);
    let mut unread = used.clone();
    unread.normal.extend([Edge(Op::Msa, 0), Edge(Op::None, 1)]);
    let (plain, vit) = (with_genotype(used), with_genotype(unread));
    assert_ne!(arch_hash(&plain), arch_hash(&vit));
    let (a, b) = (expand(&vit, 10).unwrap(), expand(&canonical(&vit), 10).unwrap());
    assert!(a.params.iter().any(|param| param.name == "pos_enc.weight"));
    assert_eq!(fingerprint(&a), fingerprint(&b));
}

#[test]
fn a_single_cell_forgets_its_reduction_cell() {
    let arch = CellArchitecture {
        n_cells: 1,
        ..with_genotype(genotype(&[(Op::Conv3x3, 0), (Op::SkipConnect, 1)], &[2]))
    };
    let mut other = arch.clone();
    other.genotype.reduce[0].0 = Op::Conv5x5;
    assert_eq!(arch_hash(&arch), arch_hash(&other));
    assert_eq!(
        fingerprint(&expand(&arch, 10).unwrap()),
        fingerprint(&expand(&canonical(&other), 10).unwrap())
    );
}

#[test]
fn fixtures_with_different_networks_have_different_hashes() {
    let records = read_records("tests/fixtures/archs.json").unwrap();
    let mut networks: BTreeMap<ArchHash, (String, u64)> = BTreeMap::new();
    for record in &records {
        let network = foretell::network::build(&record.arch, record.num_classes).unwrap();
        let print = fingerprint(&network);
        let (id, other) = networks.entry(record.arch.arch_hash()).or_insert((record.id.clone(), print));
        assert_eq!(*other, print, "{id} and {}", record.id);
    }
    assert_eq!(networks.len(), records.len());
}

// Studies and lists on disk hold hashes: a change of the canonical form or its spelling needs a new version prefix.
#[test]
fn known_hashes_stay_as_they_are() {
    let records = read_records("tests/fixtures/archs.json").unwrap();
    let hash = |id: &str| {
        records
            .iter()
            .find(|record| record.id == id)
            .map(|record| record.arch.arch_hash().to_string())
            .unwrap()
    };
    assert_eq!(hash("named/DARTS"), "714f844676af8c8ac502851a6f0547f2");
    assert_eq!(hash("named/ViT"), "3f37856eb6133692015f234e7f954f3a");
    assert_eq!(hash("named/resnet50"), "68eece84c94f484a91cb49c247799477");
    assert_eq!(hash("dense/4"), "dd5b072f45e42f9ffc17aca612bfcb81");
}

#[test]
fn hashes_survive_text_and_json() {
    let hash = arch_hash(&architecture(3));
    assert_eq!(hash.to_string().parse::<ArchHash>().unwrap(), hash);
    let json = serde_json::to_string(&hash).unwrap();
    assert_eq!(json, format!("\"{hash}\""));
    assert_eq!(serde_json::from_str::<ArchHash>(&json).unwrap(), hash);
    for wrong in ["", "12", &"g".repeat(32), &format!("+{}", "0".repeat(31))] {
        assert!(wrong.parse::<ArchHash>().is_err(), "{wrong}");
    }
}
