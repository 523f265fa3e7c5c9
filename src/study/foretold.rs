//! What became of the predictor of a study.
//!
//! In: events. Out: what it knew last, and where it took part, as the summary of a search and its page tell.

use super::Event;
use crate::score::Fidelity;
use crate::search::Forecast;
use std::fmt;

/// The predictor of a study.
#[derive(Clone, Debug, PartialEq)]
pub struct Foretold {
    /// What it knew last.
    pub forecast: Forecast,
    /// The stages in which it picked proposals or chose who was trained.
    pub stages: Vec<usize>,
}

impl Foretold {
    /// By the events of a study; none if it has no predictor.
    pub fn of(events: &[Event]) -> Option<Foretold> {
        let (mut last, mut stages) = (None, Vec::new());
        let mut before = Fidelity::Predicted;
        for event in events {
            match event {
                Event::Staged { stage, fidelity, forecast, .. } => {
                    // Who was trained already is chosen by what that brought.
                    let acts = forecast.is_some_and(|forecast| match fidelity.is_refined() {
                        true => forecast.chooses && !before.is_refined(),
                        false => forecast.proposes,
                    });
                    if acts && !stages.contains(stage) {
                        stages.push(*stage);
                    }
                    last = forecast.or(last);
                    before = *fidelity;
                }
                Event::Stopped { forecast, .. } => last = forecast.or(last),
                _ => {}
            }
        }
        last.map(|forecast| Foretold { forecast, stages })
    }
}

impl fmt::Display for Foretold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; ", self.forecast)?;
        let numbers: Vec<String> = self.stages.iter().map(ToString::to_string).collect();
        match numbers.as_slice() {
            [] => f.write_str("it did not take part"),
            [stage] => write!(f, "it took part in stage {stage}"),
            stages => write!(f, "it took part in stages {}", stages.join(", ")),
        }
    }
}
