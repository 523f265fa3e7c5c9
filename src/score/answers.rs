//! Which images a network classified correctly, image by image, so that two networks can be compared in pairs.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// One bit for every image, in their order. As text `4:0d` (the number of images, then the bits in hexadecimal, the
/// first image the lowest bit of the first byte).
///
/// ```
/// use foretell::score::Answers;
/// let mut answers = Answers::default();
/// for right in [true, false, true, true] {
///     answers.push(right);
/// }
/// assert_eq!((answers.len(), answers.correct()), (4, 3));
/// assert_eq!(serde_json::to_string(&answers).unwrap(), r#""4:0d""#);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Answers {
    bits: Vec<u8>,
    images: usize,
}

impl Answers {
    /// Takes in the next image.
    pub fn push(&mut self, right: bool) {
        if self.images.is_multiple_of(8) {
            self.bits.push(0);
        }
        if right {
            self.bits[self.images / 8] |= 1 << (self.images % 8);
        }
        self.images += 1;
    }

    /// Images seen.
    pub fn len(&self) -> usize {
        self.images
    }

    /// Whether no image was seen.
    pub fn is_empty(&self) -> bool {
        self.images == 0
    }

    /// Images classified correctly.
    pub fn correct(&self) -> usize {
        self.bits.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Whether image `image` was classified correctly.
    pub(super) fn bit_at(&self, image: usize) -> bool {
        self.bits[image / 8] & (1 << (image % 8)) != 0
    }

    /// Among the images that both have seen, those that only `self` and those that only `other` classified
    /// correctly.
    pub fn discordant(&self, other: &Answers) -> (usize, usize) {
        let (mut ours, mut theirs) = (0, 0);
        for image in 0..self.images.min(other.images) {
            match (self.bit_at(image), other.bit_at(image)) {
                (true, false) => ours += 1,
                (false, true) => theirs += 1,
                _ => {}
            }
        }
        (ours, theirs)
    }
}

impl From<Answers> for String {
    fn from(answers: Answers) -> String {
        let bits: String = answers.bits.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{}:{bits}", answers.images)
    }
}

impl TryFrom<String> for Answers {
    type Error = Error;

    fn try_from(text: String) -> Result<Answers> {
        let parsed = text.split_once(':').and_then(|(images, bits)| {
            let images: usize = images.parse().ok()?;
            if !bits.is_ascii() || !bits.len().is_multiple_of(2) || bits.len() / 2 != images.div_ceil(8) {
                return None;
            }
            let byte = |at: usize| u8::from_str_radix(&bits[at..at + 2], 16).ok();
            let bits = (0..bits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>()?;
            Some(Answers { bits, images })
        });
        parsed.ok_or_else(|| Error::Config(format!("\"{text}\" is no list of answers, as in \"4:0d\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(text: &str) -> Answers {
        let mut answers = Answers::default();
        text.chars().for_each(|c| answers.push(c == '1'));
        answers
    }

    #[test]
    fn text_and_back() {
        for text in ["", "1", "00000000", "110100111"] {
            let answers = answers(text);
            let json = serde_json::to_string(&answers).unwrap();
            assert_eq!(serde_json::from_str::<Answers>(&json).unwrap(), answers);
            assert_eq!(answers.correct(), text.matches('1').count());
        }
        for wrong in ["", "9:0d", "4:d", "4:xx", "4", "-1:00", "8:é"] {
            let error = Answers::try_from(wrong.to_string()).unwrap_err().to_string();
            assert!(error.contains("no list of answers"), "{error}");
        }
    }

    #[test]
    fn pairs_are_counted_over_the_images_of_both() {
        assert_eq!(answers("110010").discordant(&answers("101010111")), (1, 1));
        assert_eq!(answers("111111111").discordant(&answers("000")), (3, 0));
    }
}
