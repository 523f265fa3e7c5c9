//! The search loop: asks a strategy, evaluates on worker threads, records, tells.
//!
//! Trial `n` is chosen when the strategy has been told exactly the trials up to `n - lookahead`, or all before the stage
//! that goes on, whatever the number of workers and whenever their results come in. So the trials depend on the settings
//! alone, and workers change only the time. Latencies are measured, so under an objective that holds one the trials
//! depend on the machine's times too; a resumed search goes on from the recorded ones. A candidate is recorded before it
//! is evaluated and its outcome as soon as it is known.

mod planning;
mod rungs;
mod worker;

use super::{Event, KeptWeights, SettingsDigest, Study, TrialState, now_ms};
use crate::score::Scores;
use crate::search::{
    Budget, Evaluator, Front, Ladder, Limits, Measured, Objective, Outcome, Proposals, StopReason, Strategy,
    proposal_rng,
};
use crate::space::CellArchitecture;
use crate::{Error, Result};
use rungs::Rung;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Instant;
use worker::{Done, Job, work};

/// Known proposals in a row after which the space counts as exhausted.
const MAX_KNOWN: u32 = 2_000;
/// Candidates in a row that break a limit before evaluation, after which a search ends.
const MAX_REJECTED: u64 = 1_000;
/// Failed candidates in a row after which a search ends.
const MAX_FAILED: u64 = 25;

/// The parts of a search.
pub struct Plan<'a> {
    /// Where candidates come from.
    pub space: &'a dyn Proposals,
    /// What scores them.
    pub evaluator: &'a dyn Evaluator,
    /// What is maximised.
    pub objective: &'a Objective,
    /// What candidates must keep.
    pub limits: Limits,
    /// The stages over fidelities; none is a search with predicted weights alone.
    pub ladder: Option<&'a Ladder>,
    /// Whether sizes vote about who is trained; see [`super::SearchSettings::vote`].
    pub vote: bool,
    /// Where the trained weights of finalists are kept.
    pub weights: Option<&'a KeptWeights>,
    /// Architectures that are the first trials, in this order; of equivalent ones the first.
    pub warm_start: &'a [CellArchitecture],
    /// When it ends.
    pub budget: Budget,
    /// Seed of everything random.
    pub seed: u64,
    /// See [`super::SearchSettings::lookahead`]; at least 1.
    pub lookahead: u64,
    /// Evaluations at once; more than `lookahead` never have work.
    pub workers: usize,
    /// Digest of the settings, which is recorded and must be that of earlier sessions; may be empty.
    pub settings: SettingsDigest,
    /// Set from outside to end the search after the candidates in flight.
    pub interrupted: &'a AtomicBool,
}

/// Runs or continues a search until its budget is spent or it is interrupted, and records why it ended.
///
/// `watch` is called after every outcome. A strategy must be given in its initial state: it is told the outcomes
/// that the study already holds.
///
/// # Errors
/// The settings are out of range or not those the study was begun with, storage fails, or the space cannot propose. What was recorded stays resumable.
pub fn run(
    plan: &Plan<'_>,
    strategy: &mut dyn Strategy,
    study: &mut Study,
    watch: &mut dyn FnMut(&Study),
) -> Result<StopReason> {
    plan.budget.check()?;
    plan.limits.check()?;
    if plan.lookahead == 0 || plan.workers == 0 {
        return Err(Error::Config("a search needs at least one worker and a lookahead of at least 1".into()));
    }
    strategy.check(plan.objective.count())?;
    let changed = study.settings().differences(&plan.settings);
    if !changed.is_empty() {
        return Err(Error::Config(format!(
            "study.json was changed since the study was begun ({}); put the old settings back, or begin another \
             study",
            changed.join(", ")
        )));
    }
    study.record(&[Event::Opened {
        time_ms: now_ms(),
        version: env!("CARGO_PKG_VERSION").to_string(),
        workers: plan.workers,
        budget: plan.budget,
        settings: plan.settings.clone(),
    }])?;
    let workers = plan.workers.min(usize::try_from(plan.lookahead).unwrap_or(usize::MAX));
    let (to_workers, jobs) = mpsc::channel::<Job>();
    let (to_driver, results) = mpsc::channel::<Done>();
    let jobs = Mutex::new(jobs);
    let reason = std::thread::scope(|scope| {
        for _ in 0..workers {
            let (jobs, to_driver) = (&jobs, to_driver.clone());
            scope.spawn(move || work(plan, jobs, &to_driver));
        }
        drop(to_driver);
        let mut driver = Driver::new(plan, strategy, study, watch);
        let outcome = driver.drive(workers, &to_workers, &results);
        // Closes the queue, so that the workers end and the scope with them.
        drop(to_workers);
        outcome
    })?;
    // After an interruption the strategy has not heard of all.
    let forecast = if reason == StopReason::Interrupted { None } else { strategy.forecast()? };
    study.record(&[Event::Stopped { time_ms: now_ms(), elapsed_s: study.elapsed_s(), reason, forecast }])?;
    Ok(reason)
}

struct Driver<'d> {
    plan: &'d Plan<'d>,
    strategy: &'d mut dyn Strategy,
    study: &'d mut Study,
    watch: &'d mut dyn FnMut(&Study),
    known: BTreeSet<String>,
    /// Trials that an earlier session left without outcome.
    unfinished: VecDeque<u64>,
    /// Trials that the strategy knows of.
    told: u64,
    failed_in_a_row: u64,
    /// The best of what was told, and how many evaluated candidates came since it last changed.
    front: Front,
    no_better: u64,
    warm_start: Vec<(String, &'d CellArchitecture)>,
    /// The stages, as they are planned by now.
    ladder: Option<Ladder>,
    /// The stage of the ladder; none before the first has begun.
    stage: Option<usize>,
    /// The stage's candidates, if it trains.
    rung: Option<Rung>,
    /// Stages whose outcomes the strategy knows.
    told_stages: usize,
    /// Candidates at work.
    in_flight: usize,
    began: Instant,
    elapsed_before: f64,
}

/// What to do next.
enum Step {
    Dispatch(Box<Job>),
    Wait,
    Stop(StopReason),
}

impl<'d> Driver<'d> {
    fn new(
        plan: &'d Plan<'d>,
        strategy: &'d mut dyn Strategy,
        study: &'d mut Study,
        watch: &'d mut dyn FnMut(&Study),
    ) -> Driver<'d> {
        let running = |trial: &&super::Trial| trial.state == TrialState::Running;
        let mut given = BTreeSet::new();
        let warm_start = plan.warm_start.iter().map(|arch| (plan.space.hash(arch), arch));
        let mut driver = Driver {
            known: study.trials().iter().map(|trial| trial.hash.clone()).collect(),
            unfinished: study.trials().iter().filter(running).map(|trial| trial.number).collect(),
            told: 0,
            failed_in_a_row: 0,
            front: Front::default(),
            no_better: 0,
            warm_start: warm_start.filter(|(hash, _)| given.insert(hash.clone())).collect(),
            ladder: plan.ladder.cloned(),
            stage: None,
            rung: None,
            told_stages: 0,
            in_flight: 0,
            began: Instant::now(),
            elapsed_before: study.elapsed_s(),
            plan,
            strategy,
            study,
            watch,
        };
        driver.go_on();
        driver
    }

    fn elapsed_s(&self) -> f64 {
        self.elapsed_before + self.began.elapsed().as_secs_f64()
    }

    fn drive(
        &mut self,
        workers: usize,
        jobs: &mpsc::Sender<Job>,
        results: &mpsc::Receiver<Done>,
    ) -> Result<StopReason> {
        let mut stop = None;
        loop {
            while stop.is_none() && self.in_flight < workers {
                match self.next()? {
                    Step::Dispatch(job) => {
                        jobs.send(*job).map_err(|_| Error::Config("all workers have ended".into()))?;
                        self.in_flight += 1;
                    }
                    Step::Wait => break,
                    Step::Stop(reason) => stop = Some(reason),
                }
            }
            if self.in_flight == 0 {
                return stop
                    .ok_or_else(|| Error::Config("the search waits for a trial that nobody runs".into()));
            }
            let done = results.recv().map_err(|_| Error::Config("all workers have ended".into()))?;
            self.in_flight -= 1;
            match done {
                Done::Score { trial, wall_s, cost, result } => self.conclude(trial, wall_s, *cost, result)?,
                Done::Refine { trial, wall_s, fidelity, result } => {
                    self.conclude_refined(trial, fidelity, wall_s, result)?;
                }
            }
        }
    }

    fn next(&mut self) -> Result<Step> {
        loop {
            if self.plan.interrupted.load(Ordering::Relaxed) {
                return Ok(Step::Stop(StopReason::Interrupted));
            }
            if let Some(number) = self.unfinished.pop_front() {
                let trial = &self.study.trials()[number as usize];
                let (hash, arch) = (trial.hash.clone(), trial.arch.clone());
                match self.start(number, hash, arch)? {
                    Some(job) => return Ok(Step::Dispatch(Box::new(job))),
                    None => continue,
                }
            }
            if self.ladder.is_none() {
                return self.next_candidate();
            }
            let Some(stage) = self.stage else {
                self.begin(0)?;
                continue;
            };
            if self.rung.is_some() {
                match self.climb()? {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            }
            match self.next_candidate()? {
                Step::Stop(reason @ (StopReason::Interrupted | StopReason::Failing)) => {
                    return Ok(Step::Stop(reason));
                }
                Step::Stop(_) if self.in_flight > 0 => return Ok(Step::Wait),
                Step::Stop(_) => {
                    if let Some(reason) = self.begin(stage + 1)? {
                        return Ok(Step::Stop(reason));
                    }
                }
                step => return Ok(step),
            }
        }
    }

    /// Whether the search for candidates has spent its budget, or its share of it.
    fn spent(&self) -> Option<StopReason> {
        let mut budget = self.plan.budget;
        if let Some((ladder, stage)) = self.ladder.as_ref().zip(self.stage) {
            budget.trials = budget.trials.map(|trials| ladder.trials(stage, trials));
            budget.seconds = budget.seconds.map(|seconds| seconds * ladder.end(stage));
        }
        budget.spent(self.study.evaluated(), self.elapsed_s())
    }

    /// The next candidate that the strategy proposes.
    fn next_candidate(&mut self) -> Result<Step> {
        loop {
            if self.plan.interrupted.load(Ordering::Relaxed) {
                return Ok(Step::Stop(StopReason::Interrupted));
            }
            if let Some(reason) = self.spent() {
                return Ok(Step::Stop(reason));
            }
            let number = self.study.trials().len() as u64;
            if !self.tell_up_to(self.known_to(number))? {
                return Ok(Step::Wait);
            }
            if self.plan.budget.patience.is_some_and(|patience| self.no_better >= patience) {
                return Ok(Step::Stop(StopReason::Patience));
            }
            if self.failed_in_a_row >= MAX_FAILED {
                return Ok(Step::Stop(StopReason::Failing));
            }
            if self.rejected_in_a_row() >= MAX_REJECTED {
                return Ok(Step::Stop(StopReason::LimitsTooTight));
            }
            let Some((hash, arch)) = self.propose(number)? else {
                return Ok(Step::Stop(StopReason::SpaceExhausted));
            };
            if let Some(job) = self.start(number, hash, arch)? {
                return Ok(Step::Dispatch(Box::new(job)));
            }
        }
    }

    /// How many outcomes the strategy knows when trial `number` is chosen; all of those before a stage that has begun.
    fn known_to(&self, number: u64) -> u64 {
        let begun = self.study.stages().iter().map(|record| record.after).filter(|&after| after <= number);
        (number + 1).saturating_sub(self.plan.lookahead).max(begun.max().unwrap_or(0))
    }

    /// Tells the strategy the trials below `end`; false if one of them has no outcome yet.
    fn tell_up_to(&mut self, end: u64) -> Result<bool> {
        loop {
            self.tell_stages()?;
            if self.told >= end {
                return Ok(true);
            }
            let trial = &self.study.trials()[self.told as usize];
            if trial.state == TrialState::Running {
                return Ok(false);
            }
            self.failed_in_a_row = match trial.state {
                TrialState::Failed => self.failed_in_a_row + 1,
                TrialState::Finished => 0,
                _ => self.failed_in_a_row,
            };
            let merits = match (trial.state, trial.value) {
                (TrialState::Finished, Some(value)) => Some(vec![value]),
                (TrialState::Finished, None) => Some(self.plan.objective.merits(&trial.scores)?),
                _ => None,
            };
            let merits = merits.as_deref();
            match merits.is_some_and(|merits| self.front.improve(merits)) {
                true => self.no_better = 0,
                false => self.no_better += u64::from(trial.is_evaluated()),
            }
            let is_given = (trial.number as usize) < self.warm_start.len();
            let chosen_after = (!is_given).then(|| self.known_to(trial.number));
            self.strategy.tell(Outcome { trial: trial.number, arch: &trial.arch, merits, chosen_after });
            self.told += 1;
        }
    }

    fn rejected_in_a_row(&self) -> u64 {
        self.study.trials().iter().rev().take_while(|trial| !trial.is_evaluated()).count() as u64
    }

    fn propose(&self, number: u64) -> Result<Option<(String, CellArchitecture)>> {
        if let Some((hash, arch)) = self.warm_start.get(number as usize) {
            return Ok(Some((hash.clone(), (*arch).clone())));
        }
        let mut rng = proposal_rng(self.plan.seed, number);
        for attempt in 0..MAX_KNOWN {
            let arch = self.strategy.ask(self.plan.space, attempt, &mut rng)?;
            let hash = self.plan.space.hash(&arch);
            if !self.known.contains(&hash) {
                return Ok(Some((hash, arch)));
            }
        }
        Ok(None)
    }

    /// Records a candidate's start; if its cost breaks a limit, its rejection with it.
    fn start(&mut self, trial: u64, hash: String, arch: CellArchitecture) -> Result<Option<Job>> {
        self.known.insert(hash.clone());
        let (cost, breach) = match self.plan.evaluator.cost(&arch) {
            Ok(cost) => {
                let breach = self.plan.limits.breach_of_cost(&cost);
                (cost, breach)
            }
            Err(error) => (Scores::default(), Some(error.to_string())),
        };
        let started = Event::Started { trial, time_ms: now_ms(), hash, arch: arch.clone() };
        match breach {
            None => {
                self.study.record(&[started])?;
                let bar = self.bar(trial);
                Ok(Some(Job::Score { trial, arch, cost: Box::new(cost), bar }))
            }
            Some(reason) => {
                let (time_ms, elapsed_s) = (now_ms(), self.elapsed_s());
                let rejected =
                    Event::Rejected { trial, time_ms, wall_s: None, elapsed_s, reason, scores: cost };
                self.study.record(&[started, rejected])?;
                (self.watch)(self.study);
                Ok(None)
            }
        }
    }

    fn conclude(&mut self, trial: u64, wall_s: f64, cost: Scores, result: Result<Measured>) -> Result<()> {
        let (time_ms, elapsed_s) = (now_ms(), self.elapsed_s());
        let failed = |reason: String, scores: Scores| Event::Failed {
            trial,
            time_ms,
            wall_s,
            elapsed_s,
            reason,
            scores: scores.finite(),
        };
        let event = match result {
            // Left without outcome: a resume runs it again.
            Err(Error::Interrupted) => {
                self.plan.interrupted.store(true, Ordering::Relaxed);
                return Ok(());
            }
            Err(error @ Error::Architecture(_)) => Event::Rejected {
                trial,
                time_ms,
                wall_s: Some(wall_s),
                elapsed_s,
                reason: error.to_string(),
                scores: cost.finite(),
            },
            Err(error) => failed(error.to_string(), cost),
            Ok(Measured { scores, answers, dropped_by }) => {
                let scores = scores.or(&cost);
                if let Some(name) = scores.first_non_finite() {
                    failed(format!("the score {name} is not a finite number"), scores)
                } else if let Some(reason) = self.plan.limits.breach_of_latency(&scores) {
                    Event::Rejected { trial, time_ms, wall_s: Some(wall_s), elapsed_s, reason, scores }
                } else {
                    match self.plan.objective.merits(&scores) {
                        Ok(merits) => {
                            let value = (!self.plan.objective.is_pareto()).then(|| merits[0]);
                            Event::Finished {
                                trial,
                                time_ms,
                                wall_s,
                                elapsed_s,
                                value,
                                scores,
                                answers,
                                dropped_by,
                            }
                        }
                        Err(error) => failed(error.to_string(), scores),
                    }
                }
            }
        };
        self.study.record(&[event])?;
        (self.watch)(self.study);
        Ok(())
    }
}
