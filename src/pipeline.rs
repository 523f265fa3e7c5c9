//! Genotype in, scores out.
