//! Where events are kept.

use super::Event;
use crate::{Error, Result};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Durable, ordered events with one writer at a time.
pub trait Storage: Send {
    /// Appends events; when it returns, they survive the death of the process.
    ///
    /// # Errors
    /// The events could not be stored; the storage then holds what it held before.
    fn append(&mut self, events: &[Event]) -> Result<()>;

    /// All events, oldest first.
    fn events(&self) -> Result<Vec<Event>>;

    /// The place, for messages.
    fn origin(&self) -> &Path;
}

/// Events in memory. Clones of a [`Memory`] are handles to one storage; [`Memory::open`] takes it for writing.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    events: Vec<Event>,
    open: bool,
}

/// The one writer of a [`Memory`].
#[derive(Debug)]
pub struct MemoryWriter {
    shared: Arc<Mutex<Shared>>,
}

fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Takes the storage for writing until the writer is dropped.
    ///
    /// # Errors
    /// It is taken already.
    pub fn open(&self) -> Result<MemoryWriter> {
        let mut shared = locked(&self.shared);
        if shared.open {
            return Err(Error::Config("the study in memory is in use by another writer".into()));
        }
        shared.open = true;
        Ok(MemoryWriter { shared: Arc::clone(&self.shared) })
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        locked(&self.shared).open = false;
    }
}

impl Storage for MemoryWriter {
    fn append(&mut self, events: &[Event]) -> Result<()> {
        locked(&self.shared).events.extend_from_slice(events);
        Ok(())
    }

    fn events(&self) -> Result<Vec<Event>> {
        Ok(locked(&self.shared).events.clone())
    }

    fn origin(&self) -> &Path {
        Path::new("(memory)")
    }
}
