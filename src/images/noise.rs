//! Fixed noise banks: noisy versions of the same images that every candidate of a search meets.
//!
//! In: images, standard deviations, a seed. Out: for each deviation the images `[N, 3, H, W] f32` with Gaussian
//! noise added to the pixels in `[0, 1]`, clipped to `[0, 1]` and normalised (Knyazev et al. 2021, section 5,
//! arXiv 2110.13100, sd 0.08 on CIFAR-10).
//!
//! The noise is drawn for each channel and pixel of the padded three-channel image. Image i draws it from
//! (seed, i) and scales it by the deviation, so a noisy image depends on (seed, i, sd) only, not on how many
//! images or levels a bank holds, and levels differ in strength alone.
//!
//! Memory: 12 KiB for each 32x32 image and level (1,000 images at 3 levels: 36 MiB). It is paid once a search.

use super::set::{ImageSet, Placement, PreparedImages};
use super::stream::{Purpose, stream};
use crate::{Error, Result};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Noisy images at several levels.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseBank {
    levels: Vec<(f64, PreparedImages)>,
}

impl NoiseBank {
    /// The first `count` images of `set` (all, if there are fewer) with noise of each deviation in `sds`.
    pub fn new(set: &ImageSet, count: usize, sds: &[f64], seed: u64) -> Result<NoiseBank> {
        if let Some(sd) = sds.iter().find(|sd| !(sd.is_finite() && **sd >= 0.0)) {
            return Err(Error::Config(format!("noise levels are standard deviations >= 0, found {sd}")));
        }
        let count = count.min(set.len());
        let (image_len, normalisation) = (set.image_len(), set.normalisation());
        let mut noisy = vec![vec![0f32; count * image_len]; sds.len()];
        let mut rows: Vec<Vec<&mut [f32]>> = (0..count).map(|_| Vec::with_capacity(sds.len())).collect();
        for level in &mut noisy {
            for (row, image) in rows.iter_mut().zip(level.chunks_exact_mut(image_len)) {
                row.push(image);
            }
        }
        rows.into_par_iter().enumerate().for_each(|(index, mut levels)| {
            let mut rng = stream(seed, Purpose::Noise, index as u64, 0);
            set.each_pixel(index, Placement::default(), |at, channel, pixel| {
                let noise: f32 = StandardNormal.sample(&mut rng);
                for (image, &sd) in levels.iter_mut().zip(sds) {
                    let value = (pixel as f32 / 255.0 + sd as f32 * noise).clamp(0.0, 1.0);
                    image[at] = normalisation.apply(channel, value);
                }
            });
        });
        let labels = &set.labels()[..count];
        let levels = sds
            .iter()
            .zip(noisy)
            .map(|(&sd, images)| Ok((sd, PreparedImages::new(images, labels.to_vec(), set.classes().len())?)))
            .collect::<Result<_>>()?;
        Ok(NoiseBank { levels })
    }

    /// The deviations with their images, in the order asked for.
    pub fn levels(&self) -> &[(f64, PreparedImages)] {
        &self.levels
    }

    /// Bytes that the images take.
    pub fn bytes(&self) -> usize {
        self.levels.iter().map(|(_, images)| size_of_val(images.images())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Normalisation;

    fn grey(images: usize, value: u8) -> ImageSet {
        let constants = Normalisation { mean: [0.5, 0.25, 0.75], sd: [0.5, 0.25, 2.0] };
        let pixels = vec![value; images * 32 * 32];
        ImageSet::new("grey", vec!["a".into()], [1, 32, 32], pixels, vec![0; images], constants).unwrap()
    }

    fn in_pixels(set: &ImageSet, images: &[f32]) -> Vec<f64> {
        let Normalisation { mean, sd } = set.normalisation();
        let channel = |at: usize| at / 1024 % 3;
        images.iter().enumerate().map(|(at, &v)| (v * sd[channel(at)] + mean[channel(at)]) as f64).collect()
    }

    #[test]
    fn noise_has_its_mean_and_deviation_and_is_clipped() {
        let set = grey(20, 128);
        let bank = NoiseBank::new(&set, 20, &[0.08, 5.0], 7).unwrap();
        let (sd, images) = &bank.levels()[0];
        assert_eq!(*sd, 0.08);
        let pixels = in_pixels(&set, images.images());
        let n = pixels.len() as f64;
        let mean = pixels.iter().sum::<f64>() / n;
        let deviation = (pixels.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / n).sqrt();
        // Five standard errors of mean and deviation over 61,440 draws.
        assert!((mean - 128.0 / 255.0).abs() < 5.0 * 0.08 / n.sqrt(), "{mean}");
        assert!((deviation - 0.08).abs() < 5.0 * 0.08 / (2.0 * n).sqrt(), "{deviation}");
        let strong = in_pixels(&set, bank.levels()[1].1.images());
        assert!(strong.iter().all(|p| (-1e-6..=1.0 + 1e-6).contains(p)));
        let clipped = strong.iter().filter(|p| p.abs() < 1e-6 || (*p - 1.0).abs() < 1e-6).count();
        assert!(clipped as f64 > 0.85 * n, "{clipped}");
        assert_eq!(bank.bytes(), 2 * 20 * 3072 * 4);
    }

    #[test]
    fn a_noisy_image_depends_on_seed_image_and_level_only() {
        let set = grey(8, 100);
        let bank = NoiseBank::new(&set, 8, &[0.1, 0.2], 1).unwrap();
        let small = NoiseBank::new(&set, 3, &[0.2], 1).unwrap();
        assert_eq!(bank.levels()[1].1.images()[..3 * 3072], *small.levels()[0].1.images());
        let other = NoiseBank::new(&set, 3, &[0.2], 2).unwrap();
        assert_ne!(small, other);
        let images = small.levels()[0].1.images();
        assert_ne!(images[..3072], images[3072..2 * 3072]);
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(|| NoiseBank::new(&set, 8, &[0.1, 0.2], 1).unwrap()), bank);
    }

    #[test]
    fn level_zero_is_the_clean_image() {
        let set = grey(4, 200);
        let bank = NoiseBank::new(&set, 4, &[0.0], 3).unwrap();
        assert_eq!(bank.levels()[0].1, set.prepare(4).unwrap());
    }

    #[test]
    fn levels_that_are_no_deviations_are_refused() {
        for sd in [-0.1, f64::NAN, f64::INFINITY] {
            let error = NoiseBank::new(&grey(1, 0), 1, &[0.1, sd], 3).unwrap_err();
            assert!(error.to_string().contains("standard deviations >= 0"), "{error}");
        }
    }
}
