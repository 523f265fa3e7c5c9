//! Fashion-MNIST: names, constants, and the slice of it that is part of the program.
//!
//! Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST", arXiv 1708.07747 (MIT licence, see
//! `data/fashion-mnist-slice/`). The slice holds the last 5,000 training images as validation images and the
//! first 5,000 test images. The full set keeps back the same 5,000 training images for validation, so scores on
//! either are comparable.

use super::dataset::{DataSet, OpenOptions, Parts};
use super::idx::{self, Pair};
use super::set::Normalisation;
use crate::files::write_atomically;
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;

const CLASSES: [&str; 10] = [
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
];

/// Training images kept back for validation, and test images in the slice.
const SLICE: usize = 5000;

/// Measured on the 60,000 unpadded training images.
const MEAN: f32 = 0.286_040_6;
const SD: f32 = 0.353_024_24;

/// sha256 of the unpacked labels file of the full training set and of the slice's validation set.
const LABELS_SHA256: [&str; 2] = [
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "75bdd2ad7c4cb5df0820dbf6a0bff21967ecf11675005410a68abd9ba984e277",
];

macro_rules! slice_files {
    ($($name:literal),*) => {
        [$(($name, include_bytes!(concat!("../../data/fashion-mnist-slice/", $name)).as_slice())),*]
    };
}

static SLICE_FILES: [(&str, &[u8]); 4] = slice_files!(
    "validation-images-idx3-ubyte.gz",
    "validation-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz"
);

/// Whether a labels file is Fashion-MNIST's.
pub(super) fn recognise(labels_file: &[u8]) -> bool {
    LABELS_SHA256.contains(&hex(&Sha256::digest(labels_file)).as_str())
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes the data set of training, validation and test files.
pub(super) fn assemble(source: String, files: [Option<Pair>; 3], options: &OpenOptions) -> Result<DataSet> {
    let parts = Parts {
        name: "fashion-mnist".into(),
        source,
        classes: CLASSES.map(String::from).to_vec(),
        normalisation: Normalisation { mean: [MEAN; 3], sd: [SD; 3] },
        validation_images: Some(SLICE),
    };
    idx::assemble(parts, files, options)
}

/// The slice of Fashion-MNIST inside the program: 5,000 validation and 5,000 test images, none for training.
///
/// ```
/// let data = foretell::images::bundled()?;
/// assert_eq!((data.validation.len(), data.classes().len()), (5000, 10));
/// # Ok::<(), foretell::Error>(())
/// ```
pub fn bundled() -> Result<DataSet> {
    let unpack = |at: usize| {
        let (name, bytes) = SLICE_FILES[at];
        let path = Path::new("bundled fashion-mnist-slice").join(name);
        idx::unpack(&path, bytes.to_vec()).map(|content| (path, content))
    };
    let pair = |at: usize| {
        let ((images_path, images), (labels_path, labels)) = (unpack(at)?, unpack(at + 1)?);
        idx::parse_pair(&images_path, images, &labels_path, labels).map(Some)
    };
    let source = "the slice inside the program".to_string();
    assemble(source, [None, pair(0)?, pair(2)?], &OpenOptions::default())
}

/// Writes the files of the slice to folder `to`, made from the full set in folder `from`: how
/// `data/fashion-mnist-slice` was made.
pub fn write_slice(from: &Path, to: &Path) -> Result<()> {
    let [train, test] = idx::read_full(from)?;
    if !recognise(&train.labels_file) || train.count != 60_000 || test.count != 10_000 {
        return Err(Error::format(
            from,
            "expected the full Fashion-MNIST, 60,000 training and 10,000 test images",
        ));
    }
    std::fs::create_dir_all(to).map_err(Error::io("create", to))?;
    let validation = idx::serialise(&train, train.count - SLICE..train.count);
    let contents = validation.into_iter().chain(idx::serialise(&test, 0..SLICE));
    for ((name, _), content) in SLICE_FILES.iter().zip(contents) {
        let path = to.join(name);
        write_atomically(&path, &gzip(&content).map_err(Error::io("compress", &path))?)?;
    }
    Ok(())
}

fn gzip(content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_slice_is_the_real_thing() {
        let data = bundled().unwrap();
        assert!(data.train.is_none());
        let test = data.test.as_ref().unwrap();
        assert_eq!((data.validation.len(), test.len()), (5000, 5000));
        assert_eq!(data.validation.stored_shape(), [1, 28, 28]);
        // Digests of the pixels in the original files, images 55,000.. of the training and ..5,000 of the test set.
        let digest = |bytes: &[u8]| hex(&Sha256::digest(bytes));
        assert_eq!(
            digest(data.validation.pixels()),
            "69c6eedd84f8e35cee17021aa981de759de2042ea53ec60f067174bdec7e3ae9"
        );
        assert_eq!(digest(test.pixels()), "c7c2d66209217610bf8347d049b05c89ed290d13d9e0c432aeb984c411bc669e");
        assert_eq!(digest(test.labels()), "aebe8004dad5b3e205df8e56cbe590cbda22479c4a1eb99d19c9482a9da8748d");
        let error = data.training().unwrap_err().to_string();
        assert!(error.contains("foretell data fetch fashion-mnist"), "{error}");
    }

    #[test]
    fn the_slice_can_be_loaded_from_its_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fashion-mnist-slice");
        let data = super::super::open(folder.to_str().unwrap()).unwrap();
        let inside = bundled().unwrap();
        assert_eq!(data.name, "fashion-mnist");
        assert_eq!(data.validation, inside.validation);
        assert_eq!(data.test, inside.test);
    }

    #[test]
    fn a_slice_is_made_of_the_full_set_only() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fashion-mnist-slice");
        let to = tempfile::tempdir().unwrap();
        let error = write_slice(&folder, to.path()).unwrap_err().to_string();
        assert!(error.contains("train-images-idx3-ubyte"), "{error}");
    }
}
