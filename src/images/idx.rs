//! idx files, the format of MNIST and Fashion-MNIST, plain or gzip'd.
//!
//! In: a folder with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte` (each also with `.gz`), and the
//! same for `t10k` (or `test`) and `validation` where there are such. Out: a [`DataSet`]. Format: big-endian
//! magic 0x803 (images) or 0x801 (labels), then the sizes as u32, then bytes
//! (<http://yann.lecun.com/exdb/mnist/>).

use super::dataset::{DataSet, OpenOptions, Parts};
use super::fashion;
use super::set::{ImageSet, Normalisation};
use crate::{Error, Result};
use std::io::Read;
use std::path::{Path, PathBuf};

const IMAGES_MAGIC: u32 = 0x803;
const LABELS_MAGIC: u32 = 0x801;

/// Images and labels of one pair of files.
pub(super) struct Pair {
    pub count: usize,
    pub height: usize,
    pub width: usize,
    pub pixels: Vec<u8>,
    pub labels: Vec<u8>,
    /// Content of the labels file, by which known sets are recognised.
    pub labels_file: Vec<u8>,
}

/// Whether the folder looks like a set of idx files.
pub(super) fn recognise(folder: &Path) -> bool {
    ["train", "validation"].iter().any(|split| find(folder, split, "images", 3).is_some())
}

/// Loads a folder of idx files.
pub(super) fn load(folder: &Path, options: &OpenOptions) -> Result<DataSet> {
    let train = read_pair(folder, "train")?;
    let validation = read_pair(folder, "validation")?;
    let test = match read_pair(folder, "t10k")? {
        Some(pair) => Some(pair),
        None => read_pair(folder, "test")?,
    };
    let Some(first) = train.as_ref().or(validation.as_ref()) else {
        return Err(Error::format(folder, "expected train-images-idx3-ubyte(.gz), found no such file"));
    };
    if fashion::recognise(&first.labels_file) {
        let source = folder.display().to_string();
        return fashion::assemble(source, [train, validation, test], options);
    }
    let classes = first.labels.iter().max().map_or(0, |&label| label as usize + 1);
    let parts = Parts {
        name: folder.file_name().map_or("idx".into(), |name| name.to_string_lossy().into_owned()),
        source: folder.display().to_string(),
        classes: (0..classes).map(|class| class.to_string()).collect(),
        normalisation: Normalisation::measure(&first.pixels, 1, first.height * first.width),
        validation_images: None,
    };
    assemble(parts, [train, validation, test], options)
        .map_err(|error| Error::format(folder, error.to_string()))
}

/// Makes a data set of training, validation and test files.
pub(super) fn assemble(parts: Parts, files: [Option<Pair>; 3], options: &OpenOptions) -> Result<DataSet> {
    let names = ["train", "validation", "test"];
    let mut sets = names.iter().zip(files).map(|(split, pair)| {
        pair.map(|pair| {
            ImageSet::new(
                format!("{}/{split}", parts.name),
                parts.classes.clone(),
                [1, pair.height, pair.width],
                pair.pixels,
                pair.labels,
                parts.normalisation,
            )
        })
        .transpose()
    });
    let mut next = || sets.next().expect("three sets");
    let (train, validation, test) = (next()?, next()?, next()?);
    DataSet::assemble(parts, train, validation, test, options)
}

fn find(folder: &Path, split: &str, kind: &str, dimensions: usize) -> Option<PathBuf> {
    let names =
        [format!("{split}-{kind}-idx{dimensions}-ubyte"), format!("{split}-{kind}.idx{dimensions}-ubyte")];
    names
        .iter()
        .flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))])
        .find(|path| path.is_file())
}

fn read_pair(folder: &Path, split: &str) -> Result<Option<Pair>> {
    match (find(folder, split, "images", 3), find(folder, split, "labels", 1)) {
        (None, None) => Ok(None),
        (Some(images), Some(labels)) => {
            let read = |path: &Path| {
                let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
                unpack(path, bytes)
            };
            parse_pair(&images, read(&images)?, &labels, read(&labels)?).map(Some)
        }
        (Some(found), None) | (None, Some(found)) => Err(Error::format(
            folder,
            format!("found {}, but not the {split} images and labels both", found.display()),
        )),
    }
}

/// Decompresses gzip'd content, returns any other as it is.
pub(super) fn unpack(path: &Path, bytes: Vec<u8>) -> Result<Vec<u8>> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes.as_slice())
        .read_to_end(&mut unpacked)
        .map_err(|error| Error::format(path, format!("damaged or cut off gzip data: {error}")))?;
    Ok(unpacked)
}

/// Reads the content of an images file and its labels file; the paths serve messages.
pub(super) fn parse_pair(
    images_path: &Path,
    images: Vec<u8>,
    labels_path: &Path,
    labels_file: Vec<u8>,
) -> Result<Pair> {
    let [count, height, width] = header(images_path, &images, IMAGES_MAGIC)?;
    let [labels_count] = header(labels_path, &labels_file, LABELS_MAGIC)?;
    if count != labels_count {
        return Err(Error::format(
            labels_path,
            format!("{labels_count} labels, but {} has {count} images", images_path.display()),
        ));
    }
    if count == 0 {
        return Err(Error::format(images_path, "no images in it"));
    }
    let mut pixels = images;
    pixels.drain(..16);
    let labels = labels_file[8..].to_vec();
    Ok(Pair { count, height, width, pixels, labels, labels_file })
}

fn header<const N: usize>(path: &Path, bytes: &[u8], magic: u32) -> Result<[usize; N]> {
    let head = 4 + 4 * N;
    if bytes.len() < head {
        return Err(Error::format(path, format!("an idx header has {head} bytes, the file {}", bytes.len())));
    }
    let number = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if number(0) != magic {
        return Err(Error::format(
            path,
            format!(
                "an idx file of {N}-dimensional bytes begins with 0x{magic:08x}, found 0x{:08x}",
                number(0)
            ),
        ));
    }
    let sizes: [usize; N] = std::array::from_fn(|axis| number(4 + 4 * axis) as usize);
    let expected = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    if expected.and_then(|body| body.checked_add(head)) != Some(bytes.len()) {
        return Err(Error::format(
            path,
            format!("sizes {sizes:?} do not fit the {} bytes that follow the header", bytes.len() - head),
        ));
    }
    Ok(sizes)
}

/// The content of an idx file of images `[N, H, W]` and of its labels file.
pub(super) fn serialise(pair: &Pair, range: std::ops::Range<usize>) -> [Vec<u8>; 2] {
    let plane = pair.height * pair.width;
    let word = |number: usize| (number as u32).to_be_bytes();
    let mut images = IMAGES_MAGIC.to_be_bytes().to_vec();
    for size in [range.len(), pair.height, pair.width] {
        images.extend(word(size));
    }
    images.extend(&pair.pixels[range.start * plane..range.end * plane]);
    let mut labels = LABELS_MAGIC.to_be_bytes().to_vec();
    labels.extend(word(range.len()));
    labels.extend(&pair.labels[range]);
    [images, labels]
}

/// Reads the training and test files of a full set.
pub(super) fn read_full(folder: &Path) -> Result<[Pair; 2]> {
    let need = |split: &str| {
        read_pair(folder, split)?.ok_or_else(|| {
            Error::format(folder, format!("expected {split}-images-idx3-ubyte(.gz), found no such file"))
        })
    };
    Ok([need("train")?, need("t10k")?])
}
