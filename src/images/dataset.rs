//! A data set: training, validation and test images, found by name or by what a folder holds.

use super::set::{ImageSet, Normalisation};
use super::{cifar, fashion, fetch, folder, idx};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Images for training, for scoring candidates and for the final test.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSet {
    /// Its name, e.g. `fashion-mnist`.
    pub name: String,
    /// Where it was read from.
    pub source: String,
    /// Images to train on; the bundled slice has none.
    pub train: Option<Arc<ImageSet>>,
    /// Images that candidates are scored on.
    pub validation: Arc<ImageSet>,
    /// Images that no choice was made on.
    pub test: Option<Arc<ImageSet>>,
}

/// How a data set is opened.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenOptions {
    /// Height and width that images of image folders are resized to.
    pub size: usize,
    /// Share of the training images, taken from their end, that become validation images. By default 0.1,
    /// for Fashion-MNIST the last 5,000. A set with validation images of its own keeps those.
    pub validation_share: Option<f64>,
    /// Folder of fetched sets; by default [`default_root`](super::default_root).
    pub root: Option<PathBuf>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { size: 32, validation_share: None, root: None }
    }
}

/// What a loader knows of a set besides its images.
pub(super) struct Parts {
    pub name: String,
    pub source: String,
    pub classes: Vec<String>,
    pub normalisation: Normalisation,
    /// Number of validation images where the share is not asked for.
    pub validation_images: Option<usize>,
}

impl DataSet {
    /// Names of the classes.
    pub fn classes(&self) -> &[String] {
        self.validation.classes()
    }

    /// Constants that batches are normalised with.
    pub fn normalisation(&self) -> Normalisation {
        self.validation.normalisation()
    }

    /// The training images, or an error that says how to get some.
    pub fn training(&self) -> Result<&Arc<ImageSet>> {
        self.train.as_ref().ok_or_else(|| {
            Error::Config(format!(
                "{} ({}) has no training images; `foretell data fetch {0}` gets the full set, or name its folder",
                self.name, self.source
            ))
        })
    }

    /// The test images, or an error.
    pub fn testing(&self) -> Result<&Arc<ImageSet>> {
        self.test
            .as_ref()
            .ok_or_else(|| Error::Config(format!("{} ({}) has no test images", self.name, self.source)))
    }

    /// Joins the parts; splits validation images off the training images where there are none.
    pub(super) fn assemble(
        parts: Parts,
        train: Option<ImageSet>,
        validation: Option<ImageSet>,
        test: Option<ImageSet>,
        options: &OpenOptions,
    ) -> Result<DataSet> {
        let (train, validation) = match (train, validation) {
            (train, Some(validation)) => (train, validation),
            (Some(all), None) => {
                let count = validation_count(all.len(), options.validation_share, parts.validation_images)?;
                let start = all.len() - count;
                let validation = all.slice(format!("{}/validation", parts.name), start..all.len());
                (Some(all.slice(format!("{}/train", parts.name), 0..start)), validation)
            }
            (None, None) => return Err(Error::Config(format!("{}: no training images", parts.name))),
        };
        let shape = validation.stored_shape();
        if let Some(other) = [&train, &test].into_iter().flatten().find(|set| set.stored_shape() != shape) {
            return Err(Error::Config(format!(
                "{} has images of {:?}, {} of {shape:?} (channels, height, width)",
                other.name(),
                other.stored_shape(),
                validation.name(),
            )));
        }
        Ok(DataSet {
            name: parts.name,
            source: parts.source,
            train: train.map(Arc::new),
            validation: Arc::new(validation),
            test: test.map(Arc::new),
        })
    }
}

fn validation_count(images: usize, share: Option<f64>, wanted: Option<usize>) -> Result<usize> {
    if let Some(share) = share
        && !(share > 0.0 && share < 1.0)
    {
        return Err(Error::Config(format!("the validation share lies between 0 and 1, found {share}")));
    }
    if images < 2 {
        return Err(Error::Config(format!("at least 2 training images are needed to split, found {images}")));
    }
    let count = match (share, wanted) {
        (None, Some(count)) => count,
        (share, _) => (images as f64 * share.unwrap_or(0.1)).round() as usize,
    };
    Ok(count.clamp(1, images - 1))
}

/// Opens a data set with the default options; see [`open_with`].
pub fn open(spec: &str) -> Result<DataSet> {
    open_with(spec, &OpenOptions::default())
}

/// Opens a data set.
///
/// `spec` is a name or a folder. Names: `fashion-mnist` (the full set if it was fetched, otherwise the bundled
/// slice), `fashion-mnist-slice` (always the bundled slice), `cifar10` (fetched). A folder holds CIFAR-10 in
/// binary form, idx files, or class folders of images; what it holds decides. A folder that is named like a
/// set is meant by `./NAME`.
pub fn open_with(spec: &str, options: &OpenOptions) -> Result<DataSet> {
    let fetched = |name: &str| {
        let root = options.root.clone().map_or_else(fetch::default_root, Ok)?;
        Ok::<_, Error>(root.join(name))
    };
    match spec {
        "fashion-mnist-slice" => fashion::bundled(),
        "fashion-mnist" => match fetched(spec) {
            Ok(folder) if folder.is_dir() => idx::load(&folder, options),
            _ => fashion::bundled(),
        },
        "cifar10" => {
            let folder = fetched(spec)?;
            match cifar::recognise(&folder) {
                Some(folder) => cifar::load(&folder, options),
                None => Err(Error::Config(format!(
                    "cifar10 was not fetched to {}; `foretell data fetch cifar10` gets it, or name its folder",
                    folder.display()
                ))),
            }
        }
        _ => open_folder(Path::new(spec), options),
    }
}

fn open_folder(path: &Path, options: &OpenOptions) -> Result<DataSet> {
    if !path.exists() {
        return Err(Error::Config(format!(
            "data set {}: neither a folder nor one of fashion-mnist, fashion-mnist-slice, cifar10",
            path.display()
        )));
    }
    if !path.is_dir() {
        return Err(Error::format(
            path,
            "a data set is a folder (CIFAR-10 binary files, idx files or class folders), this is a file",
        ));
    }
    if let Some(folder) = cifar::recognise(path) {
        return cifar::load(&folder, options);
    }
    if idx::recognise(path) {
        return idx::load(path, options);
    }
    let mut entries = std::fs::read_dir(path).map_err(Error::io("list", path))?;
    if entries.any(|entry| entry.is_ok_and(|entry| entry.path().is_dir())) {
        return folder::load(path, options);
    }
    Err(Error::format(
        path,
        "expected data_batch_1.bin (CIFAR-10), train-images-idx3-ubyte(.gz) (idx) or class folders of images; \
         found none of them",
    ))
}

#[cfg(test)]
mod tests;
