//! Training: losses, optimisers, schedules, and fitting a GHN.
