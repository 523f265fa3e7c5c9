//! Flags of fidelities above `predicted`: the stages of a search, and how weights are trained.

use super::scoring::set;
use crate::pipeline::{EvaluationSettings, RefinementSettings};
use crate::score::Fidelity;
use crate::search::{Ladder, Objective, Stage};
use crate::study::PredictorSettings;
use anyhow::{Context, bail};
use std::path::Path;

/// Flags of the stages of a search.
#[derive(Debug, clap::Args)]
pub(super) struct LadderArgs {
    /// Train the best candidates, in stages that take a third of them each or fewer: 20 % of the time finds candidates with
    /// predicted weights, the rest trains from He's random weights; counts and steps fit the time and the measured speed,
    /// so that five reach the last stage, and where there is time the first stage goes in rounds with new candidates
    /// between, bred from the best that were trained. Without a budget of time: 100 steps of SGD for 36 in two rounds, 400
    /// for 9, 1600 for 3, and 1 to the end
    #[arg(long, conflicts_with = "fidelities")]
    refine: bool,
    /// The stages instead, or a file with one on each line: FIDELITY[=CANDIDATES][@SHARE OF THE TIME], as in
    /// predicted@0.5,sgd:200=16@0.3,trained=2@0.2, or auto as --refine; he:N begins with random weights instead of predicted ones
    #[arg(long, value_name = "STAGE,STAGE,...|FILE")]
    fidelities: Option<String>,
    /// No predictor: neither proposals nor who is trained depend on what was learned from those that were trained
    #[arg(long)]
    no_predictor: bool,
    /// No vote: who is trained longer depends on the score alone. Otherwise, where accuracy or robustness is the
    /// objective, it is the mean rank by score, parameters and peak activations that decides
    #[arg(long)]
    no_vote: bool,
}

/// Flags of training.
#[derive(Debug, clap::Args)]
pub(super) struct TrainingArgs {
    /// Epochs of the fidelity trained [default: 10]
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Images in a batch of training [default: 64]
    #[arg(long, value_name = "N")]
    train_batch: Option<usize>,
    /// Learning rate of training from predicted weights, which falls along half a cosine [default: 0.025]
    #[arg(long, value_name = "RATE")]
    lr: Option<f64>,
    /// The same from He's random weights [default: 0.05]
    #[arg(long, value_name = "RATE")]
    he_lr: Option<f64>,
}

impl LadderArgs {
    /// The predictor of a search for `objective`, if it trains: that of `base`, unless a flag says otherwise.
    pub(super) fn predictor(
        &self,
        base: Option<PredictorSettings>,
        is_refined: bool,
        objective: &Objective,
    ) -> anyhow::Result<Option<PredictorSettings>> {
        if self.no_predictor && !is_refined {
            bail!(
                "--no-predictor: no weights are trained, so there is none; give --refine or --fidelities too"
            );
        }
        Ok(base.filter(|_| is_refined && !self.no_predictor && !objective.is_pareto()))
    }

    /// Whether sizes vote in a search for `objective`, if it trains: as `base` says, unless a flag says otherwise.
    pub(super) fn vote(&self, base: bool, is_refined: bool, objective: &Objective) -> anyhow::Result<bool> {
        if self.no_vote && !is_refined {
            bail!("--no-vote: no weights are trained, so there is none; give --refine or --fidelities too");
        }
        Ok(base && is_refined && !self.no_vote && objective.is_learned())
    }

    /// The stages asked for, else those of `base`.
    pub(super) fn over(&self, base: Option<Ladder>) -> anyhow::Result<Option<Ladder>> {
        let Some(given) = &self.fidelities else {
            // Stages of a study that is resumed stay, whichever they are.
            return Ok(if self.refine { base.or_else(|| Some(Ladder::default())) } else { base });
        };
        let path = Path::new(given);
        let text = match path.is_file() {
            true => std::fs::read_to_string(path).map_err(crate::Error::io("read", path))?,
            false => given.clone(),
        };
        Ok(Some(text.parse().with_context(|| match path.is_file() {
            true => format!("--fidelities {}", path.display()),
            false => "--fidelities".into(),
        })?))
    }
}

impl TrainingArgs {
    /// Refuses a learning rate of weights that `fidelity` does not begin at.
    pub(super) fn check(&self, fidelity: Fidelity) -> anyhow::Result<()> {
        match (fidelity, self.lr, self.he_lr) {
            (Fidelity::He { .. }, Some(_), _) => {
                bail!("--lr: {fidelity} begins at He's random weights; its learning rate is --he-lr")
            }
            (Fidelity::Sgd { .. } | Fidelity::Trained, _, Some(_)) => {
                bail!("--he-lr: {fidelity} begins at predicted weights; its learning rate is --lr")
            }
            _ => Ok(()),
        }
    }

    /// Refuses a learning rate of weights that no stage of `ladder` begins at.
    fn check_stages(&self, ladder: &Ladder) -> anyhow::Result<()> {
        let from_random = |stage: &Stage| matches!(stage.fidelity, Fidelity::He { .. });
        let mut refined = ladder.stages().iter().filter(|stage| stage.fidelity.is_refined());
        // Stages that fit the time may be any.
        if ladder.is_auto() {
            return Ok(());
        }
        if self.he_lr.is_some() && !refined.clone().any(from_random) {
            bail!("--he-lr: no stage begins at He's random weights, as he:N does");
        }
        if self.lr.is_some() && refined.all(from_random) {
            bail!("--lr: every stage begins at He's random weights; their learning rate is --he-lr");
        }
        Ok(())
    }

    /// Puts the settings of training in the stages of `ladder` in their place.
    ///
    /// # Errors
    /// As [`TrainingArgs::over`], or a learning rate that no stage has.
    pub(super) fn over_stages(
        &self,
        evaluation: &mut EvaluationSettings,
        ladder: Option<&Ladder>,
        seed: u64,
    ) -> anyhow::Result<()> {
        let refining = ladder.filter(|ladder| ladder.is_refined());
        refining.map_or(Ok(()), |ladder| self.check_stages(ladder))?;
        self.over(evaluation, refining.is_some(), seed)
    }

    /// Puts the settings of training in their place, where weights are trained (`is_refined`); `seed` is theirs unless
    /// a study has settings already.
    ///
    /// # Errors
    /// Settings of training where there is none.
    pub(super) fn over(
        &self,
        evaluation: &mut EvaluationSettings,
        is_refined: bool,
        seed: u64,
    ) -> anyhow::Result<()> {
        if !is_refined {
            let given = [
                ("--epochs", self.epochs.is_some()),
                ("--train-batch", self.train_batch.is_some()),
                ("--lr", self.lr.is_some()),
                ("--he-lr", self.he_lr.is_some()),
            ];
            if let Some((flag, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
                bail!("{flag}: no weights are trained; give --refine, --fidelities or --fidelity too");
            }
            evaluation.refinement = None;
            return Ok(());
        }
        let refinement =
            evaluation.refinement.get_or_insert_with(|| RefinementSettings { seed, ..Default::default() });
        set(&mut refinement.epochs, &self.epochs);
        set(&mut refinement.batch, &self.train_batch);
        set(&mut refinement.lr, &self.lr);
        refinement.he_lr = self.he_lr.or(refinement.he_lr);
        Ok(())
    }
}
