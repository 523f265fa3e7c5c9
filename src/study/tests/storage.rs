//! The contract of [`Storage`]; `open` opens the same place anew.

use super::*;
use crate::Result;

fn contract<S: Storage + 'static>(open: &dyn Fn() -> Result<S>) {
    let events = some_events();
    let mut storage = open().unwrap();
    assert_eq!(storage.events().unwrap(), []);
    storage.append(&[]).unwrap();
    assert_eq!(storage.events().unwrap(), []);

    let second = open().err().expect("a second writer is refused");
    assert!(second.to_string().contains("in use"), "{second}");

    storage.append(&events[..1]).unwrap();
    storage.append(&events[1..3]).unwrap();
    assert_eq!(storage.events().unwrap(), events[..3]);
    drop(storage);

    let mut storage = open().unwrap();
    assert_eq!(storage.events().unwrap(), events[..3]);
    storage.append(&events[3..]).unwrap();
    drop(storage);
    assert_eq!(open().unwrap().events().unwrap(), events);

    let study = Study::open(open().unwrap()).unwrap();
    let states: Vec<TrialState> = study.trials().iter().map(|trial| trial.state).collect();
    assert_eq!(states, [TrialState::Finished, TrialState::Running, TrialState::Rejected]);
    assert_eq!(study.evaluated(), 2);
    assert_eq!(study.elapsed_s(), 0.7);
    assert_eq!(study.trials()[0].best_value(), Some(0.7));
    assert_eq!(study.stages()[0].trials, [0]);
    assert_eq!(study.best().map(|trial| trial.number), Some(0));
    assert_eq!(study.trials()[0].value, Some(0.1 + 0.2));
}

#[test]
fn memory_keeps_the_contract_of_storages() {
    let memory = Memory::default();
    contract(&|| memory.open());
}

#[test]
fn a_journal_keeps_the_contract_of_storages() {
    let folder = tempfile::tempdir().unwrap();
    contract(&|| Journal::open(&folder.path().join("journal.jsonl")));
}

#[test]
fn contradicting_events_are_refused_with_their_line() {
    let events = some_events();
    let refused = |events: &[Event]| {
        let memory = Memory::default();
        memory.open().unwrap().append(events).unwrap();
        Study::open(memory.open().unwrap()).err().expect("refused").to_string()
    };
    let gap = refused(&[events[0].clone(), events[3].clone()]);
    assert!(gap.contains("line 3: trial 1 is started, but trial 0 is missing"), "{gap}");
    let orphan = refused(&events[2..3]);
    assert!(orphan.contains("line 2: trial 0 has an outcome but was never started"), "{orphan}");
    let twice = refused(&[&events[..3], &events[2..3]].concat());
    assert!(twice.contains("line 5: trial 0 has two outcomes"), "{twice}");
    let restarted = refused(&[&events[..3], &events[1..2]].concat());
    assert!(restarted.contains("line 5: trial 0"), "{restarted}");
    let early = refused(&[&events[..2], &events[7..]].concat());
    assert!(early.contains("line 4: trial 0 is refined, but it is running"), "{early}");
    let again = refused(&[&events[..], &events[7..]].concat());
    assert!(again.contains("line 10: trial 0 has two outcomes at sgd:100"), "{again}");
    let unknown = refused(&[events[0].clone(), events[6].clone()]);
    assert!(unknown.contains("line 3: stage 1 takes trial 0, which was never started"), "{unknown}");
}
