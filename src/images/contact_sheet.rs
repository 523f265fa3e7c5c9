//! A picture of a data set: one row of images for each class.

use super::set::ImageSet;
use crate::files::write_atomically;
use crate::{Error, Result};
use image::{ImageFormat, Rgb, RgbImage};

use std::io::Cursor;
use std::path::Path;

/// Pixels between images.
const GAP: usize = 2;

/// Writes a PNG with the first `columns` images of each class, one class a row, in the order of the labels.
pub fn contact_sheet(set: &ImageSet, columns: usize, path: &Path) -> Result<()> {
    let [channels, height, width] = set.stored_shape();
    let columns = columns.max(1);
    let side = |count: usize, size: usize| (count * (size + GAP) + GAP) as u32;
    let (sheet_width, sheet_height) = (side(columns, width), side(set.classes().len(), height));
    let mut sheet = RgbImage::from_pixel(sheet_width, sheet_height, Rgb([255; 3]));
    let mut filled = vec![0; set.classes().len()];
    let plane = height * width;
    for (image, &label) in set.pixels().chunks_exact(channels * plane).zip(set.labels()) {
        let column = &mut filled[label as usize];
        if *column == columns {
            continue;
        }
        let (left, top) = (side(*column, width) as usize, side(label as usize, height) as usize);
        for at in 0..plane {
            let pixel = Rgb(std::array::from_fn(|channel| image[channel % channels * plane + at]));
            sheet.put_pixel((left + at % width) as u32, (top + at / width) as u32, pixel);
        }
        *column += 1;
    }
    let mut png = Cursor::new(Vec::new());
    sheet
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| Error::format(path, format!("cannot write the PNG: {error}")))?;
    write_atomically(path, png.get_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::Normalisation;

    #[test]
    fn classes_are_rows_and_images_stand_in_their_order() {
        let plain = Normalisation { mean: [0.0; 3], sd: [1.0; 3] };
        let classes = vec!["a".to_string(), "b".to_string()];
        let set =
            ImageSet::new("set", classes, [1, 1, 1], vec![10, 20, 30, 40], vec![1, 0, 1, 1], plain).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheet.png");
        contact_sheet(&set, 2, &path).unwrap();
        let sheet = image::open(&path).unwrap().to_rgb8();
        assert_eq!(sheet.dimensions(), (8, 8));
        let grey = |x, y| sheet.get_pixel(x, y).0;
        assert_eq!([grey(2, 2), grey(5, 2), grey(2, 5), grey(5, 5)], [[20; 3], [255; 3], [10; 3], [30; 3]]);
    }
}
