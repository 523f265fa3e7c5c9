//! Contracts that every strategy and every storage keeps, and what is special to journals and run folders.

mod failures;
mod folder;
mod journal;
mod search;
mod stages;
mod storage;

use super::*;
use crate::score::{Answers, Fidelity, Scores};
use crate::search::formula::architecture;
use crate::space::Op;

/// Events of three trials, the second unfinished, the first refined.
pub(super) fn some_events() -> Vec<Event> {
    let started = |trial: u64| Event::Started {
        trial,
        time_ms: 1_000 + trial,
        hash: format!("{trial:016x}"),
        arch: architecture(8 + trial as usize, 3, Op::Conv3x3),
    };
    let scores = Scores { accuracy: Some(0.1 + 0.2), params: Some(u64::MAX), ..Scores::default() };
    vec![
        Event::Opened {
            time_ms: 1,
            version: "0.0.0 \"ä\n".into(),
            workers: 2,
            budget: Default::default(),
            settings: Default::default(),
        },
        started(0),
        Event::Finished {
            trial: 0,
            time_ms: 5,
            wall_s: 0.1,
            elapsed_s: 1.0 / 3.0,
            value: Some(0.1 + 0.2),
            scores: scores.clone(),
            answers: Some(Answers::try_from("9:0d01".to_string()).unwrap()),
            dropped_by: None,
        },
        started(1),
        started(2),
        Event::Rejected {
            trial: 2,
            time_ms: 9,
            wall_s: None,
            elapsed_s: 0.5,
            reason: "params 9 over the limit 8".into(),
            scores: Scores::default(),
        },
        Event::Staged {
            stage: 1,
            time_ms: 10,
            elapsed_s: 0.6,
            fidelity: Fidelity::Sgd { steps: 100 },
            trials: vec![0],
            ladder: Some("predicted@4,sgd:100=1@6".parse().unwrap()),
            forecast: None,
        },
        Event::Refined {
            trial: 0,
            time_ms: 11,
            wall_s: 0.1,
            elapsed_s: 0.7,
            fidelity: Fidelity::Sgd { steps: 100 },
            value: Some(0.7),
            reason: None,
            scores,
        },
    ]
}
