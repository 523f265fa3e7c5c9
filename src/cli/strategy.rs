//! Flags that choose a strategy and its settings.

use crate::search::{LocalSearch, Nsga2, Objective, Parents, RegularisedEvolution, StrategySettings};
use anyhow::bail;

/// Flags of strategies.
#[derive(Debug, clap::Args)]
pub(super) struct StrategyArgs {
    /// How candidates are chosen [default: evolution; nsga2 for several objectives]
    #[arg(long)]
    strategy: Option<StrategyName>,
    /// Evolution: candidates alive at once; nsga2: parents, and children of a generation [default: 24]
    #[arg(long, value_name = "N")]
    population: Option<usize>,
    /// Evolution: candidates that compete to be the parent of the next [default: 6, or a smaller --population]
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Evolution: whose mutants candidates are, those that were scored with predicted weights or those that were trained
    /// [default: trained where the search trains, so random draws come first; else scored]
    #[arg(long)]
    parents: Option<ParentsName>,
    /// Local: random candidates, the best of which is climbed from [default: 10]
    #[arg(long, value_name = "N")]
    starts: Option<usize>,
    /// Local: neighbours without success after which it starts anew [default: 24]
    #[arg(long, value_name = "N")]
    neighbours: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum StrategyName {
    /// Regularised (aging) evolution, one objective: doi:10.1609/aaai.v33i01.33014780
    Evolution,
    /// NSGA-II, several objectives at once: doi:10.1109/4235.996017
    Nsga2,
    /// Local search with restarts, one objective: arXiv:2005.02960
    Local,
    /// Independent random draws, any objectives
    Random,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum ParentsName {
    Scored,
    Trained,
}

/// The strategy for an objective when none is named.
pub(super) fn default_strategy(objective: &Objective) -> StrategySettings {
    match objective.is_pareto() {
        true => defaults(StrategyName::Nsga2),
        false => defaults(StrategyName::Evolution),
    }
}

fn defaults(name: StrategyName) -> StrategySettings {
    match name {
        StrategyName::Evolution => StrategySettings::Evolution {
            population: RegularisedEvolution::POPULATION,
            sample: RegularisedEvolution::SAMPLE,
            parents: Parents::Scored,
        },
        StrategyName::Nsga2 => StrategySettings::Nsga2 { population: Nsga2::POPULATION },
        StrategyName::Local => {
            StrategySettings::Local { starts: LocalSearch::STARTS, neighbours: LocalSearch::NEIGHBOURS }
        }
        StrategyName::Random => StrategySettings::Random,
    }
}

impl StrategyArgs {
    /// `base`, or the strategy named, with the settings given by flags in their places; whether the search trains, and did
    /// not by `base`.
    pub(super) fn over(
        &self,
        base: StrategySettings,
        is_refined: bool,
        begins_to_train: bool,
    ) -> anyhow::Result<StrategySettings> {
        let base = match self.strategy.map(defaults) {
            Some(named) if named.name() != base.name() => named,
            _ => base,
        };
        let (settings, takes): (_, &[&str]) = match base {
            StrategySettings::Random => (StrategySettings::Random, &[]),
            StrategySettings::Evolution { population, sample, parents } => {
                let parents = match self.parents {
                    Some(ParentsName::Trained) if !is_refined => {
                        bail!("--parents trained: no weights are trained; give --refine or --fidelities too")
                    }
                    Some(ParentsName::Trained) => Parents::Trained,
                    Some(ParentsName::Scored) => Parents::Scored,
                    None if begins_to_train => Parents::Trained,
                    None => parents,
                };
                let population = self.population.unwrap_or(population);
                let sample = self.sample.unwrap_or_else(|| sample.min(population.max(1)));
                let takes = &["--population", "--sample", "--parents"];
                (StrategySettings::Evolution { population, sample, parents }, takes)
            }
            StrategySettings::Local { starts, neighbours } => {
                let starts = self.starts.unwrap_or(starts);
                let neighbours = self.neighbours.unwrap_or(neighbours);
                (StrategySettings::Local { starts, neighbours }, &["--starts", "--neighbours"])
            }
            StrategySettings::Nsga2 { population } => {
                let population = self.population.unwrap_or(population);
                (StrategySettings::Nsga2 { population }, &["--population"])
            }
        };
        for (flag, given, users) in [
            ("--population", self.population.is_some(), "evolution or nsga2"),
            ("--sample", self.sample.is_some(), "evolution"),
            ("--parents", self.parents.is_some(), "evolution"),
            ("--starts", self.starts.is_some(), "local"),
            ("--neighbours", self.neighbours.is_some(), "local"),
        ] {
            if given && !takes.contains(&flag) {
                bail!("{flag} needs --strategy {users}, here it is {}", settings.name());
            }
        }
        Ok(settings)
    }
}
