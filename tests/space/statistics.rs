//! Sampling follows the reference's generator: statistics of every split against those of the reference
//! (`tests/fixtures/sampling_stats.json`), by two-sample tests with the standard errors of both sides.
//!
//! Over a thousand figures are compared, so some exceed three standard errors by chance (0.27 % are expected): at most
//! 1 % may, and none may exceed four and a half (a chance of 0.7 % over a thousand). Seeds are fixed.

use super::rng;
use foretell::graph::{Graph, Primitive};
use foretell::network::{Network, expand};
use foretell::space::{CellArchitecture, Op, Rejections, Space};
use rayon::prelude::*;
use serde_json::Value;
use std::collections::BTreeMap;

/// One drawn network with what is measured on it.
struct Drawn {
    arch: CellArchitecture,
    params: f64,
    reachable: f64,
    imagenet_params: f64,
    graph: Option<GraphCounts>,
}

impl Drawn {
    fn of(arch: CellArchitecture, with_graph: bool) -> Drawn {
        let network = expand(&arch, 10).unwrap();
        let imagenet = expand(&CellArchitecture { imagenet_input: true, ..arch.clone() }, 10).unwrap();
        Drawn {
            params: network.n_params_unpruned() as f64,
            reachable: network.n_params() as f64,
            imagenet_params: imagenet.n_params_unpruned() as f64,
            graph: with_graph.then(|| GraphCounts::of(&network)),
            arch,
        }
    }
}

struct GraphCounts {
    /// Nodes of each type.
    nodes: [usize; Primitive::ALL.len()],
    /// Real edges.
    edges: u64,
}

impl GraphCounts {
    fn of(network: &Network) -> GraphCounts {
        let graph = Graph::of(network);
        let mut nodes = [0; Primitive::ALL.len()];
        graph.nodes.iter().for_each(|node| nodes[node.primitive as usize] += 1);
        GraphCounts { nodes, edges: graph.distance_histogram()[&1] }
    }
}

/// Networks of each split whose graphs are built too, which takes longer than anything else.
const GRAPHS: usize = 2000;

/// A comparison: name, reference, ours, z.
type Comparison = (String, f64, f64, f64);

struct Test<'a> {
    split: &'a str,
    reference: &'a Value,
    n_reference: f64,
    drawn: &'a [Drawn],
    comparisons: Vec<Comparison>,
}

impl Test<'_> {
    fn compare(&mut self, name: String, reference: f64, ours: f64, variance: f64) {
        let z = (reference - ours) / variance.sqrt();
        self.comparisons.push((format!("{} {name}", self.split), reference, ours, z));
    }

    /// Sum of `x` over sum of `y`, networks being independent, the terms of one network not.
    fn ratio(&mut self, name: &str, reference: &Value, terms: impl Fn(&Drawn) -> (f64, f64)) {
        let reference = reference.as_f64().unwrap_or_else(|| panic!("{name} is no number"));
        let terms: Vec<_> = self.drawn.iter().map(terms).collect();
        let n = terms.len() as f64;
        let (x, y) = terms.iter().fold((0.0, 0.0), |sum, term| (sum.0 + term.0, sum.1 + term.1));
        // The variance at the pooled share, so that an event that was never drawn here is not taken for impossible.
        let weight = self.n_reference / n;
        let pooled = (x + reference * y * weight) / (y + y * weight);
        let squares: f64 = terms.iter().map(|term| (term.0 - pooled * term.1).powi(2)).sum();
        let one = squares / n / (y / n).powi(2);
        // Keeps rates that never vary on both sides from dividing zero by zero.
        let variance = one * (1.0 / n + 1.0 / self.n_reference) + f64::MIN_POSITIVE;
        self.compare(name.to_owned(), reference, x / y, variance);
    }

    fn rate(&mut self, name: &str, reference: &Value, holds: impl Fn(&Drawn) -> bool) {
        self.ratio(name, reference, |drawn| (f64::from(u8::from(holds(drawn))), 1.0));
    }

    /// Mean and quantiles.
    fn distribution(&mut self, name: &str, value: impl Fn(&Drawn) -> f64) {
        let reference = &self.reference[name];
        let n = self.drawn.len() as f64;
        let mean = self.drawn.iter().map(&value).sum::<f64>() / n;
        let variance = self.drawn.iter().map(|drawn| (value(drawn) - mean).powi(2)).sum::<f64>() / n;
        let expected = reference["mean"].as_f64().unwrap();
        self.compare(
            format!("mean of {name}"),
            expected,
            mean,
            variance * (1.0 / n + 1.0 / self.n_reference),
        );
        let quantiles = reference["q5_25_50_75_95"].as_array().unwrap();
        for (share, quantile) in [0.05, 0.25, 0.5, 0.75, 0.95].into_iter().zip(quantiles) {
            // Ties count half: numbers of cells and steps have many.
            let quantile = quantile.as_f64().unwrap();
            let (below, equal) = self.drawn.iter().map(&value).fold((0.0, 0.0), |(below, equal), v| {
                (below + f64::from(u8::from(v < quantile)), equal + f64::from(u8::from(v == quantile)))
            });
            if equal / n < 0.01 {
                let variance = share * (1.0 - share) * (1.0 / n + 1.0 / self.n_reference);
                self.compare(
                    format!("share below {quantile} of {name}"),
                    share,
                    (below + equal / 2.0) / n,
                    variance,
                );
            }
        }
    }
}

fn count(edges: &[foretell::space::Edge], op: Op) -> f64 {
    edges.iter().filter(|edge| edge.0 == op).count() as f64
}

fn operations(test: &mut Test<'_>) {
    for cell in ["normal", "reduce"] {
        let edges = |drawn: &Drawn| {
            let genotype = &drawn.arch.genotype;
            if cell == "normal" { genotype.normal.clone() } else { genotype.reduce.clone() }
        };
        for op in Op::ALL {
            let stats = test.reference;
            let name = |what: &str| format!("{what} {cell} {op}");
            let steps = |drawn: &Drawn| drawn.arch.genotype.steps();
            let slots = |drawn: &Drawn| (count(&edges(drawn), op), edges(drawn).len() as f64);
            let only = |holds: bool, terms: (f64, f64)| if holds { terms } else { (0.0, 0.0) };
            test.ratio(&name("share"), &stats["op_frequency"][cell][op.name()], slots);
            test.rate(&name("present"), &stats["op_present"][cell][op.name()], |drawn| {
                count(&edges(drawn), op) > 0.0
            });
            test.ratio(
                &name("share, many steps"),
                &stats["op_frequency_steps_gt1"][cell][op.name()],
                |drawn| only(steps(drawn) > 1, slots(drawn)),
            );
            if stats["steps_hist"]["1"].is_number() {
                test.ratio(
                    &name("share, one step"),
                    &stats["op_frequency_steps_eq1"][cell][op.name()],
                    |drawn| only(steps(drawn) == 1, slots(drawn)),
                );
            }
        }
    }
}

fn histogram(test: &mut Test<'_>, name: &str, value: impl Fn(&Drawn) -> usize) {
    let reference = test.reference[name].as_object().unwrap();
    for (key, share) in reference {
        let key_value: usize = key.parse().unwrap();
        test.rate(&format!("{name} {key}"), share, |drawn| value(drawn) == key_value);
    }
    let outside =
        test.drawn.iter().filter(|drawn| !reference.contains_key(&value(drawn).to_string())).count();
    // Values that the reference never drew must be rare: 0 of n_reference.
    let share = outside as f64 / test.drawn.len() as f64;
    assert!(
        share * test.n_reference < 7.0,
        "{} {name}: {share} outside of the reference's values",
        test.split
    );
}

fn settings(test: &mut Test<'_>) {
    let rates = &test.reference["rates"];
    let contains = |drawn: &Drawn, op| drawn.arch.genotype.contains(op);
    test.rate("norm_none", &rates["norm_none"]["rate"], |drawn| drawn.arch.norm.is_none());
    test.rate("stem_type_1", &rates["stem_type_1"]["rate"], |drawn| drawn.arch.stem_type == 1);
    test.rate("stem_pool", &rates["stem_pool"]["rate"], |drawn| drawn.arch.stem_pool);
    test.rate("preproc_false", &rates["preproc_false"]["rate"], |drawn| !drawn.arch.preproc);
    test.rate("glob_avg_false", &rates["glob_avg_false"]["rate"], |drawn| !drawn.arch.global_pool);
    test.rate("fc_layers_2", &rates["fc_layers_2"]["rate"], |drawn| drawn.arch.fc_layers == 2);
    test.rate("C_mult_2", &rates["C_mult_2"]["rate"], |drawn| drawn.arch.channel_multiplier == 2);
    for kernel in [3, 5, 7] {
        let name = format!("ks_{kernel}");
        test.rate(&name, &rates[&name]["rate"], |drawn| drawn.arch.stem_kernel == kernel);
    }
    test.rate("has_msa", &rates["has_msa"]["rate"], |drawn| contains(drawn, Op::Msa));
    test.rate("has_cse", &rates["has_cse"]["rate"], |drawn| contains(drawn, Op::Cse));
    test.rate("has_none", &rates["has_none"]["rate"], |drawn| contains(drawn, Op::None));
    let plain = &rates["reduction_cell_without_learnable_op"]["rate"];
    test.rate("plain reduction", plain, |drawn| {
        !drawn.arch.genotype.reduce.iter().any(|edge| edge.0.is_learnable())
    });
    let unreachable = &rates["some_parameters_unreachable"]["rate"];
    test.rate("unreachable", unreachable, |drawn| drawn.reachable < drawn.params);
    let given = |holds: bool, event: bool| (f64::from(u8::from(holds && event)), f64::from(u8::from(holds)));
    test.ratio("stem_pool given stem 0", &rates["stem_pool_given_stem_type_0"]["rate"], |drawn| {
        given(drawn.arch.stem_type == 0, drawn.arch.stem_pool)
    });
    let dropped = &test.reference["concat_dropped_given_steps_gt1"]["rate"];
    test.ratio("concat dropped", dropped, |drawn| {
        let genotype = &drawn.arch.genotype;
        given(genotype.steps() > 1, genotype.normal_concat.len() < genotype.steps())
    });
    input_shares(test);
}

// Slots of a step are counted on both sides: late steps are rare, and the inputs of a step are uniform.
fn input_shares(test: &mut Test<'_>) {
    let steps_hist = test.reference["steps_hist"].as_object().unwrap();
    let shares = test.reference["input_index_share_by_step"].as_object().unwrap();
    for (step, inputs) in shares {
        let step: usize = step.parse().unwrap();
        let with_step = |(steps, share): (&String, &Value)| {
            f64::from(u8::from(steps.parse::<usize>().unwrap() > step)) * share.as_f64().unwrap()
        };
        let n_reference = 4.0 * test.n_reference * steps_hist.iter().map(with_step).sum::<f64>();
        let slots: Vec<usize> = test
            .drawn
            .iter()
            .flat_map(|drawn| [&drawn.arch.genotype.normal, &drawn.arch.genotype.reduce])
            .flat_map(|cell| cell.chunks_exact(2).nth(step).into_iter().flatten())
            .map(|edge| edge.1)
            .collect();
        let n = slots.len() as f64;
        let uniform = 1.0 / (step + 2) as f64;
        for input in 0..step + 2 {
            let reference = inputs[&input.to_string()].as_f64().unwrap_or(0.0);
            let ours = slots.iter().filter(|&&slot| slot == input).count() as f64 / n;
            let variance = uniform * (1.0 - uniform) * (1.0 / n + 1.0 / n_reference);
            test.compare(format!("step {step} reads {input}"), reference, ours, variance);
        }
    }
}

fn graphs(test: &mut Test<'_>) {
    let counts = |drawn: &Drawn| drawn.graph.as_ref().map(|graph| (graph.nodes, graph.edges)).unwrap();
    let all = |drawn: &Drawn| counts(drawn).0.iter().sum::<usize>() as f64;
    test.distribution("n_nodes", all);
    test.distribution("n_edges", |drawn| counts(drawn).1 as f64);
    for primitive in Primitive::ALL {
        let nodes = |drawn: &Drawn| counts(drawn).0[primitive as usize] as f64;
        let (stats, name) = (test.reference, primitive.name());
        test.ratio(&format!("share of {name}"), &stats["graph_node_share"][name], |drawn| {
            (nodes(drawn), all(drawn))
        });
        test.ratio(&format!("{name} nodes"), &stats["graph_nodes_per_net"][name], |drawn| {
            (nodes(drawn), 1.0)
        });
        test.rate(&format!("{name} present"), &stats["graph_primitive_present"][name], |drawn| {
            nodes(drawn) > 0.0
        });
    }
}

fn rejections(test: &mut Test<'_>, counted: &Rejections) {
    let per_draw = &test.reference["rejection"]["per_draw"];
    let n = counted.draws as f64;
    let n_reference = test.reference["rejection"]["draws"].as_f64().unwrap();
    for (name, found) in [
        ("rej_cse_without_conv", counted.cse_without_conv),
        ("rej_two_cse", counted.two_cse),
        ("rej_two_large_convs", counted.two_large_convs),
        ("rej_no_learnable_op", counted.no_learnable_op),
    ] {
        let (reference, ours) = (per_draw[name].as_f64().unwrap(), found as f64 / n);
        let pooled = (reference * n_reference + ours * n) / (n_reference + n);
        let variance = pooled * (1.0 - pooled) * (1.0 / n + 1.0 / n_reference);
        test.compare(name.to_owned(), reference, ours, variance + f64::MIN_POSITIVE);
    }
    let per_candidate = &test.reference["rejection"]["per_candidate"];
    let candidates = counted.candidates() as f64;
    for (name, found) in [
        ("rej_too_large", counted.too_many_params + counted.too_many_macs),
        ("rej_disconnected", counted.lost_output),
    ] {
        let (reference, ours) = (per_candidate[name].as_f64().unwrap(), found as f64 / candidates);
        let pooled = (reference * test.n_reference + ours * candidates) / (test.n_reference + candidates);
        let variance = pooled * (1.0 - pooled) * (1.0 / candidates + 1.0 / test.n_reference);
        test.compare(name.to_owned(), reference, ours, variance + f64::MIN_POSITIVE);
    }
}

#[test]
fn every_split_has_the_statistics_of_the_reference() {
    let text = std::fs::read_to_string("tests/fixtures/sampling_stats.json").unwrap();
    let statistics: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
    let mut comparisons = Vec::new();
    for (split, space, n) in [
        ("train", "deepnets1m", 12_000),
        ("deep", "deep", 3_000),
        ("dense", "dense", 3_000),
        ("bnfree", "bnfree", 3_000),
        ("search", "search", 3_000),
    ] {
        let space = Space::builtin(space).unwrap();
        let mut rng = rng(2026);
        let mut counted = Rejections::default();
        let archs: Vec<_> = (0..n).map(|_| space.sample_counted(&mut rng, &mut counted).unwrap()).collect();
        let drawn: Vec<Drawn> =
            archs.into_par_iter().enumerate().map(|(index, arch)| Drawn::of(arch, index < GRAPHS)).collect();
        let reference = &statistics[split];
        let n_reference = reference["n"].as_f64().unwrap();
        let mut test = Test { split, reference, n_reference, drawn: &drawn, comparisons: Vec::new() };
        rejections(&mut test, &counted);
        operations(&mut test);
        histogram(&mut test, "n_cells_hist", |drawn| drawn.arch.n_cells);
        histogram(&mut test, "steps_hist", |drawn| drawn.arch.genotype.steps());
        settings(&mut test);
        test.distribution("n_cells", |drawn| drawn.arch.n_cells as f64);
        test.distribution("steps", |drawn| drawn.arch.genotype.steps() as f64);
        test.distribution("concat_len", |drawn| drawn.arch.genotype.normal_concat.len() as f64);
        test.distribution("n_params_C32_cifar", |drawn| drawn.params);
        test.distribution("n_params_C32_cifar_reachable", |drawn| drawn.reachable);
        test.distribution("n_params_C32_imagenet", |drawn| drawn.imagenet_params);
        test.distribution("log10_n_params_C32_cifar", |drawn| drawn.params.log10());
        comparisons.append(&mut test.comparisons);
        test.drawn = &drawn[..GRAPHS];
        graphs(&mut test);
        assert!(drawn.iter().all(|d| d.arch.genotype.normal_concat == d.arch.genotype.reduce_concat));
        comparisons.append(&mut test.comparisons);
    }
    comparisons.sort_by(|a, b| b.3.abs().total_cmp(&a.3.abs()));
    let beyond_three = comparisons.iter().filter(|(.., z)| z.is_nan() || z.abs() > 3.0).count();
    eprintln!("{} figures, {beyond_three} beyond three standard errors", comparisons.len());
    comparisons
        .iter()
        .take(20)
        .for_each(|(name, reference, ours, z)| eprintln!("{name}: {reference} {ours} z {z:.2}"));
    assert!(comparisons.len() > 1000);
    for (name, reference, ours, z) in &comparisons {
        assert!(z.abs() <= 4.5, "{name}: reference {reference}, ours {ours}, z {z}");
    }
    assert!(beyond_three * 100 <= comparisons.len(), "{beyond_three} of {}", comparisons.len());
}
