//! Which class is taken for which.
//!
//! In: weights and images, taken in batches as in [`accuracy`](super::accuracy()). Out: a [`Confusion`] matrix with
//! the accuracy of every class.

use super::accuracy::{Accuracy, classify};
use crate::Result;
use crate::execute::Executor;
use crate::images::PreparedImages;
use std::fmt::Write as _;

/// Numbers of images by true and by predicted class.
///
/// ```
/// use foretell::score::Confusion;
/// let mut confusion = Confusion::new(vec!["shirt".into(), "coat".into()]);
/// for (label, predicted) in [(0, 0), (0, 1), (1, 1)] {
///     confusion.add(label, predicted);
/// }
/// assert_eq!(confusion.count(0, 1), 1);
/// assert_eq!(confusion.of_class(0).unwrap().share(), 0.5);
/// assert_eq!((confusion.total(), confusion.correct()), (3, 2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: Vec<String>,
    /// `[true, predicted]`.
    counts: Vec<u64>,
}

impl Confusion {
    /// Of no image yet.
    pub fn new(classes: Vec<String>) -> Confusion {
        let counts = vec![0; classes.len() * classes.len()];
        Confusion { classes, counts }
    }

    /// Counts an image of class `label` that was taken for `predicted`.
    pub fn add(&mut self, label: usize, predicted: usize) {
        self.counts[label * self.classes.len() + predicted] += 1;
    }

    /// Names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Images of class `label` that were taken for `predicted`.
    pub fn count(&self, label: usize, predicted: usize) -> u64 {
        self.counts[label * self.classes.len() + predicted]
    }

    /// All images.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Images on the diagonal.
    pub fn correct(&self) -> u64 {
        (0..self.classes.len()).map(|class| self.count(class, class)).sum()
    }

    /// Accuracy on the images of one class, without a loss; none if there is no such image.
    pub fn of_class(&self, class: usize) -> Option<Accuracy> {
        let images = (0..self.classes.len()).map(|predicted| self.count(class, predicted)).sum();
        (images > 0).then(|| Accuracy { correct: self.count(class, class), images, loss: f64::NAN })
    }

    /// A row for every true class: its name, its images taken for each class, its images, its accuracy.
    pub fn to_csv(&self) -> String {
        let names: Vec<String> = self.classes.iter().map(|name| quoted(name)).collect();
        let mut text = format!("true,{},images,accuracy\n", names.join(","));
        for (class, name) in names.iter().enumerate() {
            text += name;
            for predicted in 0..names.len() {
                let _ = write!(text, ",{}", self.count(class, predicted));
            }
            let _ = match self.of_class(class) {
                Some(accuracy) => writeln!(text, ",{},{}", accuracy.images, accuracy.share()),
                None => writeln!(text, ",0,"),
            };
        }
        text
    }

    /// The matrix for a terminal: true classes in rows, predicted ones in columns, the accuracy behind.
    pub fn to_text(&self) -> String {
        let width = self.classes.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(4);
        let digits = self.counts.iter().max().map_or(1, |count| count.to_string().len()).max(3);
        let mut text = format!("{:>width$} ", "true");
        for predicted in 0..self.classes.len() {
            let _ = write!(text, " {predicted:>digits$}");
        }
        text += "   accuracy\n";
        for (class, name) in self.classes.iter().enumerate() {
            let _ = write!(text, "{name:>width$} ");
            for predicted in 0..self.classes.len() {
                let _ = write!(text, " {:>digits$}", self.count(class, predicted));
            }
            let _ = match self.of_class(class) {
                Some(one) => {
                    writeln!(text, "   {:5.1} ± {:.1} %", 100.0 * one.share(), 100.0 * one.standard_error())
                }
                None => writeln!(text, "   no images"),
            };
        }
        text
    }
}

/// Classifies the images in batches of `batch` and counts which class was taken for which.
///
/// # Errors
/// As [`accuracy`](super::accuracy()).
pub fn confusion(
    executor: &mut dyn Executor<f32>,
    params: &[f32],
    images: &PreparedImages,
    batch: usize,
    classes: &[String],
) -> Result<(Accuracy, Confusion)> {
    let mut confusion = Confusion::new(classes.to_vec());
    let accuracy =
        classify(executor, params, images, batch, |label, predicted| confusion.add(label, predicted))?;
    Ok((accuracy, confusion))
}

/// A CSV field.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::FirstPixels;
    use super::*;

    #[test]
    fn rows_sum_to_the_images_of_a_class_and_the_diagonal_to_the_correct_ones() {
        let logits: Vec<f32> = (0..60).map(|at| ((at * 37) % 11) as f32).collect();
        let labels: Vec<u8> = (0..20).map(|image| image % 3).collect();
        let images = PreparedImages::new(logits, labels.clone(), 3).unwrap();
        let classes = ["a", "b, \"c\"", "d"].map(String::from);
        let (accuracy, confusion) =
            confusion(&mut FirstPixels::new(3, 3), &[], &images, 5, &classes).unwrap();
        assert_eq!(accuracy.images, 20);
        assert_eq!((confusion.total(), confusion.correct()), (20, accuracy.correct));
        for class in 0..3 {
            let of_class = labels.iter().filter(|&&label| usize::from(label) == class).count() as u64;
            assert_eq!(confusion.of_class(class).unwrap().images, of_class);
        }
        let csv = confusion.to_csv();
        assert!(csv.starts_with("true,a,\"b, \"\"c\"\"\",d,images,accuracy\na,"), "{csv}");
        assert_eq!(csv.lines().count(), 4);
        assert_eq!(confusion.to_text().lines().count(), 4);
    }

    #[test]
    fn a_class_without_images_has_no_accuracy() {
        let confusion = Confusion::new(vec!["a".into()]);
        assert_eq!(confusion.of_class(0), None);
        assert!(confusion.to_csv().ends_with("a,0,0,\n"));
        assert!(confusion.to_text().contains("no images"));
    }
}
