//! Images in memory as they were stored, and how they become normalised batches.
//!
//! In: `u8` pixels `[N, C, H, W]` with C = 1 or 3, and a label for each image. Out: `f32` batches
//! `[N, 3, max(H, 32), max(W, 32)]`.

use crate::{Error, Result};
use rayon::prelude::*;

/// Smaller images are padded to this height and width.
pub const SMALLEST_SIDE: usize = 32;

/// Mean and standard deviation of each channel over pixels in `[0, 1]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Means, in the order red, green, blue.
    pub mean: [f32; 3],
    /// Standard deviations.
    pub sd: [f32; 3],
}

impl Normalisation {
    /// Of pixels `[N, channels, H, W]`, over all images; a constant channel gets the deviation 1.
    pub fn measure(pixels: &[u8], channels: usize, plane: usize) -> Normalisation {
        let mut measured = Normalisation { mean: [0.0; 3], sd: [1.0; 3] };
        for channel in 0..3 {
            let stored = if channels == 1 { 0 } else { channel };
            let mut counts = [0u64; 256];
            for image in pixels.chunks_exact(channels * plane) {
                for &pixel in &image[stored * plane..(stored + 1) * plane] {
                    counts[pixel as usize] += 1;
                }
            }
            let total: u64 = counts.iter().sum();
            if total == 0 {
                continue;
            }
            let moment = |power: i32, centre: f64| {
                let sum: f64 = counts
                    .iter()
                    .enumerate()
                    .map(|(value, &n)| n as f64 * (value as f64 / 255.0 - centre).powi(power))
                    .sum();
                sum / total as f64
            };
            let mean = moment(1, 0.0);
            let variance = moment(2, mean);
            measured.mean[channel] = mean as f32;
            measured.sd[channel] = if variance > 0.0 { variance.sqrt() as f32 } else { 1.0 };
        }
        measured
    }

    /// Normalised value of every pixel value, per channel.
    fn table(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|channel| std::array::from_fn(|value| self.apply(channel, value as f32 / 255.0)))
    }

    /// Normalises a pixel in `[0, 1]`.
    #[inline]
    pub(super) fn apply(&self, channel: usize, value: f32) -> f32 {
        (value - self.mean[channel]) / self.sd[channel]
    }
}

/// A set of labelled images of one size.
///
/// ```
/// use foretell::images::{ImageSet, Normalisation};
/// let plain = Normalisation { mean: [0.0; 3], sd: [1.0; 3] };
/// let set = ImageSet::new("dot", vec!["a".into()], [1, 1, 1], vec![255], vec![0], plain)?;
/// let mut batch = Vec::new();
/// set.fill_batch(&[0], &mut batch)?;
/// assert_eq!(batch.len(), 3 * 32 * 32); // three channels, padded to 32x32
/// assert_eq!(batch.iter().sum::<f32>(), 3.0);
/// # Ok::<(), foretell::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ImageSet {
    name: String,
    classes: Vec<String>,
    channels: usize,
    height: usize,
    width: usize,
    pixels: Vec<u8>,
    labels: Vec<u8>,
    normalisation: Normalisation,
}

/// How one image is placed in its batch: moved by `(dy, dx)` (black moves in), then mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Placement {
    pub dy: isize,
    pub dx: isize,
    pub flip: bool,
}

impl ImageSet {
    /// Pixels `[N, channels, height, width]` with channels 1 or 3, and N labels below the number of classes.
    pub fn new(
        name: impl Into<String>,
        classes: Vec<String>,
        [channels, height, width]: [usize; 3],
        pixels: Vec<u8>,
        labels: Vec<u8>,
        normalisation: Normalisation,
    ) -> Result<ImageSet> {
        let name = name.into();
        if channels != 1 && channels != 3 {
            return Err(Error::Config(format!(
                "{name}: images with 1 or 3 channels expected, found {channels}"
            )));
        }
        if height == 0 || width == 0 {
            return Err(Error::Config(format!("{name}: images of {height}x{width} pixels have no content")));
        }
        if pixels.len() != labels.len() * channels * height * width {
            return Err(Error::Config(format!(
                "{name}: {} labels need {} bytes of {channels}x{height}x{width} pixels, found {}",
                labels.len(),
                labels.len() * channels * height * width,
                pixels.len()
            )));
        }
        if let Some(at) = labels.iter().position(|&label| label as usize >= classes.len()) {
            return Err(Error::Config(format!(
                "{name}: image {at} has label {}, but there are {} classes (labels 0..={})",
                labels[at],
                classes.len(),
                classes.len().saturating_sub(1)
            )));
        }
        if !normalisation.sd.iter().all(|&sd| sd > 0.0 && sd.is_finite()) {
            return Err(Error::Config(format!("{name}: standard deviations must be positive")));
        }
        Ok(ImageSet { name, classes, channels, height, width, pixels, labels, normalisation })
    }

    /// The set's name, e.g. `fashion-mnist/validation`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of the classes; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Labels of all images.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Pixels as stored, `[N, C, H, W]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Channels, height and width as stored.
    pub fn stored_shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Channels, height and width of the images in a batch.
    pub fn batch_shape(&self) -> [usize; 3] {
        [3, self.height.max(SMALLEST_SIDE), self.width.max(SMALLEST_SIDE)]
    }

    /// Numbers that one image takes in a batch.
    pub fn image_len(&self) -> usize {
        self.batch_shape().iter().product()
    }

    /// Constants that batches are normalised with.
    pub fn normalisation(&self) -> Normalisation {
        self.normalisation
    }

    /// The images of `range` (clipped to the set) as a set of their own.
    pub fn slice(&self, name: impl Into<String>, range: std::ops::Range<usize>) -> ImageSet {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let image = self.channels * self.height * self.width;
        ImageSet {
            name: name.into(),
            classes: self.classes.clone(),
            pixels: self.pixels[start * image..end * image].to_vec(),
            labels: self.labels[start..end].to_vec(),
            ..*self
        }
    }

    /// The images of `indices`, in that order, as a set of their own.
    pub(super) fn select(&self, name: impl Into<String>, indices: &[usize]) -> Result<ImageSet> {
        self.check(indices)?;
        let image = self.channels * self.height * self.width;
        let pixels = indices.iter().flat_map(|&index| &self.pixels[index * image..][..image]).copied();
        Ok(ImageSet {
            name: name.into(),
            classes: self.classes.clone(),
            pixels: pixels.collect(),
            labels: indices.iter().map(|&index| self.labels[index]).collect(),
            ..*self
        })
    }

    /// Normalised images `[indices.len(), 3, H, W]` into `out`, which is resized and reused.
    pub fn fill_batch(&self, indices: &[usize], out: &mut Vec<f32>) -> Result<()> {
        self.fill_placed(indices, out, |_| Placement::default())
    }

    /// Labels of `indices` into `out`.
    pub fn fill_labels(&self, indices: &[usize], out: &mut Vec<u8>) -> Result<()> {
        self.check(indices)?;
        out.clear();
        out.extend(indices.iter().map(|&index| self.labels[index]));
        Ok(())
    }

    /// The first `count` images (all, if there are fewer), normalised once for many evaluations.
    pub fn prepare(&self, count: usize) -> Result<PreparedImages> {
        let indices: Vec<usize> = (0..count.min(self.len())).collect();
        let mut images = Vec::new();
        self.fill_batch(&indices, &mut images)?;
        PreparedImages::new(images, self.labels[..indices.len()].to_vec(), self.classes.len())
    }

    /// As [`ImageSet::fill_batch`], each image placed as `placement` says for its index.
    pub(super) fn fill_placed(
        &self,
        indices: &[usize],
        out: &mut Vec<f32>,
        placement: impl Fn(usize) -> Placement + Sync,
    ) -> Result<()> {
        self.check(indices)?;
        let table = self.normalisation.table();
        out.resize(indices.len() * self.image_len(), 0.0);
        out.par_chunks_exact_mut(self.image_len()).zip(indices).for_each(|(image, &index)| {
            self.each_pixel(index, placement(index), |at, channel, pixel| {
                image[at] = table[channel][pixel as usize];
            });
        });
        Ok(())
    }

    /// Calls `visit(offset in the batch image, channel, pixel)` for every pixel of the placed, padded image.
    pub(super) fn each_pixel(
        &self,
        index: usize,
        placed: Placement,
        mut visit: impl FnMut(usize, usize, u8),
    ) {
        let [_, height, width] = self.batch_shape();
        let plane = self.height * self.width;
        let image = &self.pixels[index * self.channels * plane..(index + 1) * self.channels * plane];
        let (top, left) = ((height - self.height) / 2, (width - self.width) / 2);
        let inside = |at: isize, size: usize| (at >= 0 && (at as usize) < size).then_some(at as usize);
        for channel in 0..3 {
            let stored = if self.channels == 1 { 0 } else { channel };
            for y in 0..height {
                let row = inside(y as isize - placed.dy - top as isize, self.height)
                    .map(|y| &image[stored * plane + y * self.width..][..self.width]);
                for x in 0..width {
                    let column = if placed.flip { width - 1 - x } else { x };
                    let pixel = row
                        .zip(inside(column as isize - placed.dx - left as isize, self.width))
                        .map_or(0, |(row, x)| row[x]);
                    visit((channel * height + y) * width + x, channel, pixel);
                }
            }
        }
    }

    fn check(&self, indices: &[usize]) -> Result<()> {
        match indices.iter().find(|&&index| index >= self.len()) {
            Some(index) => {
                Err(Error::Config(format!("{}: image {index} asked for, it has {}", self.name, self.len())))
            }
            None => Ok(()),
        }
    }
}

/// Normalised images `[N, 3, H, W]` with their labels, made once and shared by all candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedImages {
    images: Vec<f32>,
    labels: Vec<u8>,
    classes: usize,
}

impl PreparedImages {
    /// Images `[N, ...]` of equal size and N labels below `classes`.
    pub fn new(images: Vec<f32>, labels: Vec<u8>, classes: usize) -> Result<PreparedImages> {
        if labels.is_empty() || images.is_empty() || !images.len().is_multiple_of(labels.len()) {
            return Err(Error::Config(format!(
                "prepared images: {} numbers cannot be {} images of equal size",
                images.len(),
                labels.len()
            )));
        }
        if let Some(label) = labels.iter().find(|&&label| label as usize >= classes) {
            return Err(Error::Config(format!("prepared images: label {label} with {classes} classes")));
        }
        Ok(PreparedImages { images, labels, classes })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Never: a set without images cannot be made.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Numbers of one image.
    pub fn image_len(&self) -> usize {
        self.images.len() / self.labels.len()
    }

    /// All images.
    pub fn images(&self) -> &[f32] {
        &self.images
    }

    /// All labels.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Batches of `batch` images with their labels. A last, smaller batch is left out, because norm layers use
    /// the statistics of their batch; only when there are fewer than `batch` images at all do they form one batch.
    pub fn batches(&self, batch: usize) -> impl Iterator<Item = (&[f32], &[u8])> {
        let batch = batch.clamp(1, self.len());
        self.images.chunks_exact(batch * self.image_len()).zip(self.labels.chunks_exact(batch))
    }
}
