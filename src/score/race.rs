//! Racing: accuracy on more and more images, until the candidate cannot reach a bar any more.
//!
//! In: weights, images, and a [`Bar`]: the answers of a network that was scored on all images. Out: [`Raced`].
//!
//! After 2, 4, 8, ... batches the candidate is compared with the bar image by image. Of the images that exactly one
//! of the two classifies correctly, let the candidate have the share p (a sign test; McNemar 1947,
//! doi:10.1007/BF02295996). It is dropped when the upper end of Wilson's interval of p lies below one half
//! (doi:10.1080/01621459.1927.10502953), with z = 2.71: a candidate as good as the bar is dropped at one look with
//! a probability of about 1 in 300. Images that both get right or wrong, most of them, carry no noise into the
//! comparison; an interval of each accuracy alone would need several times as many images.
//!
//! A dropped candidate's accuracy is the bar's plus the difference on the images seen, because the first images of
//! a set may be easier than the rest.

use super::accuracy::{Accuracy, classify_until};
use super::answers::Answers;
use super::scores::Scores;
use crate::Result;
use crate::execute::Executor;
use crate::images::PreparedImages;

/// Quantile of Wilson's interval: one look in 300 drops a candidate that is as good as the bar.
const Z: f64 = 2.71;
/// Batches before the first look.
const FIRST_LOOK: usize = 2;

/// What a candidate has to reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The trial that set it.
    pub trial: u64,
    /// Its answers on all images.
    pub answers: Answers,
}

/// How a race ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Raced {
    /// On the images seen.
    pub accuracy: Accuracy,
    /// Image by image.
    pub answers: Answers,
    /// Whether it was dropped before the last image.
    pub dropped: bool,
}

impl Bar {
    /// Whether a candidate with `answers` so far cannot reach the bar.
    pub fn is_out_of_reach(&self, answers: &Answers) -> bool {
        let (ours, theirs) = answers.discordant(&self.answers);
        let pairs = (ours + theirs) as f64;
        if pairs == 0.0 {
            return false;
        }
        let (share, z2) = (ours as f64 / pairs, Z * Z);
        let centre = share + z2 / (2.0 * pairs);
        let spread = Z * (share * (1.0 - share) / pairs + z2 / (4.0 * pairs * pairs)).sqrt();
        (centre + spread) / (1.0 + z2 / pairs) < 0.5
    }

    /// Fills in accuracy, standard error, loss and images of a dropped candidate: the accuracy by the difference from
    /// the bar, the loss as it was on the images seen.
    fn estimate(&self, raced: &Raced, scores: &mut Scores) {
        let (ours, theirs) = raced.answers.discordant(&self.answers);
        let seen = raced.answers.len() as f64;
        let difference = (ours as f64 - theirs as f64) / seen;
        let variance = ((ours + theirs) as f64 / seen - difference * difference) / seen;
        let all = self.answers.len() as f64;
        let bar = self.answers.correct() as f64 / all;
        scores.accuracy = Some((bar + difference).clamp(0.0, 1.0));
        scores.accuracy_se = Some((variance + bar * (1.0 - bar) / all).sqrt());
        scores.loss = Some(raced.accuracy.loss);
        scores.images = Some(raced.accuracy.images);
    }
}

impl Scores {
    /// Fills in what a race measured; `bar` is the one that it was run against.
    pub fn set_raced(&mut self, raced: &Raced, bar: Option<&Bar>) {
        match bar {
            Some(bar) if raced.dropped => bar.estimate(raced, self),
            _ => self.set_accuracy(&raced.accuracy),
        }
    }
}

/// Classifies the images in batches of `batch`, to the end or until `bar` is out of reach.
///
/// # Errors
/// As [`accuracy`](super::accuracy()).
pub fn race(
    executor: &mut dyn Executor<f32>,
    params: &[f32],
    images: &PreparedImages,
    batch: usize,
    bar: Option<&Bar>,
) -> Result<Raced> {
    let mut looks = Looks::new(images.len(), batch, bar);
    let accuracy = classify_until(executor, params, images, batch, |rows| looks.see(rows))?;
    Ok(looks.raced(accuracy))
}

/// A race at work: the answers so far, and when to compare them with the bar.
pub(super) struct Looks<'a> {
    bar: Option<&'a Bar>,
    batch: usize,
    batches: usize,
    next: usize,
    answers: Answers,
    dropped: bool,
}

impl<'a> Looks<'a> {
    /// A race over `images` images in batches of `batch`.
    pub(super) fn new(images: usize, batch: usize, bar: Option<&'a Bar>) -> Looks<'a> {
        let batch = batch.clamp(1, images);
        let batches = images / batch;
        Looks { bar, batch, batches, next: FIRST_LOOK, answers: Answers::default(), dropped: false }
    }

    /// Takes labels and predicted classes of the next batch; whether the bar is out of reach.
    pub(super) fn see(&mut self, rows: &[(usize, usize)]) -> bool {
        rows.iter().for_each(|(label, predicted)| self.answers.push(label == predicted));
        let seen = self.answers.len() / self.batch;
        if let Some(bar) = self.bar
            && seen == self.next
            && seen < self.batches
        {
            self.next *= 2;
            self.dropped = bar.is_out_of_reach(&self.answers);
        }
        self.dropped
    }

    /// The end of the race.
    pub(super) fn raced(self, accuracy: Accuracy) -> Raced {
        Raced { accuracy, answers: self.answers, dropped: self.dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::FirstPixels;
    use super::*;

    fn answers(right: impl Fn(usize) -> bool, images: usize) -> Answers {
        let mut answers = Answers::default();
        (0..images).for_each(|image| answers.push(right(image)));
        answers
    }

    /// Images whose class 0 is right where `right` says so: the logits are the first two numbers.
    fn images(right: impl Fn(usize) -> bool, count: usize) -> PreparedImages {
        let pixels = (0..count).flat_map(|image| if right(image) { [1.0, 0.0] } else { [0.0, 1.0] });
        PreparedImages::new(pixels.collect(), vec![0; count], 2).unwrap()
    }

    #[test]
    fn a_clearly_worse_candidate_is_dropped_and_estimated_by_pairs() {
        // The bar is right on 7 of 8 of the first 64 images and on 3 of 4 of the rest; the candidate on half as
        // many.
        let bar_right =
            |image: usize| if image < 64 { !image.is_multiple_of(8) } else { !image.is_multiple_of(4) };
        let bar = Bar { trial: 3, answers: answers(bar_right, 640) };
        let worse = images(|image| bar_right(image) && image % 2 == 1, 640);
        let raced = race(&mut FirstPixels::new(2, 2), &[], &worse, 10, Some(&bar)).unwrap();
        assert!(raced.dropped);
        assert_eq!(raced.accuracy.images, 40, "at the second look: 20 images hold 7 pairs");
        let mut scores = Scores::default();
        scores.set_raced(&raced, Some(&bar));
        // 35 against 20 right of 40; the bar has 56 + 432 of 640.
        let expected = 488.0 / 640.0 - 15.0 / 40.0;
        assert!((scores.accuracy.unwrap() - expected).abs() < 1e-12, "{scores:?}");
        assert_eq!(scores.images, Some(40));
        assert!(scores.accuracy_se.unwrap() > 0.05);
    }

    #[test]
    fn equal_and_better_candidates_see_all_images_and_score_as_without_a_race() {
        let bar = Bar { trial: 0, answers: answers(|image| !image.is_multiple_of(3), 600) };
        for right in [|image: usize| image % 3 != 1, |image: usize| !image.is_multiple_of(7)] {
            let images = images(right, 600);
            let raced = race(&mut FirstPixels::new(2, 2), &[], &images, 10, Some(&bar)).unwrap();
            let alone = super::super::accuracy(&mut FirstPixels::new(2, 2), &[], &images, 10).unwrap();
            assert_eq!((raced.accuracy, raced.dropped), (alone, false));
            assert_eq!(raced.answers.correct() as u64, alone.correct);
            let mut scores = Scores::default();
            scores.set_raced(&raced, Some(&bar));
            assert_eq!(scores.accuracy, Some(alone.share()));
        }
    }

    #[test]
    fn equals_of_the_bar_are_rarely_dropped() {
        // Independent answers of equal accuracy: 30 % of the images are discordant.
        use rand::{RngExt, SeedableRng};
        let mut dropped = 0;
        for seed in 0..400 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut pair = [Answers::default(), Answers::default()];
            (0..1024).for_each(|_| pair.iter_mut().for_each(|one| one.push(rng.random_bool(0.81))));
            let [bar_answers, own] = pair;
            let bar = Bar { trial: 0, answers: bar_answers };
            let so_far = |count: usize| {
                let mut part = Answers::default();
                (0..count).for_each(|image| part.push(own.bit_at(image)));
                part
            };
            dropped += u32::from([128, 256, 512].iter().any(|&count| bar.is_out_of_reach(&so_far(count))));
        }
        assert!(dropped <= 12, "{dropped} of 400, expected about 4");
    }

    #[test]
    fn without_a_difference_nothing_is_out_of_reach() {
        let bar = Bar { trial: 0, answers: answers(|_| true, 64) };
        assert!(!bar.is_out_of_reach(&answers(|_| true, 32)));
        assert!(!bar.is_out_of_reach(&Answers::default()));
        assert!(bar.is_out_of_reach(&answers(|_| false, 32)));
    }
}
