//! Studies: trials, their journal, storage and resume.
