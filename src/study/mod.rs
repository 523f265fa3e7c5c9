//! Studies: trials, their journal, storage and resume.
//!
//! In: a search's settings and its parts. Out: a run folder with `study.json` (what was asked) and
//! `journal.jsonl` (what happened), from which everything else is derived.
//!
//! A [`Study`] is a list of [`Trial`]s rebuilt from [`Event`]s; [`run`] drives a search and appends an event for
//! all that happens. [`Storage`] keeps events durably: [`Journal`] in a file, [`Memory`] for tests and for
//! searches inside another program.

mod clock;
mod driver;
mod event;
mod folder;
mod foretold;
mod journal;
mod settings;
mod stages;
mod storage;
mod trial;
mod weights;

pub use clock::{now_ms, utc};
pub use driver::{Plan, run};
pub use event::Event;
pub use folder::Folder;
pub use foretold::Foretold;
pub use journal::{Journal, Repair};
pub use settings::{Machine, PredictorSettings, SearchSettings, SettingsDigest, StudyRecord};
pub use stages::finalists;
pub use storage::{Memory, Storage};
pub use trial::{Refinement, StageRecord, Study, Trial, TrialState};
pub use weights::KeptWeights;

#[cfg(test)]
mod tests;
