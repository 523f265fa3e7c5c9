//! Low-shot sets: a few images of every class, as when labels are scarce.
//!
//! In: a set, a number of images per class, a seed. Out: a smaller set; each class draws from a stream of its own,
//! and the images of `n` shots are among those of `n + 1`, so that results for growing numbers are comparable.

use super::set::ImageSet;
use super::stream::{Purpose, stream};
use crate::{Error, Result};
use rand::seq::SliceRandom;

impl ImageSet {
    /// `shots` images of each class, chosen by `seed`, in the order of the set.
    ///
    /// # Errors
    /// [`Error::Config`] if `shots` is 0 or a class has fewer images; the message names the class.
    pub fn few_shot(&self, shots: usize, seed: u64) -> Result<ImageSet> {
        if shots == 0 {
            return Err(Error::Config(format!(
                "{}: 0 images of each class asked for, expected at least 1",
                self.name()
            )));
        }
        let mut chosen = Vec::with_capacity(shots * self.classes().len());
        for (class, name) in self.classes().iter().enumerate() {
            let mut members: Vec<usize> =
                (0..self.len()).filter(|&index| usize::from(self.labels()[index]) == class).collect();
            if members.len() < shots {
                return Err(Error::Config(format!(
                    "{}: {shots} images of each class asked for, class {name:?} has {}",
                    self.name(),
                    members.len()
                )));
            }
            members.shuffle(&mut stream(seed, Purpose::FewShot, class as u64, 0));
            chosen.extend_from_slice(&members[..shots]);
        }
        chosen.sort_unstable();
        self.select(format!("{} ({shots} of each class)", self.name()), &chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Normalisation;

    /// 40 images of class 0, 20 of class 1; each image is filled with its number.
    fn set() -> ImageSet {
        let plain = Normalisation { mean: [0.0; 3], sd: [1.0; 3] };
        let labels: Vec<u8> = (0..60).map(|index| u8::from(index % 3 == 2)).collect();
        let pixels = (0..60u8).flat_map(|index| [index; 4]).collect();
        ImageSet::new("set", vec!["a".into(), "b".into()], [1, 2, 2], pixels, labels, plain).unwrap()
    }

    #[test]
    fn every_class_has_its_shots_and_fewer_shots_are_a_part_of_more() {
        let numbers = |shots, seed| -> Vec<u8> {
            let few = set().few_shot(shots, seed).unwrap();
            for class in 0..2 {
                assert_eq!(few.labels().iter().filter(|&&label| label == class).count(), shots);
            }
            few.pixels().iter().step_by(4).copied().collect()
        };
        assert_eq!(numbers(5, 1), numbers(5, 1));
        assert_ne!(numbers(5, 1), numbers(5, 2));
        let more = numbers(6, 1);
        assert!(numbers(5, 1).iter().all(|number| more.contains(number)));
        assert!(more.is_sorted());
    }

    #[test]
    fn a_class_that_is_too_small_is_named() {
        let error = set().few_shot(21, 0).unwrap_err().to_string();
        assert!(error.contains("21 images of each class asked for, class \"b\" has 20"), "{error}");
        assert!(set().few_shot(0, 0).unwrap_err().to_string().contains("expected at least 1"));
    }
}
