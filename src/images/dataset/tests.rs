use super::*;
use crate::images::ImageSet;
use std::fs;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open_at(folder: &TempDir) -> Result<DataSet> {
    open(folder.path().to_str().unwrap())
}

/// The error of opening `folder`; it must name `file` and contain `reason`.
fn refused(folder: &TempDir, file: &str, reason: &str) {
    let error = open_at(folder).expect_err("must be refused").to_string();
    let path = folder.path().join(file);
    assert!(error.contains(path.to_str().unwrap().trim_end_matches('/')), "{error}\nnames no {file}");
    assert!(error.contains(reason), "{error}\nsays not: {reason}");
}

fn idx(magic: u32, sizes: &[u32], body: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_be_bytes().to_vec();
    for size in sizes {
        bytes.extend(size.to_be_bytes());
    }
    bytes.extend(body);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// 20 training and 4 test images of 2x3 pixels, 3 classes.
fn idx_folder() -> TempDir {
    let folder = folder();
    let write = |split: &str, count: u32| {
        let pixels: Vec<u8> = (0..count * 6).map(|i| (i * 3 % 256) as u8).collect();
        let labels: Vec<u8> = (0..count).map(|i| (i % 3) as u8).collect();
        let images = idx(0x803, &[count, 2, 3], &pixels);
        fs::write(folder.path().join(format!("{split}-images-idx3-ubyte.gz")), gzip(&images)).unwrap();
        fs::write(folder.path().join(format!("{split}-labels-idx1-ubyte")), idx(0x801, &[count], &labels))
            .unwrap();
    };
    write("train", 20);
    write("t10k", 4);
    folder
}

#[test]
fn idx_files_are_split_and_normalised_by_their_own_statistics() {
    let folder = idx_folder();
    let data = open_at(&folder).unwrap();
    let train = data.training().unwrap();
    assert_eq!((train.len(), data.validation.len(), data.testing().unwrap().len()), (18, 2, 4));
    assert_eq!(data.classes(), ["0", "1", "2"]);
    assert_eq!(data.validation.labels(), [0, 1]);
    assert_eq!(
        data.validation.pixels()[..2],
        [18 * 6 * 3 % 256, (18 * 6 + 1) * 3 % 256].map(|v: i32| v as u8)
    );
    let pixels: Vec<f64> = (0..120).map(|i| (i * 3 % 256) as f64 / 255.0).collect();
    let mean = pixels.iter().sum::<f64>() / 120.0;
    let sd = (pixels.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / 120.0).sqrt();
    let constants = data.normalisation();
    for channel in 0..3 {
        assert!((constants.mean[channel] as f64 - mean).abs() < 1e-6);
        assert!((constants.sd[channel] as f64 - sd).abs() < 1e-6);
    }
    // 2x3 images stand in the middle of 32x32: rows 15, 16 and columns 14..17, three equal channels.
    let mut batch = Vec::new();
    train.fill_batch(&[1], &mut batch).unwrap();
    let at = |channel: usize, y: usize, x: usize| batch[(channel * 32 + y) * 32 + x] as f64;
    for channel in 0..3 {
        for (i, (y, x)) in
            [(15, 14), (15, 15), (15, 16), (16, 14), (16, 15), (16, 16)].into_iter().enumerate()
        {
            assert!((at(channel, y, x) - (pixels[6 + i] - mean) / sd).abs() < 1e-5);
        }
        assert!((at(channel, 14, 14) + mean / sd).abs() < 1e-5, "padding is black");
    }
}

#[test]
fn the_validation_share_can_be_chosen() {
    let folder = idx_folder();
    let spec = folder.path().to_str().unwrap();
    let options = |share| OpenOptions { validation_share: Some(share), ..OpenOptions::default() };
    assert_eq!(open_with(spec, &options(0.25)).unwrap().validation.len(), 5);
    for share in [0.0, 1.0, f64::NAN] {
        let error = open_with(spec, &options(share)).unwrap_err().to_string();
        assert!(error.contains("between 0 and 1"), "{error}");
    }
}

#[test]
fn damaged_idx_files_are_refused() {
    let (images, labels) = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
    let good_images = idx(0x803, &[2, 1, 1], &[1, 2]);
    let good_labels = idx(0x801, &[2], &[0, 1]);
    let cases: [(&str, Vec<u8>, &str); 9] = [
        (images, good_images[..17].to_vec(), "do not fit the 1 bytes"),
        (images, good_images[..7].to_vec(), "an idx header has 16 bytes, the file 7"),
        (images, vec![], "an idx header has 16 bytes, the file 0"),
        (images, idx(0x801, &[2, 1, 1], &[1, 2]), "begins with 0x00000803, found 0x00000801"),
        (images, idx(0x803, &[u32::MAX, u32::MAX, u32::MAX], &[1, 2]), "do not fit the 2 bytes"),
        (images, gzip(&good_images)[..25].to_vec(), "damaged or cut off gzip data"),
        (images, idx(0x803, &[0, 1, 1], &[]), "no images"),
        (labels, good_labels[..9].to_vec(), "do not fit the 1 bytes"),
        (labels, idx(0x801, &[3], &[0, 1, 1]), "3 labels, but"),
    ];
    for (file, content, reason) in cases {
        let folder = folder();
        fs::write(folder.path().join(images), &good_images).unwrap();
        fs::write(folder.path().join(labels), &good_labels).unwrap();
        fs::write(folder.path().join(file), content).unwrap();
        if reason == "no images" {
            fs::write(folder.path().join(labels), idx(0x801, &[0], &[])).unwrap();
        }
        refused(&folder, file, reason);
    }
    let folder = folder();
    fs::write(folder.path().join(images), &good_images).unwrap();
    refused(&folder, images, "not the train images and labels both");
}

#[test]
fn test_labels_outside_the_training_classes_are_refused() {
    let folder = idx_folder();
    fs::write(folder.path().join("t10k-labels-idx1-ubyte"), idx(0x801, &[4], &[0, 1, 7, 2])).unwrap();
    refused(&folder, "", "image 2 has label 7, but there are 3 classes");
}

const RECORD: usize = 3073;

/// 40 training images in five files and 4 test images.
fn cifar_folder() -> TempDir {
    let folder = folder();
    let inner = folder.path().join("cifar-10-batches-bin");
    fs::create_dir(&inner).unwrap();
    let records = |count: usize, first: usize| -> Vec<u8> {
        (first..first + count)
            .flat_map(|n| {
                std::iter::once((n % 10) as u8).chain((0..RECORD - 1).map(move |i| (n + i / 1024) as u8))
            })
            .collect()
    };
    for n in 1..=5 {
        fs::write(inner.join(format!("data_batch_{n}.bin")), records(8, (n - 1) * 8)).unwrap();
    }
    fs::write(inner.join("test_batch.bin"), records(4, 100)).unwrap();
    let classes = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    fs::write(inner.join("batches.meta.txt"), classes).unwrap();
    folder
}

#[test]
fn cifar_binary_files_are_read_in_order() {
    let folder = cifar_folder();
    let data = open_at(&folder).unwrap();
    let train = data.training().unwrap();
    assert_eq!((train.len(), data.validation.len(), data.testing().unwrap().len()), (36, 4, 4));
    assert_eq!(data.name, "cifar10");
    assert_eq!(data.classes()[9], "truck");
    assert_eq!(data.validation.labels(), [6, 7, 8, 9]);
    assert_eq!(data.validation.pixels()[..1], [36]);
    let mut batch = Vec::new();
    train.fill_batch(&[0, 35], &mut batch).unwrap();
    assert_eq!(batch.len(), 2 * 3072);
    let expected = |pixel: f64, mean: f64, sd: f64| (pixel / 255.0 - mean) / sd;
    // The last record has pixels 35, 36 and 37 in its planes.
    assert!((batch[3072] as f64 - expected(35.0, 0.49139968, 0.24703233)).abs() < 1e-5);
    assert!((batch[3072 + 1024] as f64 - expected(36.0, 0.48215827, 0.24348505)).abs() < 1e-5);
    assert!((batch[2 * 3072 - 1] as f64 - expected(37.0, 0.44653124, 0.26158768)).abs() < 1e-5);
    let inner = open(folder.path().join("cifar-10-batches-bin").to_str().unwrap()).unwrap();
    assert_eq!(inner.train, data.train);
}

#[test]
fn a_fetched_set_is_found_by_its_name() {
    let root = folder();
    let options = OpenOptions { root: Some(root.path().to_path_buf()), ..OpenOptions::default() };
    let error = open_with("cifar10", &options).unwrap_err().to_string();
    assert!(error.contains("foretell data fetch cifar10"), "{error}");
    fs::rename(cifar_folder().path(), root.path().join("cifar10")).unwrap();
    assert_eq!(open_with("cifar10", &options).unwrap().training().unwrap().len(), 36);
    assert_eq!(open_with("fashion-mnist", &options).unwrap(), crate::images::bundled().unwrap());
}

#[test]
fn damaged_cifar_files_are_refused() {
    let cases: [(&str, Option<Vec<u8>>, &str); 6] = [
        ("data_batch_3.bin", None, "cannot read"),
        ("test_batch.bin", None, "cannot read"),
        ("data_batch_2.bin", Some(vec![0; RECORD + 5]), "records of 3073 bytes expected; 3078 bytes"),
        ("test_batch.bin", Some(vec![]), "records of 3073 bytes expected; 0 bytes"),
        ("data_batch_5.bin", Some(vec![10; RECORD]), "record 0: label 10 with 10 classes"),
        ("batches.meta.txt", Some(b"cat\ndog\n".to_vec()), "10 class names expected, one a line; found 2"),
    ];
    for (file, content, reason) in cases {
        let folder = cifar_folder();
        let name = format!("cifar-10-batches-bin/{file}");
        match content {
            Some(content) => fs::write(folder.path().join(&name), content).unwrap(),
            None => fs::remove_file(folder.path().join(&name)).unwrap(),
        }
        refused(&folder, &name, reason);
    }
}

fn write_image(path: std::path::PathBuf, side: u32, colour: [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(side, side, image::Rgb(colour)).save(path).unwrap();
}

fn image_folder(prefix: &str) -> TempDir {
    let folder = folder();
    for n in 0..10 {
        write_image(folder.path().join(format!("{prefix}cat/{n}.png")), 40, [200, 10, n]);
        write_image(folder.path().join(format!("{prefix}dog/{n}.JPG")), 32, [10, 10, 200]);
    }
    folder
}

#[test]
fn image_folders_are_resized_and_mixed() {
    let folder = image_folder("");
    let data = open_at(&folder).unwrap();
    let train = data.training().unwrap();
    assert_eq!(data.classes(), ["cat", "dog"]);
    assert_eq!((train.len(), data.validation.len(), data.test.is_none()), (18, 2, true));
    assert_eq!(train.stored_shape(), [3, 32, 32]);
    let mut blues = Vec::new();
    for set in [train, &data.validation] {
        for (image, &label) in set.pixels().chunks_exact(3072).zip(set.labels()) {
            let colour = [image[500], image[1024 + 500], image[2048 + 500]];
            match label {
                0 => {
                    assert_eq!(colour[..2], [200, 10]);
                    blues.push(colour[2]);
                }
                _ => assert!(colour[0] < 20 && colour[2] > 190, "{colour:?}"),
            }
        }
    }
    assert_ne!(train.labels()[..9], [0; 9], "classes are mixed");
    blues.sort();
    assert_eq!(blues, (0..10).collect::<Vec<u8>>());
    assert_eq!(open_at(&folder).unwrap(), data, "the order is always the same");
    let large = OpenOptions { size: 48, ..OpenOptions::default() };
    let large = open_with(folder.path().to_str().unwrap(), &large).unwrap();
    assert_eq!(large.validation.batch_shape(), [3, 48, 48]);
}

#[test]
fn image_folders_may_bring_their_own_splits() {
    let folder = image_folder("train/");
    write_image(folder.path().join("test/dog/1.png"), 32, [0, 0, 255]);
    write_image(folder.path().join("test/cat/1.png"), 32, [255, 0, 0]);
    write_image(folder.path().join("val/cat/1.png"), 32, [255, 0, 0]);
    refused(&folder, "val/dog", "cannot list");
    write_image(folder.path().join("val/dog/1.png"), 32, [255, 0, 0]);
    let data = open_at(&folder).unwrap();
    let lengths = (data.training().unwrap().len(), data.validation.len(), data.testing().unwrap().len());
    assert_eq!(lengths, (20, 2, 2));
    fs::create_dir(folder.path().join("test/bird")).unwrap();
    refused(&folder, "test/bird", "not among the training classes");
}

#[test]
fn damaged_image_folders_are_refused() {
    let folder = image_folder("");
    fs::create_dir(folder.path().join("empty")).unwrap();
    refused(&folder, "empty", "the folder is empty");
    fs::remove_dir(folder.path().join("empty")).unwrap();

    fs::write(folder.path().join("cat/notes.txt"), "hello").unwrap();
    refused(&folder, "cat/notes.txt", "holds .png, .jpg and .jpeg files only");
    fs::remove_file(folder.path().join("cat/notes.txt")).unwrap();

    let whole = fs::read(folder.path().join("cat/3.png")).unwrap();
    fs::write(folder.path().join("cat/3.png"), &whole[..whole.len() / 2]).unwrap();
    refused(&folder, "cat/3.png", "a PNG or JPEG image expected");
    fs::write(folder.path().join("cat/3.png"), "no image at all").unwrap();
    refused(&folder, "cat/3.png", "a PNG or JPEG image expected");

    fs::remove_dir_all(folder.path().join("cat")).unwrap();
    refused(&folder, "", "2 to 256 class folders with images expected, found 1");
}

#[test]
fn what_is_no_data_set_is_refused() {
    let folder = folder();
    refused(&folder, "", "found none of them");
    fs::write(folder.path().join("file"), "").unwrap();
    for (spec, reason) in
        [("file", "this is a file"), ("missing", "neither a folder nor one of fashion-mnist")]
    {
        let error = open(folder.path().join(spec).to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(spec), "{error}");
    }
}

#[test]
fn sets_that_contradict_themselves_are_refused() {
    let plain = Normalisation { mean: [0.0; 3], sd: [1.0; 3] };
    let classes = vec!["a".to_string(), "b".to_string()];
    let make = |shape, pixels: usize, labels: &[u8], sd| {
        let constants = Normalisation { sd: [sd; 3], ..plain };
        ImageSet::new("odd", classes.clone(), shape, vec![0; pixels], labels.to_vec(), constants)
            .unwrap_err()
            .to_string()
    };
    assert!(make([2, 1, 1], 2, &[0], 1.0).contains("1 or 3 channels"));
    assert!(make([1, 2, 2], 5, &[0], 1.0).contains("need 4 bytes"));
    assert!(make([1, 1, 1], 1, &[2], 1.0).contains("label 2, but there are 2 classes"));
    assert!(make([1, 0, 1], 0, &[], 1.0).contains("no content"));
    assert!(make([1, 1, 1], 1, &[0], 0.0).contains("must be positive"));
    let set = ImageSet::new("one", classes.clone(), [1, 1, 1], vec![9], vec![1], plain).unwrap();
    let error = set.fill_batch(&[1], &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("image 1 asked for, it has 1"), "{error}");
    assert!(set.slice("none", 5..9).prepare(3).is_err());
}
