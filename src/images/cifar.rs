//! CIFAR-10 in its binary form (`cifar-10-batches-bin`).
//!
//! In: `data_batch_1.bin` .. `data_batch_5.bin`, `test_batch.bin` and `batches.meta.txt`; a record is one label
//! byte and 3x32x32 pixels in planes (<https://www.cs.toronto.edu/~kriz/cifar.html>). Out: a [`DataSet`].

use super::dataset::{DataSet, OpenOptions, Parts};
use super::set::{ImageSet, Normalisation};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

const RECORD: usize = 1 + 3 * 32 * 32;

/// The constants of DARTS and of Knyazev et al. 2021.
const NORMALISATION: Normalisation = Normalisation {
    mean: [0.491_399_68, 0.482_158_27, 0.446_531_24],
    sd: [0.247_032_33, 0.243_485_05, 0.261_587_68],
};

/// The folder of the binary files: `folder` itself or `cifar-10-batches-bin` in it.
pub(super) fn recognise(folder: &Path) -> Option<PathBuf> {
    [folder.to_path_buf(), folder.join("cifar-10-batches-bin")]
        .into_iter()
        .find(|folder| folder.join("data_batch_1.bin").is_file() || folder.join("batches.meta.txt").is_file())
}

/// Loads the binary files.
pub(super) fn load(folder: &Path, options: &OpenOptions) -> Result<DataSet> {
    let classes = read_classes(&folder.join("batches.meta.txt"))?;
    let parts = Parts {
        name: "cifar10".into(),
        source: folder.display().to_string(),
        classes,
        normalisation: NORMALISATION,
        validation_images: None,
    };
    let training: Vec<PathBuf> = (1..=5).map(|n| folder.join(format!("data_batch_{n}.bin"))).collect();
    let set = |split: &str, files: &[PathBuf]| -> Result<ImageSet> {
        let (pixels, labels) = read_records(files, parts.classes.len())?;
        let name = format!("cifar10/{split}");
        ImageSet::new(name, parts.classes.clone(), [3, 32, 32], pixels, labels, parts.normalisation)
    };
    let train = set("train", &training)?;
    let test = set("test", &[folder.join("test_batch.bin")])?;
    DataSet::assemble(parts, Some(train), None, Some(test), options)
}

fn read_classes(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let classes: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    if classes.len() != 10 {
        return Err(Error::format(
            path,
            format!("10 class names expected, one a line; found {}", classes.len()),
        ));
    }
    Ok(classes)
}

fn read_records(files: &[PathBuf], classes: usize) -> Result<(Vec<u8>, Vec<u8>)> {
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for path in files {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        if bytes.is_empty() || !bytes.len().is_multiple_of(RECORD) {
            return Err(Error::format(
                path,
                format!(
                    "records of {RECORD} bytes expected; {} bytes are not a whole number of them",
                    bytes.len()
                ),
            ));
        }
        for (at, record) in bytes.chunks_exact(RECORD).enumerate() {
            if record[0] as usize >= classes {
                return Err(Error::format(
                    path,
                    format!(
                        "record {at}: label {} with {classes} classes (labels 0..={})",
                        record[0],
                        classes - 1
                    ),
                ));
            }
            labels.push(record[0]);
            pixels.extend(&record[1..]);
        }
    }
    Ok((pixels, labels))
}
