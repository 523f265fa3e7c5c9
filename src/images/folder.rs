//! Folders of PNG and JPEG images, one folder for each class.
//!
//! In: `train/CLASS/*.png|jpg`, with `test/` and `validation/` (or `val/`) of the same form where there are
//! such; or `CLASS/*` alone. Out: a [`DataSet`] of RGB images resized to a square (triangle filter, the aspect
//! ratio is not kept), normalised with the mean and deviation of the training images.
//!
//! Files are taken in the order of their names and then shuffled, always in the same way, so that the end of
//! the training set (the validation images) and the beginning of every set hold all classes.

use super::dataset::{DataSet, OpenOptions, Parts};
use super::set::{ImageSet, Normalisation};
use super::stream::{Purpose, stream};
use crate::{Error, Result};
use image::imageops::{self, FilterType};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Loads image folders.
pub(super) fn load(root: &Path, options: &OpenOptions) -> Result<DataSet> {
    if options.size == 0 {
        return Err(Error::Config("the image size must be at least 1 pixel".into()));
    }
    let training = root.join("train");
    let training = if training.is_dir() { training } else { root.to_path_buf() };
    let classes = sorted(&training, |path| path.is_dir())?;
    if classes.len() < 2 || classes.len() > 256 {
        return Err(Error::format(
            &training,
            format!("2 to 256 class folders with images expected, found {}", classes.len()),
        ));
    }
    let classes: Vec<String> = classes.iter().map(|path| name_of(path)).collect();
    let split = |names: &[&str]| names.iter().map(|name| root.join(name)).find(|path| path.is_dir());
    let (train, validation, test) = if training == root {
        (read(&training, &classes, options.size)?, None, None)
    } else {
        let others = [split(&["validation", "val"]), split(&["test"])];
        let [validation, test] =
            others.map(|folder| folder.map(|folder| read(&folder, &classes, options.size)).transpose());
        (read(&training, &classes, options.size)?, validation?, test?)
    };
    let parts = Parts {
        name: name_of(root),
        source: root.display().to_string(),
        normalisation: Normalisation::measure(&train.0, 3, options.size * options.size),
        classes,
        validation_images: None,
    };
    let set = |split: &str, (pixels, labels): (Vec<u8>, Vec<u8>)| {
        let shape = [3, options.size, options.size];
        let name = format!("{}/{split}", parts.name);
        ImageSet::new(name, parts.classes.clone(), shape, pixels, labels, parts.normalisation)
    };
    let train = set("train", train)?;
    let validation = validation.map(|images| set("validation", images)).transpose()?;
    let test = test.map(|images| set("test", images)).transpose()?;
    DataSet::assemble(parts, Some(train), validation, test, options)
}

/// Pixels `[N, 3, size, size]` and labels of one split.
fn read(folder: &Path, classes: &[String], size: usize) -> Result<(Vec<u8>, Vec<u8>)> {
    if let Some(extra) =
        sorted(folder, |path| path.is_dir())?.iter().find(|path| !classes.contains(&name_of(path)))
    {
        return Err(Error::format(
            extra,
            format!("this class is not among the training classes {classes:?}"),
        ));
    }
    let mut files: Vec<(u8, PathBuf)> = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let class_folder = folder.join(class);
        let images = sorted(&class_folder, |_| true)?;
        if images.is_empty() {
            return Err(Error::format(&class_folder, "PNG or JPEG images expected, the folder is empty"));
        }
        files.extend(images.into_iter().map(|path| (label as u8, path)));
    }
    files.shuffle(&mut stream(0, Purpose::FolderOrder, 0, 0));
    let images: Vec<Result<Vec<u8>>> = files.par_iter().map(|(_, path)| read_image(path, size)).collect();
    let mut pixels = Vec::with_capacity(files.len() * 3 * size * size);
    for image in images {
        pixels.extend(image?);
    }
    Ok((pixels, files.into_iter().map(|(label, _)| label).collect()))
}

/// One image as planes `[3, size, size]`.
fn read_image(path: &Path, size: usize) -> Result<Vec<u8>> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    if !matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg")) || !path.is_file() {
        return Err(Error::format(path, "a class folder holds .png, .jpg and .jpeg files only"));
    }
    let decoded = image::ImageReader::open(path)
        .and_then(|reader| reader.with_guessed_format())
        .map_err(Error::io("read", path))?
        .decode()
        .map_err(|error| Error::format(path, format!("a PNG or JPEG image expected: {error}")))?;
    let side = size as u32;
    let mut rgb = decoded.to_rgb8();
    if rgb.dimensions() != (side, side) {
        rgb = imageops::resize(&rgb, side, side, FilterType::Triangle);
    }
    let interleaved = rgb.into_raw();
    Ok((0..3).flat_map(|channel| interleaved.iter().skip(channel).step_by(3).copied()).collect())
}

/// Entries of a folder that are wanted, by name; hidden ones are left out.
fn sorted(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if !name_of(&path).starts_with('.') && wanted(&path) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or("images".into(), |name| name.to_string_lossy().into_owned())
}
