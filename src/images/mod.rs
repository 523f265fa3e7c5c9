//! Image data sets: loading, splits, batches, augmentation and fixed noise banks.
