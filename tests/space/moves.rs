//! Mutation and crossover stay within the space and make other networks.

use super::{architecture, rng, spaces};
use foretell::space::{CellArchitecture, Space, arch_hash};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::collections::BTreeSet;
use std::path::Path;

fn config() -> ProptestConfig {
    ProptestConfig { cases: 64, rng_seed: RngSeed::Fixed(7), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn samples_are_in_their_space(which in 0..7usize, seed: u64) {
        let space = &spaces()[which];
        let arch = space.sample(&mut rng(seed)).unwrap();
        prop_assert!(space.check(&arch).is_ok(), "{:?}", space.check(&arch));
        prop_assert_eq!(&arch, &space.sample(&mut rng(seed)).unwrap());
    }

    #[test]
    fn mutants_are_other_networks_of_the_space(which in 0..7usize, seed: u64) {
        let space = &spaces()[which];
        let mut rng = rng(seed);
        let mut arch = space.sample(&mut rng).unwrap();
        for _ in 0..20 {
            let child = space.mutate(&arch, &mut rng).unwrap();
            prop_assert!(space.check(&child).is_ok(), "{:?}", space.check(&child));
            prop_assert_ne!(arch_hash(&child), arch_hash(&arch));
            arch = child;
        }
    }

    #[test]
    fn children_of_two_parents_are_in_the_space(which in 0..7usize, seed: u64) {
        let space = &spaces()[which];
        let mut rng = rng(seed);
        let (a, b) = (space.sample(&mut rng).unwrap(), space.sample(&mut rng).unwrap());
        for _ in 0..10 {
            let child = space.crossover(&a, &b, &mut rng).unwrap();
            prop_assert!(space.check(&child).is_ok(), "{:?}", space.check(&child));
            prop_assert!(arch_hash(&child) != arch_hash(&a) && arch_hash(&child) != arch_hash(&b));
        }
    }

    #[test]
    fn parents_from_elsewhere_are_brought_into_the_space(which in 0..7usize, seed: u64, other: u64) {
        let space = &spaces()[which];
        let (a, b) = (architecture(seed), architecture(other));
        let mut rng = rng(seed);
        for child in [space.mutate(&a, &mut rng).unwrap(), space.crossover(&a, &b, &mut rng).unwrap()] {
            prop_assert!(space.check(&child).is_ok(), "{:?}", space.check(&child));
        }
    }
}

#[test]
fn mutation_reaches_every_setting() {
    let space = Space::builtin("small").unwrap();
    let mut rng = rng(1);
    let mut arch = space.sample(&mut rng).unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..3000 {
        arch = space.mutate(&arch, &mut rng).unwrap();
        seen.insert(format!("steps {}", arch.genotype.steps()));
        seen.insert(format!("cells {}", arch.n_cells));
        seen.insert(format!("C {}", arch.channels));
        seen.insert(format!("C_mult {}", arch.channel_multiplier));
        seen.insert(format!("stem {} {} {}", arch.stem_kernel, arch.stem_type, arch.stem_pool));
        seen.insert(format!("head {} {}", arch.fc_layers, arch.fc_dim));
        seen.insert(format!("preproc {}", arch.preproc));
        seen.insert(format!("concat {}", arch.genotype.normal_concat.len()));
        seen.extend(arch.genotype.normal.iter().map(|edge| format!("normal {}", edge.0)));
        seen.extend(arch.genotype.reduce.iter().map(|edge| format!("reduce {}", edge.0)));
    }
    // 3 steps, 5 cell counts, 3 widths, 2 multipliers, 2 kernels of 3 stems, 4 heads, 2 preprocs, 3 concatenations.
    let expected = 3 + 5 + 3 + 2 + 6 + 4 + 2 + 3 + 13 + 11;
    assert_eq!(seen.len(), expected, "{seen:?}");
}

#[test]
fn crossover_mixes_its_parents() {
    let space = Space::builtin("deepnets1m").unwrap();
    let mut rng = rng(5);
    let (a, b) = (space.sample(&mut rng).unwrap(), space.sample(&mut rng).unwrap());
    let like = |child: &CellArchitecture, parent: &CellArchitecture| {
        child.genotype.normal.iter().zip(&parent.genotype.normal).any(|(x, y)| x == y)
    };
    let children: Vec<_> = (0..50).map(|_| space.crossover(&a, &b, &mut rng).unwrap()).collect();
    let distinct: BTreeSet<_> = children.iter().map(arch_hash).collect();
    assert!(distinct.len() > 10, "{} distinct children", distinct.len());
    assert!(children.iter().any(|child| like(child, &a)) && children.iter().any(|child| like(child, &b)));
}

#[test]
fn membership_names_what_is_outside() {
    let space = Space::builtin("small").unwrap();
    let arch = space.sample(&mut rng(2)).unwrap();
    type Change = fn(&mut CellArchitecture);
    let cases: [(&str, Change); 9] = [
        ("C is 20", |arch| arch.channels = 20),
        ("ks is 7", |arch| arch.stem_kernel = 7),
        ("n_cells is 30", |arch| arch.n_cells = 30),
        ("no norm", |arch| arch.norm = None),
        ("flattening", |arch| arch.global_pool = false),
        ("is_imagenet_input", |arch| arch.imagenet_input = true),
        ("concatenates state 9", |arch| arch.genotype.normal_concat = vec![9]),
        ("two for each step", |arch| arch.genotype.normal.truncate(1)),
        ("fc_dim is 5", |arch| arch.fc_dim = 5),
    ];
    for (expected, change) in cases {
        let mut outside = arch.clone();
        change(&mut outside);
        let message = space.check(&outside).unwrap_err().to_string();
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let tight = space.to_toml().replace("max_macs = 25000000", "max_macs = 1000");
    let message = Space::parse(Path::new("t.toml"), &tight).unwrap().check(&arch).unwrap_err().to_string();
    assert!(message.contains("multiply-accumulates, at most 1000"), "{message}");
}
