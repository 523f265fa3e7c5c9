//! Training batches: shuffled anew every epoch, cropped, mirrored and cut out at random.
//!
//! In: a training set, a seed and a position. Out: batches `[N, 3, H, W] f32` with labels. Order and
//! augmentation depend on (seed, epoch, image) only, so the batches are the same for any number of threads and
//! a run that continues from a saved [`BatchState`] sees exactly the batches that it would have seen.

use super::set::{ImageSet, Placement};
use super::stream::{Purpose, stream};
use crate::{Error, Result};
use rand::RngExt;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Random changes of training images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Random crop after black padding of this many pixels on each side: a shift of up to as many pixels.
    pub crop_padding: usize,
    /// Mirror left and right with probability 1/2.
    pub flip: bool,
    /// Side of a square at a random place, pixels, that becomes 0 after normalisation (cutout, arXiv 1708.04552);
    /// its centre lies in the image, so that parts of it may lie outside. 0: none.
    #[serde(default)]
    pub cutout: usize,
}

impl Augmentation {
    /// Images as they are.
    pub const NONE: Augmentation = Augmentation { crop_padding: 0, flip: false, cutout: 0 };
}

impl Default for Augmentation {
    /// The usual one for CIFAR-10: padding 4 and flips.
    fn default() -> Self {
        Augmentation { crop_padding: 4, flip: true, cutout: 0 }
    }
}

/// Where a run stands in its batches; saved with a checkpoint, it continues the run exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchState {
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Epoch of the next batch, from 0.
    pub epoch: u64,
    /// Batches of that epoch already taken.
    pub position: usize,
}

impl BatchState {
    /// The beginning.
    pub fn new(seed: u64) -> BatchState {
        BatchState { seed, epoch: 0, position: 0 }
    }
}

/// An endless supply of training batches.
///
/// An epoch has `images / batch` batches (rounded down); the images left over differ from epoch to epoch.
#[derive(Clone, Debug)]
pub struct TrainingBatches {
    set: Arc<ImageSet>,
    batch: usize,
    augmentation: Augmentation,
    state: BatchState,
    order: Vec<usize>,
}

impl TrainingBatches {
    /// Batches of `batch` images of `set` from `state` on.
    pub fn new(
        set: Arc<ImageSet>,
        batch: usize,
        augmentation: Augmentation,
        state: BatchState,
    ) -> Result<TrainingBatches> {
        if batch == 0 || batch > set.len() {
            return Err(Error::Config(format!(
                "{}: batches of 1 to {} images can be made, {batch} asked for",
                set.name(),
                set.len()
            )));
        }
        let [_, height, width] = set.batch_shape();
        if augmentation.crop_padding >= height.min(width) {
            return Err(Error::Config(format!(
                "{}: a crop padding of {} is not below the image size {height}x{width}",
                set.name(),
                augmentation.crop_padding
            )));
        }
        if state.position > set.len() / batch {
            return Err(Error::Config(format!(
                "{}: cannot continue at batch {} of an epoch of {} batches; another batch size or set was used before",
                set.name(),
                state.position,
                set.len() / batch
            )));
        }
        let order = shuffled(set.len(), state);
        Ok(TrainingBatches { set, batch, augmentation, state, order })
    }

    /// Batches in an epoch.
    pub fn batches_per_epoch(&self) -> usize {
        self.set.len() / self.batch
    }

    /// Where the next batch stands.
    pub fn state(&self) -> BatchState {
        self.state
    }

    /// The images that batches are made of.
    pub fn set(&self) -> &Arc<ImageSet> {
        &self.set
    }

    /// Makes the next batch: images `[batch, 3, H, W]` and labels into the given buffers, which are reused.
    /// Returns the epoch that it belongs to.
    pub fn next_batch(&mut self, images: &mut Vec<f32>, labels: &mut Vec<u8>) -> Result<u64> {
        if self.state.position >= self.batches_per_epoch() {
            self.state.epoch += 1;
            self.state.position = 0;
            self.order = shuffled(self.set.len(), self.state);
        }
        let indices = &self.order[self.state.position * self.batch..][..self.batch];
        let (state, augmentation) = (self.state, self.augmentation);
        self.set.fill_placed(indices, images, |index| place(state, augmentation, index))?;
        self.set.fill_labels(indices, labels)?;
        if augmentation.cutout > 0 {
            let [_, height, width] = self.set.batch_shape();
            images.par_chunks_exact_mut(self.set.image_len()).zip(indices).for_each(|(image, &index)| {
                let mut rng = stream(state.seed, Purpose::Cutout, state.epoch, index as u64);
                let centre = [rng.random_range(0..height), rng.random_range(0..width)];
                cut_out(image, [height, width], centre, augmentation.cutout);
            });
        }
        self.state.position += 1;
        Ok(state.epoch)
    }
}

fn shuffled(images: usize, state: BatchState) -> Vec<usize> {
    let mut order: Vec<usize> = (0..images).collect();
    order.shuffle(&mut stream(state.seed, Purpose::Shuffle, state.epoch, 0));
    order
}

fn place(state: BatchState, augmentation: Augmentation, index: usize) -> Placement {
    if augmentation == Augmentation::NONE {
        return Placement::default();
    }
    let mut rng = stream(state.seed, Purpose::Augment, state.epoch, index as u64);
    let padding = augmentation.crop_padding as i64;
    let mut shift = || rng.random_range(-padding..=padding) as isize;
    let (dy, dx) = (shift(), shift());
    Placement { dy, dx, flip: augmentation.flip && rng.random::<bool>() }
}

/// Sets the square of `side` pixels around `centre` to 0 in all channels of `image [C, H, W]`, as far as it lies inside.
fn cut_out(image: &mut [f32], [height, width]: [usize; 2], centre: [usize; 2], side: usize) {
    let span = |centre: usize, size: usize| {
        let first = centre.saturating_sub(side / 2);
        first..(centre + side - side / 2).min(size)
    };
    let columns = span(centre[1], width);
    for plane in image.chunks_exact_mut(height * width) {
        for y in span(centre[0], height) {
            plane[y * width..][columns.clone()].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Normalisation;

    fn set(images: usize) -> Arc<ImageSet> {
        let plain = Normalisation { mean: [0.0; 3], sd: [1.0; 3] };
        let pixels = (0..images * 28 * 28).map(|i| (i * 7 % 251) as u8 + 1).collect();
        let labels = (0..images).map(|i| (i % 200) as u8).collect();
        let classes = (0..200).map(|c| c.to_string()).collect();
        Arc::new(ImageSet::new("test", classes, [1, 28, 28], pixels, labels, plain).unwrap())
    }

    fn take(batches: &mut TrainingBatches, count: usize) -> Vec<(u64, Vec<f32>, Vec<u8>)> {
        (0..count)
            .map(|_| {
                let (mut images, mut labels) = (Vec::new(), Vec::new());
                let epoch = batches.next_batch(&mut images, &mut labels).unwrap();
                (epoch, images, labels)
            })
            .collect()
    }

    #[test]
    fn an_epoch_shows_every_image_once_in_a_new_order() {
        let mut batches =
            TrainingBatches::new(set(40), 8, Augmentation::default(), BatchState::new(5)).unwrap();
        assert_eq!(batches.batches_per_epoch(), 5);
        let all = take(&mut batches, 10);
        let labels = |range: std::ops::Range<usize>| -> Vec<u8> {
            all[range].iter().flat_map(|(_, _, labels)| labels.clone()).collect()
        };
        let (first, second) = (labels(0..5), labels(5..10));
        assert_ne!(first, second);
        for mut epoch in [first, second] {
            epoch.sort();
            assert_eq!(epoch, (0..40).collect::<Vec<u8>>());
        }
        assert_eq!(all.iter().map(|b| b.0).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_run_continues_exactly_from_any_saved_state() {
        let whole = take(
            &mut TrainingBatches::new(set(21), 4, Augmentation::default(), BatchState::new(1)).unwrap(),
            12,
        );
        for stop in 0..12 {
            let mut first =
                TrainingBatches::new(set(21), 4, Augmentation::default(), BatchState::new(1)).unwrap();
            take(&mut first, stop);
            let saved = serde_json::to_string(&first.state()).unwrap();
            let state = serde_json::from_str(&saved).unwrap();
            let mut rest = TrainingBatches::new(set(21), 4, Augmentation::default(), state).unwrap();
            assert_eq!(take(&mut rest, 12 - stop), whole[stop..], "stopped after {stop} batches");
        }
    }

    #[test]
    fn batches_do_not_depend_on_the_number_of_threads() {
        let run = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                take(
                    &mut TrainingBatches::new(set(30), 10, Augmentation::default(), BatchState::new(3))
                        .unwrap(),
                    4,
                )
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn augmented_images_are_the_image_shifted_and_mirrored() {
        let set = set(64);
        let augmentation = Augmentation::default();
        let mut shifts = std::collections::BTreeSet::new();
        let mut flips = 0;
        for index in 0..64 {
            let placed = place(BatchState::new(9), augmentation, index);
            shifts.extend([placed.dy, placed.dx]);
            flips += placed.flip as usize;
            let (mut plain, mut moved) = (Vec::new(), Vec::new());
            set.fill_batch(&[index], &mut plain).unwrap();
            set.fill_placed(&[index], &mut moved, |_| placed).unwrap();
            for y in 0..32isize {
                for x in 0..32isize {
                    let out_x = if placed.flip { 31 - x } else { x };
                    let (from_y, from_x) = (y - placed.dy, x - placed.dx);
                    let inside = (0..32).contains(&from_y) && (0..32).contains(&from_x);
                    let expected = if inside { plain[(from_y * 32 + from_x) as usize] } else { 0.0 };
                    assert_eq!(moved[(y * 32 + out_x) as usize], expected);
                }
            }
        }
        assert_eq!(shifts.into_iter().collect::<Vec<_>>(), (-4..=4).collect::<Vec<_>>());
        assert!((16..=48).contains(&flips), "{flips} of 64 mirrored");
    }

    #[test]
    fn cutout_removes_one_square_and_changes_nothing_else() {
        let cutout = Augmentation { cutout: 8, ..Augmentation::default() };
        let batch = |augmentation| {
            take(&mut TrainingBatches::new(set(32), 32, augmentation, BatchState::new(2)).unwrap(), 1)
        };
        let (whole, cut) = (&batch(Augmentation::default())[0].1, &batch(cutout)[0].1);
        let mut areas = std::collections::BTreeSet::new();
        for (whole, cut) in whole.chunks_exact(3 * 1024).zip(cut.chunks_exact(3 * 1024)) {
            let inside: Vec<usize> = (0..1024).filter(|&p| whole[p] != cut[p]).collect();
            assert!((0..3072).all(|p| cut[p] == whole[p] || cut[p] == 0.0));
            let (rows, columns) = (inside.iter().map(|p| p / 32), inside.iter().map(|p| p % 32));
            let extent = |range: Vec<usize>| match (range.iter().min(), range.iter().max()) {
                (Some(low), Some(high)) => high - low + 1,
                _ => 0,
            };
            let (height, width) = (extent(rows.collect()), extent(columns.collect()));
            assert!(height <= 8 && width <= 8, "{height}x{width}");
            areas.insert(inside.len());
        }
        assert!(areas.len() > 3 && areas.last().is_some_and(|&area| area > 40), "{areas:?}");
        let mut image = vec![1.0; 16];
        cut_out(&mut image, [4, 4], [0, 3], 2);
        assert_eq!(image.iter().sum::<f32>(), 14.0, "rows 0, columns 2 and 3");
    }

    #[test]
    fn impossible_batches_are_refused() {
        for batch in [0, 41] {
            let error =
                TrainingBatches::new(set(40), batch, Augmentation::NONE, BatchState::new(0)).unwrap_err();
            assert!(error.to_string().contains("1 to 40 images"), "{error}");
        }
        let state = BatchState { seed: 0, epoch: 2, position: 6 };
        let error = TrainingBatches::new(set(40), 8, Augmentation::NONE, state).unwrap_err();
        assert!(error.to_string().contains("batch 6 of an epoch of 5"), "{error}");
    }
}
