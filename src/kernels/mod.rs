//! Ops that have their own kernels, one folder each.
